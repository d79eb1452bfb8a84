// Package renew keeps one value that expires, such as a token, alive for many
// concurrent readers. It knows nothing of HTTP or of any platform.
//
// The contract, each clause with a test of its own:
//
//   - N concurrent readers cause one fetch, whether it succeeds or fails; all
//     of them share its outcome.
//   - A reader leaves at its own deadline. No reader leads: the fetch runs
//     detached, under a timeout of its own, so nobody's cancellation costs
//     anybody else anything.
//   - Fresh values are served by one atomic load and one look at the clock.
//     In the window before expiry they are served as well, while one fetch
//     runs in the background. Only an expired or rejected value makes readers
//     wait.
//   - The window is a fraction of the value's lifetime, so it never exceeds it.
//   - A failed renewal serves on until the real expiry or until a rejection,
//     never after. Failures back off with jitter, and readers fail at once
//     with the shared error until the next attempt is due.
//   - Rejection is by value: a fetch that began before the rejection cannot
//     bring the rejected value back. Only a source that was asked afterwards
//     may insist on it.
//   - A panic in the source is an error.
//   - The issuer's clock decides about expiry, also after suspend and resume.
//   - Close leaves no goroutine.
package renew

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Reason says why a fetch is made or was made.
type Reason uint8

// The reasons of a fetch.
const (
	First    Reason = iota + 1 // nothing was there yet
	Early                      // the window before the expiry began
	Expired                    // the value had expired
	Rejected                   // the value was rejected by those who consume it
	Manual                     // somebody asked for it
	Recheck                    // the source wants to be looked at again
	Adopted                    // a value was put in from outside
)

var reasonNames = [...]string{
	First: "first", Early: "early", Expired: "expired", Rejected: "rejected",
	Manual: "manual", Recheck: "recheck", Adopted: "adopted",
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
	// Recheck asks for another fetch in the background after that long; zero
	// means never.
	Recheck time.Duration
	// Reason, when set, replaces the reason of the fetch in what is reported:
	// a source that finds somebody else's newer value says Adopted.
	Reason Reason
}

// Query tells a source why it is asked.
type Query[T any] struct {
	Reason Reason
	// Rejected is the value that was rejected; only meaningful when
	// HasRejected. It stays set until a different value has been fetched.
	Rejected    T
	HasRejected bool
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
	Kind    Kind
	Reason  Reason
	Lease   *Lease[T] // the one in use after the event; nil when there is none
	Prev    *Lease[T] // the one in use before
	Err     error
	RetryAt time.Time
	Took    time.Duration
}

// Config describes a source and how it wants to be treated.
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
	// MinBackoff and MaxBackoff bound the pause after a failure; 0 means 1 s
	// and 60 s.
	MinBackoff, MaxBackoff time.Duration
	// RetryAt reads from an error when the source wants to be asked again;
	// nil or a zero time means that backoff decides alone.
	RetryAt func(error) time.Time
	// Proactive renews by a timer, also when nobody reads.
	Proactive bool
	// Observe is told of events, in order, under the engine's lock: it must
	// neither block nor call back.
	Observe func(Event[T])
}

// Lease is one generation of the value. It is immutable.
type Lease[T any] struct {
	Value T
	// Generation counts different values, from 1.
	Generation uint64
	// Obtained and Expires are on the local clock; Expires is zero when the
	// end is unknown.
	Obtained, Expires time.Time
	// RenewAt is when the engine means to renew; zero when it does not.
	RenewAt time.Time
	Reason  Reason

	// Both clocks decide: the monotonic one survives a wall clock that jumps
	// back, the wall clock survives a suspended machine.
	freshUntil time.Time
	freshWall  int64
}

const forever = math.MaxInt64

// fresh is the whole of the fast path's decision.
func (l *Lease[T]) fresh() bool {
	if l.freshWall == forever {
		return true
	}
	now := time.Now()
	return now.UnixNano() < l.freshWall && now.Before(l.freshUntil)
}

func (l *Lease[T]) expired(now time.Time) bool {
	return !l.Expires.IsZero() && (!now.Before(l.Expires) || now.UnixNano() >= l.Expires.UnixNano())
}

// until returns a copy that the fast path serves up to t, a zero t meaning for
// ever, but never past the expiry.
func (l *Lease[T]) until(t time.Time) *Lease[T] {
	c := *l
	if t.IsZero() || (!c.Expires.IsZero() && c.Expires.Before(t)) {
		t = c.Expires
	}
	c.freshUntil, c.freshWall = t, forever
	if !t.IsZero() {
		c.freshWall = t.UnixNano()
	}
	return &c
}

// Failure is the error that all readers share while the source is failing.
type Failure struct {
	RetryAt  time.Time
	Failures int
	Rejected bool
	Err      error
}

