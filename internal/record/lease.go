package record

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"
)

// ErrLeaseLost means that another process has taken over the lease.
var ErrLeaseLost = errors.New("agrenting: another process has taken over the work on the record")

const (
	// holderLimit bounds each store operation of a holder.
	holderLimit = time.Second
	// maxTakeoverPause bounds the random pause of processes that have waited for a
	// lease to end.
	maxTakeoverPause = 100 * time.Millisecond
	// maxOwnWrites bounds how often one write is repeated. A write is repeated
	// after other writes of the same holder, and if the store was slower than the
	// limit.
	maxOwnWrites = 8
)

// Left returns how long the lease of e may still last, or 0 if it has ended. It
// depends on how long this process has seen the record unchanged.
func (s *Slot[T]) Left(e Entry[T]) time.Duration {
	if e.Lease.Holder == "" {
		return 0
	}
	return max(0, e.Lease.Duration-s.seen.unchanged(e.Revision))
}

// Unchanged returns how long this process has seen e unchanged.
func (s *Slot[T]) Unchanged(e Entry[T]) time.Duration { return s.seen.unchanged(e.Revision) }

// TakeoverPause returns how long to wait after the end of another process's lease
// before trying to acquire it.
func TakeoverPause() time.Duration {
	return mathrand.N(maxTakeoverPause) // #nosec G404 -- not a secret
}

// Terms are the terms of a lease.
type Terms struct {
	Holder string
	// Duration is how long the lease lasts after each write.
	Duration time.Duration
	// Patience, if set, makes the duration at least this many times the slowest
	// recent store operation.
	Patience int
	// Every is how often the lease is extended while it is kept.
	Every time.Duration
}

// Held is a lease that this process holds. It is safe for concurrent use.
type Held[T any] struct {
	slot  *Slot[T]
	terms Terms

	// turn has room for the one caller that may use the fields below. Waiting for
	// it respects the context.
	turn  chan struct{}
	entry Entry[T]
	began time.Duration // when the last successful write began
	tried []string      // the write IDs since then
	lost  bool
}

// Acquire takes the lease by replacing e with a record that has body. The error
// matches [ErrConflict] if another process was faster. It matches
// [context.DeadlineExceeded] if the store took longer than 1 s, for example because
// a stopped process keeps it locked.
func (s *Slot[T]) Acquire(ctx context.Context, e Entry[T], body T, terms Terms) (*Held[T], error) {
	h := &Held[T]{slot: s, terms: terms, turn: make(chan struct{}, 1), entry: e}
	if err := h.attempt(ctx, h.entry, body, h.lease()); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Held[T]) lease() Lease {
	d := h.terms.Duration
	if h.terms.Patience > 0 {
		d = max(d, time.Duration(h.terms.Patience)*h.slot.slowest())
	}
	return Lease{Holder: h.terms.Holder, Duration: d}
}

// attempt makes one write.
func (h *Held[T]) attempt(ctx context.Context, over Entry[T], body T, lease Lease) error {
	began := h.slot.cfg.Clock()
	lease.Counter = max(over.Lease.Counter, h.entry.Lease.Counter) // it never decreases, even if the store was rolled back
	over.Body, over.Lease, over.write = body, lease, rand.Text()
	h.tried = append(h.tried, over.write)
	saved, err := h.slot.save(ctx, over, holderLimit)
	if err != nil {
		return err
	}
	h.entry, h.began, h.tried = saved, began, nil
	return nil
}

// own reports whether a record is the work of this holder: it names the holder, or
// one of the holder's writes made it.
func (h *Held[T]) own(e Entry[T]) bool {
	return e.Lease.Holder == h.terms.Holder || e.write == h.entry.write || slices.Contains(h.tried, e.write)
}

// write replaces the record. A conflict means that the lease is lost, unless the
// record was still written by this holder or is missing.
func (h *Held[T]) write(ctx context.Context, body T, lease Lease) error {
	over := h.entry
	for n := 1; ; n++ {
		if h.lost {
			return ErrLeaseLost
		}
		err := h.attempt(ctx, over, body, lease)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && n < maxOwnWrites {
			continue // the store was slower than the limit, and the caller has more time
		}
		if err == nil || !errors.Is(err, ErrConflict) || n == maxOwnWrites {
			return err
		}
		now, err := limited(ctx, holderLimit, h.slot.Load)
		switch {
		case errors.Is(err, ErrNoRecord):
			over = Entry[T]{Lease: h.entry.Lease}
		case err != nil:
			return err
		default:
			h.lost = !h.own(now)
			over = now
		}
	}
}

// take waits for the turn of the caller.
func (h *Held[T]) take(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *Held[T]) give() { <-h.turn }

// Entry returns the record as it was last written.
func (h *Held[T]) Entry() Entry[T] {
	h.turn <- struct{}{}
	defer h.give()
	return h.entry
}

// Save replaces the body and extends the lease.
func (h *Held[T]) Save(ctx context.Context, body T) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	return h.write(ctx, body, h.lease())
}

// Extend extends the lease. An error other than [ErrLeaseLost] means that the store
// failed. The lease may then end.
func (h *Held[T]) Extend(ctx context.Context) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	return h.write(ctx, h.entry.Body, h.lease())
}

// Check returns nil if the platform may be called, because the lease cannot have
// ended. If the lease may have ended, Check first tries to extend it.
func (h *Held[T]) Check(ctx context.Context) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	switch {
	case h.lost:
		return ErrLeaseLost
	case h.slot.cfg.Clock()-h.began < h.entry.Lease.Duration:
		return nil
	default:
		return h.write(ctx, h.entry.Body, h.lease())
	}
}

// Release replaces the body and releases the lease.
func (h *Held[T]) Release(ctx context.Context, body T) error {
	if err := h.take(ctx); err != nil {
		return err
	}
	defer h.give()
	return h.write(ctx, body, Lease{})
}

// Keep extends the lease from time to time until stop is called or ctx ends. If an
// extension has begun, stop waits for it.
func (h *Held[T]) Keep(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(h.terms.Every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if errors.Is(h.Extend(ctx), ErrLeaseLost) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
