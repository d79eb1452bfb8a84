package renew

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Engine holds the value. Its methods are safe for concurrent use.
//
// The contract, with a test for each clause:
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
//     Failures back off with jitter, and readers fail at once with the shared error
//     until the next attempt is due.
//   - Rejection is by value: a fetch that began before the rejection cannot restore
//     the rejected value. Only a source that was asked afterwards may insist on it.
//   - A panic in the source is an error.
//   - The issuer's clock decides about the expiry, also after suspend and resume.
//   - Close leaves no goroutine.
type Engine[T any] struct {
	cfg Config[T]

	// hot is cur, for a short time after a reader has read the clocks. Readers take it
	// without another check. A timer removes it.
	hot atomic.Pointer[Generation[T]]
	// cur is what may be served; nil while readers have to wait. It is written
	// by setLocked only.
	cur atomic.Pointer[Generation[T]]

	ctx    context.Context //nolint:containedctx // parent of detached fetches, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	last     *Generation[T] // the newest generation, served or rejected
	rejected bool           // last was rejected
	flight   *flight[T]
	failures int
	failure  *SourceError
	retryAt  time.Time
	wanted   time.Time     // until then the source has asked for a pause
	skew     time.Duration // issuer's clock minus ours
	timer    *time.Timer   // renews without traffic
	cool     *time.Timer   // empties hot
	closed   bool

	// If a renewal after a rejection was futile (the same value came back, or the new
	// one was rejected, too), the value was not the cause. Until holdUntil, further
	// rejections cause no renewal; otherwise a single route that always refuses would
	// exhaust the source.
	futile           int
	futileGeneration uint64
	holdUntil        time.Time
	futileAt         time.Time // when the last one was
}

