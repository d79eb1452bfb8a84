package renew

import (
	"context"
	"sync/atomic"
	"time"
)

// served is what readers get. Its methods are called with the engine's lock held. The
// fast path loads hot without the lock.
type served[T any] struct {
	// hot is equal to cur for a short time after a reader has read the clocks. Readers
	// use it without another check. A timer clears it.
	hot atomic.Pointer[Generation[T]]
	// cur is the generation that may be served; nil while readers have to wait. Only
	// set writes it.
	cur  atomic.Pointer[Generation[T]]
	cool *time.Timer   // clears hot
	news chan struct{} // closed when there is something to serve, or the engine is closed
}

// set changes the generation that may be served.
func (s *served[T]) set(l *Generation[T]) {
	s.cur.Store(l)
	s.hot.Store(nil)
	if l != nil {
		s.announce()
	}
}

// change returns a channel that is closed when a generation can be served.
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
	// hotFor is how long the clocks are not read. Timers stop while a machine is
	// suspended, so after that, an expired value may be served for at most this long.
	hotFor = time.Second
	// coolEarly is subtracted from the timer, so that it fires in time even if it is
	// late.
	coolEarly = time.Millisecond
)

// heat lets readers use l without reading the clocks.
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
	wanted    time.Time // the source has asked for a pause until then
	permanent bool      // another attempt will fail, too
}

// insisted counts how often in a row the source has insisted on a rejected value.
// Before the time until, further rejections start no fetch. Otherwise, a value that is
// dead and has no successor would exhaust the source.
type insisted struct {
	n         int
	proven    bool // the value was known to be dead
	at, until time.Time
}

// older contains the generations that FallBack needs.
type older[T any] struct {
	good    *Generation[T] // the last one that was replaced without being rejected
	refused *Generation[T] // the one that was replaced by good; the source may still have it
}

// hurry shortens the pause after the last failure to a given time, because the value is
// needed now.
func (f *failing) hurry(pause time.Duration) {
	if soonest := f.at.Add(pause); f.retryAt.After(soonest) {
		f.retryAt = soonest
	}
}

// mayWait reports whether a reader may wait for the next attempt, or for the attempt
// under way, until a given time. limit is the longest time that readers wait.
func (f *failing) mayWait(ctx context.Context, now, until time.Time, limit time.Duration, underWay bool) bool {
	switch {
	case !underWay && !now.Before(f.retryAt):
		return true // the reader makes the attempt
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

// waitFor waits for d, or until a channel is closed. If ctx ends first, waitFor returns
// the cause.
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
