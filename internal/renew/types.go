package renew

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Reason says why a fetch is made or was made.
type Reason uint8

// The reasons of a fetch.
const (
	First    Reason = iota + 1 // nothing was there yet
	Early                      // the window before the expiry began
	Expired                    // the value had expired
	Rejected                   // the value was rejected
	Manual                     // a caller asked for it
	Recheck                    // the source asked to be read again
	Adopted                    // a value was put in from outside
	Restored                   // the value before a dead one is used again
)

var reasonNames = [...]string{
	First: "first", Early: "early", Expired: "expired", Rejected: "rejected",
	Manual: "manual", Recheck: "recheck", Adopted: "adopted",
	Restored: "restored",
}

// String gives the reason in one lower-case word.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return "unknown"
}

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("renew: closed")

// Grant is what a fetch yields.
type Grant[T any] struct {
	Value T
	// Expires is the end of the value's life by the issuer's clock; zero means
	// unknown.
	Expires time.Time
	// Issued is what the issuer's clock showed when it answered; zero means
	// unknown, and then the skew learned last is applied.
	Issued time.Time
	// Life is how long the value lives in all, where it is older than Issued;
	// zero means from now on. The window is a fraction of it.
	Life time.Duration
	// Recheck asks for another fetch in the background at the first read after that
	// long; zero means never. Without readers, the source is not asked.
	Recheck time.Duration
	// Reason, when set, replaces the reason of the fetch in what is reported:
	// a source that finds a newer value of another process says Adopted.
	Reason Reason
}

// Query tells a source why it is asked.
type Query[T any] struct {
	Reason Reason
	// Rejected is the value that was rejected; only meaningful when
	// HasRejected. It stays set until a different value has been fetched.
	Rejected    T
	HasRejected bool
	// Proven is set if Rejected is known to be dead, and not only doubted.
	Proven bool
	// Current is the newest value, rejected or not; only meaningful when
	// HasCurrent.
	Current    T
	HasCurrent bool
}

// Kind tells events apart.
type Kind uint8

// The kinds of events.
const (
	Renewed   Kind = iota + 1 // a new generation is in use
	Confirmed                 // the source insists on the same value
	Failed                    // a fetch failed
	Refused                   // the value was rejected
)

// Event reports a change. Events of one engine are reported in order.
type Event[T any] struct {
	Kind       Kind
	Reason     Reason
	Generation *Generation[T] // the one in use after the event; nil when there is none
	Prev       *Generation[T] // the one in use before
	Err        error
	RetryAt    time.Time
	Took       time.Duration
}

// Config describes a source and when it is asked.
type Config[T any] struct {
	// Fetch asks the source. It runs detached from every reader and is never
	// called concurrently with itself, save after it overran its timeout.
	Fetch func(ctx context.Context, q Query[T]) (Grant[T], error)
	// Same reports whether two values are the same one.
	Same func(a, b T) bool
	// Timeout bounds one fetch; 0 means 30 s.
	Timeout time.Duration
	// Window is the fraction of a lifetime before its end in which it is
	// renewed ahead; 0 means 0.2, negative means never ahead.
	Window float64
	// MaxLead clamps the window; 0 means 1 h.
	MaxLead time.Duration
	// Spread draws the jitter of the window from [0, 1); nil means random.
	Spread func() float64
	// MinBackoff and MaxBackoff bound the pause after a failure; 0 means 0.25 s
	// and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// Wait is how long readers wait for further attempts after a failure; 0 means
	// that they fail at once.
	Wait time.Duration
	// Costly is set if asking the source costs something. A rejection then shortens the
	// pause after a failure only if the value is known to be dead, and a source that
	// insists on a rejected value is asked again after a pause only, even then.
	Costly bool
	// Permanent reports whether another attempt would fail in the same way, so that
	// readers do not wait for it; nil means never.
	Permanent func(error) bool
	// RetryAt reads from an error when the source may be asked again;
	// nil or a zero time means that backoff decides alone.
	RetryAt func(error) time.Time
	// Proactive renews by a timer, even without readers.
	Proactive bool
	// Observe is told of events, in order, under the engine's lock: it must
	// neither block nor call back.
	Observe func(Event[T])
}

// Generation is one generation of the value. It is immutable.
type Generation[T any] struct {
	Value T
	// Number counts different values, from 1.
	Number uint64
	// Obtained and Expires are on the local clock; Expires is zero when the
	// end is unknown.
	Obtained, Expires time.Time
	// RenewAt is when the engine means to renew; zero when it does not. It may
	// read the source in between.
	RenewAt time.Time
	Reason  Reason

	// Both clocks decide: the monotonic one survives a wall clock that jumps
	// back, the wall clock survives a suspended machine.
	freshUntil time.Time
	freshWall  int64

	ends time.Time     // on the issuer's clock, as the grant had it
	lead time.Duration // of the window before Expires; zero when there is none
	over bool          // it came again after its end

	recheck   time.Duration // after which the source is read again; zero for never
	recheckAt time.Time
}

const forever = math.MaxInt64

// fresh is the whole of the fast path's decision.
func (l *Generation[T]) fresh() bool {
	if l.freshWall == forever {
		return true
	}
	now := time.Now()
	return now.UnixNano() < l.freshWall && now.Before(l.freshUntil)
}

// due is when the source is asked next, for any reason; zero when it is
// not.
func (l *Generation[T]) due() time.Time {
	if !l.recheckAt.IsZero() && (l.RenewAt.IsZero() || l.recheckAt.Before(l.RenewAt)) {
		return l.recheckAt
	}
	return l.RenewAt
}

// inWindow reports whether the window before the expiry has begun.
func (l *Generation[T]) inWindow(now time.Time) bool {
	return l.lead > 0 && reached(l.Expires.Add(-l.lead), now)
}

// reached reports whether a time has come by one of the two clocks.
func reached(t, now time.Time) bool {
	return !now.Before(t) || !now.Round(0).Before(t.Round(0))
}

func (l *Generation[T]) expired(now time.Time) bool {
	return !l.Expires.IsZero() && (!now.Before(l.Expires) || now.UnixNano() >= l.Expires.UnixNano())
}

// until returns a copy that the fast path serves up to t, a zero t meaning for
// ever, but never past the expiry.
func (l *Generation[T]) until(t time.Time) *Generation[T] {
	c := *l
	c.limit(t)
	return &c
}

// limit is until for a generation that is not shared yet.
func (l *Generation[T]) limit(t time.Time) {
	if t.IsZero() || (!l.Expires.IsZero() && l.Expires.Before(t)) {
		t = l.Expires
	}
	l.freshUntil, l.freshWall = t, forever
	if !t.IsZero() {
		l.freshWall = t.UnixNano()
	}
}

// SourceError is the error that all readers share while the source is failing.
type SourceError struct {
	RetryAt  time.Time
	Failures int
	Rejected bool
	Err      error
}

// Error implements error.
func (f *SourceError) Error() string {
	return fmt.Sprintf("renew: %v (attempt %d, next at %s)", f.Err, f.Failures, f.RetryAt.Format(time.RFC3339))
}

// Unwrap gives the source's error.
func (f *SourceError) Unwrap() error { return f.Err }

// PanicError is a panic of the source.
type PanicError struct{ Value any }

// Error names the panic value.
func (p *PanicError) Error() string { return fmt.Sprintf("the source panicked: %v", p.Value) }
