package session

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	// leaseDuration is the minimum duration of the lease for an exchange after each write
	// to the store; a slow store extends it. Other processes wait this long for a holder
	// that was killed or stopped.
	leaseDuration = 3 * time.Second
	leasePatience = 4
	leaseExtend   = time.Second
	// maxLeaseWait is how long a process waits for the lease before it makes an
	// exchange without it.
	maxLeaseWait = 10 * time.Second
	// slowWrite is how long package record waits for one write of a lease. A write that
	// fails earlier did not wait for other processes.
	slowWrite = time.Second
	// stuckStore is how long a record that cannot be written may stay unchanged before
	// the store counts as stuck. It is the lease duration of a stopped holder, plus one
	// write. Until then, other processes may be keeping the store busy.
	stuckStore = leaseDuration + slowWrite
	// exchangeReserve is the part of a fetch's time that is kept for the exchange, in
	// case the lease does not become free.
	exchangeReserve = 5 * time.Second
	// MaxPause bounds how long the endpoint is not called because of a response or a
	// record. A record may have been written under a wrong clock.
	MaxPause = 30 * time.Minute
	// saveTimeout bounds the attempts to save a new session. It may exceed the remaining
	// time of the call that the session was obtained for, because the session is worth
	// more.
	saveTimeout  = 5 * time.Second
	saveAttempts = 4
	// loadTimeout bounds a load of the record, so that a store that hangs prevents only
	// the sharing of sessions.
	loadTimeout = 5 * time.Second
)

// obtainShared uses a session from the store if possible, waits for the process that is
// obtaining one, or obtains one under the lease. A store that fails prevents only the
// sharing.
func (s *Source) obtainShared(ctx context.Context, q query, key secret.Credential, usable func(rec record.Session, fresh bool) (grant, bool)) (grant, error) {
	slot := s.slotFor(key)
	end := time.Now().Add(leaseWait(ctx))
	waited := false
	var revision string
	changed := time.Now() // when the record last changed, as seen here
	lost := false         // another process was faster
	var first string      // the token in the record when the wait began
	for loads := 0; ; loads++ {
		e, err := load(ctx, slot)
		if loads == 0 {
			first = e.Body.Token
		}
		switch {
		case e.Revision != revision:
			revision, changed = e.Revision, time.Now()
		case lost: // the record is still unchanged, so the store's loads are delayed
			if err := renew.Sleep(ctx, record.TakeoverPause()); err != nil {
				return grant{}, err
			}
		}
		switch {
		case errors.Is(err, record.ErrNoRecord), replaceable(err) && e.Revision != "":
		case err != nil:
			s.failed("load", err)
			return s.exchange(ctx, q, key, nil)
		default:
			s.setStoreError(nil)
			if g, ok := usable(e.Body, e.Body.Token != first); ok {
				return g, nil
			}
			if left := pauseLeft(e.Body, slot.Unchanged(e)); left > 0 && left < MaxPause {
				return grant{}, pausedBy(e.Body, time.Now().Add(left))
			}
		}
		left, remaining := slot.Left(e), time.Until(end)
		switch {
		case left > 0 && remaining <= 0:
			return s.exchange(ctx, q, key, e.Body.Exchanges)
		case left > 0:
			waited = true
			if err := slot.Await(ctx, e, min(left, remaining)); err != nil {
				return grant{}, err
			}
			continue
		case waited:
			waited = false
			if err := renew.Sleep(ctx, record.TakeoverPause()); err != nil {
				return grant{}, err
			}
			if now, err := s.cfg.Keys.Key(ctx); err == nil && !now.Equal(key) {
				return grant{}, &keyReplacedError{now}
			}
			continue
		}
		began := time.Now()
		limited, cancel := withPart(ctx)
		held, err := slot.Acquire(limited, e, e.Body, record.Terms{
			Holder: s.holder, Duration: leaseDuration, Patience: leasePatience, Every: leaseExtend,
		})
		cancel()
		lost = errors.Is(err, record.ErrConflict)
		busy := lost ||
			(errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil &&
				time.Since(began) >= slowWrite && time.Since(changed) < stuckStore)
		switch {
		case err == nil:
			return s.exchangeHeld(ctx, held, q, key)
		case busy && time.Until(end) > 0:
			continue
		default:
			s.failed("save", err)
			return s.exchange(ctx, q, key, e.Body.Exchanges)
		}
	}
}

// keyReplacedError reports that the key was replaced during the wait for the lease of
// another process.
type keyReplacedError struct{ by secret.Credential }

func (*keyReplacedError) Error() string {
	return "agrenting: the key was replaced while another process obtained a session"
}

func load(ctx context.Context, slot *record.Slot[record.Session]) (record.Entry[record.Session], error) {
	ctx, cancel := withPart(ctx)
	defer cancel()
	return slot.Load(ctx)
}

