package agrenting

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// CallOption changes one call of [Client.Do] or of a service.
type CallOption func(*callConfig) error

type callConfig struct {
	header http.Header
	query  url.Values
	agent  agentHeader
	key    string
}

// CallIdempotencyKey sets X-Idempotency-Key, which makes any method safe to
// repeat. Without it, POST and PUT get a random UUID. The platform keeps a key
// for 24 h and answers the same request with the same result; another request
// under the same key is [ErrIdempotencyMismatch] (platform documentation,
// "Idempotency").
func CallIdempotencyKey(key string) CallOption {
	return func(c *callConfig) error {
		if key == "" || len(key) > 256 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return optionError("CallIdempotencyKey", "a key is 1 to 256 visible ASCII characters, such as a UUID")
		}
		c.key = key
		return nil
	}
}

// CallHeader sets a header of the request. A credential header set in this way
// wins: the SDK then adds none of its own and replays nothing.
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

// CallQuery sets query parameters; a name given twice has the later values.
func CallQuery(q url.Values) CallOption {
	return func(c *callConfig) error {
		for name, values := range q {
			c.query[name] = slices.Clone(values)
		}
		return nil
	}
}

// CallAgent makes this call act as an agent, whatever the client and the
// context say.
func CallAgent(id string) CallOption {
	return func(c *callConfig) error {
		c.agent = newAgentHeader(id)
		return c.agent.err
	}
}

// callError says which call failed, without its query string.
type callError struct {
	method, path string
	err          error
}

func (e *callError) Error() string {
	text := withoutQueries(e.err.Error())
	return "agrenting: " + e.method + " " + e.path + ": " + strings.TrimPrefix(text, "agrenting: ")
}

func (e *callError) Unwrap() error { return e.err }

// urlQuery finds the query strings of URLs that transports put into their
// errors.
var urlQuery = regexp.MustCompile(`(https?://[^\s"'?#]*)\?[^\s"'#]*`)

func withoutQueries(text string) string {
	return secret.RedactPatterns(urlQuery.ReplaceAllString(text, "${1}"))
}

// contextError is the end of a context, told by its cause. It matches the
// context's own error too, and what had happened until then.
type contextError struct{ cause, ctx, last error }

func (e *contextError) Error() string {
	text := e.cause.Error()
	if e.last != nil {
		text += ", after: " + e.last.Error()
	}
	return text
}

func (e *contextError) Unwrap() []error {
	if e.last == nil {
		return []error{e.cause, e.ctx}
	}
	return []error{e.cause, e.ctx, e.last}
}

// ended tells that a call failed because its context ended, if it did.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case errors.Is(err, ctx.Err()), errors.Is(err, cause):
		return &contextError{cause: cause, ctx: ctx.Err()}
	default:
		return &contextError{cause: cause, ctx: ctx.Err(), last: err}
	}
}

// checkOut refuses, before anything is sent, what an answer cannot be put into.
func checkOut(out any) error {
	if out == nil {
		return nil
	}
	if _, ok := out.(io.Writer); ok {
		return nil
	}
	if v := reflect.ValueOf(out); v.Kind() != reflect.Pointer || v.IsNil() {
		return optionError("Do", "out is a %T; it has to be nil, an io.Writer or a pointer to decode into", out)
	}
	return nil
}

// Do makes one call of the platform: path is absolute, such as
// "/api/v1/agents", and put behind the base URL.
//
// in is the body: nil for none, an [io.Reader] sent as it is, []byte and
// [json.RawMessage] sent as JSON, anything else encoded as JSON. A reader that
// is not a *bytes.Buffer, *bytes.Reader or *strings.Reader can be sent only
// once, so the call is not repeated once the platform has begun to read it.
//
// out takes the data of the envelope: nil discards it, unless it is a web page,
// which the platform does not answer with ([ErrMalformedResponse]); an [io.Writer] takes the
// body as it is, a *[json.RawMessage] takes the data undecoded, anything else
// is decoded into. Unknown members are ignored.
//
// POST and PUT carry an X-Idempotency-Key, the same over all attempts. An
// answer that is no success, or that reports errors in a success, is an
// [*APIError]; the Response is there nevertheless. Other errors wrap what
// happened: a context's error, an error of the connection, or one of the
// sentinels.
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
	ctx, cancel := c.core.limit(ctx)
	defer cancel()
	state := perCallFrom(ctx).trace // the caller wants to see it too
	if state == nil {
		state = new(Trace)
	}
	*state = Trace{}
	req, err := c.request(ctx, method, path, in, &cfg, state)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.failedCall(req, resp, state, err)
	}
	defer resp.Body.Close()
	return c.finish(req, resp, state, out)
}

