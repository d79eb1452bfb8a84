package wire

import (
	"io"
	"net/http"
)

// readBody is the body of a response whose beginning has been read.
type readBody struct {
	data   []byte
	off    int
	err    error            // the error after data
	source io.LimitedReader // the source of data; more may follow if its limit is reached
	closer io.Closer        // nil if the body has been closed
	broken bool
}

// Read implements [io.Reader].
func (b *readBody) Read(p []byte) (int, error) {
	switch {
	case b.off < len(b.data):
		n := copy(p, b.data[b.off:])
		b.off += n
		return n, nil
	case b.err != nil:
		return 0, b.err
	case b.continues():
		return b.source.R.Read(p)
	default:
		return 0, io.EOF
	}
}

// continues reports whether more than data may follow.
func (b *readBody) continues() bool { return b.source.R != nil && b.source.N == 0 && b.err == nil }

// Close implements [io.Closer].
func (b *readBody) Close() error {
	if b.closer == nil {
		return nil
	}
	return b.closer.Close()
}

// bounded is like [ReadBounded] but does not copy. ok is false if the body has been read
// from, or is larger than the part that was read ahead.
func (b *readBody) bounded(limit int64) (data []byte, ok bool, err error) {
	if b.off > 0 || b.continues() || int64(len(b.data)) > limit {
		return nil, false, nil
	}
	b.off = len(b.data)
	return b.data, true, b.err
}

// ReadAhead reads at most limit bytes of the body of resp, and puts them back. If the body
// breaks off, enough decides whether the part that arrived can still be used. A nil enough
// means that it cannot. [BrokenOff] returns the cause if the part cannot be used.
func ReadAhead(resp *http.Response, limit int64, enough func(part []byte) bool) {
	b := &readBody{source: io.LimitedReader{R: resp.Body, N: limit}, closer: resp.Body}
	b.data, b.err = io.ReadAll(&b.source)
	b.broken = b.err != nil && (enough == nil || !enough(b.data))
	resp.Body = b
}

// BrokenOff returns why the body of a response broke off while [ReadAhead] was reading it.
func BrokenOff(resp *http.Response) error {
	if b, ok := resp.Body.(*readBody); ok && b.broken {
		return b.err
	}
	return nil
}

// Part returns a body that contains the beginning of another body, which is closed. It
// ends with err, or with EOF if err is nil.
func Part(data []byte, err error) io.ReadCloser { return &readBody{data: data, err: err} }
