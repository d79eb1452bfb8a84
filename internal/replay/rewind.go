package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync/atomic"
)

// Rewind lets the body of req be sent again if its source in can be rewound, that is, if
// in is an [io.Seeker] that reports its position. Each attempt then starts at that
// position. Otherwise, or if req already has GetBody, Rewind does not change the request.
//
// The caller calls release after the last attempt. Closing the body has no effect until
// then, because a further attempt needs it.
func Rewind(req *http.Request, in any) (release func()) {
	seeker, ok := in.(io.Seeker)
	if !ok || req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || isDevice(in) {
		return func() {}
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return func() {}
	}
	r := &rewinder{body: req.Body, seeker: seeker, start: start, turn: make(chan struct{}, 1)}
	ctx := req.Context()
	req.Body = &rewoundBody{rewinder: r}
	req.GetBody = func() (io.ReadCloser, error) { return r.again(ctx) }
	return r.release
}

// isDevice reports whether in is an open file that is not a regular file. On some
// systems, a seek in a terminal succeeds without effect.
func isDevice(in any) bool {
	file, ok := in.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err != nil || !info.Mode().IsRegular()
}

// rewinder lets several attempts use one reader, one after another. net/http may read
// from its own goroutine, also after RoundTrip has returned.
type rewinder struct {
	body    io.ReadCloser
	seeker  io.Seeker
	start   int64
	turn    chan struct{} // full while the reader is read or rewound
	attempt atomic.Uint64 // the attempt that may read
}

var errEnded = errors.New("agrenting: the call has ended, its body may no longer be read")

// released marks a body that no attempt may read any more.
const released = ^uint64(0)

// again rewinds the reader for a further attempt. It waits for a read of the previous
// attempt, but not longer than ctx allows.
func (r *rewinder) again(ctx context.Context) (io.ReadCloser, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	last := r.attempt.Load()
	if last == released || !r.attempt.CompareAndSwap(last, last+1) {
		return nil, errEnded
	}
	if _, err := r.seeker.Seek(r.start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewinding the body: %w", err)
	}
	return &rewoundBody{rewinder: r, n: last + 1}, nil
}

// release ends all attempts and closes the reader. Like net/http, it does not wait for a
// read under way.
func (r *rewinder) release() {
	r.attempt.Store(released)
	_ = r.body.Close()
}

// rewoundBody is the body for the n-th attempt.
type rewoundBody struct {
	rewinder *rewinder
	n        uint64
	closed   atomic.Bool
}

// Read implements [io.Reader].
func (b *rewoundBody) Read(p []byte) (int, error) {
	r := b.rewinder
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	switch current := r.attempt.Load(); {
	case current == released:
		return 0, errEnded
	case current != b.n:
		return 0, errReclaimed
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	}
	return r.body.Read(p)
}

// Close implements [io.Closer].
func (b *rewoundBody) Close() error {
	b.closed.Store(true)
	return nil
}