// limit puts a call under the client's timeout.
func (c *core) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if t := c.cfg.timeout; t > 0 {
		return context.WithTimeoutCause(ctx, t, timeoutError{t})
	}
	return ctx, func() {}
}

// timeoutError is what a call ended by [WithTimeout] fails with.
type timeoutError struct{ limit time.Duration }

func (e timeoutError) Error() string {
	return fmt.Sprintf("no answer within %v, the client's WithTimeout", e.limit)
}
func (e timeoutError) Timeout() bool { return true }
func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }

// failedCall names the call in the error. The url.Error of net/http goes: it
// shows query strings.
func (c *Client) failedCall(req *http.Request, resp *http.Response, state *Trace, err error) (*Response, error) {
	var out *Response
	if resp != nil {
		out = c.describe(resp, state)
		_ = resp.Body.Close()
	}
	// Only the outermost ones: further in they belong to what a source says.
	for ue, ok := err.(*url.Error); ok; ue, ok = err.(*url.Error) { //nolint:errorlint // see above
		err = ue.Err
	}
	return out, &callError{method: req.Method, path: req.URL.Path, err: ended(req.Context(), err)}
}

func (c *Client) request(ctx context.Context, method, path string, in any, cfg *callConfig, state *Trace) (*http.Request, error) {
	u, err := c.core.url(path, cfg.query)
	if err != nil {
		return nil, err
	}
	body, contentType, err := bodyOf(in)
	if err != nil {
		return nil, &callError{method: method, path: u.Path, err: err}
	}
	pc := *perCallFrom(ctx)
	pc.trace = state
	if cfg.agent.set() {
		pc.agent = cfg.agent
	}
	req, err := http.NewRequestWithContext(pc.in(ctx), method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a method", ErrInvalidOption, safeText(method))
	}
	req.Header = cfg.header
	setDefaultHeader(req.Header, "Accept", "application/json")
	setDefaultHeader(req.Header, "User-Agent", c.core.userAgent)
	if body != nil {
		setDefaultHeader(req.Header, "Content-Type", contentType)
	}
	switch {
	case cfg.key != "":
		req.Header[headerIdempotencyKey] = []string{cfg.key}
	case method == http.MethodPost || method == http.MethodPut:
		setDefaultHeader(req.Header, headerIdempotencyKey, newUUID())
	}
	return req, nil
}

func setDefaultHeader(h http.Header, name, value string) {
	if len(h.Values(name)) == 0 {
		h.Set(name, value)
	}
}

func bodyOf(in any) (body io.Reader, contentType string, err error) {
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
			return nil, "", fmt.Errorf("the request's body does not encode: %w", err)
		}
		return bytes.NewReader(b), jsonType, nil
	}
}

