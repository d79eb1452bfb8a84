package agrenting

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// direct is a call that the SDK makes for its own purposes. It goes directly to the
// base transport: without retries, redirects, and any credential other than the given
// one. No error contains the body of an answer.
type direct struct {
	method, path string
	query        url.Values
	body         any // nil: none
	cred         Credential
	// keyHeader puts the credential into the header for API keys, whatever its kind.
	keyHeader bool
	agentID   string
	idemKey   string
}

// maxDirectBody bounds the answers of such calls.
const maxDirectBody = 256 << 10

func (c *core) direct(ctx context.Context, d direct) (*directAnswer, error) {
	u, err := origin.Join(c.base, d.path, d.query)
	if err != nil {
		return nil, err
	}
	name, values := d.cred.header(c.cfg.keyHeader)
	if d.keyHeader {
		name, values = c.cfg.keyHeader, []string{d.cred.Reveal()}
	}
	header := http.Header{name: values}
	if d.agentID != "" {
		header[wire.HeaderAgentID] = []string{d.agentID}
	}
	if d.idemKey != "" {
		header[wire.HeaderIdempotencyKey] = []string{d.idemKey}
	}
	call := wire.Call{Method: d.method, URL: u, Header: header, UserAgent: c.userAgent, Body: d.body}
	a, err := call.Do(ctx, c.transport.base.RoundTrip, maxDirectBody)
	if err != nil {
		return nil, err
	}
	return &directAnswer{
		answer: a, status: a.Status, header: a.Header, jsonErr: a.JSONErr, raw: a.Body, secret: d.cred.Reveal(),
	}, nil
}

// directAnswer is the answer to a direct call.
type directAnswer struct {
	answer  *wire.Answer
	status  int
	header  http.Header
	jsonErr error
	raw     []byte
	secret  string // of the credential, for redaction
}

// ok reports whether the platform did what it was asked for.
func (a *directAnswer) ok() bool { return a.answer.OK() }

// made is ok for calls that issue a key.
func (a *directAnswer) made() bool { return a.answer.Made() }

// issued is the key in an answer.
func (a *directAnswer) issued() (IssuedKey, bool) { return issuedIn(a.raw, APIKey) }

// apiError makes the typed error of an answer that is not ok.
func (a *directAnswer) apiError() *APIError {
	r := &Response{StatusCode: a.status, Header: a.header, Attempts: 1}
	r.readHeader()
	e := newAPIError(r, &a.answer.Envelope, nil, a.secret)
	e.Method, e.Path = a.answer.Method, a.answer.Path
	if a.status >= 300 && a.status < 400 {
		e.cause = fmt.Errorf("%w: credentials follow no redirect; make the platform's canonical URL the base URL", ErrForeignOrigin)
	}
	return e
}
