package gate

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Gate counts the requests of one generation that were sent but whose response
// headers have not arrived. It can be closed, so that a rotation can wait until the
// platform cannot receive any more requests with a dead key. Response bodies do not
// count, because the platform checks the credential before it sends the headers.
//
// The zero value is an open gate. A nil *Gate is always open and counts nothing. A
// request that passes an open gate costs two atomic additions.
type Gate struct {
	// state is the number of requests inside, plus closed.
	state atomic.Int64

	mu      sync.Mutex
	opened  chan struct{} // closed when waiters may try again
	drained chan struct{} // closed when the last request has left
}

const closed = int64(1) << 40

// Enter reports whether the request may proceed. If it may, call Leave when its
// response headers have arrived. If it may not, call Wait first.
func (g *Gate) Enter() bool { return g == nil || g.enter() }

func (g *Gate) enter() bool {
	if g.state.Add(1) < closed {
		return true
	}
	g.Leave()
	return false
}

// Closed reports whether new requests have to wait or use another generation.
func (g *Gate) Closed() bool { return g != nil && g.state.Load() >= closed }

// Leave ends what Enter has begun.
func (g *Gate) Leave() {
	if g != nil && g.state.Add(-1) == closed {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.drained != nil && g.state.Load() == closed {
			close(g.drained)
			g.drained = nil
		}
	}
}

// Wait returns when the gate is open or has passed its waiters on. If ctx ends first,
// Wait returns the cause.
func (g *Gate) Wait(ctx context.Context) error {
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

// Shut closes the gate to new requests. The returned channel is closed when all
// requests inside have left.
func (g *Gate) Shut() (drained <-chan struct{}) {
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

// shutIfOpen is like Shut, for a gate that is not shut yet.
func (g *Gate) shutIfOpen() (drained <-chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		return nil, false
	}
	g.opened = make(chan struct{})
	g.drained = make(chan struct{})
	drained = g.drained
	if g.state.Add(closed) == closed {
		close(g.drained)
		g.drained = nil
	}
	return drained, true
}

// Open admits new requests again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		g.state.Add(-closed)
		g.wakeLocked()
		g.opened, g.drained = nil, nil
	}
}

// Pass sends the waiters to another generation. The gate stays closed, because its
// generation is over. Pass has no effect on an open gate.
func (g *Gate) Pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		g.wakeLocked()
	}
}

func (g *Gate) wakeLocked() {
	if !g.overLocked() {
		close(g.opened)
	}
}

// Over reports whether the gate has passed its waiters on. Such a gate never admits a
// request again.
func (g *Gate) Over() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.overLocked()
}

func (g *Gate) overLocked() bool {
	select {
	case <-g.opened: // nil, and so never ready, while the gate is open
		return true
	default:
		return false
	}
}

// inside returns how many requests have entered and not yet left.
func (g *Gate) inside() int { return int(g.state.Load() & (closed - 1)) }
