package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// memory bounds the bytes of all bodies that are kept at the same time.
type memory struct{ left atomic.Int64 }

// take reports whether n more bytes may be kept.
func (m *memory) take(n int64) bool {
	if m.left.Add(-n) >= 0 {
		return true
	}
	m.left.Add(n)
	return false
}

func (m *memory) give(n int64) { m.left.Add(n) }

// A body of unknown length that has not ended after patience is sent while it arrives:
// its caller may wait for a part of the response before it sends the rest.
const patience = 100 * time.Millisecond

// An upload is the body of a caller's request. It keeps the beginning of the body in
// memory, which is all of it if the body is short, so that the request can be sent again.
//
// Several attempts may read an upload, one after the other. The rest behind the kept
// beginning exists only once: it belongs to the attempt that was made last, and no
// other attempt can follow once it has been read from.
type upload struct {
	from   io.Reader // the caller's body
	memory *memory
	// onRead is called before each read. onEnd is called once, when an attempt
	// comes to the end of the caller's body and before it is told. Both may be nil.
	onRead, onEnd func()

	mu       sync.Mutex
	grown    sync.Cond // head, filling, or closed has changed
	head     []byte
	kept     int64 // taken from memory
	filling  bool  // more is read into head
	end      error // how the body ended within head; nil if there is a rest
	attempts int   // the number of the one that may read the rest
	begun    bool  // the rest has been read from
	closed   bool
}

// receive reads the beginning of the body of r, at most limit bytes, if there is memory
// for it. It returns nil if r has no body, and an error if the body broke off.
func receive(ctx context.Context, r *http.Request, limit int64, m *memory) (*upload, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil //nolint:nilnil // there is no body
	}
	u := &upload{from: r.Body, memory: m}
	u.grown.L = &u.mu
	switch length := r.ContentLength; {
	case length > limit || (length < 0 && limit <= 0):
		return u, nil
	case length > 0:
		if !m.take(length) {
			return u, nil
		}
		u.kept = length
		u.head = make([]byte, length)
		_, err := io.ReadFull(r.Body, u.head)
		if err == nil && len(r.Trailer) > 0 { // HTTP/2 has them behind the end
			_, err = io.Copy(io.Discard, r.Body)
		}
		if err != nil {
			u.close()
			return nil, err
		}
		u.end = io.EOF
		return u, nil
	}
	u.filling = true
	filled := make(chan struct{})
	go u.fill(limit, filled)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-filled:
	case <-timer.C:
	case <-ctx.Done():
	}
	u.mu.Lock()
	err := u.end
	u.mu.Unlock()
	if err != nil && !errors.Is(err, io.EOF) {
		u.close()
		return nil, err
	}
	return u, nil
}

// fill reads into head until the body has ended or is known to be longer than limit.
func (u *upload) fill(limit int64, filled chan<- struct{}) {
	defer close(filled)
	piece := make([]byte, 8<<10)
	for size, more := int64(0), true; more; {
		n := min(int64(len(piece)), limit+1-size)
		if n == 0 || !u.memory.take(n) {
			break
		}
		got, err := u.from.Read(piece[:n])
		more = u.grow(piece[:got], n, err)
		size += int64(got)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.filling = false
	u.grown.Broadcast()
}

// grow adds a piece to head, for which n bytes were taken from memory. It reports whether
// more may follow.
func (u *upload) grow(piece []byte, n int64, err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		u.memory.give(n)
		return false
	}
	u.memory.give(n - int64(len(piece)))
	u.kept += int64(len(piece))
	u.head = append(u.head, piece...)
	u.end = err
	u.grown.Broadcast()
	return err == nil
}

// whole returns the length of the body if all of it is kept, otherwise -1.
func (u *upload) whole() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.end == nil {
		return -1
	}
	return int64(len(u.head))
}

var (
	errRestSent   = errors.New("proxy: a part of the body that was not kept has been sent")
	errSuperseded = errors.New("proxy: another attempt sends the body")
	errClosed     = errors.New("proxy: the request has ended")
)

// body returns the body for another attempt. It is a GetBody of [http.Request].
func (u *upload) body() (io.ReadCloser, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.begun {
		return nil, errRestSent
	}
	u.attempts++
	return &attempt{upload: u, number: u.attempts}, nil
}

// close frees the memory. Attempts that still read get an error.
func (u *upload) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	u.free()
	u.grown.Broadcast()
}

func (u *upload) free() {
	u.memory.give(u.kept)
	u.head, u.kept = nil, 0
}

// ended calls onEnd, unless that was done. u.mu is held, so that no other attempt begins
// in the meantime.
func (u *upload) ended() {
	if u.onEnd != nil {
		u.onEnd()
		u.onEnd = nil
	}
}

// An attempt is the body as one attempt to send it reads it.
type attempt struct {
	upload *upload
	number int
	off    int // in head
}

// Read implements [io.Reader].
func (a *attempt) Read(p []byte) (int, error) {
	u := a.upload
	if u.onRead != nil {
		u.onRead()
	}
	n, err, rest := a.kept(p)
	if !rest {
		return n, err
	}
	n, err = u.from.Read(p)
	if errors.Is(err, io.EOF) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.ended()
	}
	return n, err
}

// kept reads from head. rest reports that the caller is to read the rest.
func (a *attempt) kept(p []byte) (n int, err error, rest bool) { //nolint:revive // the error belongs to n
	u := a.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		switch {
		case u.closed:
			return 0, errClosed, false
		case u.begun && a.number == u.attempts: // head is free
			return 0, nil, true
		case a.number != u.attempts:
			return 0, errSuperseded, false
		case a.off < len(u.head):
			n = copy(p, u.head[a.off:])
			a.off += n
			return n, nil, false
		case u.end != nil:
			if errors.Is(u.end, io.EOF) {
				u.ended()
			}
			return 0, u.end, false
		case !u.filling:
			u.begun = true
			u.free()
			return 0, nil, true
		}
		u.grown.Wait()
	}
}

// Close implements [io.Closer]. The upload is closed when its request has ended.
func (a *attempt) Close() error { return nil }
