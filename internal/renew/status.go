package renew

import (
	"time"
)

// State summarizes what an engine is doing.
type State uint8

// The states.
const (
	Empty     State = iota + 1 // nothing fetched yet
	Fresh                      // served
	Renewing                   // served, and being renewed
	Lapsed                     // expired or rejected: readers wait
	BackedOff                  // expired or rejected, and no attempt is made until RetryAt
	Shut                       // closed
)

// Status is a snapshot of the state of an engine. For example, a status with
// Failures of 3, Err set, and a Generation describes a source that is failing
// while its last value is still in use.
type Status[T any] struct {
	State      State
	Generation *Generation[T] // the newest one; nil if there is none
	Rejected   bool
	Insisted   bool // after a rejection, the source has yielded the newest value again
	Fetching   bool
	Waiters    int // for a fetch under way, or for the next attempt
	Failures   int
	Err        error // of the last fetch, nil after a success
	RetryAt    time.Time
	Skew       time.Duration
}

func (e *Engine[T]) statusLocked(now time.Time) Status[T] {
	s := Status[T]{
		Generation: e.last, Rejected: e.rejected, Insisted: e.insisted.n > 0, Fetching: e.flight != nil,
		Failures: e.failing.n, RetryAt: e.failing.retryAt, Skew: e.plan.skew,
	}
	if e.failing.err != nil {
		s.Err = e.failing.err.Err
	}
	s.Waiters = e.pausing
	if e.flight != nil {
		s.Waiters += e.flight.waiters
	}
	cur := e.served.cur.Load()
	switch {
	case e.closed:
		s.State = Shut
	case cur != nil && !cur.expired(now) && e.flight == nil:
		s.State = Fresh
	case cur != nil && !cur.expired(now):
		s.State = Renewing
	case e.flight == nil && now.Before(e.failing.retryAt):
		s.State = BackedOff
	case e.last == nil:
		s.State = Empty
	default:
		s.State = Lapsed
	}
	return s
}