// newUUID is a random UUID (version 4), which the platform advises for
// idempotency keys.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// finish reads the answer.
func (c *Client) finish(req *http.Request, resp *http.Response, state *Trace, out any) (*Response, error) {
	r := c.describe(resp, state)
	c.core.noteSunset(req, r)
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	if w, ok := out.(io.Writer); ok && success {
		_, err := io.Copy(w, resp.Body)
		return r, c.readError(req, err)
	}
	limit := int64(maxBody)
	if !success {
		limit = maxErrorBody
	}
	body, err := readBounded(resp.Body, limit)
	env, derr := decodeEnvelope(body)
	if env.requestID != "" {
		r.RequestID = env.requestID
	}
	r.Meta, r.Pagination = env.meta, env.pagination
	raw, wantsAll := out.(*rawAnswer)
	if wantsAll && success {
		*raw = body
	}
	if !success || (derr == nil && err == nil && len(env.errors) > 0) {
		return r, c.apiError(req, r, env, body, state)
	}
	if wantsAll {
		return r, c.readError(req, err)
	}
	if err != nil {
		return r, c.readError(req, err)
	}
	if len(bytes.TrimSpace(body)) == 0 || (out == nil && !isWebPage(resp)) {
		return r, nil
	}
	if derr == nil && out != nil {
		derr = decodeData(env.data, out)
	}
	if derr != nil {
		return r, c.readError(req, fmt.Errorf("%w (%d %s): %w", ErrMalformedResponse,
			resp.StatusCode, safeText(resp.Header.Get("Content-Type")), derr))
	}
	return r, nil
}

// isWebPage tells that somebody else than the platform has answered: the portal
// of a network, or whoever has the host now.
func isWebPage(resp *http.Response) bool {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" if it cannot be read
	return t == "text/html"
}

// acknowledged takes any JSON, for calls whose answer says nothing, and yet has
// to be the platform's.
type acknowledged struct{}

func (*acknowledged) UnmarshalJSON([]byte) error { return nil }

// rawAnswer is the body of an answer as far as it came, whatever it is: it may
// hold a secret that is shown only now.
type rawAnswer []byte

// data is what the envelope holds, or all of it where there is none.
func (a rawAnswer) data() json.RawMessage {
	env, err := decodeEnvelope(a)
	if err != nil {
		return json.RawMessage(a)
	}
	return env.data
}

func decodeData(data json.RawMessage, out any) error {
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = slices.Clone(data)
		return nil
	}
	if isNull(data) {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (c *Client) readError(req *http.Request, err error) error {
	if err == nil {
		return nil
	}
	return &callError{method: req.Method, path: req.URL.Path, err: ended(req.Context(), err)}
}

func (c *Client) apiError(req *http.Request, r *Response, env envelope, body []byte, state *Trace) *APIError {
	secrets := credentialsIn(req.Header)
	if state.lease != nil {
		secrets = append(secrets, state.lease.Value.cred.Reveal())
	}
	e := newAPIError(r, env, body, secrets...)
	e.Method, e.Path, e.cause = req.Method, req.URL.Path, state.Err
	return e
}

func (c *Client) describe(resp *http.Response, state *Trace) *Response {
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header, Attempts: max(1, state.Attempts)}
	r.readHeader(time.Now())
	if l := state.lease; l != nil && l.Value.name != "" {
		r.Generation, r.Fingerprint = l.Generation, l.Value.cred.Fingerprint()
	}
	if r.Rate.Known {
		rate := r.Rate
		c.core.rate.Store(&rate)
	}
	return r
}

// sunsetLog remembers which routes have been reported.
type sunsetLog struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxSunsets bounds the memory of routes, since paths carry ids.
const maxSunsets = 256

func (s *sunsetLog) first(method, path string) bool {
	route := method + " " + routeOf(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[route] || len(s.seen) >= maxSunsets {
		return false
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[route] = true
	return true
}

// routeOf takes the ids out of a path: UUIDs, DIDs, and whatever else is long
// and has a digit in it.
func routeOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "did:") || (len(s) >= 8 && strings.ContainsAny(s, "0123456789")) {
			segments[i] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}

// noteSunset logs that a route will be retired, once per route.
func (c *core) noteSunset(req *http.Request, r *Response) {
	if r.Sunset.IsZero() || c.cfg.logger == nil || !c.sunsets.first(req.Method, req.URL.Path) {
		return
	}
	c.cfg.logger.LogAttrs(req.Context(), slog.LevelWarn, "agrenting: a route will be retired",
		slog.String("method", req.Method), slog.String("path", req.URL.Path), slog.Time("sunset", r.Sunset))
}
