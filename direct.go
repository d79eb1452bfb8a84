package agrenting

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// direct is a call that the SDK makes for its own purposes, straight to the
// base transport: no retry, no redirect, no other credential than the one
// given, and no body of an answer in any error.
type direct struct {
	method, path string
	query        url.Values
	body         any // nil: none
	cred         Credential
	// keyHeader puts whatever credential into the header for API keys.
	keyHeader bool
	agentID   string
	idemKey   string
}

// directAnswer is what came back.
type directAnswer struct {
	method, path string
	status       int
	header       http.Header
	env          envelope
	jsonErr      error
	secret       string // of the credential, for redaction
	raw          []byte
}

// maxDirectBody bounds the answers of such calls.
const maxDirectBody = 256 << 10

func (c *core) direct(ctx context.Context, d direct) (*directAnswer, error) {
	u, err := c.url(d.path, d.query)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return &callError{method: d.method, path: u.Path, err: ended(ctx, err)} }
	var body io.Reader = http.NoBody
	if d.body != nil {
		b, err := json.Marshal(d.body)
		if err != nil {
			return nil, fail(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, d.method, u.String(), body)
	if err != nil {
		return nil, fail(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if d.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	name, values := d.cred.header(c.cfg.keyHeader)
	if d.keyHeader {
		name, values = c.cfg.keyHeader, []string{d.cred.Reveal()}
	}
	req.Header[name] = values
	if d.agentID != "" {
		req.Header[headerAgentID] = []string{d.agentID}
	}
	if d.idemKey != "" {
		req.Header[headerIdempotencyKey] = []string{d.idemKey}
	}
	resp, err := c.transport.base.RoundTrip(req)
	if err != nil {
		return nil, fail(plainError(err))
	}
	defer resp.Body.Close()
	raw, err := readBounded(resp.Body, maxDirectBody)
	if err != nil {
		return nil, fail(err)
	}
	a := &directAnswer{
		method: d.method, path: u.Path, status: resp.StatusCode, header: resp.Header,
		secret: d.cred.Reveal(), raw: raw,
	}
	a.env, a.jsonErr = decodeEnvelope(raw)
	return a, nil
}

// plainError explains the bare io.EOF of a connection that ended.
func plainError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed before an answer came: %w", err)
	}
	return err
}

// ok reports whether the platform did what it was asked for.
func (a *directAnswer) ok() bool { return a.success() && len(a.env.errors) == 0 }

func (a *directAnswer) success() bool { return a.status >= 200 && a.status < 300 }

// made is ok for calls that issue a key: a success that has one in it is one,
// whatever else it complains of.
func (a *directAnswer) made() bool {
	if a.ok() {
		return true
	}
	_, found := a.issued()
	return a.success() && found
}

// issued is the key in an answer.
func (a *directAnswer) issued() (IssuedKey, bool) { return issuedIn(a.raw, APIKey) }

// apiError makes the typed error of an answer that is not ok.
func (a *directAnswer) apiError() *APIError {
	r := &Response{StatusCode: a.status, Header: a.header, Attempts: 1}
	r.readHeader(time.Now())
	e := newAPIError(r, a.env, nil, a.secret)
	e.Method, e.Path = a.method, a.path
	if a.status >= 300 && a.status < 400 {
		e.cause = fmt.Errorf("%w: credentials follow no redirect; make the platform's canonical URL the base URL", ErrForeignOrigin)
	}
	return e
}
