package replay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// ErrNot means that the body of a request cannot be sent again.
var ErrNot = errors.New("agrenting: request body cannot be sent again")

// A Body is the body of one request, for several attempts. It can be sent again if it is
// empty, if GetBody returns another one, or if no byte of it has been read.
type Body struct {
	guard *guardedBody // for a body that GetBody cannot return again; otherwise nil
}

// Of prepares the body of req. It costs nothing if again is false or if GetBody returns
// another body.
func Of(req *http.Request, again bool) Body {
	if !again || req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return Body{}
	}
	return Body{guard: &guardedBody{body: req.Body}}
}

// Guarded reports whether the first attempt must use [Body.First]. If not, First
// returns the body of the request unchanged.
func (b Body) Guarded() bool { return b.guard != nil }

// First returns the body of the first attempt.
func (b Body) First(req *http.Request) io.ReadCloser {
	if b.guard == nil {
		return req.Body
	}
	return &attemptBody{guard: b.guard}
}

// Again returns the body of a further attempt. The error matches [ErrNot].
func (b Body) Again(req *http.Request) (io.ReadCloser, error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return req.Body, nil
	case req.GetBody != nil:
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("%w: GetBody: %w", ErrNot, err)
		}
		return body, nil
	case b.guard != nil && b.guard.reclaim():
		return &attemptBody{guard: b.guard, n: b.guard.attempt}, nil
	default:
		b.Release()
		return nil, fmt.Errorf("%w: the request had begun to send it; set GetBody (Client.Do rewinds a file or another io.Seeker), or send Expect: 100-continue", ErrNot)
	}
}

// Unread returns a function that returns a guarded body again, as long as no byte of it was
// read. It is a GetBody for an [http.Transport], which calls it if a connection turns out to
// be dead before the request is sent. After that call, the body that was returned before
// cannot be used.
func (b Body) Unread() func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		if !b.guard.reclaim() {
			return nil, errBegun
		}
		return &attemptBody{guard: b.guard, n: b.guard.attempt}, nil
	}
}

// Release means that no attempt follows. If a close was deferred, the body is now closed.
func (b Body) Release() {
	if b.guard != nil {
		b.guard.release()
	}
}

// guardedBody lets several attempts use a body that exists only once, one after another, as
// long as nothing was read. A close is deferred until it is clear that no attempt follows.
// net/http may read and close from its own goroutine, also after RoundTrip has returned.
type guardedBody struct {
	mu       sync.Mutex
	body     io.ReadCloser
	attempt  uint64 // the attempt that may read
	read     bool
	closing  bool // the attempt closed it
	released bool
	closed   bool
}

// attemptBody is the body for the n-th attempt.
type attemptBody struct {
	guard *guardedBody
	n     uint64
}

var errBegun = errors.New("agrenting: the connection failed after the request had begun to send its body")

var errReclaimed = errors.New("agrenting: the request was replayed, its first attempt may no longer read the body")

// Read implements [io.Reader].
func (a *attemptBody) Read(p []byte) (int, error) {
	g := a.guard
	g.mu.Lock()
	if a.n != g.attempt {
		g.mu.Unlock()
		return 0, errReclaimed
	}
	if len(p) > 0 {
		g.read = true
	}
	body := g.body
	g.mu.Unlock()
	return body.Read(p)
}

// Close implements [io.Closer].
func (a *attemptBody) Close() error {
	g := a.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.n != g.attempt {
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

// reclaim takes the body back from the attempt that used it, if no byte of it was read.
func (g *guardedBody) reclaim() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.read || g.closed {
		return false
	}
	g.attempt++
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
