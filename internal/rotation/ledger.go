package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// entry is the key record with its lease and revision.
type entry = record.Entry[record.Key]

// ledger is the store, with a guard: the process does not forget what it has seen. Among
// records that are at least as new as the newest one that this process has seen, the store
// decides. If the store is empty or damaged, or contains an older record, it has failed.
// The process then continues with the newest record that it knows, and writes that record
// back.
type ledger struct {
	store    Store
	keys     Keys
	policy   *Policy
	report   Report
	holder   string // random name of this process in leases
	tasks    *tasks
	identity *identity
	written  func(e entry) // called with a record that may have left work to do

	mu       sync.Mutex
	last     entry               // the newest known record; zero if there is none
	behind   error               // why the store does not contain it; nil if it does
	instead  *entry              // an older record that the store contains instead; nil if there is none
	foreign  error               // why the store's record is not used; nil if it is
	passed   string              // the revision of a record of the store that is not used and must be replaced
	saving   bool                // a goroutine tries to save last, or to get orphan revoked
	orphan   *record.StoredKey   // a live key that the store does not contain; nil if there is none
	seen     []secret.Credential // the credentials of the latest records
	storeErr error               // the error of the last attempt to use the store
	failedAt time.Time           // when that attempt failed
}

// neededLoad limits a load of the store that a request depends on.
const neededLoad = 30 * time.Second

