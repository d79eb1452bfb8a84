package renew

import (
	"context"
	"errors"
	"fmt"
	"time"
)

type flight[T any] struct {
	done       chan struct{}
	cancel     context.CancelFunc // of the fetch under way; nil before the first
	began      time.Time
	query      Query[T]
	base       uint64 // generation when it began
	again      bool   // a rejection came after it began, so its result may be outdated
	waiters    int
	generation *Generation[T]
	put        *Generation[T] // by Put during the fetch: readers are served, whatever its outcome
	err        error          // what readers get
	failed     error          // why the fetch failed, also when readers are still served
}

func (e *Engine[T]) startLocked(now time.Time, reason Reason) *flight[T] {
	f := &flight[T]{done: make(chan struct{}), began: now, query: Query[T]{Reason: reason}}
	if e.last != nil {
		f.base = e.last.Number
		f.query.Current, f.query.HasCurrent = e.last.Value, true
		if e.rejected || e.doubted {
			f.query.Rejected, f.query.HasRejected, f.query.Proven = e.last.Value, true, e.rejected
		}
	}
	e.flight = f
	e.stopTimerLocked()
	e.wg.Add(1)
	go e.run(f)
	return f
}

type outcome[T any] struct {
	grant Grant[T]
	err   error
}

// run makes the fetch and publishes its outcome.
func (e *Engine[T]) run(f *flight[T]) {
	defer e.wg.Done()
	for {
		out := e.fetch(f)
		e.mu.Lock()
		if f.again && (e.rejected || e.doubted) && !e.closed && out.err == nil && e.cfg.Same(out.grant.Value, e.last.Value) {
			// The fetch began before the rejection, so the source is asked once more.
			f.again, f.began = false, time.Now()
			f.query.Reason, f.query.Rejected, f.query.HasRejected = Rejected, e.last.Value, true
			f.query.Proven = e.rejected
			e.mu.Unlock()
			continue
		}
		if f.mayRepeat() && !e.closed && out.err == nil && e.repeatsLocked(out.grant) && e.last.expired(time.Now()) {
			// This fetch may not have asked for a successor, which is needed now.
			f.began, f.query.Reason = time.Now(), Expired
			e.mu.Unlock()
			continue
		}
		e.finishLocked(f, out)
		e.mu.Unlock()
		return
	}
}

// mayRepeat reports whether the source may return the current value even if it could
// obtain a successor.
func (f *flight[T]) mayRepeat() bool { return f.query.Reason == Recheck || f.query.Reason == Manual }

// repeatsLocked reports whether a grant contains the current value.
func (e *Engine[T]) repeatsLocked(g Grant[T]) bool {
	return e.last != nil && e.cfg.Same(g.Value, e.last.Value)
}

// fetch calls the source with the engine's timeout. It does not wait for a source that
// ignores its context. If that source returns a value later, the value is used.
func (e *Engine[T]) fetch(f *flight[T]) outcome[T] {
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.Timeout)
	if !e.begin(f, cancel) {
		cancel()
		return outcome[T]{err: ErrClosed}
	}
	ch := make(chan outcome[T], 1)
	query := f.query
	e.wg.Go(func() {
		defer cancel()
		out := outcome[T]{err: errors.New("the source ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				out.err = &PanicError{Value: p}
			}
			ch <- out
			if ctx.Err() != nil && out.err == nil {
				e.adoptLate(out.grant)
			}
		}()
		out.grant, out.err = e.cfg.Fetch(ctx, query)
	})
	select {
	case out := <-ch:
		return out
	case <-ctx.Done():
		select {
		case out := <-ch:
			return out
		default:
			return outcome[T]{err: e.timeoutError()}
		}
	}
}

// begin lets Close end the fetch. It reports whether the engine is open.
func (e *Engine[T]) begin(f *flight[T], cancel context.CancelFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	f.cancel = cancel
	return !e.closed
}

func (e *Engine[T]) timeoutError() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	return fmt.Errorf("the source did not answer within %v: %w", e.cfg.Timeout, context.DeadlineExceeded)
}

func (e *Engine[T]) adoptLate(g Grant[T]) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.served.cur.Load(); e.closed || e.flight != nil || (l != nil && !l.expired(time.Now())) {
		return
	}
	if e.rejected && e.cfg.Same(g.Value, e.last.Value) {
		return
	}
	e.installLocked(g, Expired, time.Now(), time.Now())
}

// finishLocked ends a fetch.
func (e *Engine[T]) finishLocked(f *flight[T], out outcome[T]) {
	now := time.Now()
	e.flight = nil
	defer close(f.done)
	switch {
	case e.closed:
		f.err = ErrClosed
	case e.last != nil && e.last.Number != f.base && e.last.Reason != Restored && e.served.cur.Load() != nil:
		f.generation = e.served.cur.Load() // a newer value was put in during the fetch
	case out.err != nil:
		e.failLocked(f, out.err, now)
	case (e.rejected || e.doubted) && e.cfg.Same(out.grant.Value, e.last.Value):
		e.confirmLocked(f, out.grant, now)
	default:
		reason := f.query.Reason
		if out.grant.Reason != 0 {
			reason = out.grant.Reason
		}
		f.generation = e.installLocked(out.grant, reason, f.began, now)
	}
}

