package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// chooser returns the key to use.
type chooser struct {
	ledger  *ledger
	watcher *watcher
	adopter *adopter
	runner  *runner
}

// choose returns the store's key. If the platform has rejected that key, choose returns
// its successor. It loads the store first, so a rotation by another process does not cost
// a call to the platform.
func (c *chooser) choose(ctx context.Context, rejected secret.Credential) (record.StoredKey, renew.Reason, error) {
	c.watcher.watch(c.changed)
	if rejected.IsZero() {
		if k, ok := c.ledger.spared(); ok {
			return k, renew.Adopted, nil
		}
	}
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
		case rec.Intent == nil && !c.runner.running():
			k, reason, err := c.replaceRejected(ctx, e)
			if !errors.Is(err, record.ErrConflict) && (err != nil || !k.IsZero()) {
				return k, reason, err
			}
		case refused && !rec.Previous.IsZero() && !fellBack:
			// While parts of the platform do not know a new key, they may still accept
			// the previous one.
			fellBack = true
			if c.alive(ctx, rec.Previous) {
				return rec.Previous, renew.Adopted, nil
			}
		}
		// The key was rejected while it is being rotated. Its successor will arrive soon,
		// or the work of a process that has died must be finished.
		if rec.Intent != nil && !c.runner.atWork(e) {
			if err := c.resume(); err != nil {
				if replaced(rec) && !rec.Pending.Credential.Equal(rejected) {
					return rec.Pending, renew.Adopted, nil
				}
				return record.StoredKey{}, 0, err
			}
		}
		if err := pause(ctx, p, news, nil); err != nil {
			return record.StoredKey{}, 0, err
		}
	}
}

// changed is called with records that another process has saved.
func (c *chooser) changed(ctx context.Context, rec record.Key) {
	if !c.runner.running() { // a running rotation is woken and adopts the key itself
		_ = c.adopter.takeUp(ctx, rec) // or it is adopted at the next load of the store
	}
}

// resume starts a run that finishes an unfinished rotation, unless the last attempt has
// just failed.
func (c *chooser) resume() error {
	if until, err := c.runner.schedule.pausing(); err != nil {
		return &PausedError{At: until, Err: err}
	}
	if c.runner.start(cause{}) == nil {
		return ErrClosed
	}
	return nil
}

// replaceRejected finds another key if no rotation explains why the current one was
// rejected. The other key may be one that an operator has provided, or one of an older
// record that the store contains instead. If there is none, the owner issues a new key.
// While that is under way, replaceRejected returns no key.
func (c *chooser) replaceRejected(ctx context.Context, e entry) (record.StoredKey, renew.Reason, error) {
	rec := e.Body
	provided, err := c.provided(ctx, rec)
	switch {
	case err != nil && c.alive(ctx, rec.Current):
		return rec.Current, renew.Rejected, nil
	case err != nil:
		return record.StoredKey{}, 0, err
	}
	older, set := c.ledger.alternative()
	repairs := c.repairs(rec)
	if provided.IsZero() && !set && !repairs {
		return rec.Current, renew.Rejected, nil // the caller gets the 401
	}
	verdict, _ := verify(ctx, c.runner.platform, c.runner.policy, rec.Current.Credential)
	switch {
	case verdict == Alive:
		return rec.Current, renew.Rejected, nil
	case !provided.IsZero():
		return c.adopt(ctx, e, provided)
	case set && verdict == Dead && c.alive(ctx, older.Body.Current):
		c.ledger.revert(older)
		c.runner.report.Rotated(older.Body, "the store's older record was adopted: its key is live, and the newer one is not")
		return older.Body.Current, renew.Adopted, nil
	case repairs && verdict == Dead:
		return record.StoredKey{}, 0, c.runner.repair(rec.Current.Credential)
	default:
		return rec.Current, renew.Rejected, nil
	}
}

// repairs reports whether the owner can issue another key.
func (c *chooser) repairs(rec record.Key) bool {
	return c.runner.keys.HasOwner() && (&calls{policy: c.runner.policy}).agentOf(rec) != ""
}

// adopt makes a key that an operator has provided the current key.
func (c *chooser) adopt(ctx context.Context, e entry, provided secret.Credential) (record.StoredKey, renew.Reason, error) {
	next := e.Body.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Previous = record.StoredKey{}
	next.Current = record.StoredKey{Credential: provided, Created: wallNow(), ID: c.runner.policy.KeyID}
	if c.runner.policy.AgentID != "" {
		next.Agent = c.runner.policy.AgentID
	}
	next.Generation++
	err := c.ledger.write(ctx, e, next)
	switch {
	case errors.Is(err, record.ErrConflict):
		return record.StoredKey{}, 0, err
	case err != nil:
		c.ledger.keep(next, err)
	default:
		c.runner.report.Rotated(next, "a key provided by an operator was adopted")
	}
	return next.Current, renew.Adopted, nil
}

// alive reports whether the platform accepts a key although a request with it was
// refused.
func (c *chooser) alive(ctx context.Context, k record.StoredKey) bool {
	v, _ := verify(ctx, c.runner.platform, c.runner.policy, k.Credential)
	return v == Alive
}

// provided returns the initial key if the store has never contained it and the platform
// accepts it. The error means that it could not be checked.
func (c *chooser) provided(ctx context.Context, rec record.Key) (secret.Credential, error) {
	if !c.runner.keys.HasInitial() {
		return secret.Credential{}, nil
	}
	k, err := initialKey(ctx, c.runner.keys)
	if err != nil || k.Problem() != "" || rec.Knows(k) {
		return secret.Credential{}, nil //nolint:nilerr // a missing initial key is not an error here
	}
	switch v, err := verify(ctx, c.runner.platform, c.runner.policy, k); v {
	case Alive:
		if rec.Agent != "" {
			_, err = c.ledger.identity.compare(ctx, k, "", rec)
		}
		return k, err
	case Dead:
		return secret.Credential{}, nil
	default:
		return secret.Credential{}, err
	}
}

// warnOfAge reports a key that is older than the platform recommends if nothing will
// rotate it. The report drops repetitions.
func (c *chooser) warnOfAge(rec record.Key) {
	created := rec.Current.Created
	if c.runner.policy.Every <= 0 && !created.IsZero() && time.Since(created) >= Recommended {
		c.runner.report.Old(rec)
	}
}
