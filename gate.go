package agrenting

import (
	"context"
	"sync"
	"sync/atomic"
)

// gate counts the requests of one credential generation that are between
// stamp and response headers, and can be closed, so that a rotation waits
// until none is left that the platform could meet with a dead key. Bodies of
// answers do not count: authentication is decided with the headers.
//
// A request that passes an open gate pays two atomic additions.
type gate struct {
	// state is the number of requests inside, plus gateClosed.
	state atomic.Int64

	mu      sync.Mutex
	opened  chan struct{} // closed when those that wait may look again
	drained chan struct{} // closed when the last one has left
}

const gateClosed = int64(1) << 40

// enter reports whether the request may go on; if not, wait first.
func (g *gate) enter() bool {
	if g == nil || g.state.Add(1) < gateClosed {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g != nil && g.state.Add(-1) == gateClosed {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.drained != nil && g.state.Load() == gateClosed {
			close(g.drained)
			g.drained = nil
		}
	}
}

// wait returns when the gate is open, or ctx is done.
func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened == nil {
		return nil
	}
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// shut closes the gate to newcomers. The channel is closed once those inside
// have left.
func (g *gate) shut() (drained <-chan struct{}) {
	if drained, ok := g.shutIfOpen(); ok {
		return drained
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drained != nil {
		return g.drained
	}
	done := make(chan struct{})
	close(done)
	return done
}

// shutIfOpen is shut for a gate that nobody has shut before.
func (g *gate) shutIfOpen() (drained <-chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		return nil, false
	}
	g.opened = make(chan struct{})
	g.drained = make(chan struct{})
	drained = g.drained
	if g.state.Add(gateClosed) == gateClosed {
		close(g.drained)
		g.drained = nil
	}
	return drained, true
}

// open lets newcomers in again.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		g.state.Add(-gateClosed)
		g.wakeLocked()
		g.opened, g.drained = nil, nil
	}
}

// pass tells those that wait to look for another generation; the gate stays
// closed, since its generation is over.
func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		g.wakeLocked()
	}
}

func (g *gate) wakeLocked() {
	if !g.overLocked() {
		close(g.opened)
	}
}

// over reports whether the gate has passed its waiters on, and so will never
// let anybody in.
func (g *gate) over() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.overLocked()
}

func (g *gate) overLocked() bool {
	select {
	case <-g.opened: // nil, and so never ready, while the gate is open
		return true
	default:
		return false
	}
}

// inside is how many requests have passed and not yet left.
func (g *gate) inside() int { return int(g.state.Load() & (gateClosed - 1)) }
