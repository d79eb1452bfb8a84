package renew

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Engine keeps the value. Its methods are safe for concurrent use.
//
// These are its promises. A test checks each of them:
//
//   - Any number of concurrent readers cause one fetch, whether it succeeds or fails,
//     and all of them share its outcome.
//   - A reader leaves at its own deadline. The fetch is detached from all readers and
//     has its own timeout, so a canceled reader does not affect the others.
//   - A fresh value is served by one atomic load. The clocks are read about once a
//     second.
//   - In the window before the expiry the value is served, too, while one fetch runs
//     in the background. Readers wait only for an expired or rejected value.
//   - The window is a fraction of the value's lifetime, so it is always shorter.
//   - If a renewal fails, the value is served until its expiry or a rejection.
//     Failures back off with jitter: one attempt per step, however many readers wait.
//   - Readers wait for the next attempt for a limited time. They fail at once with the
//     shared error if the attempt comes later, if the failure is permanent, or if the
//     source has failed for longer than that.
//   - Rejection is by value: a fetch that began before the rejection cannot restore
//     the rejected value. Only a source that was asked afterwards may insist on it.
//   - A value that is only doubted is served until there is another one.
//   - A panic in the source is an error.
//   - The issuer's clock decides about the expiry, also after suspend and resume.
//   - Close leaves no goroutine.
type Engine[T any] struct {
	cfg Config[T]

	served served[T]

	wg sync.WaitGroup // of fetches

	mu       sync.Mutex
	last     *Generation[T] // the newest generation, served or rejected
	rejected bool           // last was rejected
	doubted  bool           // last may be dead, but is still served
	flight   *flight[T]
	failing  failing
	pausing  int // readers that wait for the next attempt
	insisted insisted
	older    older[T]
	plan     planner[T]
	timer    *time.Timer // renews without traffic
	closed   bool
}

