package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Config contains what a [Manager] works with.
type Config struct {
	Policy   Policy
	Store    Store
	Platform Platform
	Keys     Keys
	Handover Handover
	Report   Report
}

// Manager manages the key of one record. It is safe for concurrent use.
type Manager struct {
	tasks   *tasks
	ledger  *ledger
	watcher *watcher
	runner  *runner
	chooser *chooser
}

// New returns a manager. It does nothing until it is used.
func New(cfg Config) *Manager {
	var r *runner
	shared := cfg.Policy // shared by all parts
	policy := &shared
	t := newTasks()
	l := &ledger{
		store: cfg.Store, keys: cfg.Keys, policy: policy, report: cfg.Report, holder: wire.NewUUID(), tasks: t,
		identity: newIdentity(cfg.Platform, cfg.Keys, policy), written: func(e entry) { r.arm(e) },
	}
	w := newWatcher(l, t, cfg.Report)
	a := &adopter{ledger: l, handover: cfg.Handover, report: cfg.Report}
	s := &schedule{every: cfg.Policy.Every, retryEvery: cfg.Policy.RetryEvery, fire: func() { r.start(cause{}) }}
	r = &runner{
		policy: policy, platform: cfg.Platform, keys: cfg.Keys, report: cfg.Report,
		ledger: l, watcher: w, adopter: a, schedule: s, tasks: t,
	}
	c := &chooser{ledger: l, watcher: w, adopter: a, runner: r}
	return &Manager{tasks: t, ledger: l, watcher: w, runner: r, chooser: c}
}

// Choose returns the key to use. rejected is the credential that the platform has refused,
// or zero. While the key is being replaced, Choose waits for its successor.
func (m *Manager) Choose(ctx context.Context, rejected secret.Credential) (record.StoredKey, renew.Reason, error) {
	return m.chooser.choose(ctx, rejected)
}

// Remembered returns the key as last seen. ok is false if the store can be loaded, or if
// the key cannot be used in place of rejected.
func (m *Manager) Remembered(rejected secret.Credential) (k record.StoredKey, ok bool) {
	return m.ledger.remembered(rejected)
}

// Knows reports whether a record has been loaded or created.
func (m *Manager) Knows() bool { return !m.ledger.latest().Body.IsZero() }

// Rotate replaces the key now and waits until that has ended. If another process is
// rotating the key, Rotate waits for that rotation and adopts its key. ctx limits only the
// wait.
func (m *Manager) Rotate(ctx context.Context) (*Result, error) { return m.runner.rotate(ctx) }

// Recheck returns when Choose must be called again while there is traffic.
func (m *Manager) Recheck() time.Duration { return m.watcher.recheck() }

// Lineage returns the lineage of a key that Choose has returned.
func (m *Manager) Lineage(key secret.Credential) string {
	if rec := m.ledger.latest().Body; rec.Lineage != "" && rec.Knows(key) {
		return rec.Lineage
	}
	return record.LineageOf(key)
}

// Issued reports whether a key that Choose has returned was issued to replace another key,
// according to the record. The first key was not issued.
func (m *Manager) Issued(key secret.Credential) bool {
	rec := m.ledger.latest().Body
	return rec.Generation > 1 && rec.Current.ID != "" && rec.Current.Credential.Equal(key)
}

// Superseded reports whether a key was replaced, according to the record as last seen. It
// does not load the store.
func (m *Manager) Superseded(key secret.Credential) bool {
	rec := m.ledger.latest().Body
	return !rec.Current.Credential.Equal(key) && slices.Contains(rec.Ancestors, key.Fingerprint())
}

// DueAt returns when the key is due, according to the record as last seen; zero means
// never.
func (m *Manager) DueAt() time.Time { return dueAt(m.ledger.latest().Body, m.runner.policy.Every) }

// Check does what is due or unfinished, as the timer does. The returned channel is closed
// when that is done. It is nil after Close.
func (m *Manager) Check() <-chan struct{} {
	f := m.runner.start(cause{})
	if f == nil {
		return nil
	}
	return f.done
}

// StoreError returns the error of the last attempt to use the store.
func (m *Manager) StoreError() error { return m.ledger.storeError() }

// closeGrace is how long Close lets a rotation continue before ending it. The next start
// finishes the rest.
const closeGrace = 15 * time.Second

// Close finishes the rotation under way, within 15 s, and saves what could not be saved
// before. It does not wait for other processes.
func (m *Manager) Close() error {
	m.tasks.shut()
	m.watcher.close()
	m.runner.schedule.close()
	m.runner.awaitFlight(closeGrace)
	err := m.tasks.end(deafGrace)
	if err != nil {
		err = fmt.Errorf("%w for %v", err, deafGrace)
	}
	return errors.Join(err, m.ledger.saveAtLast())
}
