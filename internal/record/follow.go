package record

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"
)

const (
	// minPoll and maxPoll are the shortest and the longest pause between two loads of a
	// record that cannot be watched.
	minPoll = 25 * time.Millisecond
	maxPoll = 2 * time.Second
	// minWatchPause and maxWatchPause are the shortest and the longest pause before a
	// watch that has ended is started again.
	minWatchPause = time.Second
	maxWatchPause = time.Minute
)

// Notify calls changed after each change of the record, until stop is called. stop is nil
// if the store does not support this; see [Notifier].
func (s *Slot[T]) Notify(changed func()) (stop func()) { return notify(s.cfg.Store, s.name, changed) }

// Watched reports whether the store can be watched.
func (s *Slot[T]) Watched(ctx context.Context) bool { return s.cfg.Store.Watch(ctx, s.name) != nil }

// Follow yields the record, or [ErrNoRecord], and yields it again after each change,
// until ctx ends or the loop ends. It polls a record that cannot be watched. If the store
// fails, Follow yields the error and tries again after a pause.
func (s *Slot[T]) Follow(ctx context.Context) iter.Seq2[Entry[T], error] {
	if s.Watched(ctx) {
		return s.watch(ctx)
	}
	return s.poll(ctx)
}

func (s *Slot[T]) watch(ctx context.Context) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		for pause := minWatchPause; ; pause = min(2*pause, maxWatchPause) {
			for raw, err := range s.cfg.Store.Watch(ctx, s.name) {
				if ctx.Err() != nil {
					return
				}
				var e Entry[T]
				if err == nil {
					pause = minWatchPause
					s.seen.told(raw.Revision, s.cfg.Clock())
					e, err = s.decode(raw)
				}
				if !yield(e, err) {
					return
				}
			}
			if sleep(ctx, jitter(pause)) != nil {
				return
			}
		}
	}
}

func (s *Slot[T]) poll(ctx context.Context) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		for pause := minPoll; ctx.Err() == nil; pause = min(2*pause, maxPoll) {
			if e, err := s.Load(ctx); ctx.Err() != nil || !yield(e, err) {
				return
			}
			if sleep(ctx, jitter(pause)) != nil {
				return
			}
		}
	}
}

// Await waits until the record differs from e, but at most for d. The error is that of
// ctx.
func (s *Slot[T]) Await(ctx context.Context, e Entry[T], d time.Duration) error {
	within, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for now, err := range s.Follow(within) {
		if err == nil && now.Revision != e.Revision {
			return nil
		}
	}
	return context.Cause(ctx)
}

// jitter returns d, plus or minus up to a quarter.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) // #nosec G404 -- not a secret
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
