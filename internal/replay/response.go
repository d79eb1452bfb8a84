package replay

import (
	"bytes"
	"io"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	// maxDrain limits what is read of a response that is discarded, so that its
	// connection can be used again.
	maxDrain = 4 << 10
	// maxKept limits what is kept of a response that is settled.
	maxKept = 64 << 10
)

// Settle ends the attempt that resp answers, and keeps what it says. net/http may
// continue to read the request's body until its response is closed, and GetBody may
// rewind that same body.
func Settle(resp *http.Response) {
	kept, _ := wire.ReadBounded(resp.Body, maxKept)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(kept))
}

// Discard ends the attempt that resp answers. It reads a little of the response, so
// that its connection can be used again.
func Discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	_ = resp.Body.Close()
}
