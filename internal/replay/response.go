package replay

import (
	"errors"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	// maxDrain limits what is read of a response that is discarded, so that its
	// connection can be used again.
	maxDrain = 4 << 10
	// maxKept limits what is kept of a response that is settled.
	maxKept = 64 << 10
	// maxRedirect is how much net/http reads of the response of a redirect.
	maxRedirect = 2 << 10
)

// Settle ends the attempt that resp answers, and keeps what has arrived of its body within
// 200 ms. If that is not the whole body, its reader gets an error at the end. net/http may
// continue to read the request's body until its response is closed, and GetBody may
// rewind that same body.
func Settle(resp *http.Response) {
	kept, err := wire.Peek(resp, maxKept)
	_ = resp.Body.Close()
	resp.Body = wire.Part(kept, err)
}

// Discard ends the attempt that resp answers. It reads a little of the response for at
// most 200 ms, so that its connection can be used again.
func Discard(resp *http.Response) {
	_, _ = wire.Peek(resp, maxDrain)
	_ = resp.Body.Close()
	resp.Body = http.NoBody
}

// Bound ends the response of a redirect if its beginning does not arrive within 200 ms.
// net/http reads that much of it before it follows the redirect, for any length of time.
func Bound(resp *http.Response) {
	if head, err := wire.Peek(resp, maxRedirect); err != nil && len(head) <= maxRedirect {
		Settle(resp)
	}
}

// Abandon ends the attempt that resp answers, without its connection being used again.
func Abandon(resp *http.Response) {
	_ = resp.Body.Close()
	resp.Body = wire.Part(nil, errAbandoned)
}

var errAbandoned = errors.New("agrenting: the response was not read, because the request was to be sent again")