// Error implements error.
func (f *Failure) Error() string {
	return fmt.Sprintf("renew: %v (attempt %d, next at %s)", f.Err, f.Failures, f.RetryAt.Format(time.RFC3339))
}

// Unwrap gives the source's error.
func (f *Failure) Unwrap() error { return f.Err }

// PanicError is a panic of the source.
type PanicError struct{ Value any }

// Error names the panic value.
func (p *PanicError) Error() string { return fmt.Sprintf("the source panicked: %v", p.Value) }

// Engine holds the value. Its methods are safe for concurrent use.
type Engine[T any] struct {
	cfg Config[T]

	// cur is what may be served; nil while readers have to wait.
	cur atomic.Pointer[Lease[T]]

	ctx    context.Context //nolint:containedctx // parent of detached fetches, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	last     *Lease[T] // the newest lease, served or rejected
	rejected bool      // last was rejected
	flight   *flight[T]
	failures int
	failure  *Failure
	retryAt  time.Time
	skew     time.Duration // issuer's clock minus ours
	timer    *time.Timer
	closed   bool

	// A rejection that renewal did not mend (the same value came back, or the
	// replay with the new one was rejected too) says that the value was not
	// the trouble. Until holdUntil further rejections are taken as such, or a
	// single route that always refuses would exhaust the source.
	vain      int
	vainGen   uint64
	holdUntil time.Time
}

type flight[T any] struct {
	done    chan struct{}
	began   time.Time
	query   Query[T]
	base    uint64 // generation when it began
	again   bool   // a rejection came after it began: its answer may be stale
	waiters int
	lease   *Lease[T]
	err     error // what readers get
	failed  error // why the fetch failed, also when readers are still served
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
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Get returns a lease to use now. A fresh one costs an atomic load and a look
// at the clock. It waits only when there is nothing to serve, and then no
// longer than ctx allows.
func (e *Engine[T]) Get(ctx context.Context) (*Lease[T], error) {
	if l := e.cur.Load(); l != nil && l.fresh() {
		return l, nil
	}
	return e.get(ctx)
}

func (e *Engine[T]) get(ctx context.Context) (*Lease[T], error) {
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
		e.mu.Unlock()
		return l, nil
	}
	return e.awaitLocked(ctx, now, 0)
}

// awaitLocked joins the fetch under way, or starts one, unless it is too early
// for another attempt. It releases the lock.
func (e *Engine[T]) awaitLocked(ctx context.Context, now time.Time, reason Reason) (*Lease[T], error) {
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
		return f.lease, f.err
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

// renewAheadLocked starts a background fetch and lets the fast path serve on
// while it runs.
func (e *Engine[T]) renewAheadLocked(now time.Time) {
	if e.flight == nil && !now.Before(e.retryAt) {
		reason := Early
		if l := e.last; l.Expires.IsZero() {
			reason = Recheck
		}
		e.startLocked(now, reason)
	}
	e.cur.Store(e.last.until(e.nextLookLocked()))
}

// nextLookLocked is when the fast path has to stop and think again.
func (e *Engine[T]) nextLookLocked() time.Time {
	if e.flight != nil {
		return time.Time{} // its end publishes anew
	}
	return e.retryAt
}

func (e *Engine[T]) startLocked(now time.Time, reason Reason) *flight[T] {
	f := &flight[T]{done: make(chan struct{}), began: now, query: Query[T]{Reason: reason}}
	if e.last != nil {
		f.base = e.last.Generation
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
			f.query = Query[T]{Reason: Rejected, Rejected: e.last.Value, HasRejected: true}
			e.mu.Unlock()
			continue
		}
		e.settleLocked(f, out)
		e.mu.Unlock()
		return
	}
}

// fetch calls the source under the engine's own timeout. A source that does
// not heed its context is left behind; should it answer after all, its value
// is not wasted.
func (e *Engine[T]) fetch(f *flight[T]) outcome[T] {
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.Timeout)
	ch := make(chan outcome[T], 1)
	query := f.query
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
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
	}()
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
	if e.closed || e.flight != nil || e.cur.Load() != nil {
		return
	}
	if e.rejected && e.cfg.Same(g.Value, e.last.Value) {
		return
	}
	e.installLocked(g, Expired, time.Now(), time.Now())
}

// settleLocked ends a flight.
func (e *Engine[T]) settleLocked(f *flight[T], out outcome[T]) {
	now := time.Now()
	e.flight = nil
	defer close(f.done)
	switch {
	case e.closed:
		f.err = ErrClosed
	case e.last != nil && e.last.Generation != f.base && e.cur.Load() != nil:
		f.lease = e.cur.Load() // something newer was put in meanwhile
	case out.err != nil:
		e.failLocked(f, out.err, now)
	case e.rejected && e.cfg.Same(out.grant.Value, e.last.Value):
		e.confirmLocked(f, out.grant, now)
	default:
		reason := f.query.Reason
		if out.grant.Reason != 0 {
			reason = out.grant.Reason
		}
		f.lease = e.installLocked(out.grant, reason, f.began, now)
	}
}

