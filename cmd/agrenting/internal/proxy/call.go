package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

// call is one request that the proxy passes on, and the ResponseWriter of its response.
type call struct {
	http.ResponseWriter
	proxy   *Proxy
	in      *http.Request
	began   time.Time
	status  int
	code    string      // of a response that the proxy itself makes
	final   http.Header // added to the final response, whichever it is
	sent    agrenting.Trace
	cancel  context.CancelCauseFunc // ends the request to the platform
	waiting sync.Mutex              // protects timer, left, and came
	timer   *time.Timer             // cancels it; nil without a timeout
	came    bool                    // the response has come
	left    atomic.Int64            // the deadline, as a duration since began; 0 is none
	upload  *upload                 // nil without a body
	trailer http.Header             // of the request to the platform
	// announced are the names of the caller's trailers. in.Trailer may be read only when
	// the body has ended: until then, net/http may be writing to it.
	announced []string
	peeked    *peeked // the beginning of the response's body, for the log
}

// newCall moves the headers that were set for the response to the call. Informational responses
// would remove them; see [httputil.ReverseProxy].
func newCall(p *Proxy, w http.ResponseWriter, r *http.Request) *call {
	c := &call{ResponseWriter: w, proxy: p, in: r, began: time.Now(), status: http.StatusOK}
	if h := w.Header(); len(h) > 0 {
		c.final = h.Clone()
		clear(h)
	}
	return c
}

// errTimeout is the cause of the cancellation if a response does not arrive in time.
var errTimeout = errors.New("proxy: the response did not arrive in time")

// callKey is the key of a call in the context of its request.
type callKey struct{}

// callContext is the context of a request to the platform. It has a deadline until the
// response has arrived, so that retries are not planned after the deadline. The timer of the call
// cancels the context at the deadline.
type callContext struct {
	context.Context //nolint:containedctx // it wraps a context

	call *call
}

// Value implements [context.Context].
func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c.call
	}
	return c.Context.Value(key)
}

// Deadline implements [context.Context].
func (c *callContext) Deadline() (time.Time, bool) {
	if left := c.call.left.Load(); left > 0 {
		return c.call.began.Add(time.Duration(left)), true
	}
	return c.Context.Deadline()
}

// callOf returns the call of a request to the platform.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// await starts or restarts the time within which the response must arrive. It does nothing after
// arrived was called.
func (c *call) await() {
	timeout := c.proxy.cfg.Timeout
	if timeout <= 0 {
		return
	}
	c.waiting.Lock()
	defer c.waiting.Unlock()
	if c.came {
		return
	}
	c.left.Store(int64(time.Since(c.began) + timeout))
	if c.timer == nil {
		c.timer = time.AfterFunc(timeout, func() { c.cancel(errTimeout) })
	} else {
		c.timer.Reset(timeout)
	}
}

// arrived ends the time limit of await. From then on, the response may take any time.
func (c *call) arrived() {
	c.waiting.Lock()
	defer c.waiting.Unlock()
	c.came = true
	if c.timer != nil {
		c.timer.Stop()
		c.left.Store(0)
	}
}

// attach sets the body of out, the request to the platform, to the body of the caller's request.
func (c *call) attach(out *http.Request) {
	delete(out.Header, "Expect")
	if c.upload == nil {
		out.Trailer = nil
		return
	}
	length := c.upload.whole()
	ended := length >= 0
	if !ended {
		// The platform rejects a credential before it asks for the body. The body can
		// then be sent again.
		length = c.in.ContentLength
		out.Header["Expect"] = []string{"100-continue"}
		c.upload.onRead = c.await
		c.upload.onEnd = c.addTrailers
	}
	out.TransferEncoding = nil
	out.Trailer = nil
	if len(c.announced) > 0 || (ended && len(c.in.Trailer) > 0) {
		c.trailer = make(http.Header, len(c.announced))
		for _, name := range c.announced {
			c.addTrailer(name, nil)
		}
		if ended {
			c.addTrailers()
		}
		out.Trailer, length = c.trailer, -1
	}
	out.ContentLength = length
	if length == 0 {
		return
	}
	out.GetBody = c.upload.body
	out.Body, _ = c.upload.body() // nothing of the rest was read
}

// addTrailers adds the caller's trailers. Their values are available when the body has ended.
func (c *call) addTrailers() {
	if c.trailer == nil {
		return
	}
	for name, values := range c.in.Trailer {
		c.addTrailer(name, values)
	}
}

func (c *call) addTrailer(name string, values []string) {
	if !removesTrailer(name, c.proxy.cfg.Agent != "") {
		c.trailer[name] = values
	}
}

