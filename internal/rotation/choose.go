package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// chooser gives out the key to use.
type chooser struct {
	policy   Policy
	platform Platform
	keys     Keys
	report   Report
	ledger   *ledger
	watcher  *watcher
	adopter  *adopter
	runner   *runner
}

// choose returns the store's key, and in place of one that the platform rejected
// its successor. It asks the store first, so a rotation by another process costs no
// call of the platform.
func (c *chooser) choose(ctx context.Context, rejected secret.Credential) (record.StoredKey, renew.Reason, error) {
	c.watcher.watch(c.changed)
	fellBack := false
	for p := time.Millisecond; ; p = min(2*p, maxPoll) {
		news := c.watcher.next()
		e, err := c.ledger.load(ctx, rejected)
		if err != nil {
			return record.StoredKey{}, 0, err
		}
		c.runner.arm(e)
		c.warnOfAge(e.Body)
		rec := e.Body
		refused := !rejected.IsZero() && rec.Current.Credential.Equal(rejected)
		switch {
		case !refused && !replaced(rec):
			return rec.Current, renew.Adopted, nil
		case rec.Intent == nil:
			k, reason, err := c.replaceRejected(ctx, e)
			if !errors.Is(err, record.ErrConflict) {
				return k, reason, err
			}
		case refused && !rec.Previous.IsZero() && !fellBack:
			// While parts of the platform do not know a new key, the previous one may
			// still be accepted.
			fellBack = true
			if v, _ := verify(ctx, c.platform, c.policy, rec.Previous.Credential); v == Alive {
				return rec.Previous, renew.Adopted, nil
			}
		}
		// The key was rejected while it is being rotated: its successor is on the
		// way, or the work of a process that died must be finished.
		if rec.Intent != nil && !c.runner.atWork(e) {
			if err := c.resume(); err != nil {
				return record.StoredKey{}, 0, err
			}
		}
		if err := pause(ctx, p, news, nil); err != nil {
			return record.StoredKey{}, 0, err
		}
	}
}

// changed is told of records that another process has saved.
func (c *chooser) changed(ctx context.Context, rec record.Key) {
	if !c.runner.running() { // else it is woken by the news, and takes the key up
		_ = c.adopter.takeUp(ctx, rec) // or at the next load of the store
	}
}

// PausedError says that the next attempt to finish a rotation is not due yet.
type PausedError struct {
	At  time.Time
	Err error
}

// Error implements error.
func (e *PausedError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the last attempt.
func (e *PausedError) Unwrap() error { return e.Err }

// resume has an unfinished rotation finished, unless the last attempt has just
// failed.
func (c *chooser) resume() error {
	if until, err := c.runner.schedule.pausing(); err != nil {
		return &PausedError{At: until, Err: err}
	}
	if c.runner.start(false) == nil {
		return ErrClosed
	}
	return nil
}

// replaceRejected looks for another key if no rotation explains why the current
// one was rejected: one that an operator has provided.
func (c *chooser) replaceRejected(ctx context.Context, e entry) (record.StoredKey, renew.Reason, error) {
	rec := e.Body
	provided, err := c.provided(ctx, rec)
	if err != nil {
		return record.StoredKey{}, 0, err
	}
	if provided.IsZero() {
		return rec.Current, renew.Rejected, nil // the caller sees the 401
	}
	next := rec.Clone()
	next.Ancestors = next.Remember(rec.Current.Credential.Fingerprint())
	next.Previous = record.StoredKey{}
	next.Current = record.StoredKey{Credential: provided, Created: wallNow(), ID: c.policy.KeyID}
	if c.policy.AgentID != "" {
		next.Agent = c.policy.AgentID
	}
	next.Generation++
	err = c.ledger.write(ctx, e, next)
	switch {
	case errors.Is(err, record.ErrConflict):
		return record.StoredKey{}, 0, err
	case errors.Is(err, record.ErrReadOnly):
		// Whatever provides the key will replace it some day.
		c.ledger.substitute(rec.Current.Credential, next)
		c.report.StoreFailed("save", err)
	case err != nil:
		c.ledger.keep(next)
	default:
		c.report.Rotated(next, "a key provided by an operator was adopted")
	}
	return next.Current, renew.Adopted, nil
}

// provided returns the initial key if the store has never had it and the platform
// knows it. The error says that it could not be tried.
func (c *chooser) provided(ctx context.Context, rec record.Key) (secret.Credential, error) {
	if !c.keys.HasInitial() {
		return secret.Credential{}, nil
	}
	k, err := c.keys.Initial(ctx)
	if err != nil || k.Problem() != "" || rec.Knows(k) {
		return secret.Credential{}, nil //nolint:nilerr // there is no such key, which is not an error here
	}
	switch v, err := verify(ctx, c.platform, c.policy, k); v {
	case Alive:
		return k, nil
	case Dead:
		return secret.Credential{}, nil
	default:
		return secret.Credential{}, err
	}
}

// warnOfAge reports a key that is older than the platform recommends while nothing
// is going to rotate it. The report drops repetitions.
func (c *chooser) warnOfAge(rec record.Key) {
	created := rec.Current.Created
	if c.policy.Every <= 0 && !created.IsZero() && time.Since(created) >= Recommended {
		c.report.Old(rec)
	}
}