func (e *Engine[T]) failLocked(f *flight[T], err error, now time.Time) {
	e.failures++
	e.retryAt = now.Add(e.backoff(e.failures))
	if e.cfg.RetryAt != nil {
		if t := e.cfg.RetryAt(err); t.After(e.retryAt) {
			e.retryAt = t
		}
	}
	e.failure = &Failure{RetryAt: e.retryAt, Failures: e.failures, Rejected: e.rejected, Err: err}
	f.failed = e.failureLocked()
	l := e.cur.Load()
	if l != nil && l.expired(now) {
		e.cur.Store(nil)
		l = nil
	}
	if l != nil {
		l = e.last.until(e.retryAt)
		e.cur.Store(l)
		f.lease = l // nobody fails while the value is good
	} else {
		f.err = f.failed
	}
	if e.last != nil {
		e.armLocked(e.retryAt)
	}
	e.observe(Event[T]{
		Kind: Failed, Reason: f.query.Reason, Lease: l, Prev: e.last, Err: err,
		RetryAt: e.retryAt, Took: now.Sub(f.began),
	})
}

// confirmLocked takes the word of a source that, asked after the rejection,
// insists on the rejected value.
func (e *Engine[T]) confirmLocked(f *flight[T], g Grant[T], now time.Time) {
	e.holdLocked(e.last.Generation, now)
	e.rejected = false
	e.successLocked()
	l := e.last
	e.publishLocked(e.leaseOf(g, l.Generation, l.Reason, f.began, now))
	f.lease = e.cur.Load()
	e.observe(Event[T]{Kind: Confirmed, Reason: f.query.Reason, Lease: f.lease, Prev: l, Took: now.Sub(f.began)})
}

func (e *Engine[T]) successLocked() { e.failures, e.failure, e.retryAt = 0, nil, time.Time{} }

// installLocked makes a grant the value in use. The same value again keeps its
// generation.
func (e *Engine[T]) installLocked(g Grant[T], reason Reason, began, now time.Time) *Lease[T] {
	prev := e.last
	e.successLocked()
	if prev != nil && e.cfg.Same(g.Value, prev.Value) {
		l := e.leaseOf(g, prev.Generation, prev.Reason, began, now)
		if !l.RenewAt.IsZero() && l.RenewAt.Before(now.Add(e.cfg.MinBackoff)) {
			// The source has no successor yet; asking without a pause would spin.
			l.RenewAt = now.Add(max(e.cfg.MinBackoff, l.Expires.Sub(now)/4))
		}
		e.publishLocked(l)
		return e.cur.Load()
	}
	gen := uint64(1)
	if prev != nil {
		gen = prev.Generation + 1
	}
	e.rejected = false
	e.publishLocked(e.leaseOf(g, gen, reason, began, now))
	l := e.cur.Load()
	e.observe(Event[T]{Kind: Renewed, Reason: reason, Lease: l, Prev: prev, Took: now.Sub(began)})
	return l
}

// leaseOf translates a grant to the local clock and decides when to renew.
func (e *Engine[T]) leaseOf(g Grant[T], gen uint64, reason Reason, began, now time.Time) *Lease[T] {
	l := &Lease[T]{Value: g.Value, Generation: gen, Obtained: now, Reason: reason}
	if !g.Issued.IsZero() {
		// A Date header has whole seconds; less than two is no skew.
		e.skew = g.Issued.Sub(began)
		if e.skew.Abs() < 2*time.Second {
			e.skew = 0
		}
	}
	if !g.Expires.IsZero() {
		life := g.Expires.Add(-e.skew).Round(0).Sub(now.Round(0))
		if life > 0 {
			l.Expires = now.Add(life)
			if e.cfg.Window > 0 {
				lead := min(time.Duration(float64(life)*e.cfg.Window), e.cfg.MaxLead)
				lead = time.Duration(float64(lead) * (0.9 + 0.2*e.cfg.Spread()))
				l.RenewAt = l.Expires.Add(-min(lead, life/2))
			}
		}
		// Already over, says the issuer that just handed it out: its word on
		// the expiry is worth nothing, the value may be. Expiry unknown, then.
	}
	if g.Recheck > 0 {
		if t := now.Add(g.Recheck); l.RenewAt.IsZero() || t.Before(l.RenewAt) {
			l.RenewAt = t
		}
	}
	return l
}

