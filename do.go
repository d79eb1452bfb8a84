package agrenting

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// CallOption changes one call of [Client.Do] or of a service.
type CallOption func(*callConfig) error

type callConfig struct {
	header http.Header
	query  url.Values
	agent  agentHeader
	key    string
	limit  *time.Duration // nil: the client's
}

// CallIdempotencyKey sets X-Idempotency-Key, which makes any method safe to repeat.
// Without it, POST and PUT get a random UUID. The platform keeps a key for 24 h and
// responds to the same request with the same result; another request with the same key
// gets an [*APIError] with the code IDEMPOTENCY_MISMATCH (platform documentation,
// "Idempotency"; the platform's own client expects IDEMPOTENCY_CONFLICT).
func CallIdempotencyKey(key string) CallOption {
	return func(c *callConfig) error {
		if key == "" || len(key) > 256 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return optionError("CallIdempotencyKey", "invalid key (want 1 to 256 visible ASCII characters, such as a UUID)")
		}
		c.key = key
		return nil
	}
}

// CallHeader sets a header of the request. A credential header set in this way
// wins: the SDK then adds no credential and resends nothing.
func CallHeader(name, value string) CallOption {
	return func(c *callConfig) error {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return optionError("CallHeader", "the name is not a header name")
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return optionError("CallHeader", "the value of %s has a line break", http.CanonicalHeaderKey(name))
		}
		c.header.Set(name, value)
		return nil
	}
}

// CallQuery sets query parameters. If a name is given twice, the last values win.
func CallQuery(q url.Values) CallOption {
	return func(c *callConfig) error {
		for name, values := range q {
			c.query[name] = slices.Clone(values)
		}
		return nil
	}
}

// CallAgent makes this call act as an agent, instead of the agent of the client or the
// context's.
func CallAgent(id string) CallOption {
	return func(c *callConfig) error {
		c.agent = newAgentHeader(id)
		return c.agent.err
	}
}

// CallTimeout limits this call, with all its attempts and the reading of the response, instead of
// the client's [WithTimeout]. 0 means no limit. The call's context limits it, too. An iterator
// such as [List] has the limit for each page. The error matches [context.DeadlineExceeded].
func CallTimeout(d time.Duration) CallOption {
	return func(c *callConfig) error {
		if d < 0 {
			return optionError("CallTimeout", "%v is negative; 0 means no limit", d)
		}
		c.limit = &d
		return nil
	}
}

// checkOut refuses an out that cannot take a response, before anything is sent.
func checkOut(out any) error {
	if out == nil {
		return nil
	}
	if _, ok := out.(io.Writer); ok {
		return nil
	}
	if v := reflect.ValueOf(out); v.Kind() != reflect.Pointer || v.IsNil() {
		return optionError("Do", "invalid out of type %T (want nil, an io.Writer, or a non-nil pointer)", out)
	}
	return nil
}

