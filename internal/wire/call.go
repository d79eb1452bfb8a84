package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// ErrMethod is the error of a call with an invalid method.
var ErrMethod = errors.New("not a method")

// A Call is one call to the platform. Most programs only set Method, URL, and Header,
// such as Method: "GET".
type Call struct {
	Method string
	URL    *url.URL
	// Header has the headers that the caller sets, including the credential. The call
	// owns it, and adds Accept, User-Agent, and Content-Type if they are missing.
	Header    http.Header
	UserAgent string
	// Body is nil, an io.Reader that is sent unchanged, []byte or json.RawMessage that is
	// sent as JSON, or any other value, which is encoded as JSON.
	Body any
	// Close is set if the connection must be closed after the call.
	Close bool
}

// A Sender sends one request: the method RoundTrip of a transport, or Do of a client.
type Sender func(*http.Request) (*http.Response, error)

// Do makes the call and reads at most limit bytes of the response. The error names the
// call. A response that breaks off or is larger is also an error.
//
// If the response does not report success, Do reads only what arrives within 200 ms. If
// that is not JSON, JSONErr is set.
func (c Call) Do(ctx context.Context, send Sender, limit int64) (*Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := c.Request(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := Send(req, send)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	defer cancel() // runs before the close, so that the close need not wait for a read
	if resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusMultipleChoices {
		a := Read(req, resp, limit)
		return a, a.BodyErr
	}
	head, err := Peek(resp, int(limit))
	if err != nil && !errors.Is(err, errUnread) {
		return nil, NewCallError(req, err)
	}
	a := newAnswer(req, resp, head)
	if err != nil && len(a.Body) == 0 {
		a.JSONErr = err // otherwise, it would count as a response without a body
	}
	return a, nil
}

// Request returns the request of the call. The error matches [ErrMethod] or names the
// call.
func (c Call) Request(ctx context.Context) (*http.Request, error) {
	body, contentType, err := encode(c.Body)
	if err != nil {
		return nil, &CallError{Method: c.Method, Path: c.URL.EscapedPath(), Err: err}
	}
	if body == nil {
		body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, c.URL.String(), body)
	if err != nil {
		return nil, ErrMethod // the URL has already been parsed, so the method is invalid
	}
	req.Header, req.Close = c.Header, c.Close
	SetDefault(req.Header, "Accept", "application/json")
	SetDefault(req.Header, "User-Agent", c.UserAgent)
	if contentType != "" {
		SetDefault(req.Header, "Content-Type", contentType)
	}
	return req, nil
}

// SetDefault sets a header if it is not set.
func SetDefault(h http.Header, name, value string) {
	if len(h.Values(name)) == 0 {
		h.Set(name, value)
	}
}

func encode(in any) (body io.Reader, contentType string, err error) {
	const jsonType = "application/json"
	switch v := in.(type) {
	case nil:
		return nil, "", nil
	case io.Reader:
		return v, "application/octet-stream", nil
	case []byte:
		return bytes.NewReader(v), jsonType, nil
	case json.RawMessage:
		return bytes.NewReader(v), jsonType, nil
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return nil, "", fmt.Errorf("the request's body cannot be encoded: %w", err)
		}
		return bytes.NewReader(b), jsonType, nil
	}
}

// NewUUID returns a random UUID (version 4). The platform recommends such UUIDs for
// idempotency keys.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, according to crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Answered checks the result of a transport. Custom transports may return (nil, nil), or
// a nil Body, which [http.Client] treats as empty.
func Answered(resp *http.Response, err error) (*http.Response, error) {
	switch {
	case resp == nil && err == nil:
		return nil, ErrNoResponse
	case resp != nil && resp.Body == nil:
		resp.Body = http.NoBody
	}
	return resp, err
}

// Send sends a request. The error names the call and does not show the query string. For
// a redirect that was refused, Send returns both an error and a response with a closed
// body.
func Send(req *http.Request, send Sender) (*http.Response, error) {
	resp, err := Answered(send(req))
	if err == nil {
		return resp, nil
	}
	if resp != nil {
		_ = resp.Body.Close()
	}
	// Only the outermost url.Errors are removed: inner ones are part of the error of a source.
	for ue, ok := err.(*url.Error); ok; ue, ok = err.(*url.Error) { //nolint:errorlint // see above
		err = ue.Err
	}
	if err == io.EOF { //nolint:errorlint // an inner one is part of the error of a source
		err = fmt.Errorf("the connection was closed before a response arrived: %w", err)
	}
	return resp, NewCallError(req, explainDial(err))
}

// An Answer is the response of the platform, such as {Method: "GET", Path: "/api/v1/agents",
// Status: 200}. Most programs only read Status and Envelope.
type Answer struct {
	// Path is escaped.
	Method, Path string
	Status       int
	Header       http.Header
	// Body is the part of the body that arrived. BodyErr is why it broke off.
	Body    []byte
	BodyErr error
	// Envelope is the decoded Body. JSONErr is why it cannot be decoded.
	Envelope Envelope
	JSONErr  error
}

// Read reads at most limit bytes of a response. It does not close the body.
func Read(req *http.Request, resp *http.Response, limit int64) *Answer {
	body, err := ReadBounded(resp.Body, limit)
	a := newAnswer(req, resp, body)
	if err != nil {
		a.BodyErr = NewCallError(req, err)
	}
	return a
}

func newAnswer(req *http.Request, resp *http.Response, body []byte) *Answer {
	a := &Answer{Method: req.Method, Path: req.URL.EscapedPath(), Status: resp.StatusCode, Header: resp.Header, Body: body}
	a.Envelope, a.JSONErr = Decode(body)
	return a
}

// ReadBounded reads at most limit bytes. If there are more, it returns an error.
func ReadBounded(r io.Reader, limit int64) ([]byte, error) {
	if ahead, ok := r.(*readBody); ok {
		if b, ok, err := ahead.bounded(limit); ok {
			return b, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return b[:limit], fmt.Errorf("%w: it has more than %d bytes", ErrMalformed, limit)
	}
	return b, err
}

// Success reports whether the status is 2xx.
func (a *Answer) Success() bool { return a.Status >= 200 && a.Status < 300 }

// OK reports whether the platform did what it was asked to do: the status is 2xx and the
// envelope contains no errors.
func (a *Answer) OK() bool { return a.Success() && len(a.Envelope.Errors) == 0 }

// FromPlatform reports whether the response is complete and in the platform's envelope.
// Any other response may come from a gateway, and does not show what the platform did.
func (a *Answer) FromPlatform() bool {
	return a.BodyErr == nil && a.JSONErr == nil && a.Envelope.Recognized
}

// Page returns the response as a page of a list. The error names the call.
func (a *Answer) Page() (Page, error) {
	if a.JSONErr != nil {
		return Page{}, &CallError{Method: a.Method, Path: a.Path, Err: fmt.Errorf("%w: %w", ErrMalformed, a.JSONErr)}
	}
	return Page{Status: a.Status, Data: a.Envelope.Data, Pagination: a.Envelope.Pagination}, nil
}

// Sent returns when the response was sent, by the platform's clock; zero if that is not
// known.
func (a *Answer) Sent() time.Time { return Date(a.Header) }
