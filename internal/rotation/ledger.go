package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// entry is the key record with its lease and revision.
type entry = record.Entry[record.Key]

// wallNow is the time for a record, by the wall clock alone: it advances while a
// machine sleeps, and other processes know no other.
func wallNow() time.Time { return time.Now().Round(0) }

// ledger is the store, guarded: what was seen last, what could not be saved, and
// what the store may not quote in its errors.
type ledger struct {
	store  Store
	keys   Keys
	policy Policy
	report Report
	holder string // random name of this process in leases
	tasks  *tasks

	mu       sync.Mutex
	last     entry       // as last seen
	unsaved  *record.Key // has a key that the store has refused so far
	saving   bool        // a goroutine tries to save it
	instead  substitute
	seen     []secret.Credential // of the latest records
	storeErr error               // of the last attempt to use the store
}

// substitute is used in place of a rejected key for as long as a store that cannot
// be written has that.
type substitute struct {
	dead secret.Credential
	rec  record.Key
}

// neededLoad limits a load of the store that a request depends on.
const neededLoad = 30 * time.Second

// read loads the record. A store that hangs does not get all the time of the
// caller if there is a key in memory that can be used: one other than rejected,
// which may be zero.
func (l *ledger) read(ctx context.Context, rejected secret.Credential) (entry, error) {
	l.mu.Lock()
	patience := l.policy.CallTimeout
	if l.unsaved == nil && !l.usableLocked(rejected) {
		patience = max(patience, neededLoad)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	e, err := l.store.Load(ctx)
	err = l.redact(err, e.Body)
	l.reached("load", err)
	return e, err
}

// usableLocked reports whether the key in memory can be used.
func (l *ledger) usableLocked(rejected secret.Credential) bool {
	k := l.last.Body.Current
	return !k.IsZero() && !replaced(l.last.Body) && !k.Credential.Equal(rejected)
}

// remembered returns the key as last seen. ok is false if the store can be asked
// for a newer one, or the key cannot be used.
func (l *ledger) remembered(rejected secret.Credential) (k record.StoredKey, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Body.Current, l.storeErr != nil && l.usableLocked(rejected)
}

// load reads the record; an empty store is filled with the initial key. A key that
// the store has refused takes precedence over what the store has.
func (l *ledger) load(ctx context.Context, rejected secret.Credential) (entry, error) {
	e, err := l.read(ctx, rejected)
	l.mu.Lock()
	held := l.unsaved != nil
	e.Body = l.substitutedLocked(e.Body)
	l.mu.Unlock()
	if errors.Is(err, record.ErrNoRecord) && !held {
		e, err = l.fill(ctx, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if u := l.unsaved; u != nil && (err != nil || u.Generation > e.Body.Generation) {
		e.Body = u.Clone()
		l.last = e
		return e, nil
	}
	if err == nil && e.Body.Generation >= l.last.Body.Generation { // a newer one may have been reported meanwhile
		l.last = e
	}
	return e, err
}

// fill puts the initial key into an empty store. If the store refuses it, no
// request fails: the key is used from memory, and nothing is rotated until it can
// be saved.
func (l *ledger) fill(ctx context.Context, empty error) (entry, error) {
	c, err := l.keys.Initial(ctx)
	if !l.keys.HasInitial() {
		return entry{}, fmt.Errorf("%w; fill it with WithCredential or from the environment: %w (%w)", ErrEmpty, err, empty)
	}
	if err != nil {
		return entry{}, err
	}
	rec := record.Key{
		Agent: l.policy.AgentID, Lineage: record.LineageOf(c), Generation: 1,
		Current: record.StoredKey{Credential: c, ID: l.policy.KeyID, Created: wallNow(), Expires: c.Expires()},
	}
	e, err := l.store.Save(ctx, entry{Body: rec})
	err = l.redact(err, rec)
	l.reached("save", err)
	switch {
	case err == nil:
		return e, nil
	case errors.Is(err, record.ErrConflict):
		return l.read(ctx, secret.Credential{})
	case errors.Is(err, record.ErrReadOnly):
		l.mu.Lock()
		told := l.last.Body.Current.Credential.Equal(c)
		l.mu.Unlock()
		if !told {
			l.report.StoreFailed("save", err)
		}
	default:
		l.keep(rec)
	}
	return entry{Body: rec}, nil
}

// write replaces the entry, unless another process holds the lease.
func (l *ledger) write(ctx context.Context, e entry, rec record.Key) error {
	if e.Lease.Holder != l.holder && l.store.Left(e) > 0 {
		return fmt.Errorf("%w: another process is rotating the key", record.ErrConflict)
	}
	e.Body, e.Lease = rec, record.Lease{Counter: e.Lease.Counter}
	_, err := l.store.Save(ctx, e)
	err = l.redact(err, rec)
	l.reached("save", err)
	return err
}

// note remembers a record that was saved or reported, unless it is older than what
// was seen. It returns the record to use.
func (l *ledger) note(e entry) (rec record.Key, newer bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Body = l.substitutedLocked(e.Body)
	newer = e.Body.Generation >= l.last.Body.Generation && !e.Body.Current.IsZero()
	if newer {
		l.last = e
	}
	return e.Body, newer
}

// latest returns the record as last seen.
func (l *ledger) latest() entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *ledger) hasUnsaved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved != nil
}

// superseded reports whether a key was replaced, as far as the record was seen.
func (l *ledger) superseded(key secret.Credential) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.last.Body
	return !last.Current.Credential.Equal(key) && slices.Contains(last.Ancestors, key.Fingerprint())
}