// New returns an engine. It does not fetch: the first reader starts the first fetch.
func New[T any](cfg Config[T]) *Engine[T] {
	setDefault(&cfg.Timeout, 30*time.Second)
	setDefault(&cfg.MaxLead, time.Hour)
	setDefault(&cfg.MinBackoff, 250*time.Millisecond)
	setDefault(&cfg.MaxBackoff, 30*time.Second)
	if cfg.Window == 0 {
		cfg.Window = 0.2
	}
	cfg.Window = min(cfg.Window, 0.5)
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	e := &Engine[T]{cfg: cfg}
	e.plan.cfg = &e.cfg
	return e
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Get returns a generation that can be used now. If the generation is fresh, this costs
// one atomic load. Get waits only if there is no value to return, and no longer than ctx
// allows.
func (e *Engine[T]) Get(ctx context.Context) (*Generation[T], error) {
	if l := e.served.hot.Load(); l != nil {
		return l, nil
	}
	return e.get(ctx)
}

func (e *Engine[T]) get(ctx context.Context) (*Generation[T], error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	now := time.Now()
	if l := e.served.cur.Load(); l != nil && !l.expired(now) {
		if !l.fresh() {
			e.renewAheadLocked(now)
		}
		l = e.served.cur.Load()
		e.served.heat(l, now)
		e.mu.Unlock()
		return l, nil
	}
	return e.awaitLocked(ctx, now, 0)
}

// awaitLocked waits until there is a value. It joins the fetch under way or starts one,
// and after a failure it waits for further attempts as long as that is allowed. It
// releases the lock.
func (e *Engine[T]) awaitLocked(ctx context.Context, now time.Time, reason Reason) (*Generation[T], error) {
	until := now.Add(e.cfg.Wait)
	for {
		switch l := e.served.cur.Load(); {
		case e.closed:
			e.mu.Unlock()
			return nil, ErrClosed
		case l != nil && !l.expired(now) && reason != Manual:
			e.mu.Unlock()
			return l, nil
		case e.failing.err != nil && reason != Manual && !e.failing.mayWait(ctx, now, until, e.cfg.Wait, e.flight != nil):
			err := e.failureLocked()
			e.mu.Unlock()
			return nil, err
		}
		if e.flight == nil && now.Before(e.failing.retryAt) {
			news, due := e.served.change(), e.failing.retryAt.Sub(now)
			e.pausing++
			e.mu.Unlock()
			err := waitFor(ctx, news, due)
			e.mu.Lock()
			e.pausing--
			if err != nil {
				e.mu.Unlock()
				return nil, err
			}
		} else {
			l, again, err := e.joinLocked(ctx, now, until, reason)
			if !again {
				return l, err
			}
			e.mu.Lock()
		}
		now = time.Now()
	}
}

// joinLocked waits for the fetch under way, or starts one, and releases the lock. again
// is set if the reader may wait for another attempt.
func (e *Engine[T]) joinLocked(ctx context.Context, now, until time.Time, reason Reason) (l *Generation[T], again bool, err error) {
	f := e.flight
	if f == nil {
		if reason == 0 {
			reason = e.reasonLocked()
		}
		f = e.startLocked(now, reason)
	}
	f.waiters++
	var late <-chan time.Time
	if e.failing.err != nil && reason != Manual && e.cfg.Wait > 0 {
		t := time.NewTimer(until.Sub(now))
		defer t.Stop()
		late = t.C
	}
	var news <-chan struct{} // of a value that was put in during the wait
	if e.served.cur.Load() == nil && reason != Manual {
		news = e.served.change()
	}
	e.mu.Unlock()
	select {
	case <-f.done:
	case <-news:
		e.mu.Lock()
		defer e.mu.Unlock()
		f.waiters--
		return f.put, f.put == nil, nil
	case <-late:
		e.mu.Lock()
		defer e.mu.Unlock()
		f.waiters--
		if e.failing.err == nil { // it has just ended
			return nil, true, nil
		}
		return nil, false, e.failureLocked()
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		f.waiters--
		return nil, false, context.Cause(ctx)
	}
	switch {
	case reason == Manual && f.failed != nil:
		return nil, false, f.failed
	case f.err != nil && f.put != nil:
		return f.put, false, nil
	case f.err != nil && f.failed != nil && e.cfg.Wait > 0:
		return nil, true, f.err
	default:
		return f.generation, false, f.err
	}
}

func (e *Engine[T]) reasonLocked() Reason {
	switch {
	case e.last == nil:
		return First
	case e.rejected:
		return Rejected
	default:
		return Expired
	}
}

func (e *Engine[T]) failureLocked() error {
	f := *e.failing.err
	f.Rejected = e.rejected
	return &f
}

// renewAheadLocked starts a background fetch. Until it ends, the fast path serves the
// value.
func (e *Engine[T]) renewAheadLocked(now time.Time) {
	if e.flight == nil && !now.Before(e.failing.retryAt) {
		reason := Recheck
		if e.last.inWindow(now) && reached(e.last.RenewAt, now) {
			reason = Early
		}
		e.startLocked(now, reason)
	}
	e.served.set(e.last.until(e.decideAgainLocked()))
}

// decideAgainLocked returns when the fast path must decide again.
func (e *Engine[T]) decideAgainLocked() time.Time {
	if e.flight != nil {
		return time.Time{} // the end of the fetch publishes again
	}
	return e.failing.retryAt
}

// Reject reports that the value of a generation was refused, and returns the generation
// to try instead. proven is set if the value is known to be dead: it is then not served
// again. Otherwise, it is served until there is another value. If a newer generation is
// already in use, the report is late and has no effect. If Reject returns the same
// generation, no other value is available.
func (e *Engine[T]) Reject(ctx context.Context, generation uint64, proven bool) (*Generation[T], error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	l := e.last
	if l == nil || l.Number != generation {
		e.mu.Unlock()
		return e.Get(ctx)
	}
	now := time.Now()
	if known := e.rejected || (e.doubted && !proven); !known {
		if now.Before(e.insisted.until) && (!proven || (e.cfg.Costly && e.insisted.proven)) {
			e.mu.Unlock()
			return l, nil
		}
		e.refuseLocked(l, proven, now)
	}
	if !proven {
		return e.awaitOtherLocked(ctx, now, l)
	}
	return e.awaitLocked(ctx, now, Rejected)
}

// refuseLocked notes that the value in use was refused.
func (e *Engine[T]) refuseLocked(l *Generation[T], proven bool, now time.Time) {
	e.rejected, e.doubted = proven, !proven
	if (proven || !e.cfg.Costly) && !now.Before(e.failing.wanted) {
		// The pause applies only to attempts that no reader waits for.
		pause := time.Duration(0)
		if e.cfg.Costly {
			pause = e.cfg.MinBackoff
		}
		e.failing.hurry(pause)
	}
	if proven {
		e.served.set(nil)
	}
	if e.flight != nil {
		e.flight.again, e.flight.put = true, nil
	} else {
		e.armLocked() // another value is needed, even if no reader waits for it
	}
	e.observe(Event[T]{Kind: Refused, Reason: Rejected, Prev: l})
}

// awaitOtherLocked waits for one attempt to replace a value that is only doubted. If the
// attempt fails, the value continues to be used. awaitOtherLocked releases the lock.
func (e *Engine[T]) awaitOtherLocked(ctx context.Context, now time.Time, l *Generation[T]) (*Generation[T], error) {
	if e.flight == nil && now.Before(e.failing.retryAt) {
		e.mu.Unlock()
		return l, nil
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if e.cfg.Wait > 0 {
		wait, cancel = context.WithTimeout(ctx, e.cfg.Wait)
	}
	defer cancel()
	next, again, err := e.joinLocked(wait, now, now.Add(e.cfg.Wait), Rejected)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, ErrClosed):
		return nil, err
	case err != nil || again:
		return l, nil
	default:
		return next, nil
	}
}

