package renew

import (
	"context"
	"errors"
	"fmt"
	"time"
)

type flight[T any] struct {
	done       chan struct{}
	began      time.Time
	query      Query[T]
	base       uint64 // generation when it began
	again      bool   // a rejection came after it began: its answer may be outdated
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
		if e.rejected {
			f.query.Rejected, f.query.HasRejected = e.last.Value, true
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
		if f.again && e.rejected && !e.closed && out.err == nil && e.cfg.Same(out.grant.Value, e.last.Value) {
			// The answer predates the rejection; ask once more.
			f.again, f.began = false, time.Now()
			f.query.Reason, f.query.Rejected, f.query.HasRejected = Rejected, e.last.Value, true
			e.mu.Unlock()
			continue
		}
		if f.mayRepeat() && !e.closed && out.err == nil && e.repeatsLocked(out.grant) && e.last.expired(time.Now()) {
			// It may not have asked for a successor, and that is needed now.
			f.began, f.query.Reason = time.Now(), Expired
			e.mu.Unlock()
			continue
		}
		e.finishLocked(f, out)
		e.mu.Unlock()
		return
	}
}

// mayRepeat reports whether the source may answer with the value in use even if it could
// obtain a successor.
func (f *flight[T]) mayRepeat() bool { return f.query.Reason == Recheck || f.query.Reason == Manual }

// repeatsLocked reports whether a grant is of the value in use.
func (e *Engine[T]) repeatsLocked(g Grant[T]) bool {
	return e.last != nil && e.cfg.Same(g.Value, e.last.Value)
}

// fetch calls the source with the engine's timeout. It does not wait for a source that
// ignores its context; if that source answers later, its value is used.
func (e *Engine[T]) fetch(f *flight[T]) outcome[T] {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Timeout)
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

func (e *Engine[T]) timeoutError() error {
	if e.ctx.Err() != nil {
		return ErrClosed
	}
	return fmt.Errorf("the source did not answer within %v: %w", e.cfg.Timeout, context.DeadlineExceeded)
}

func (e *Engine[T]) adoptLate(g Grant[T]) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.cur.Load(); e.closed || e.flight != nil || (l != nil && !l.expired(time.Now())) {
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
	case e.last != nil && e.last.Number != f.base && e.cur.Load() != nil:
		f.generation = e.cur.Load() // something newer was put in during the fetch
	case out.err != nil:
		e.failLocked(f, out.err, now)
	case e.rejected && e.cfg.Same(out.grant.Value, e.last.Value):
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
	e.failures++
	e.retryAt = now.Add(e.backoff(e.failures))
	if e.cfg.RetryAt != nil {
		e.wanted = e.cfg.RetryAt(err)
		if e.wanted.After(e.retryAt) {
			e.retryAt = e.wanted
		}
	}
	e.failure = &SourceError{RetryAt: e.retryAt, Failures: e.failures, Rejected: e.rejected, Err: err}
	f.failed = e.failureLocked()
	l := e.cur.Load()
	if l != nil && l.expired(now) {
		e.setLocked(nil)
		l = nil
	}
	if l != nil {
		l = e.last.until(e.retryAt)
		e.setLocked(l)
		f.generation = l // readers do not fail while the value is good
	} else {
		f.err = f.failed
	}
	if e.last != nil {
		e.armLocked(e.retryAt)
	}
	e.observe(Event[T]{
		Kind: Failed, Reason: f.query.Reason, Generation: l, Prev: e.last, Err: err,
		RetryAt: e.retryAt, Took: now.Sub(f.began),
	})
}

// confirmLocked takes the word of a source that, asked after the rejection,
// insists on the rejected value.
func (e *Engine[T]) confirmLocked(f *flight[T], g Grant[T], now time.Time) {
	e.holdLocked(e.last.Number, now)
	e.rejected = false
	e.successLocked()
	l := e.last
	e.publishLocked(e.generationOf(g, *l, f.began, now))
	f.generation = e.cur.Load()
	e.observe(Event[T]{Kind: Confirmed, Reason: f.query.Reason, Generation: f.generation, Prev: l, Took: now.Sub(f.began)})
}

func (e *Engine[T]) successLocked() {
	e.failures, e.failure, e.retryAt, e.wanted = 0, nil, time.Time{}, time.Time{}
}

// installLocked makes a grant the value in use. The same value again keeps its
// generation.
func (e *Engine[T]) installLocked(g Grant[T], reason Reason, began, now time.Time) *Generation[T] {
	prev := e.last
	e.successLocked()
	if prev != nil && e.cfg.Same(g.Value, prev.Value) {
		e.publishLocked(e.generationOf(g, *prev, began, now))
		return e.cur.Load()
	}
	next := Generation[T]{Number: 1, Reason: reason}
	if prev != nil {
		next.Number = prev.Number + 1
	}
	e.rejected = false
	e.publishLocked(e.generationOf(g, next, began, now))
	l := e.cur.Load()
	e.observe(Event[T]{Kind: Renewed, Reason: reason, Generation: l, Prev: prev, Took: now.Sub(began)})
	return l
}