// lineage returns the lineage of a key.
func (l *ledger) lineage(key secret.Credential) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.last.Body; last.Lineage != "" && last.Knows(key) {
		return last.Lineage
	}
	return record.LineageOf(key)
}

// substitute has rec used in place of what a store has that cannot be written.
func (l *ledger) substitute(dead secret.Credential, rec record.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.instead; !s.dead.IsZero() && s.rec.Current.Credential.Equal(dead) {
		dead = s.dead // what was used in its place is dead, too
	}
	l.instead = substitute{dead: dead, rec: rec.Clone()}
}

func (l *ledger) substitutedLocked(rec record.Key) record.Key {
	if s := l.instead; !s.dead.IsZero() && rec.Intent == nil && rec.Current.Credential.Equal(s.dead) {
		return s.rec.Clone()
	}
	return rec
}

// maxSeen bounds how many of the latest credentials are looked for in the errors
// of a store. A rotation has five.
const maxSeen = 20

// redact removes the keys of a record, and those of the records before, from what
// a store says: a database may quote a row.
func (l *ledger) redact(err error, rec record.Key) error {
	l.mu.Lock()
	for _, c := range rec.Credentials() {
		if !slices.ContainsFunc(l.seen, c.Equal) {
			l.seen = append(l.seen[max(0, len(l.seen)+1-maxSeen):], c)
		}
	}
	seen := l.seen
	l.mu.Unlock()
	if err == nil {
		return nil
	}
	var secrets []string
	for _, c := range seen {
		secrets = append(secrets, c.Reveal())
	}
	return secret.WithoutSecrets(err, secrets...)
}

// reached notes whether the store did what it was asked for, and reports the first
// failure in a row.
func (l *ledger) reached(what string, err error) {
	if errors.Is(err, record.ErrNoRecord) || errors.Is(err, record.ErrConflict) || errors.Is(err, record.ErrReadOnly) ||
		errors.Is(err, record.ErrLeaseLost) {
		err = nil // an answer, too
	}
	l.mu.Lock()
	first := err != nil && l.storeErr == nil
	l.storeErr = err
	l.mu.Unlock()
	if first {
		l.report.StoreFailed(what, err)
	}
}

func (l *ledger) storeError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.storeErr
}

// keep holds on to a key that the store has refused, and keeps trying to save it:
// it exists nowhere else.
func (l *ledger) keep(rec record.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := rec.Clone()
	l.unsaved = &held
	if l.saving {
		return
	}
	l.saving = l.tasks.start(func(ctx context.Context) {
		for n := 1; !l.saved(ctx); n++ {
			if renew.Sleep(ctx, renew.Doubled(time.Second, time.Minute, n)) != nil {
				return
			}
		}
	})
}

// saved tries to save what the store has refused, and reports whether nothing is
// left to be saved.
func (l *ledger) saved(ctx context.Context) bool {
	if l.trySave(ctx) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saving = l.unsaved != nil // another one may have come meanwhile
	return !l.saving
}

// trySave saves what the store has refused, unless the store has its like.
func (l *ledger) trySave(ctx context.Context) error {
	l.mu.Lock()
	u := l.unsaved
	l.mu.Unlock()
	if u == nil {
		return nil
	}
	e, err := l.read(ctx, secret.Credential{})
	if err != nil && !errors.Is(err, record.ErrNoRecord) {
		return err
	}
	if e.Body.Generation < u.Generation {
		// The intent stays if something is left to be revoked.
		if err := l.write(ctx, e, u.Clone()); err != nil {
			return err
		}
		l.report.Rotated(*u, "the key that the store had refused is saved")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsaved == u {
		l.unsaved = nil
	}
	return nil
}

// saveAtLast is the last attempt, when the manager is closed.
func (l *ledger) saveAtLast() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := l.trySave(ctx)
	l.mu.Lock()
	u := l.unsaved
	l.mu.Unlock()
	if err == nil || u == nil || l.isInitial(ctx, *u) {
		return nil
	}
	return &Error{
		Stage: StagePersist, Strategy: InPlace, Err: err, New: u.Current.Credential,
		State:  "the new key is live and was never saved",
		Advice: "save what NewCredential returns before the process ends: the platform does not show it again",
	}
}

// isInitial reports whether what was never saved is the initial key: the next
// start has it, too.
func (l *ledger) isInitial(ctx context.Context, rec record.Key) bool {
	if rec.Generation > 1 || !l.keys.HasInitial() {
		return false
	}
	c, err := l.keys.Initial(ctx)
	return err == nil && c.Equal(rec.Current.Credential)
}