// New returns an engine. It makes no fetch: the first reader causes it.
func New[T any](cfg Config[T]) *Engine[T] {
	setDefault(&cfg.Timeout, 30*time.Second)
	setDefault(&cfg.MaxLead, time.Hour)
	setDefault(&cfg.MinBackoff, time.Second)
	setDefault(&cfg.MaxBackoff, time.Minute)
	if cfg.Window == 0 {
		cfg.Window = 0.2
	}
	cfg.Window = min(cfg.Window, 0.5)
	if cfg.Spread == nil {
		cfg.Spread = rand.Float64
	}
	e := &Engine[T]{cfg: cfg}
	e.ctx, e.cancel = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	return e
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Get returns a generation to use now. A fresh one costs an atomic load. It waits
// only when there is nothing to serve, and then no longer than ctx allows.
func (e *Engine[T]) Get(ctx context.Context) (*Generation[T], error) {
	if l := e.hot.Load(); l != nil {
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
	if l := e.cur.Load(); l != nil && !l.expired(now) {
		if !l.fresh() {
			e.renewAheadLocked(now)
		}
		l = e.cur.Load()
		e.heatLocked(l, now)
		e.mu.Unlock()
		return l, nil
	}
	return e.awaitLocked(ctx, now, 0)
}

// setLocked changes what may be served.
func (e *Engine[T]) setLocked(l *Generation[T]) {
	e.cur.Store(l)
	e.hot.Store(nil)
}

const (
	// hotFor is for how long the clocks are not read. Timers stop while a machine is
	// suspended, so afterwards an expired value is served for at most this long.
	hotFor = time.Second
	// coolEarly lets the timer come in time, even if it is late.
	coolEarly = time.Millisecond
)

// heatLocked lets readers take l without reading the clocks.
func (e *Engine[T]) heatLocked(l *Generation[T], now time.Time) {
	if l.freshWall != forever {
		d := min(hotFor, l.freshUntil.Sub(now)-coolEarly)
		switch {
		case d <= 0:
			return
		case e.cool == nil:
			e.cool = time.AfterFunc(d, func() { e.hot.Store(nil) })
		default:
			e.cool.Reset(d)
		}
	}
	e.hot.Store(l)
}

// awaitLocked joins the fetch under way, or starts one, unless it is too early
// for another attempt. It releases the lock.
func (e *Engine[T]) awaitLocked(ctx context.Context, now time.Time, reason Reason) (*Generation[T], error) {
	f := e.flight
	if f == nil {
		if now.Before(e.retryAt) {
			err := e.failureLocked()
			e.mu.Unlock()
			return nil, err
		}
		if reason == 0 {
			reason = e.reasonLocked()
		}
		f = e.startLocked(now, reason)
	}
	f.waiters++
	e.mu.Unlock()
	select {
	case <-f.done:
		if reason == Manual && f.failed != nil {
			return nil, f.failed
		}
		if f.err != nil && f.put != nil {
			return f.put, nil
		}
		return f.generation, f.err
	case <-ctx.Done():
		e.mu.Lock()
		f.waiters--
		e.mu.Unlock()
		return nil, context.Cause(ctx)
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
	f := *e.failure
	f.Rejected = e.rejected
	return &f
}

// renewAheadLocked starts a background fetch. The fast path serves the value while it
// runs.
func (e *Engine[T]) renewAheadLocked(now time.Time) {
	if e.flight == nil && !now.Before(e.retryAt) {
		reason := Recheck
		if e.last.inWindow(now) && reached(e.last.RenewAt, now) {
			reason = Early
		}
		e.startLocked(now, reason)
	}
	e.setLocked(e.last.until(e.decideAgainLocked()))
}

// decideAgainLocked returns when the fast path must decide again.
func (e *Engine[T]) decideAgainLocked() time.Time {
	if e.flight != nil {
		return time.Time{} // its end publishes again
	}
	return e.retryAt
}

// Reject reports that the value of a generation was refused, and returns the generation
// to try instead. If a newer generation is in use already, the report is late and has no
// effect. If Reject returns the same generation, no other value is available.
func (e *Engine[T]) Reject(ctx context.Context, generation uint64) (*Generation[T], error) {
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
	if !e.rejected {
		if now.Before(e.holdUntil) {
			e.mu.Unlock()
			return l, nil
		}
		e.rejected = true
		if !now.Before(e.wanted) {
			e.retryAt = time.Time{} // the pause was for rechecks that no reader waited for
		}
		e.setLocked(nil)
		if e.flight != nil {
			e.flight.again, e.flight.put = true, nil
		}
		e.observe(Event[T]{Kind: Refused, Reason: Rejected, Prev: l})
	}
	return e.awaitLocked(ctx, now, Rejected)
}

// IsDoubtful reports whether renewals after the last rejections were futile, so that a
// renewal of this generation may be futile, too.
func (e *Engine[T]) IsDoubtful(generation uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last != nil && e.last.Number == generation && !e.rejected && e.futile > 0
}

// trustedFor limits for how long a rejected value is believed to be good without a fetch
// that confirms it.
const trustedFor = 10 * time.Minute

// IsTrusted reports whether a rejection of a generation may be ignored without a fetch,
// if the issuer says that the value is good.
func (e *Engine[T]) IsTrusted(generation uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last != nil && e.last.Number == generation && !e.rejected && time.Since(e.futileAt) < trustedFor
}

// AllowRenewal lets the next rejection of a generation cause a renewal even during a
// pause, because the value is known to be dead.
func (e *Engine[T]) AllowRenewal(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last != nil && e.last.Number == generation {
		e.holdUntil = time.Time{}
	}
}

// RecordFutile reports that a generation fetched because of a rejection was rejected,
// too, so the value is not the cause. Further rejections cause no renewal during a pause
// that doubles each time.
func (e *Engine[T]) RecordFutile(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last != nil && e.last.Number == generation && !e.rejected {
		e.holdLocked(generation, time.Now())
	}
}

// RecordAccepted reports that a generation fetched because of a rejection was
// accepted.
func (e *Engine[T]) RecordAccepted(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.futileGeneration < generation {
		e.futile, e.holdUntil = 0, time.Time{}
	}
}

func (e *Engine[T]) holdLocked(generation uint64, now time.Time) {
	if e.futileGeneration == generation && now.Before(e.holdUntil) {
		return // reported by another reader of the same generation
	}
	e.futile++
	e.futileGeneration, e.futileAt = generation, now
	e.holdUntil = now.Add(e.backoff(e.futile))
}

// Renew fetches now, regardless of the state of the value, and waits for the outcome.
// While the value is good, the source may return the same one. Renew respects a pause
// that the source has asked for.
func (e *Engine[T]) Renew(ctx context.Context) (*Generation[T], error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	now := time.Now()
	if e.failure != nil && now.Before(e.wanted) {
		err := e.failureLocked()
		e.mu.Unlock()
		return nil, err
	}
	if e.flight == nil {
		e.retryAt = time.Time{}
	}
	return e.awaitLocked(ctx, now, Manual)
}

// Put makes a value from outside the one in use, as the outcome of a fetch
// would. A fetch under way that began before is discarded when it ends.
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

// backoff is the pause after the n-th failure in a row: doubled each time,
// capped, the upper half of it random.
func (e *Engine[T]) backoff(n int) time.Duration {
	d := Doubled(e.cfg.MinBackoff, e.cfg.MaxBackoff, n)
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1)) //nolint:gosec // jitter needs no secrecy
}

func (e *Engine[T]) observe(ev Event[T]) {
	if e.cfg.Observe != nil {
		e.cfg.Observe(ev)
	}
}

// closeGrace bounds how long Close waits for a source that ignores its context.
const closeGrace = 5 * time.Second

// Close ends every fetch and waits for its goroutine. Readers that wait get
// ErrClosed. The error says that a source ignored the end of its context for 5 s.
func (e *Engine[T]) Close() error {
	e.mu.Lock()
	e.closed = true
	e.setLocked(nil)
	e.stopTimerLocked()
	if e.cool != nil {
		e.cool.Stop()
	}
	e.mu.Unlock()
	e.cancel()
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

// Current returns the generation in use, nil while readers have to wait. It causes
// nothing and never waits.
func (e *Engine[T]) Current() *Generation[T] { return e.cur.Load() }

// Status describes the engine now. It causes nothing and never waits.
func (e *Engine[T]) Status() Status[T] {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.statusLocked(time.Now())
}

// Fixed returns a generation outside any engine that is always fresh.
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

// Doubled is base doubled n-1 times, but no more than limit.
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