// read loads the record. If a key in memory can be used, a store that hangs does not use up
// all of the caller's time. The key must not be rejected, which may be zero.
func (l *ledger) read(ctx context.Context, rejected secret.Credential) (entry, error) {
	l.mu.Lock()
	patience := l.policy.CallTimeout
	if !l.usableLocked(rejected) {
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
	k := successor(l.last.Body)
	return !k.IsZero() && !k.Credential.Equal(rejected)
}

// successor returns the live key of a record. It is the pending key if the platform has put
// that in place of the current key.
func successor(rec record.Key) record.StoredKey {
	if replaced(rec) {
		return rec.Pending
	}
	return rec.Current
}

// remembered returns the key as last seen. ok is false if the store can be loaded, and may
// have a newer key, or if the key cannot be used.
func (l *ledger) remembered(rejected secret.Credential) (k record.StoredKey, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return successor(l.last.Body), (l.storeErr != nil || l.foreign != nil) && l.usableLocked(rejected)
}

// spared returns the key as last seen if the store has just failed. Otherwise, each step of
// a renewal would wait again for a store that hangs.
func (l *ledger) spared() (record.StoredKey, bool) {
	k, ok := l.remembered(secret.Credential{})
	l.mu.Lock()
	defer l.mu.Unlock()
	return k, ok && l.storeErr != nil && time.Since(l.failedAt) < plainRecheck
}

// load returns the newest record. If no record is known and the store is empty, load fills
// it with the initial key.
func (l *ledger) load(ctx context.Context, rejected secret.Credential) (entry, error) {
	before := l.latest()
	e, err := l.read(ctx, rejected)
	if errors.Is(err, record.ErrNoRecord) && before.Body.IsZero() {
		var refused bool
		if e, refused, err = l.fill(ctx, err); refused {
			return e, nil
		}
	}
	if err == nil {
		if newest, ok := l.passedOver(e); ok {
			return newest, nil
		}
		var begun bool
		if e, begun, err = l.checked(ctx, before, e); begun {
			return e, nil
		}
	}
	e, failure, err := l.accept(before, e, err)
	if failure != nil {
		l.report.StoreFailed("load", failure)
	}
	return e, err
}

// checked returns a record that this client may use: it belongs to the same agent, and its
// times are credible. What was found out is saved, if that is possible now. begun is set if
// the store's record is not used and the first record of another lineage is used instead.
func (l *ledger) checked(ctx context.Context, before, e entry) (_ entry, begun bool, err error) {
	rec, err := l.identity.check(ctx, before.Body, e.Body)
	if err != nil {
		return entry{}, false, err
	}
	if rec.Lineage != e.Body.Lineage {
		return l.begin(ctx, e, rec)
	}
	rec.Current = credible(rec.Current, before.Body.Current, l.policy.Every)
	if rec.Agent == e.Body.Agent && len(rec.Kin) == len(e.Body.Kin) && rec.Current.Created.Equal(e.Body.Current.Created) {
		return e, false, nil
	}
	if e.Lease.Holder == "" && !older(e, before) && l.write(ctx, e, rec) == nil {
		return l.latest(), false, nil
	}
	e.Body = rec
	return e, false, nil
}

// begin replaces a record that is not used with the first record of another lineage.
func (l *ledger) begin(ctx context.Context, e entry, rec record.Key) (_ entry, begun bool, _ error) {
	if newest := l.latest(); !newest.Body.IsZero() { // another load was faster
		return newest, true, nil
	}
	err := l.write(ctx, e, rec)
	switch {
	case err == nil:
		return l.latest(), true, nil
	case errors.Is(err, record.ErrConflict):
		return entry{}, false, err
	}
	l.mu.Lock()
	l.passed = e.Revision
	l.mu.Unlock()
	return l.keep(rec, err), true, nil
}

// passedOver returns the newest record if the store still contains a record that is not
// used because it could not be replaced.
func (l *ledger) passedOver(e entry) (newest entry, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest, ok = l.last, l.behind != nil && e.Revision == l.passed
	newest.Revision = e.Revision
	return newest, ok
}

// accept returns the newest record after a load. before is the newest record when the load
// began. If a newer record became known since then, the store has not failed. failure says
// why the store has failed, if this is the first load that shows it.
func (l *ledger) accept(before, e entry, err error) (newest entry, failure, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.Body.IsZero() && err != nil {
		return e, nil, err
	}
	switch {
	case isForeign(err):
		failure, l.foreign = first(l.foreign, err)
		return e, failure, err
	case err != nil && !lost(err) && l.behind != nil:
		return l.last, nil, nil
	case err != nil && !lost(err):
		return e, nil, err
	}
	l.foreign = nil
	if err == nil && !older(e, l.last) {
		l.adoptLocked(e)
		return e, nil, nil
	}
	if err != nil || older(e, before) {
		failure, l.behind = first(l.behind, behind(e, l.last, err))
		instead := e // a copy, because the other cases must not allocate
		l.instead = &instead
		l.startSaving()
	}
	newest = l.last
	newest.Revision = e.Revision
	return newest, failure, nil
}

// first returns the error of a series of failures that began with before, unless that is
// nil. isNew is err if the series begins with it.
func first(before, err error) (isNew, of error) {
	if before != nil {
		return nil, before
	}
	return err, err
}

// adoptLocked makes a record of the store the newest one. If that record does not contain a
// key that this process has seen as live, the store was rolled back, and another process
// has continued from there. Two keys are then live, and the store's key remains.
func (l *ledger) adoptLocked(e entry) {
	for _, k := range []record.StoredKey{l.last.Body.Pending, l.last.Body.Current} {
		if !k.IsZero() && !e.Body.Knows(k.Credential) {
			l.orphan = &record.StoredKey{}
			*l.orphan = k
			l.startSaving()
			break
		}
	}
	if known, c := l.last.Body.Current.Credential, e.Body.Current.Credential; known.Equal(c) && known.Expires().Equal(c.Expires()) {
		e.Body.Current.Credential = known // keeps one copy of each key in memory
	}
	l.last, l.behind, l.instead = e, nil, nil
}

// older reports whether a is an earlier record than b. Each rotation increases the
// generation, and each write increases the counter.
func older(a, b entry) bool {
	if a.Body.Generation != b.Body.Generation {
		return a.Body.Generation < b.Body.Generation
	}
	return a.Lease.Counter < b.Lease.Counter
}

// lost reports whether a store has lost the record, because it has none or has a damaged
// one. A record of another version, or one that cannot be unsealed, may be newer.
func lost(err error) bool {
	return errors.Is(err, record.ErrNoRecord) || (errors.Is(err, record.ErrInvalid) && !errors.Is(err, record.ErrOtherVersion))
}

func behind(stored, known entry, err error) error {
	const then = "requests continue with the key in memory, and its record is written back"
	if err != nil {
		return fmt.Errorf("agrenting: the store has lost the key's record (generation %d); %s: %w", known.Body.Generation, then, err)
	}
	return fmt.Errorf("agrenting: the store has an older record of the key (generation %d, write %d) than was seen before "+
		"(generation %d, write %d), as after a backup was restored; %s",
		stored.Body.Generation, stored.Lease.Counter, known.Body.Generation, known.Lease.Counter, then)
}

// fill puts the initial key into an empty store. If the store refuses it, requests do not
// fail: the key is used from memory, and rotations wait until it can be saved.
func (l *ledger) fill(ctx context.Context, empty error) (e entry, refused bool, err error) {
	c, err := initialKey(ctx, l.keys)
	if !l.keys.HasInitial() {
		return entry{}, false, fmt.Errorf("%w, and there is no initial key: %w (%w)", ErrEmpty, err, empty)
	}
	if err != nil {
		return entry{}, false, err
	}
	rec := record.Key{
		Agent: l.policy.AgentID, Lineage: record.LineageOf(c), Series: record.NewSeries(), Generation: 1,
		Current: record.StoredKey{Credential: c, ID: l.policy.KeyID, Created: wallNow(), Expires: c.Expires()},
	}
	sctx, cancel := context.WithTimeout(ctx, l.policy.CallTimeout)
	e, err = l.store.Save(sctx, entry{Body: rec})
	cancel()
	err = l.redact(err, rec)
	l.reached("save", err)
	if err == nil {
		return e, false, nil
	}
	if errors.Is(err, record.ErrConflict) {
		e, loadErr := l.read(ctx, secret.Credential{})
		if !errors.Is(loadErr, record.ErrNoRecord) {
			return e, false, loadErr
		}
		l.report.StoreFailed("save", err) // a conflict with no record
	}
	return l.keep(rec, err), true, nil
}

// write replaces the entry, unless another process holds the lease.
func (l *ledger) write(ctx context.Context, e entry, rec record.Key) error {
	return l.replace(ctx, e, rec, record.Lease{})
}

// replace is like write, with a lease: the lease of a process that may still be at work.
func (l *ledger) replace(ctx context.Context, e entry, rec record.Key, lease record.Lease) error {
	if e.Lease.Holder != l.holder && l.store.Left(e) > 0 {
		return fmt.Errorf("%w: another process is rotating the key", record.ErrConflict)
	}
	lease.Counter = max(lease.Counter, e.Lease.Counter)
	e.Body, e.Lease = rec, lease
	ctx, cancel := context.WithTimeout(ctx, l.policy.CallTimeout)
	defer cancel()
	saved, err := l.store.Save(ctx, e)
	err = l.redact(err, rec)
	l.reached("save", err)
	if err == nil {
		l.note(saved)
	}
	return err
}

// note remembers a record that was saved by this process.
func (l *ledger) note(e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !older(e, l.last) {
		l.last, l.behind, l.instead = e, nil, nil
	}
}

// told returns the record to use after the store has reported a change. sure is false if
// the store must be loaded: a report may be late, so it does not show that the store has
// lost a record, and the first record must be checked.
func (l *ledger) told(e entry, err error) (rec record.Key, newer, sure bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.last.Body
	switch {
	case known.IsZero():
		return known, false, err != nil
	case err != nil || older(e, l.last) || !relates(e.Body, known):
		return known, false, l.behind != nil
	}
	l.adoptLocked(e)
	return e.Body, true, true
}

// latest returns the newest known record.
func (l *ledger) latest() entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// alternative returns the older record that the store contains instead of the newest one.
// ok is false if there is none.
func (l *ledger) alternative() (e entry, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.instead == nil {
		return entry{}, false
	}
	e = *l.instead
	return e, !e.Body.IsZero() && !replaced(e.Body)
}

// revert continues with an older record from the store, because its key is alive and the
// key of the newest record is dead.
func (l *ledger) revert(e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.behind, l.instead = e, nil, nil
}

// maxSeen bounds how many of the latest credentials are removed from the errors of a store.
// A rotation uses five.
const maxSeen = 20

// redact removes the keys of a record and of earlier records from the error of a store,
// because a database may quote a row.
func (l *ledger) redact(err error, rec record.Key) error {
	l.mu.Lock()
	for _, c := range rec.Credentials() {
		if !slices.ContainsFunc(l.seen, c.Equal) {
			l.seen = append(l.seen[max(0, len(l.seen)+1-maxSeen):], c)
		}
	}
	seen := l.seen
	l.mu.Unlock()
	// These errors contain no secret and are frequent.
	if slices.Contains([]error{nil, record.ErrNoRecord, record.ErrConflict, record.ErrReadOnly, record.ErrLeaseLost}, err) {
		return err
	}
	var secrets []string
	for _, c := range seen {
		secrets = append(secrets, c.Reveal())
	}
	return secret.WithoutSecrets(err, secrets...)
}

// reached notes whether the store did what it was asked to do, and reports the first of
// consecutive failures.
func (l *ledger) reached(what string, err error) {
	if errors.Is(err, record.ErrNoRecord) || errors.Is(err, record.ErrConflict) || errors.Is(err, record.ErrReadOnly) ||
		errors.Is(err, record.ErrLeaseLost) {
		err = nil // this is also a response of the store
	}
	l.mu.Lock()
	first := err != nil && l.storeErr == nil
	l.storeErr, l.failedAt = err, time.Now()
	l.mu.Unlock()
	if first {
		l.report.StoreFailed(what, err)
	}
}

// unreachable returns why the last attempt to use the store failed, or nil if it succeeded.
func (l *ledger) unreachable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.storeErr
}

func (l *ledger) storeError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range []error{l.storeErr, l.behind, l.foreign} {
		if err != nil {
			return err
		}
	}
	return nil
}
