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
	First    Reason = iota + 1 // there was no value yet
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

// String returns the reason in one lower-case word.
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
	// Expires is when the value expires by the issuer's clock; zero means that this is
	// unknown.
	Expires time.Time
	// Issued is the issuer's time when it returned the value. Zero means that it is
	// unknown; the last known skew is then applied.
	Issued time.Time
	// Life is the full lifetime of the value, if the value is older than Issued. Zero
	// means that its life begins now. The window is a fraction of Life.
	Life time.Duration
	// Recheck requests another fetch in the background at the first read after this
	// time; zero means never. Without readers, the source is not asked.
	Recheck time.Duration
	// Reason, if set, replaces the reason of the fetch in events. A source that finds a
	// newer value of another process sets it to Adopted.
	Reason Reason
}

// Query says why a source is asked. For example, a query with HasRejected set asks for
// a value other than Rejected.
type Query[T any] struct {
	Reason Reason
	// Rejected is the value that was rejected. It is meaningful only if HasRejected is
	// set. It stays set until a different value has been fetched.
	Rejected    T
	HasRejected bool
	// Proven is set if Rejected is known to be dead, and not only doubted.
	Proven bool
	// Current is the newest value, rejected or not. It is meaningful only if HasCurrent
	// is set.
	Current    T
	HasCurrent bool
}

// Kind is the kind of an event.
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
	Generation *Generation[T] // the one in use after the event; nil if there is none
	Prev       *Generation[T] // the one in use before
	Err        error
	RetryAt    time.Time
	Took       time.Duration
}

// Config describes a source and when it is asked. Fetch and Same are required. Most
// programs only set these two.
type Config[T any] struct {
	// Fetch asks the source. It runs independently of every reader. It is not called
	// concurrently with itself, except after it exceeded its timeout.
	Fetch func(ctx context.Context, q Query[T]) (Grant[T], error)
	// Same reports whether two values are equal.
	Same func(a, b T) bool
	// Timeout bounds one fetch; 0 means 30 s.
	Timeout time.Duration
	// Window is the fraction of a lifetime, before its end, in which the value is
	// renewed ahead; 0 means 0.2, and a negative value means that it is not renewed
	// ahead.
	Window float64
	// MaxLead bounds the window; 0 means 1 h.
	MaxLead time.Duration
	// Jitter returns the jitter of the window, from [0, 1); nil means random.
	Jitter func() float64
	// MinBackoff and MaxBackoff bound the pause after a failure; 0 means 0.25 s
	// and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// Wait is how long readers wait for further attempts after a failure; 0 means
	// that they fail at once.
	Wait time.Duration
	// Costly is set if asking the source has a cost. A rejection then shortens the
	// pause after a failure only if the value is known to be dead. A source that
	// insists on a rejected value is then always asked again after a pause.
	Costly bool
	// Permanent reports whether another attempt would fail in the same way, so that
	// readers do not wait for it; nil means that no failure is permanent.
	Permanent func(error) bool
	// RetryAt returns the time at which the source may be asked again, according to an
	// error. If it is nil or returns the zero time, only the backoff decides.
	RetryAt func(error) time.Time
	// Proactive renews by a timer, even without readers.
	Proactive bool
	// Observe is called with each event, in order, with the engine's lock held. It must
	// not block or call the engine.
	Observe func(Event[T])
}

// Generation is one generation of the value. It is immutable.
type Generation[T any] struct {
	Value T
	// Number counts the different values, starting at 1.
	Number uint64
	// Obtained and Expires are on the local clock. Expires is zero if the end is
	// unknown.
	Obtained, Expires time.Time
	// RenewAt is when the engine intends to renew the value; zero if it does not. The
	// engine may read the source before that time.
	RenewAt time.Time
	Reason  Reason

	// Both clocks decide. The monotonic clock is not affected if the wall clock is set
	// back, and the wall clock advances while a machine is suspended.
	freshUntil time.Time
	freshWall  int64

	ends time.Time     // by the issuer's clock, as in the grant
	lead time.Duration // of the window before Expires; zero if there is none
	over bool          // the source returned it again after its end

	recheck   time.Duration // the source is read again after this time; zero for never
	recheckAt time.Time
}

const forever = math.MaxInt64

// fresh is the complete check of the fast path.
func (l *Generation[T]) fresh() bool {
	if l.freshWall == forever {
		return true
	}
	now := time.Now()
	return now.UnixNano() < l.freshWall && now.Before(l.freshUntil)
}

// due returns when the source is asked next, for any reason, or zero if it is not.
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

// reached reports whether a time has come by either of the two clocks.
func reached(t, now time.Time) bool {
	return !now.Before(t) || !now.Round(0).Before(t.Round(0))
}

func (l *Generation[T]) expired(now time.Time) bool {
	return !l.Expires.IsZero() && (!now.Before(l.Expires) || now.UnixNano() >= l.Expires.UnixNano())
}

// until returns a copy that the fast path serves up to t, but never after its expiry. A
// zero t means that there is no other limit.
func (l *Generation[T]) until(t time.Time) *Generation[T] {
	c := *l
	c.limit(t)
	return &c
}

// limit is like until, for a generation that is not shared yet.
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

// Unwrap returns the source's error.
func (f *SourceError) Unwrap() error { return f.Err }

// PanicError is a panic of the source.
type PanicError struct{ Value any }

// Error returns a text with the panic value.
func (p *PanicError) Error() string { return fmt.Sprintf("the source panicked: %v", p.Value) }