// withPart limits one operation of the store to a third of the remaining time. A store
// that ignores its context takes twice that, and the exchange needs some of the time,
// too.
func withPart(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := loadTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/3)
	}
	return context.WithTimeout(ctx, limit)
}

// replaceable reports whether a session record that cannot be read may be replaced. It
// may be if it is damaged or sealed under another key, but not if another version of the
// SDK wrote it.
func replaceable(err error) bool {
	return (errors.Is(err, record.ErrInvalid) && !errors.Is(err, record.ErrOtherVersion)) ||
		errors.Is(err, record.ErrSealed) || errors.Is(err, record.ErrNotSealed)
}

// leaseWait returns how long a fetch may wait for a lease.
func leaseWait(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return maxLeaseWait
	}
	left := time.Until(end)
	return min(maxLeaseWait, left-min(exchangeReserve, left/2))
}

// exchangeHeld makes the exchange under the lease and saves the outcome for the other
// processes, even if it is a failure.
func (s *Source) exchangeHeld(ctx context.Context, held *record.Held[record.Session], q query, key secret.Credential) (grant, error) {
	stop := held.Keep(ctx)
	began := time.Now()
	g, err := s.exchange(ctx, q, key, held.Entry().Body.Exchanges)
	ended := time.Now()
	stop()
	rec := held.Entry().Body
	exchanges := append(within(rec.Exchanges, ended), ended)
	switch _, limited := errors.AsType[*LimitError](err); {
	case limited, err == nil && q.HasCurrent && g.Value.Equal(q.Current): // the exchange was not made
	case err != nil:
		rec.Exchanges = exchanges
		s.pause(&rec, err)
	default:
		rec = record.Session{
			Agent: rec.Agent, Token: g.Value.Reveal(), Expires: g.Expires, Issued: ended, Skew: rec.Skew, Exchanges: exchanges,
		}
		if !g.Issued.IsZero() {
			rec.Skew = renew.SkewOf(g.Issued, began, ended).Round(time.Second)
		}
	}
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	serr := held.Release(saveCtx, rec)
	for n := 1; serr != nil && !errors.Is(serr, record.ErrLeaseLost) && n < saveAttempts; n++ {
		if renew.Sleep(saveCtx, renew.Doubled(50*time.Millisecond, time.Second, n)) != nil {
			break
		}
		serr = held.Release(saveCtx, rec)
	}
	switch {
	case errors.Is(serr, record.ErrLeaseLost): // another process has a session now, or will have one soon
	case serr != nil:
		s.failed("save", serr)
	default:
		s.setStoreError(nil)
	}
	return g, err
}

// slotFor returns the record of the sessions of a key.
func (s *Source) slotFor(key secret.Credential) *record.Slot[record.Session] {
	lineage := s.cfg.Keys.Lineage(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slot == nil || !key.Equal(s.slotKey) {
		s.slot, s.slotKey = record.Sessions(s.cfg.Records, lineage, key), key
	}
	return s.slot
}

// pause notes in a record that the endpoint must not be called for some time. It does not
// change the session.
func (s *Source) pause(rec *record.Session, err error) {
	rec.Failures++
	at, locked := s.cfg.Platform.RetryAt(err)
	rec.Locked, rec.Refused = locked, IsRefused(err)
	first, most := 250*time.Millisecond, 30*time.Second
	if rec.Refused { // a dead key stays dead, and other processes need time to learn it
		first, most = time.Second, time.Minute
	}
	rec.NotBefore = time.Now().Add(renew.Doubled(first, most, rec.Failures))
	if at.After(rec.NotBefore) {
		rec.NotBefore = at
	}
	rec.Reason = secret.Clean(err.Error())
}

// pauseLeft returns how long the endpoint must not be called yet, according to a record that
// this process has seen unchanged for some time. The pause began with the last exchange by
// the clock that NotBefore is from. If that clock is ahead, the pause is not longer.
func pauseLeft(rec record.Session, unchanged time.Duration) time.Duration {
	left := time.Until(rec.NotBefore)
	if n := len(rec.Exchanges); n > 0 {
		left = min(left, rec.NotBefore.Sub(rec.Exchanges[n-1])-unchanged)
	}
	return left
}

// PausedError reports that the authenticate endpoint must not be called, because another
// process was refused. If the key of that process was refused, the error matches
// [wire.ErrUnauthorized]. The key may have been replaced since then, which each process
// finds out itself.
type PausedError struct {
	// Until is when the endpoint may be called again.
	Until time.Time
	// Locked is set if the address is locked out.
	Locked bool

	refused bool
	reason  string
}

func pausedBy(rec record.Session, until time.Time) error {
	return &PausedError{Until: until, Locked: rec.Locked, refused: rec.Refused, reason: rec.Reason}
}

// Error returns a text with the response that the other process got.
func (e *PausedError) Error() string { return "agrenting: another process was refused: " + e.reason }

// Is implements errors.Is.
func (e *PausedError) Is(target error) bool {
	return e.refused && !e.Locked && target == wire.ErrUnauthorized
}
