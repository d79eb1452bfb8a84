package agrenting

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// replay knows how to get a request's body once more, without buffering it:
// there is none, GetBody makes another, or not one byte of it has been read.
type replay struct {
	guard *guardedBody // of a body that cannot be made again; nil otherwise
}

// replayable prepares for a replay. Where none can happen, or GetBody will do,
// it costs nothing.
func replayable(req *http.Request, renewable bool) replay {
	if !renewable || req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return replay{}
	}
	return replay{guard: &guardedBody{body: req.Body}}
}

// reader is the body of the first attempt.
func (r replay) reader(req *http.Request) io.ReadCloser {
	if r.guard == nil {
		return req.Body
	}
	return &bodyLease{guard: r.guard}
}

// again is the body of a further attempt. Its error matches [ErrNotReplayable].
func (r replay) again(req *http.Request) (io.ReadCloser, error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req.Body, nil
	case req.GetBody != nil:
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("%w: GetBody: %w", ErrNotReplayable, err)
		}
		return body, nil
	case r.guard != nil && r.guard.reclaim():
		return &bodyLease{guard: r.guard, n: r.guard.lent}, nil
	default:
		r.release()
		return nil, fmt.Errorf("%w: the request had begun to send it; set GetBody, or send Expect: 100-continue", ErrNotReplayable)
	}
}

// release tells that no replay will come: a body that was closed meanwhile is
// closed for good.
func (r replay) release() {
	if r.guard != nil {
		r.guard.release()
	}
}

// guardedBody lends a body that exists only once to one attempt after the
// other, as long as nothing was read. A close is held back until it is clear
// that no attempt follows. net/http may read and close from its own goroutine,
// also after RoundTrip has returned.
type guardedBody struct {
	mu       sync.Mutex
	body     io.ReadCloser
	lent     uint64 // the attempt that may read
	read     bool
	closing  bool // the attempt closed it
	released bool
	closed   bool
}

// bodyLease is one attempt's view of a guardedBody.
type bodyLease struct {
	guard *guardedBody
	n     uint64
}

var errBodyReclaimed = errors.New("agrenting: the request was replayed, its first attempt may no longer read the body")

// Read implements [io.Reader].
func (l *bodyLease) Read(p []byte) (int, error) {
	g := l.guard
	g.mu.Lock()
	if l.n != g.lent {
		g.mu.Unlock()
		return 0, errBodyReclaimed
	}
	if len(p) > 0 {
		g.read = true
	}
	body := g.body
	g.mu.Unlock()
	return body.Read(p)
}

// Close implements [io.Closer].
func (l *bodyLease) Close() error {
	g := l.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.n != g.lent {
		return nil
	}
	g.closing = true
	return g.closeLocked()
}

func (g *guardedBody) closeLocked() error {
	if g.closed || (!g.released && !g.read) {
		return nil
	}
	g.closed = true
	return g.body.Close()
}

// reclaim takes the body back from the attempt that had it, if it is untouched.
func (g *guardedBody) reclaim() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.read || g.closed {
		return false
	}
	g.lent++
	g.closing = false
	return true
}

func (g *guardedBody) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.released = true
	if g.closing {
		_ = g.closeLocked()
	}
}
