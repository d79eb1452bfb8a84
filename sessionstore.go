package agrenting

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	// exchangeLease is how long the lease for an exchange lasts after each write
	// to the store, at least; a slow store extends it. So long a holder that was
	// killed or stopped is waited for.
	exchangeLease    = 3 * time.Second
	exchangePatience = 4
	exchangeExtend   = time.Second
	// maxLeaseWait is how long a process waits for the lease before it makes an
	// exchange without it.
	maxLeaseWait = 10 * time.Second
	// stuckStore is for how long a record that nobody can write may stay unchanged
	// before the store counts as stuck: as long as the lease of a holder that was
	// stopped, and one write. Until then, it may be busy with other processes.
	stuckStore = exchangeLease + time.Second
	// exchangeReserve is the part of a fetch's time that is kept for the exchange,
	// should the lease not become free.
	exchangeReserve = 5 * time.Second
	// maxSharedPause guards against a record written under a wrong clock.
	maxSharedPause = 30 * time.Minute
	// saveSessionTimeout bounds the attempts to save a new session, which is worth
	// more than the remaining time of the call that it was obtained for.
	saveSessionTimeout  = 5 * time.Second
	saveSessionAttempts = 4
)

// obtainShared takes a usable session from the store, waits for the process that
// is obtaining one, or obtains one under the lease. A store that fails costs
// sharing alone.
func (x *exchanger) obtainShared(
	ctx context.Context, key Credential, usable func(record.Session) (renew.Grant[*stamp], bool),
) (renew.Grant[*stamp], error) {
	var none renew.Grant[*stamp]
	slot := x.slotFor(key)
	end := time.Now().Add(leaseWait(ctx))
	waited := false
	var revision string
	changed := time.Now() // when the record was seen to change last
	for {
		e, err := loadWithin(ctx, slot)
		if e.Revision != revision {
			revision, changed = e.Revision, time.Now()
		}
		switch {
		case errors.Is(err, ErrNoRecord), replaceable(err) && e.Revision != "":
		case err != nil:
			x.failed("load", err)
			return x.buy(ctx, key)
		default:
			x.setStoreError(nil)
			if g, ok := usable(e.Body); ok {
				return g, nil
			}
			if wait := time.Until(e.Body.NotBefore); wait > 0 && wait < maxSharedPause {
				return none, pauseError(e.Body)
			}
		}
		left, remaining := slot.Left(e), time.Until(end)
		switch {
		case left > 0 && remaining <= 0:
			return x.buy(ctx, key)
		case left > 0:
			waited = true
			if err := slot.Await(ctx, e, min(left, remaining)); err != nil {
				return none, err
			}
			continue
		case waited:
			waited = false
			if err := renew.Sleep(ctx, record.TakeoverPause()); err != nil {
				return none, err
			}
			if now, err := x.key(ctx); err == nil && !now.Equal(key) {
				return none, &keyReplacedError{now}
			}
			continue
		}
		held, err := slot.Acquire(ctx, e, e.Body, record.Terms{
			Holder: x.holder, Duration: exchangeLease, Patience: exchangePatience, Every: exchangeExtend,
		})
		switch {
		case errors.Is(err, ErrConflictingWrite) && remaining > 0:
			continue
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && remaining > 0 && time.Since(changed) < stuckStore:
			continue
		case err != nil:
			x.failed("save", err)
			return x.buy(ctx, key)
		}
		return x.buyHeld(ctx, held, key)
	}
}

// keyReplacedError says that the key was replaced while another process's lease was
// waited for.
type keyReplacedError struct{ by Credential }

func (*keyReplacedError) Error() string {
	return "agrenting: the key was replaced while a session was waited for"
}

// sharedLoad limits a load of the record, so that a store that hangs costs sharing
// alone.
const sharedLoad = 5 * time.Second

func loadWithin(ctx context.Context, slot *record.Slot[record.Session]) (record.Entry[record.Session], error) {
	ctx, cancel := context.WithTimeout(ctx, sharedLoad)
	defer cancel()
	return slot.Load(ctx)
}

// replaceable reports whether a session record that cannot be read is replaced: if
// it is damaged or sealed under another key, but not if another version of the SDK
// wrote it.
func replaceable(err error) bool {
	return (errors.Is(err, ErrInvalidRecord) && !errors.Is(err, record.ErrOtherVersion)) ||
		errors.Is(err, ErrSealed) || errors.Is(err, ErrNotSealed)
}

// leaseWait is for how long a fetch may wait for a lease.
func leaseWait(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return maxLeaseWait
	}
	left := time.Until(end)
	return min(maxLeaseWait, left-min(exchangeReserve, left/2))
}

// buyHeld makes the exchange under the lease and saves the outcome for the others,
// also if it is a failure.
func (x *exchanger) buyHeld(ctx context.Context, held *record.Held[record.Session], key Credential) (renew.Grant[*stamp], error) {
	stop := held.Keep(ctx)
	g, err := x.buy(ctx, key)
	stop()
	rec := held.Entry().Body
	if err != nil {
		failSession(&rec, err)
	} else {
		rec = record.Session{Agent: rec.Agent, Token: g.Value.cred.Reveal(), Expires: g.Expires, Issued: time.Now()}
		if !g.Issued.IsZero() {
			rec.Skew = time.Until(g.Issued).Round(time.Second)
		}
	}
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveSessionTimeout)
	defer cancel()
	serr := held.Release(saveCtx, rec)
	for n := 1; serr != nil && !errors.Is(serr, record.ErrLeaseLost) && n < saveSessionAttempts; n++ {
		if renew.Sleep(saveCtx, renew.Doubled(50*time.Millisecond, time.Second, n)) != nil {
			break
		}
		serr = held.Release(saveCtx, rec)
	}
	switch {
	case errors.Is(serr, record.ErrLeaseLost): // another process has a session by now, or soon
	case serr != nil:
		x.failed("save", serr)
	default:
		x.setStoreError(nil)
	}
	return g, err
}

// slotFor returns the record of the sessions of a key.
func (x *exchanger) slotFor(key Credential) *record.Slot[record.Session] {
	lineage := record.LineageOf(key.c)
	if l, ok := x.keys.(interface{ lineage(key Credential) string }); ok {
		lineage = l.lineage(key)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shared == nil || !key.Equal(x.sharedKey) {
		x.sharedKey = key
		x.shared = record.Sessions(x.core.recordConfig(x.core.cfg.sessionStore(), ""), lineage, key.c)
	}
	return x.shared
}

// failSession notes that the endpoint must be left alone. It does not touch the
// session.
func failSession(s *record.Session, err error) {
	s.Failures++
	pause := renew.Doubled(time.Second, time.Minute, s.Failures)
	s.NotBefore, s.Locked, s.Reason = time.Now().Add(pause), false, secret.Clean(err.Error())
	s.Refused = errors.Is(err, ErrUnauthorized)
	if at := retryAt(err); at.After(s.NotBefore) {
		s.NotBefore = at
	}
	_, s.Locked = errors.AsType[*LockoutError](err)
}

// pauseError is what processes get that come while the endpoint must be left
// alone.
func pauseError(s record.Session) error {
	err := errors.New("agrenting: another process was refused: " + s.Reason)
	if s.Locked {
		return &LockoutError{RetryAt: s.NotBefore, Err: err}
	}
	return &pausedError{at: s.NotBefore, err: err, refused: s.Refused}
}