// FallBack serves the value before a rejected one again, until the source has a value
// other than the rejected one. It returns false if there is no such value.
func (e *Engine[T]) FallBack(generation uint64) (*Generation[T], bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	bad, good, now := e.last, e.older.good, time.Now()
	if e.closed || bad == nil || bad.Number != generation || good == nil || good.expired(now) {
		return nil, false
	}
	failing := e.failing
	l := e.installLocked(Grant[T]{Value: good.Value, Expires: good.ends, Recheck: bad.recheck}, Restored, now, now)
	e.older = older[T]{refused: bad}
	if e.failing = failing; failing.err != nil {
		e.armLocked()
	}
	return l, true
}

// Failure returns the error that readers share while the source is failing, or nil if it
// is not failing.
func (e *Engine[T]) Failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failing.err == nil {
		return nil
	}
	return e.failureLocked()
}

// Renew fetches now, regardless of the state of the value, and waits for the outcome.
// While the value is valid, the source may return the same one. Renew respects a pause
// that the source has asked for.
func (e *Engine[T]) Renew(ctx context.Context) (*Generation[T], error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	now := time.Now()
	if e.failing.err != nil && now.Before(e.failing.wanted) {
		err := e.failureLocked()
		e.mu.Unlock()
		return nil, err
	}
	if e.flight == nil {
		e.failing.retryAt = time.Time{}
	}
	return e.awaitLocked(ctx, now, Manual)
}

// Put replaces the current value with one from outside, as if it had been fetched. A
// fetch that began before is discarded when it ends.
func (e *Engine[T]) Put(g Grant[T], reason Reason) (*Generation[T], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	now := time.Now()
	l := e.installLocked(g, reason, now, now)
	if e.flight != nil {
		e.flight.put = l
	}
	return l, nil
}

// backoff returns the pause after the n-th consecutive failure. The pause doubles each
// time, up to a limit, and its upper half is random.
func (c *Config[T]) backoff(n int) time.Duration {
	d := Doubled(c.MinBackoff, c.MaxBackoff, n)
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1)) // #nosec G404 -- jitter needs no secrecy
}

func (e *Engine[T]) observe(ev Event[T]) {
	if e.cfg.Observe != nil {
		e.cfg.Observe(ev)
	}
}

// closeGrace bounds how long Close waits for a source that ignores its context.
const closeGrace = 5 * time.Second

// Close ends every fetch and waits for its goroutine. Waiting readers get ErrClosed. The
// error means that a source ignored the end of its context for 5 s.
func (e *Engine[T]) Close() error {
	e.mu.Lock()
	e.closed = true
	e.served.set(nil)
	e.served.announce()
	e.stopTimerLocked()
	e.served.stop()
	if e.flight != nil && e.flight.cancel != nil {
		e.flight.cancel()
	}
	e.mu.Unlock()
	done := make(chan struct{})
	go func() {
		e.wg.Wait()
		close(done)
	}()
	t := time.NewTimer(closeGrace)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("renew: the source ignored the end of its context for %v", closeGrace)
	}
}

// Current returns the current generation, or nil while readers have to wait. It starts no
// fetch and never waits.
func (e *Engine[T]) Current() *Generation[T] { return e.served.cur.Load() }

// Status returns the current state of the engine. It starts no fetch and never waits.
func (e *Engine[T]) Status() Status[T] {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.statusLocked(time.Now())
}

// Fixed returns a generation that is always fresh and belongs to no engine.
func Fixed[T any](v T) *Generation[T] {
	l := &Generation[T]{Value: v, Number: 1, Obtained: time.Now(), Reason: First}
	return l.until(time.Time{})
}

// Sleep waits for d. If ctx ends first, it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Doubled returns base, doubled n-1 times, but at most limit.
func Doubled(base, limit time.Duration, n int) time.Duration {
	d := base
	for range n - 1 {
		if d > limit/2 {
			return limit
		}
		d *= 2
	}
	return min(d, limit)
}
