package wire

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// peekTime limits how long [Peek] waits for a response that the caller of a request may
	// not need.
	peekTime = 200 * time.Millisecond
	// closeTime limits how long closing a body may take while the body is being read.
	closeTime = 100 * time.Millisecond
)

// errUnread means that [Peek] stopped before the end of a body, because the body was too
// long or too slow.
var errUnread = errors.New("agrenting: the rest of the response was not read")

// Peek reads the beginning of the body of resp. It stops when it has read more than limit
// bytes, or after 200 ms. The error is nil if the result is the whole body.
//
// After that, resp.Body still yields every byte. Closing it ends a read that is under way.
// A body is read ahead only once: a further call returns what the first call has read.
func Peek(resp *http.Response, limit int) ([]byte, error) {
	if resp.Body == http.NoBody {
		return nil, nil
	}
	if b, ok := resp.Body.(*peekedBody); ok {
		return b.head()
	}
	b := &peekedBody{body: resp.Body, done: make(chan struct{})}
	resp.Body = b
	go b.readAhead(limit)
	timer := time.NewTimer(peekTime)
	defer timer.Stop()
	select {
	case <-b.done:
	case <-timer.C:
		b.stop()
	}
	return b.head()
}

// peekedBody is a body of which a goroutine reads the beginning. The goroutine ends when
// its current Read returns, or earlier.
type peekedBody struct {
	body io.ReadCloser
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	ahead   []byte // what the goroutine has read
	taken   int    // how many bytes of it Read has returned
	err     error  // the error of the body; nil if it has not ended
	stopped bool
}

func (b *peekedBody) readAhead(limit int) {
	defer close(b.done)
	chunk := make([]byte, 4<<10)
	for more := true; more; {
		n, err := b.body.Read(chunk)
		more = b.add(chunk[:n], err, limit)
	}
}

// add appends the bytes that were read. It reports whether to continue.
func (b *peekedBody) add(p []byte, err error, limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead, b.err = append(b.ahead, p...), err
	return err == nil && !b.stopped && len(b.ahead) <= limit
}

func (b *peekedBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
}

// head returns the bytes that were read ahead, and why they are not the whole body.
func (b *peekedBody) head() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	head := slices.Clip(b.ahead)
	switch b.err {
	case nil:
		return head, errUnread
	case io.EOF: //nolint:errorlint // readers return it unwrapped
		return head, nil
	default:
		return head, b.err
	}
}

// take is like Read but does not wait. If everything that was read ahead has been returned,
// the count is 0 and the error is nil.
func (b *peekedBody) take(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := copy(p, b.ahead[b.taken:])
	b.taken += n
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// Read implements [io.Reader].
func (b *peekedBody) Read(p []byte) (int, error) {
	if n, err := b.take(p); n > 0 || err != nil || len(p) == 0 {
		return n, err
	}
	<-b.done
	if n, err := b.take(p); n > 0 || err != nil {
		return n, err
	}
	return b.body.Read(p)
}

// Close implements [io.Closer]. It does not wait for a body that cannot be closed while it
// is being read, such as a compressed body of net/http of which no byte has arrived.
func (b *peekedBody) Close() error {
	select {
	case <-b.done:
		return b.body.Close()
	default:
	}
	closed := make(chan error, 1)
	go func() { closed <- b.body.Close() }()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return nil
	}
}
