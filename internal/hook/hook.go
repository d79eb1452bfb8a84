package hook

import (
	"context"
	"slices"
)

// A Func is called when an operation begins. It returns the context of the operation, and a
// function that is called when the operation ends. Both may be nil.
type Func[Info, Result any] func(context.Context, Info) (context.Context, func(Result))

// A Chain calls several functions before and after an operation. The zero Chain calls none. A
// Chain may be used concurrently once all functions have been added.
type Chain[Info, Result any] struct {
	funcs []Func[Info, Result]
}

// Add adds f unless it is nil. panicked is called with the value of each panic of f.
func (c *Chain[Info, Result]) Add(f Func[Info, Result], panicked func(value any)) {
	if f != nil {
		c.funcs = append(c.funcs, guarded(f, panicked))
	}
}

// guarded returns f with its panics recovered.
func guarded[Info, Result any](f Func[Info, Result], panicked func(value any)) Func[Info, Result] {
	return func(ctx context.Context, info Info) (next context.Context, end func(Result)) {
		var done func(Result)
		Call(panicked, func() { next, done = f(ctx, info) }) //nolint:fatcontext // it is called once
		if next == nil {
			next = ctx
		}
		if done == nil {
			return next, nil
		}
		return next, func(r Result) { Call(panicked, func() { done(r) }) }
	}
}

// Empty reports whether the chain has no functions.
func (c *Chain[Info, Result]) Empty() bool { return len(c.funcs) == 0 }

// Begin calls the functions in order, each with the context that the previous one returned.
// It returns the last context. end calls the returned functions in reverse order; it is nil
// if there are none.
func (c *Chain[Info, Result]) Begin(ctx context.Context, info Info) (_ context.Context, end func(Result)) {
	var ends []func(Result)
	for _, f := range c.funcs {
		var done func(Result)
		if ctx, done = f(ctx, info); done != nil {
			ends = append(ends, done)
		}
	}
	switch len(ends) {
	case 0:
		return ctx, nil
	case 1:
		return ctx, ends[0]
	default:
		return ctx, func(r Result) {
			for _, done := range slices.Backward(ends) {
				done(r)
			}
		}
	}
}

// Call calls f, and panicked if f panics.
func Call(panicked func(value any), f func()) {
	defer func() {
		if v := recover(); v != nil {
			panicked(v)
		}
	}()
	f()
}