// WriteHeader implements [http.ResponseWriter].
func (c *call) WriteHeader(status int) {
	if status == http.StatusContinue {
		// This is the response to the Expect header of the proxy. The server sends a 100 to
		// callers that wait for one. Others, such as Node's fetch, fail on it.
		return
	}
	if status < http.StatusOK { // it did not pass through response
		c.remove(c.Header())
		redact.Func(c.sent.Redact).Header(c.Header())
	} else {
		c.status = status
		h := c.Header()
		for name, values := range c.final {
			h[name] = append(h[name], values...)
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] flush and hijack.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// answer prepares a response of the platform for the caller.
func (c *call) answer(resp *http.Response) {
	c.filter(resp.Header)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		c.status = resp.StatusCode
		resp.Status = "" // otherwise, its text would be passed on
		return           // the body is the connection
	}
	switch cfg := &c.proxy.cfg; {
	case c.refused(resp.StatusCode) && cfg.Rejected != nil:
		cfg.Rejected(c.sent.Generation)
	case resp.StatusCode < http.StatusBadRequest && cfg.Succeeded != nil:
		cfg.Succeeded()
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		c.checkBody(resp)
	}
	c.filter(resp.Trailer) // the names that are announced
	if c.proxy.cfg.Log != nil {
		c.peeked = peek(resp)
	}
	resp.Body = &trailed{resp.Body, c, resp}
}

// refused reports whether the platform may have rejected the credential. Phoenix refuses a
// WebSocket with 403, whatever the reason.
func (c *call) refused(status int) bool {
	return status == http.StatusUnauthorized || (status == http.StatusForbidden && isSocket(c.in))
}

// filter removes the platform's cookies and the credential, and keeps redirects within the proxy.
func (c *call) filter(h http.Header) {
	if len(h) > 0 {
		c.remove(h)
		c.redactHeader(h)
	}
}

// remove is like filter, without the search for the credential.
func (c *call) remove(h http.Header) {
	for name := range h {
		if removesFromResponse(name) {
			delete(h, name)
		}
	}
	if loc := h.Get("Location"); loc != "" {
		h.Set("Location", c.location(loc))
	}
}

// location returns the target of a redirect. For a target on the platform, that is a path of the
// proxy.
func (c *call) location(loc string) string {
	u, err := url.Parse(loc)
	if err != nil || u.Scheme != c.proxy.cfg.Upstream.Scheme || u.Host != c.proxy.cfg.Upstream.Host {
		return loc
	}
	rest, ok := strings.CutPrefix(u.Path, strings.TrimSuffix(c.proxy.cfg.Upstream.Path, "/"))
	if !ok || !strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "//") {
		return loc
	}
	u.Scheme, u.Host, u.User, u.Path, u.RawPath = "", "", nil, rest, ""
	return u.String()
}

// trailed is a body that filters its trailers when it is closed.
type trailed struct {
	io.ReadCloser
	call *call
	resp *http.Response
}

// Close implements [io.Closer].
func (t *trailed) Close() error {
	err := t.ReadCloser.Close()
	t.call.filter(t.resp.Trailer)
	return err
}

// Bounds of the body of an error, which is read completely before it is passed on. The search
// takes up to 40 ms.
const (
	maxErrorBody = 256 << 10
	maxErrorWait = 3 * time.Second
)

const gzipCoding = "gzip"

// checkBody removes the credential from the body of an error. It replaces a body that cannot be
// searched because of its size or its coding, or because it does not end.
func (c *call) checkBody(resp *http.Response) {
	sent := resp.Body
	timer := time.AfterFunc(maxErrorWait, func() {
		c.cancel(nil) // a body that net/http decompresses cannot be closed while the first byte is read
		_ = sent.Close()
	})
	raw, err := io.ReadAll(io.LimitReader(sent, maxErrorBody+1))
	timer.Stop()
	_ = sent.Close()
	if len(raw) == 0 && err == nil {
		resp.Body = http.NoBody
		return
	}
	coding := strings.ToLower(strings.Join(resp.Header["Content-Encoding"], ","))
	plain := raw
	if err == nil && len(raw) <= maxErrorBody && (coding == gzipCoding || coding == "x-gzip") {
		plain, err = unzip(raw)
		coding = ""
	}
	problem := ""
	switch {
	case err != nil:
		problem = "it was incomplete"
	case len(plain) > maxErrorBody:
		problem = "it was larger than " + strconv.Itoa(maxErrorBody>>10) + " KiB"
	case coding != "" && coding != "identity":
		problem = "it had a content coding other than gzip"
	}
	var body []byte
	if problem != "" {
		body = envelope("PROXY_BODY", "the proxy removed the body of this response: "+problem)
		resp.Header["Content-Type"] = []string{jsonType}
	} else if body = redact.Func(c.sent.Redact).Body(plain); bytes.Equal(body, plain) {
		resp.Body = io.NopCloser(bytes.NewReader(raw))
		return
	}
	for _, name := range []string{"Content-Encoding", "Content-Md5", "Content-Digest", "Repr-Digest", "Digest", "Etag"} {
		delete(resp.Header, name)
	}
	resp.ContentLength = int64(len(body))
	resp.Header["Content-Length"] = []string{strconv.Itoa(len(body))}
	resp.Body = io.NopCloser(bytes.NewReader(body))
}

func unzip(raw []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxErrorBody+1))
}