// generationOf translates a grant to the local clock and decides when to renew. like has
// the same number: a value that is fetched again keeps its lead, because otherwise each
// recheck would find a shorter life and renew later.
func (e *Engine[T]) generationOf(g Grant[T], like Generation[T], began, now time.Time) *Generation[T] {
	l := &Generation[T]{Value: g.Value, Number: like.Number, Obtained: now, Reason: like.Reason, ends: g.Expires}
	if !g.Issued.IsZero() {
		e.skew = skewOf(g.Issued, began, now)
	}
	if g.Recheck > 0 {
		l.recheckAt = now.Add(g.Recheck)
	}
	if g.Expires.IsZero() {
		return l
	}
	life := g.Expires.Add(-e.skew).Round(0).Sub(now.Round(0))
	known := l.ends.Equal(like.ends) && (!like.Expires.IsZero() || like.over)
	switch {
	case life > endless:
	case life > 0:
		l.Expires = now.Add(life)
		e.setWindow(l, like, max(life, g.Life), began, now)
	case known:
		// The value has expired, and the source returns it again: the source is late.
		// The value is served, because no other is available, and fetched often.
		l.over = true
		if late := now.Add(min(max(-life/4, e.cfg.MinBackoff), e.cfg.MaxBackoff)); l.recheckAt.IsZero() || late.Before(l.recheckAt) {
			l.recheckAt = late
		}
	default:
		// The issuer has just issued it as expired, so its time cannot be right. The
		// expiry is unknown.
	}
	return l
}

// endless is a life that is treated as having no end. Times after 2262 cannot be
// expressed in nanoseconds since 1970.
const endless = 100 * 365 * 24 * time.Hour

// setWindow decides when a generation that expires is renewed ahead. whole is its life
// from the beginning.
func (e *Engine[T]) setWindow(l *Generation[T], like Generation[T], whole time.Duration, began, now time.Time) {
	if e.cfg.Window <= 0 {
		return
	}
	life := l.Expires.Sub(now)
	if like.lead == 0 || !l.ends.Equal(like.ends) {
		l.lead = e.leadOf(whole)
		l.RenewAt = l.Expires.Add(-l.lead)
		return
	}
	l.lead = like.lead
	l.RenewAt = l.Expires.Add(-l.lead)
	if !like.inWindow(began) {
		return
	}
	// The source was asked for a successor in the window, and has none yet. To ask
	// without a pause would spin, and a recheck in between does not delay it.
	l.RenewAt = like.RenewAt
	if reached(like.RenewAt, began) {
		l.RenewAt = now.Add(max(e.cfg.MinBackoff, life/4))
	}
}

// skewOf returns by how much the issuer's clock is certainly ahead: its time was read
// between two of ours. It has whole seconds, so less than two counts as none.
func skewOf(issued, began, now time.Time) time.Duration {
	skew := time.Duration(0)
	switch {
	case issued.Before(began):
		skew = issued.Sub(began)
	case issued.After(now):
		skew = issued.Sub(now)
	}
	if skew.Abs() < 2*time.Second {
		return 0
	}
	return skew
}

// leadOf is how long before its end a life is renewed.
func (e *Engine[T]) leadOf(life time.Duration) time.Duration {
	lead := min(time.Duration(float64(life)*e.cfg.Window), e.cfg.MaxLead)
	lead = time.Duration(float64(lead) * (0.9 + 0.2*e.cfg.Spread()))
	return min(lead, life/2)
}

// publishLocked makes l the generation in use.
func (e *Engine[T]) publishLocked(l *Generation[T]) {
	e.last = l
	due := l.due()
	e.setLocked(l.until(due))
	if !due.IsZero() {
		e.armLocked(due)
	}
}

// armLocked sets the timer that renews without traffic.
func (e *Engine[T]) armLocked(at time.Time) {
	if !e.cfg.Proactive || e.closed {
		return
	}
	e.stopTimerLocked()
	e.timer = time.AfterFunc(max(0, time.Until(at)), e.tick)
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
	now := time.Now()
	if e.closed || e.flight != nil || e.last == nil || now.Before(e.retryAt) {
		return
	}
	if l := e.cur.Load(); l != nil && !l.expired(now) {
		if l.fresh() && now.Before(l.due()) {
			return
		}
		e.renewAheadLocked(now)
		return
	}
	e.startLocked(now, e.reasonLocked())
}
