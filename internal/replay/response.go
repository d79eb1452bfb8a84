package replay

import (
	"errors"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	// maxDrain limits how much is read of a discarded response, so that its connection can
	// be used again.
	maxDrain = 4 << 10
	// maxKept limits how much is kept of a response that Settle has ended.
	maxKept = 64 << 10
	// maxRedirect is how much net/http reads of a redirect response.
	maxRedirect = 2 << 10
)

// Settle ends the attempt that has returned resp, and keeps the part of its body that
// arrives within 200 ms. If that is not the whole body, its reader gets an error at the
// end. Until the response is closed, net/http may continue to read the request's body,
// which GetBody may rewind.
func Settle(resp *http.Response) {
	kept, err := wire.Peek(resp, maxKept)
	_ = resp.Body.Close()
	resp.Body = wire.Part(kept, err)
}

// Discard ends the attempt that has returned resp. For at most 200 ms, it reads a small
// part of the response, so that its connection can be used again.
func Discard(resp *http.Response) {
	_, _ = wire.Peek(resp, maxDrain)
	_ = resp.Body.Close()
	resp.Body = http.NoBody
}

// Bound ends a redirect response if its beginning does not arrive within 200 ms. Without
// this limit, net/http waits for that beginning for any length of time before it follows
// the redirect.
func Bound(resp *http.Response) {
	if head, err := wire.Peek(resp, maxRedirect); err != nil && len(head) <= maxRedirect {
		Settle(resp)
	}
}

// Abandon ends the attempt that has returned resp. Its connection is not used again.
func Abandon(resp *http.Response) {
	_ = resp.Body.Close()
	resp.Body = wire.Part(nil, errAbandoned)
}

var errAbandoned = errors.New("agrenting: the response was not read, because the request was to be sent again")