// publishLocked makes l the lease in use.
func (e *Engine[T]) publishLocked(l *Lease[T]) {
	e.last = l
	e.cur.Store(l.until(l.RenewAt))
	if !l.RenewAt.IsZero() {
		e.armLocked(l.RenewAt)
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
		if l.fresh() && now.Before(l.RenewAt) {
			return
		}
		e.renewAheadLocked(now)
		return
	}
	e.startLocked(now, e.reasonLocked())
}

// Reject reports that the value of a generation was refused by those who
// consume it, and returns the lease to try instead. When a newer generation is
// in use already, the report is late and harms nothing. When the returned
// lease is of the same generation, there is no other value to be had.
func (e *Engine[T]) Reject(ctx context.Context, generation uint64) (*Lease[T], error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	l := e.last
	if l == nil || l.Generation != generation {
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
		e.cur.Store(nil)
		if e.flight != nil {
			e.flight.again = true
		}
		e.observe(Event[T]{Kind: Refused, Reason: Rejected, Prev: l})
	}
	return e.awaitLocked(ctx, now, Rejected)
}

// Vain reports that a generation fetched because of a rejection was rejected
// as well: whatever is wrong, it is not the value. Further rejections are held
// back for a pause that doubles each time.
func (e *Engine[T]) Vain(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last != nil && e.last.Generation == generation && !e.rejected {
		e.holdLocked(generation, time.Now())
	}
}

// Mended reports that a generation fetched because of a rejection was
// accepted.
func (e *Engine[T]) Mended(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.vainGen < generation {
		e.vain, e.holdUntil = 0, time.Time{}
	}
}

func (e *Engine[T]) holdLocked(generation uint64, now time.Time) {
	if e.vainGen == generation && now.Before(e.holdUntil) {
		return // the others of the same herd
	}
	e.vain++
	e.vainGen = generation
	e.holdUntil = now.Add(e.backoff(e.vain))
}

// Renew fetches now, whatever the state of the value, and waits for the
// outcome. It heeds a pause that the source itself has asked for.
func (e *Engine[T]) Renew(ctx context.Context) (*Lease[T], error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	now := time.Now()
	if f := e.failure; f != nil && e.cfg.RetryAt != nil && now.Before(e.cfg.RetryAt(f.Err)) {
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
func (e *Engine[T]) Put(g Grant[T], reason Reason) (*Lease[T], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	now := time.Now()
	return e.installLocked(g, reason, now, now), nil
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

// State sums up what an engine is doing.
type State uint8

// The states.
const (
	Empty     State = iota + 1 // nothing fetched yet
	Fresh                      // served without a thought
	Renewing                   // served, and being renewed
	Lapsed                     // expired or rejected: readers wait
	BackedOff                  // expired or rejected, and readers fail until RetryAt
	Shut                       // closed
)

// Status is a picture of an engine.
type Status[T any] struct {
	State    State
	Lease    *Lease[T] // the newest one, nil when none
	Rejected bool
	Fetching bool
	Waiters  int
	Failures int
	Err      error // of the last fetch, nil after a success
	RetryAt  time.Time
	Skew     time.Duration
}

// Status describes the engine now. It causes nothing.
func (e *Engine[T]) Status() Status[T] {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	s := Status[T]{
		Lease: e.last, Rejected: e.rejected, Fetching: e.flight != nil,
		Failures: e.failures, RetryAt: e.retryAt, Skew: e.skew,
	}
	if e.failure != nil {
		s.Err = e.failure.Err
	}
	if e.flight != nil {
		s.Waiters = e.flight.waiters
	}
	cur := e.cur.Load()
	switch {
	case e.closed:
		s.State = Shut
	case cur != nil && !cur.expired(now) && e.flight == nil:
		s.State = Fresh
	case cur != nil && !cur.expired(now):
		s.State = Renewing
	case e.flight == nil && now.Before(e.retryAt):
		s.State = BackedOff
	case e.last == nil:
		s.State = Empty
	default:
		s.State = Lapsed
	}
	return s
}

// closeGrace bounds how long Close waits for a source that ignores its context.
const closeGrace = 5 * time.Second

// Close ends every fetch and waits for its goroutine. Readers that wait get
// ErrClosed. The error says that a source did not heed its context within 5 s.
func (e *Engine[T]) Close() error {
	e.mu.Lock()
	e.closed = true
	e.cur.Store(nil)
	e.stopTimerLocked()
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

// Current returns the lease in use, nil while readers have to wait. It causes
// nothing and never waits.
func (e *Engine[T]) Current() *Lease[T] { return e.cur.Load() }

// Fixed returns a lease outside any engine that is always fresh.
func Fixed[T any](v T) *Lease[T] {
	l := &Lease[T]{Value: v, Generation: 1, Obtained: time.Now(), Reason: First}
	return l.until(time.Time{})
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