// Do makes one call of the platform. The path is absolute, such as
// "/api/v1/agents", and is appended to the base URL. Instead of a path, it may be a whole
// URL at the origin of the base URL or of [WithAllowedOrigins], such as a download_url
// that the platform has returned. Others are refused with [ErrForeignOrigin].
//
// in is the body: nil for none, an [io.Reader] that is sent unchanged, []byte and
// [json.RawMessage] that are sent as JSON, or anything else, encoded as JSON. A reader
// is closed if it is an [io.Closer]. A *bytes.Buffer and an [io.Seeker], such as an open
// file, can be sent again: each attempt starts where the reader was when Do was called.
// Any other reader, a pipe, and a terminal can be sent only once, so the call is not
// repeated after the platform has begun to read it.
//
// out takes the data of the envelope. nil discards the data; a web page is still an
// [ErrMalformedResponse], because the platform does not respond with one. An
// [io.Writer] takes the body unchanged, and a *[json.RawMessage] takes the data
// undecoded. Anything else is decoded into; unknown members are ignored.
//
// If a successful response breaks off and the call is safe to repeat, Do repeats it as
// [RetryPolicy] says, except that an io.Writer may already have a part of the
// response.
//
// POST and PUT carry an X-Idempotency-Key, the same in all attempts. A response with
// an error status, or with errors in its envelope, is an [*APIError]; the Response is
// returned too. Other errors wrap the cause: the error of a context or a connection,
// or one of the sentinels.
func (c *Client) Do(ctx context.Context, method, path string, in, out any, opts ...CallOption) (*Response, error) {
	if ctx == nil {
		return nil, optionError("Do", "the context is nil")
	}
	if err := checkOut(out); err != nil {
		return nil, err
	}
	cfg := callConfig{header: http.Header{}, query: url.Values{}}
	for _, opt := range opts {
		if opt == nil {
			return nil, optionError("Do", "a call option is nil")
		}
		if err := opt(&cfg); err != nil {
			return nil, err
		}
	}
	ctx, cancel := cfg.within(ctx, c.core)
	defer cancel()
	state := perCallFrom(ctx).trace // the caller reads it too
	if state == nil {
		state = new(Trace)
	}
	*state = Trace{}
	req, err := c.request(ctx, method, path, in, out, &cfg, state)
	if err != nil {
		return nil, err
	}
	release := replay.Rewind(req, in)
	defer release()
	send := c.http.Do
	if c.core.routes.issue(req) {
		send = c.transport.RoundTrip // it follows no redirect
	}
	resp, err := wire.Send(req, send)
	if err != nil {
		if resp == nil {
			return nil, err
		}
		return c.describe(resp, state), err
	}
	defer resp.Body.Close()
	return c.finish(req, resp, state, out)
}

// limit puts a call under the client's timeout.
func (c *core) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return wire.Limit(ctx, c.cfg.timeout, "the client's WithTimeout")
}

// within puts a call under its own timeout, or else under that of the client.
func (c *callConfig) within(ctx context.Context, client *core) (context.Context, context.CancelFunc) {
	if c.limit == nil {
		return client.limit(ctx)
	}
	return wire.Limit(ctx, *c.limit, "CallTimeout")
}

func (c *Client) request(ctx context.Context, method, path string, in, out any, cfg *callConfig, state *Trace) (*http.Request, error) {
	u, err := c.core.origins.Target(c.core.base, path, cfg.query)
	if err != nil {
		return nil, err
	}
	pc := *perCallFrom(ctx)
	pc.trace = state
	pc.readTo, pc.enough = maxBody, nil
	switch out := out.(type) {
	case io.Writer: // gets the body as it arrives
		pc.readTo = 0
	case answerTaker:
		pc.enough = out.enough
	case nil:
		if method == http.MethodDelete { // repeating what has happened would be a 404
			pc.readTo = 0
		}
	}
	if cfg.agent.set() {
		pc.agent = cfg.agent
	}
	switch {
	case cfg.key != "":
		cfg.header[wire.HeaderIdempotencyKey] = []string{cfg.key}
	case method == http.MethodPost || method == http.MethodPut:
		wire.SetDefault(cfg.header, wire.HeaderIdempotencyKey, wire.NewUUID())
	}
	call := wire.Call{Method: method, URL: u, Header: cfg.header, UserAgent: userAgent(c.core.cfg.userAgent), Body: in}
	req, err := call.Request(pc.in(ctx))
	if errors.Is(err, wire.ErrMethod) {
		return nil, fmt.Errorf("%w: %q is not a method", ErrInvalidOption, secret.Clean(method))
	}
	return req, err
}

// An answerTaker takes the body of a response as far as it came, in place of its decoded
// data. enough reports whether a part of the body is enough, so that the call is not
// repeated for the rest.
type answerTaker interface {
	takeAnswer(body []byte)
	enough(part []byte) bool
}

// peekError reads the body of an error for at most 200 ms: the status is known, and no call
// waits any longer for what explains it.
func peekError(resp *http.Response) {
	head, cut := wire.Peek(resp, maxErrorBody)
	_ = resp.Body.Close()
	resp.Body = wire.Part(head, cut)
}

