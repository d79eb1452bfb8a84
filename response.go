package agrenting

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Bounds of what is read of an answer.
const (
	maxBody      = 32 << 20 // decoded by Do
	maxErrorBody = 1 << 20
)

// Response tells what came with an answer besides its data. It is there when a
// call ends with an answer of the platform, also when it returns an error. It is
// nil when none came, and when an answer was not the end of it: a 401 after which
// the credential could not be renewed is a [*RenewalError] without a Response.
type Response struct {
	StatusCode int
	Header     http.Header
	// RequestID is the request id of the envelope's meta, or of a header;
	// empty when there was none (the platform's documents show it on some
	// pages only).
	RequestID string
	// Attempts counts how often the request was sent, replays included.
	Attempts int
	// Rate is what the rate-limit headers said.
	Rate Rate
	// Sunset is when the route will be retired, zero when no date is announced
	// (platform documentation, "API Versioning": 90 days' notice).
	Sunset time.Time
	// Pagination is the envelope's, nil when there was none.
	Pagination *Pagination
	// Meta is the envelope's meta as it came; nil when there was none.
	Meta json.RawMessage
	// Generation and Fingerprint tell which credential was used last; they are
	// safe to log.
	Generation  uint64
	Fingerprint string
}

// Rate is the state of the rate limit that a call counted against (platform
// documentation, "Rate Limits"). The platform sends no time of reset.
type Rate struct {
	// Known is false when the answer had no rate-limit headers.
	Known bool
	// Limit is the number of requests per window, Remaining what is left.
	Limit, Remaining int
	// RetryAfter is set when the call was limited.
	RetryAfter time.Duration
}

// Pagination is the position of a page in a list (platform documentation,
// "Pagination").
type Pagination struct {
	// TotalCount may be approximate.
	TotalCount int
	// Cursor leads to the next page; it is opaque.
	Cursor string
	// HasMore tells whether there is a next page.
	HasMore bool
}

// readHeader fills what the headers of an answer that has just come say.
func (r *Response) readHeader() {
	h := wire.ReadHeader(r.Header, time.Now())
	r.RequestID, r.Rate, r.Sunset = h.RequestID, Rate(h.Rate), h.Sunset
}

// CheckResponse turns an answer of the platform that is no success into an
// [*APIError], for those who use [Client.HTTPClient] or a [Transport] on their
// own. It reads a bounded part of the body, closes it, and replaces it by what
// it read. A 2xx, and the 101 of a WebSocket, give nil and are left alone.
//
// When a 401 could not be replayed with a renewed credential, the error matches
// [ErrNotReplayable].
func CheckResponse(resp *http.Response) error {
	if (resp.StatusCode >= 200 && resp.StatusCode < 300) || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	var body []byte
	if resp.Body != nil {
		body, _ = wire.ReadBounded(resp.Body, maxErrorBody)
		_ = resp.Body.Close()
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header}
	r.readHeader()
	env, _ := wire.Decode(body)
	var secrets []string
	if resp.Request != nil {
		secrets = credentialsIn(resp.Request.Header)
	}
	note := noteOf(resp)
	if note.lease != nil {
		secrets = append(secrets, note.lease.Value.cred.Reveal())
	}
	e := newAPIError(r, &env, body, secrets...)
	e.cause = note.notReplayed
	if req := resp.Request; req != nil && req.URL != nil {
		e.Method, e.Path = req.Method, req.URL.Path
	}
	return e
}

// newAPIError makes the typed error of an answer. The given secrets, which the platform
// may have echoed, are removed from all of it.
func newAPIError(r *Response, env *wire.Envelope, body []byte, secrets ...string) *APIError {
	if env.RequestID != "" {
		r.RequestID = env.RequestID
	}
	e := &APIError{
		StatusCode: r.StatusCode, RequestID: secret.Clean(r.RequestID, secrets...),
		RetryAfter: r.Rate.RetryAfter, Attempts: r.Attempts,
	}
	for i, d := range env.Problems(body, secrets...) {
		if i == 0 {
			e.Code, e.Message, e.Field, e.Details = d.Code, d.Message, d.Field, d.Details
		} else {
			e.Others = append(e.Others, ErrorDetail(d))
		}
	}
	return e
}
