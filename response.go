package agrenting

import (
	"encoding/json"
	"net/http"
	"regexp"
	"time"

	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Limits of the bytes that are read from a response.
const (
	maxBody      = 32 << 20 // decoded by Do
	maxErrorBody = 1 << 20
)

// Response has the metadata of the platform's response, for example StatusCode 200, Attempts 1,
// and a Rate with 37 requests remaining. Most programs only use it for logs.
//
// A call returns it if it ends with a response of the platform, also together with an error. It
// is nil if there was no response, and if the error has another cause: a 401 after which the
// credential could not be renewed is a [*RenewalError] without a Response.
type Response struct {
	// StatusCode and Header are those of the HTTP response.
	StatusCode int
	Header     http.Header
	// RequestID is the request ID of the envelope's meta, or of a header; empty if
	// there is none (only some pages of the platform's documents show it).
	RequestID string
	// Attempts is how often the request was sent, including resends.
	Attempts int
	// Rate is the state of the rate limit.
	Rate Rate
	// Sunset is when the route will be retired; zero if no date is announced
	// (platform documentation, "API Versioning": 90 days' notice).
	Sunset time.Time
	// Pagination is the position in a list; nil if the envelope has none.
	Pagination *Pagination
	// Meta is the envelope's meta as raw JSON; nil if it has none.
	Meta json.RawMessage
	// Generation and Fingerprint identify the credential that was used last, such as 3 and
	// "sha256:1a2b3c4d5e". They are safe to log.
	Generation  uint64
	Fingerprint string
}

// Pagination is the position of a page in a list (platform documentation,
// "Pagination").
type Pagination struct {
	// TotalCount may be approximate.
	TotalCount int
	// Cursor leads to the next page; it is opaque.
	Cursor string
	// HasMore reports whether there is a next page.
	HasMore bool
}

// readHeader fills what the headers of a response that has just come say.
func (r *Response) readHeader() {
	h := wire.ReadHeader(r.Header, time.Now())
	r.RequestID, r.Rate, r.Sunset = h.RequestID, Rate(h.Rate), h.Sunset
}

// CheckResponse makes an [*APIError] of a response with an error status. Use it with
// [Client.HTTPClient] or a [Transport]. It reads a bounded part of the body, for at most 200 ms, closes
// it, and replaces it by the part that it read. It returns nil for a 2xx and for the
// 101 of a WebSocket, and leaves their bodies alone.
//
// If a request that got a 401 could not be resent because of its body, the error matches
// [ErrNotReplayable]. If a [Transport] added no credential to the request, the error of a 401 says why.
func CheckResponse(resp *http.Response) error {
	if (resp.StatusCode >= 200 && resp.StatusCode < 300) || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	var body []byte
	var cut error
	note := noteOf(resp)
	if resp.Body != nil {
		peekError(resp)
		body, cut = wire.ReadBounded(resp.Body, maxErrorBody)
	}
	resp.Body = wire.Part(body, cut)
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header}
	r.readHeader()
	env, _ := wire.Decode(body)
	var secrets []string
	if resp.Request != nil {
		secrets = origin.Credentials(resp.Request.Header)
	}
	if note.generation != nil {
		secrets = append(secrets, note.generation.Value.cred.Reveal())
	}
	e := newAPIError(r, &env, body, note.issues, secrets...)
	e.cause, e.Hint = note.notReplayed, note.hint(resp)
	if req := resp.Request; req != nil && req.URL != nil {
		e.Method, e.Path = req.Method, secret.Path(req.URL.EscapedPath(), secrets...)
	}
	return e
}

// hint says what can be done about resp, a response with an error status; empty if that is not
// known.
func (n answerNote) hint(resp *http.Response) string {
	r := hint.Response{Missing: n.missing}
	if n.t != nil {
		r.Base, r.Handshake = n.t.core.base.EscapedPath(), !n.t.inQuery && hint.IsHandshake(resp.Request)
	}
	switch gen := n.generation; {
	case gen == nil:
	case resp.StatusCode == http.StatusUnauthorized:
		r.Credential = n.t.creds.describe(gen.Value.cred, gen.Value.history)
	default:
		r.Credential = new(hint.Credential) // of the SDK, and not to be described
	}
	r.Fill(resp)
	return r.Text()
}

// requestID is a form of request IDs that no key has.
var requestID = regexp.MustCompile(`^req_[0-9a-f]{16}$`)

// newAPIError makes the typed error of a response. The given secrets, which the platform
// may have echoed, are removed from all of it. If the response may have a new secret, the error
// has only what cannot be one: codes, and a request ID that is a UUID or has the form of a code.
func newAPIError(r *Response, env *wire.Envelope, body []byte, issues bool, secrets ...string) *APIError {
	if env.RequestID != "" {
		r.RequestID = env.RequestID
	}
	if issues {
		env, body = env.Codes(), nil
		if !secret.IsUUID(r.RequestID) && !secret.IsCode(r.RequestID) && !requestID.MatchString(r.RequestID) {
			r.RequestID = ""
		}
	}
	e := &APIError{
		StatusCode: r.StatusCode, RequestID: secret.Clean(r.RequestID, secrets...),
		RetryAfter: r.Rate.RetryAfter, Attempts: r.Attempts,
	}
	problems, more := env.Problems(body, secrets...)
	e.more = more
	for i, d := range problems {
		if i == 0 {
			e.Code, e.Message, e.Field, e.Details = d.Code, d.Message, d.Field, d.Details
		} else {
			e.Others = append(e.Others, &APIError{
				StatusCode: r.StatusCode, Code: d.Code, Message: d.Message, Field: d.Field, Details: d.Details,
			})
		}
	}
	return e
}