// finish reads the response.
func (c *Client) finish(req *http.Request, resp *http.Response, state *Trace, out any) (*Response, error) {
	note := noteOf(resp)
	r := c.describe(resp, state)
	c.core.noteSunset(req, r)
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	if w, ok := out.(io.Writer); ok && success {
		if _, err := io.Copy(w, resp.Body); err != nil {
			return r, wire.Incomplete(req, err)
		}
		return r, nil
	}
	limit := int64(maxBody)
	if !success {
		limit = maxErrorBody
		peekError(resp)
	}
	a := wire.Read(req, resp, limit)
	if a.Envelope.RequestID != "" {
		r.RequestID = a.Envelope.RequestID
	}
	r.Meta, r.Pagination = a.Envelope.Meta, (*Pagination)(a.Envelope.Pagination)
	whole, wantsAll := out.(answerTaker)
	if wantsAll && success {
		whole.takeAnswer(a.Body)
	}
	if d, ok := out.(deletion); ok && state.unknown && d.done(a) {
		return r, nil
	}
	if !success || (a.JSONErr == nil && a.BodyErr == nil && !a.OK()) {
		e := c.apiError(req, r, a, state)
		e.Hint = note.hint(resp)
		return r, e
	}
	if a.BodyErr != nil {
		return r, wire.Incomplete(req, a.BodyErr)
	}
	if wantsAll {
		return r, nil
	}
	if len(bytes.TrimSpace(a.Body)) == 0 || (out == nil && !isWebPage(resp)) {
		return r, nil
	}
	err := a.JSONErr
	if err == nil && out != nil {
		err = decodeData(a.Envelope.Data, out)
	}
	switch {
	case err == nil:
		return r, nil
	case c.core.routes.issue(req):
		return r, wire.NewCallError(req, fmt.Errorf("%w (%d)", ErrMalformedResponse, resp.StatusCode))
	default:
		contentType := secret.Clean(resp.Header.Get("Content-Type"))
		err = fmt.Errorf("%w (%d %s): %w", ErrMalformedResponse, resp.StatusCode, contentType, err)
		text := hint.NotPlatform(req.URL.Host, contentType)
		if a.JSONErr == nil {
			text = hint.Shape(err, a.Envelope.Data, out)
		}
		if text != "" {
			err = fmt.Errorf("%w. %s", err, text)
		}
		return r, wire.NewCallError(req, err)
	}
}

// deletion is implemented by the out of a call that deletes something. done reports whether
// the response to a repetition means that an earlier attempt had done it.
type deletion interface{ done(a *wire.Answer) bool }

// isWebPage reports whether something other than the platform has responded, such as
// the login page of a network.
func isWebPage(resp *http.Response) bool {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" if it cannot be read
	return t == "text/html"
}

func decodeData(data json.RawMessage, out any) error {
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = slices.Clone(data)
		return nil
	}
	if wire.IsNull(data) {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (c *Client) apiError(req *http.Request, r *Response, a *wire.Answer, state *Trace) *APIError {
	secrets := origin.Credentials(req.Header)
	if state.generation != nil {
		secrets = append(secrets, state.generation.Value.cred.Reveal())
	}
	issues := c.core.routes.issue(req)
	e := newAPIError(r, &a.Envelope, a.Body, issues, secrets...)
	e.Method, e.Path, e.cause = req.Method, secret.Path(req.URL.EscapedPath(), secrets...), state.Err
	if issues && isRedirect(r.StatusCode) {
		e.cause = errRedirect
	}
	return e
}

func (c *Client) describe(resp *http.Response, state *Trace) *Response {
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header, Attempts: max(1, state.Attempts)}
	r.readHeader()
	if l := state.generation; l != nil && l.Value.name != "" {
		r.Generation, r.Fingerprint = l.Number, l.Value.cred.Fingerprint()
	}
	if r.Rate.Known {
		rate := r.Rate
		c.core.rate.Store(&rate)
	}
	return r
}

// noteSunset logs that a route will be retired, once per route.
func (c *core) noteSunset(req *http.Request, r *Response) {
	if r.Sunset.IsZero() || c.cfg.logger == nil || !c.told.routes.First(req.Method+" "+routeOf(req.URL.Path)) {
		return
	}
	c.cfg.logger.LogAttrs(req.Context(), slog.LevelWarn, "agrenting: a route will be retired",
		slog.String("method", req.Method), slog.String("path", secret.Path(req.URL.EscapedPath())), slog.Time("sunset", r.Sunset))
}
