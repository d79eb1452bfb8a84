package renew

import (
	"context"
	"sync/atomic"
	"time"
)

// served is what readers get. Its methods are called under the engine's lock; the fast
// path loads hot without it.
type served[T any] struct {
	// hot is cur, for a short time after a reader has read the clocks. Readers take it
	// without another check. A timer removes it.
	hot atomic.Pointer[Generation[T]]
	// cur is what may be served; nil while readers have to wait. It is written by set
	// only.
	cur  atomic.Pointer[Generation[T]]
	cool *time.Timer   // empties hot
	news chan struct{} // closed when there is something to serve, or the engine is closed
}

// set changes what may be served.
func (s *served[T]) set(l *Generation[T]) {
	s.cur.Store(l)
	s.hot.Store(nil)
	if l != nil {
		s.announce()
	}
}

// change returns a channel that is closed when there is something to serve.
func (s *served[T]) change() <-chan struct{} {
	if s.news == nil {
		s.news = make(chan struct{})
	}
	return s.news
}

// announce wakes the readers that wait for the next attempt.
func (s *served[T]) announce() {
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}

const (
	// hotFor is for how long the clocks are not read. Timers stop while a machine is
	// suspended, so afterwards an expired value is served for at most this long.
	hotFor = time.Second
	// coolEarly lets the timer come in time, even if it is late.
	coolEarly = time.Millisecond
)

// heat lets readers take l without reading the clocks.
func (s *served[T]) heat(l *Generation[T], now time.Time) {
	if l.freshWall == forever {
		s.hot.Store(l)
		return
	}
	d := min(hotFor, l.freshUntil.Sub(now)-coolEarly)
	if d <= 0 {
		return
	}
	s.hot.Store(l) // before the timer, which may fire at once
	if s.cool == nil {
		s.cool = time.AfterFunc(d, func() { s.hot.Store(nil) })
	} else {
		s.cool.Reset(d)
	}
}

// stop ends the timer.
func (s *served[T]) stop() {
	if s.cool != nil {
		s.cool.Stop()
	}
}

// failing is the state of a source that fails; zero if it does not.
type failing struct {
	n         int
	err       *SourceError
	since, at time.Time // of the first failure and of the last one
	retryAt   time.Time // also set to delay rechecks
	wanted    time.Time // until then the source has asked for a pause
	permanent bool      // another attempt will fail, too
}

// insisted counts how often in a row the source insisted on a rejected value. Until
// the time in until, further rejections cause no fetch: otherwise, a value that is dead
// and has no successor would exhaust the source.
type insisted struct {
	n         int
	proven    bool // the value was known to be dead
	at, until time.Time
}

// older has what FallBack needs.
type older[T any] struct {
	good    *Generation[T] // the last one that was replaced without having been rejected
	refused *Generation[T] // the one that was replaced by good; the source may still have it
}

// hurry shortens the pause after the last failure to a given time, because the value is
// needed now.
func (f *failing) hurry(pause time.Duration) {
	if soonest := f.at.Add(pause); f.retryAt.After(soonest) {
		f.retryAt = soonest
	}
}

// mayWait reports whether a reader may wait for the next attempt, or for the one under
// way, until a given time. limit is how long readers wait at all.
func (f *failing) mayWait(ctx context.Context, now, until time.Time, limit time.Duration, underWay bool) bool {
	switch {
	case !underWay && !now.Before(f.retryAt):
		return true // it makes the attempt
	case limit <= 0:
		return underWay
	case f.permanent, now.Sub(f.since) >= limit, !now.Before(until):
		return false
	case underWay:
		return true
	}
	end, limited := ctx.Deadline()
	return !f.retryAt.After(until) && (!limited || f.retryAt.Before(end))
}

// waitFor waits for d, or until a channel is closed. If ctx ends first, it returns the
// cause.
func waitFor(ctx context.Context, news <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-news:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
