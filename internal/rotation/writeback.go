package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// keep makes rec the newest record although the store has refused it. It keeps trying to
// save the record, because its key may exist nowhere else.
func (l *ledger) keep(rec record.Key, refusal error) entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = entry{Body: rec.Clone(), Revision: l.last.Revision, Lease: record.Lease{Counter: l.last.Lease.Counter + 1}}
	if l.behind == nil && errors.Is(refusal, record.ErrReadOnly) {
		l.report.StoreFailed("save", refusal)
	}
	l.behind = refusal
	l.startSaving()
	return l.last
}

// startSaving starts the goroutine that saves what the store does not contain. l.mu must
// be held.
func (l *ledger) startSaving() {
	if l.saving {
		return
	}
	l.saving = l.tasks.start(func(ctx context.Context) {
		for n := 1; ; n++ {
			err := l.save(ctx)
			if l.saved(err) {
				return
			}
			pause := renew.Doubled(time.Second, maxSavePause, n)
			if errors.Is(err, record.ErrReadOnly) {
				pause = maxSavePause
			}
			if renew.Sleep(ctx, pause) != nil {
				return
			}
		}
	})
}

// maxSavePause is the longest pause between two attempts to save a record.
const maxSavePause = time.Minute

// saved ends the attempts if nothing is left to save.
func (l *ledger) saved(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saving = (err != nil || l.behind != nil || l.orphan != nil) && !isForeign(err) // there may be more to save by now
	return !l.saving
}

// save saves the newest record if the store does not contain it. If the histories of the
// store and of this process have diverged, it revokes the key that is not in use.
func (l *ledger) save(ctx context.Context) error {
	l.mu.Lock()
	mine, nothing, passed := l.last, l.behind == nil && l.orphan == nil, l.passed
	l.mu.Unlock()
	if nothing {
		return nil
	}
	e, err := l.read(ctx, secret.Credential{})
	if err != nil && !lost(err) {
		return err
	}
	switch {
	case err == nil && e.Revision != passed && !relates(e.Body, mine.Body):
		return &MismatchError{Stored: e.Body.Agent, Configured: mine.Body.Agent}
	case err == nil && !older(e, mine):
		return l.catchUp(ctx, mine, e)
	}
	if err == nil && !mine.Body.Knows(e.Body.Current.Credential) {
		if reverted, err := l.reverted(ctx, mine, e); reverted || err != nil {
			return err
		}
	}
	next := mine.Body.Clone()
	if next.Intent == nil && e.Revision != mine.Revision { // the store may have lost an intent, or the outcome of one
		next.Intent = cleanup(next)
	}
	if err := l.replace(ctx, e, next, mine.Lease); err != nil {
		return err
	}
	l.report.Rotated(next, "the key's record, which the store did not have, is saved")
	l.written(l.latest())
	return nil
}

// reverted continues with an older record of the store if that record contains a live key
// that the newest record does not contain, such as one from an operator, and if the key
// of the newest record is dead.
func (l *ledger) reverted(ctx context.Context, mine, e entry) (bool, error) {
	v, err := verify(ctx, l.identity.platform, l.policy, liveKey(mine.Body))
	switch v {
	case Alive:
		return false, nil
	case Dead:
		switch v, err := verify(ctx, l.identity.platform, l.policy, e.Body.Current.Credential); v {
		case Alive:
			l.revert(e)
			return true, nil
		case Dead:
			return false, nil
		default:
			return false, err
		}
	default:
		return false, err
	}
}

// catchUp continues with a record of the store that is newer than the known one. It
// revokes the key that the newer record does not contain.
func (l *ledger) catchUp(ctx context.Context, mine, e entry) error {
	_, _, _ = l.accept(mine, e, nil)
	l.mu.Lock()
	orphan := l.orphan
	l.mu.Unlock()
	if orphan != nil && !e.Body.Knows(orphan.Credential) {
		if e.Body.Intent != nil {
			return record.ErrConflict // until the rotation under way has ended
		}
		next := e.Body.Clone()
		next.Previous, next.Intent = *orphan, cleanup(next)
		if err := l.write(ctx, e, next); err != nil {
			return err
		}
		l.written(l.latest())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.orphan == orphan {
		l.orphan = nil
	}
	return nil
}

// cleanupGrace is how long a cleanup waits for other processes. They may have seen a
// newer record than this process, and can notice that the store has lost it and write it
// back.
const cleanupGrace = 5 * time.Second

// cleanup returns an intent to revoke the keys that are live and not in use.
func cleanup(rec record.Key) *record.Intent {
	now := wallNow()
	return &record.Intent{
		Key: wire.NewUUID(), Strategy: Overlap.String(), Stage: string(StageRevoke), From: rec.Current.Credential.Fingerprint(),
		Generation: rec.Generation + 1, Started: now, Grace: cleanupGrace, GraceEnd: now.Add(cleanupGrace),
	}
}

// saveAtLast makes the last attempt, when the manager is closed.
func (l *ledger) saveAtLast() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.save(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(deafGrace + time.Second):
		err = errDeaf
	}
	l.mu.Lock()
	rec, isBehind := l.last.Body, l.behind != nil
	l.mu.Unlock()
	if err == nil || !isBehind || (l.keys.HasInitial() && isInitial(ctx, l.keys, rec.Current.Credential)) {
		return nil
	}
	return &Error{
		Stage: StagePersist, Strategy: InPlace, Err: err, New: rec.Current.Credential,
		State:  "The key in use is live, and the store does not have it",
		Advice: "Save what NewCredential returns before the process ends: the platform does not show it again",
	}
}