func (e *Engine[T]) failLocked(f *flight[T], err error, now time.Time) {
	b := &e.failing
	if b.n == 0 {
		b.since = now
	}
	b.n++
	b.at = now
	b.retryAt = now.Add(e.cfg.backoff(b.n))
	if e.cfg.RetryAt != nil {
		b.wanted = e.cfg.RetryAt(err)
		if b.wanted.After(b.retryAt) {
			b.retryAt = b.wanted
		}
	}
	b.permanent = e.cfg.Permanent != nil && e.cfg.Permanent(err)
	b.err = &SourceError{RetryAt: b.retryAt, Failures: b.n, Rejected: e.rejected, Err: err}
	f.failed = e.failureLocked()
	l := e.served.cur.Load()
	if l != nil && l.expired(now) {
		e.served.set(nil)
		l = nil
	}
	if l != nil {
		l = e.last.until(b.retryAt)
		e.served.set(l)
		f.generation = l // readers do not fail while the value is good
	} else {
		f.err = f.failed
	}
	if e.last != nil {
		e.armLocked()
	}
	e.observe(Event[T]{
		Kind: Failed, Reason: f.query.Reason, Generation: l, Prev: e.last, Err: err,
		RetryAt: b.retryAt, Took: now.Sub(f.began),
	})
}

// confirmLocked accepts the rejected value again, because the source returned it although
// it was asked after the rejection.
func (e *Engine[T]) confirmLocked(f *flight[T], g Grant[T], now time.Time) {
	if now.Sub(e.insisted.at) > 2*e.cfg.MaxBackoff {
		e.insisted.n = 0
	}
	e.insisted.n++
	e.insisted.proven = e.rejected
	e.insisted.at, e.insisted.until = now, now.Add(e.cfg.backoff(e.insisted.n))
	e.rejected, e.doubted = false, false
	e.successLocked()
	l := e.last
	e.publishLocked(e.plan.generationOf(g, *l, f.began, now))
	f.generation = e.served.cur.Load()
	e.observe(Event[T]{Kind: Confirmed, Reason: f.query.Reason, Generation: f.generation, Prev: l, Took: now.Sub(f.began)})
}

func (e *Engine[T]) successLocked() { e.failing = failing{} }

// installLocked makes a grant the current value. If the value is unchanged, the generation
// stays the same.
func (e *Engine[T]) installLocked(g Grant[T], reason Reason, began, now time.Time) *Generation[T] {
	prev := e.last
	e.successLocked()
	if r := e.older.refused; r != nil && !e.rejected && !e.doubted && e.cfg.Same(g.Value, r.Value) {
		g = Grant[T]{Value: prev.Value, Expires: prev.ends, Recheck: g.Recheck} // the source still returns it
	}
	if prev != nil && e.cfg.Same(g.Value, prev.Value) {
		e.publishLocked(e.plan.generationOf(g, *prev, began, now))
		return e.served.cur.Load()
	}
	next := Generation[T]{Number: 1, Reason: reason}
	if prev != nil {
		next.Number = prev.Number + 1
		if e.older.refused = nil; !e.rejected && !e.doubted {
			e.older.good = prev
		}
	}
	e.rejected, e.doubted, e.insisted = false, false, insisted{}
	e.publishLocked(e.plan.generationOf(g, next, began, now))
	l := e.served.cur.Load()
	e.observe(Event[T]{Kind: Renewed, Reason: reason, Generation: l, Prev: prev, Took: now.Sub(began)})
	return l
}

// publishLocked makes l the current generation. No reader has l yet.
func (e *Engine[T]) publishLocked(l *Generation[T]) {
	l.limit(l.due())
	e.last = l
	e.served.set(l)
	e.armLocked()
}

// unattendedLocked returns the time of the next attempt without readers, or zero if there
// is none. It is the time at which the value must be renewed but, after a failure, not
// before the backoff has ended. Rechecks are made only for readers.
func (e *Engine[T]) unattendedLocked() time.Time {
	needed := e.served.cur.Load() == nil || e.doubted || e.last.Reason == Restored
	at := e.last.RenewAt
	if e.failing.err != nil && (needed || (!at.IsZero() && at.Before(e.failing.retryAt))) {
		return e.failing.retryAt
	}
	return at
}

// armLocked sets the timer for renewals without traffic.
func (e *Engine[T]) armLocked() {
	e.stopTimerLocked()
	if at := e.unattendedLocked(); e.cfg.Proactive && !e.closed && !at.IsZero() {
		e.timer = time.AfterFunc(max(0, time.Until(at)), e.tick)
	}
}

func (e *Engine[T]) stopTimerLocked() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

func (e *Engine[T]) tick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.flight != nil || e.last == nil {
		return
	}
	now, at := time.Now(), e.unattendedLocked()
	l := e.served.cur.Load()
	switch {
	case at.IsZero() || !reached(at, now): // it has changed since the timer was set
		e.armLocked()
	case l != nil && !l.expired(now):
		e.renewAheadLocked(now)
	default:
		e.startLocked(now, e.reasonLocked())
	}
}
