package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

// call is one request on its way through the proxy, and the ResponseWriter of its
// response.
type call struct {
	http.ResponseWriter
	upstream *url.URL
	status   int
	final    http.Header // added to the final response, whichever it is
	sent     agrenting.Trace
	cancel   context.CancelFunc // ends the request to the platform
}

// callKey is the key of a call in the context of its request.
type callKey struct{}

// newCall takes over the headers that have been set for the response. Informational
// responses would remove them, see [httputil.ReverseProxy].
func newCall(w http.ResponseWriter, upstream *url.URL) *call {
	c := &call{ResponseWriter: w, upstream: upstream, status: http.StatusOK, final: w.Header().Clone()}
	if c.final == nil {
		c.final = http.Header{}
	}
	clear(w.Header())
	return c
}

// WriteHeader implements [http.ResponseWriter].
func (c *call) WriteHeader(status int) {
	if status < http.StatusOK { // it did not come through answer
		c.filter(c.Header())
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
		resp.Status = "" // its text would be passed on
		return           // the body is the connection
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		c.checkBody(resp)
	}
	c.filter(resp.Trailer) // the names that are announced
	resp.Body = &trailed{resp.Body, c, resp}
}

// filter keeps the platform's cookies from the caller, its redirects within the proxy,
// and the credential out of what it says.
func (c *call) filter(h http.Header) {
	if len(h) == 0 {
		return
	}
	for name := range h {
		if removesFromResponse(name) {
			delete(h, name)
		}
	}
	if loc := h.Get("Location"); loc != "" {
		h.Set("Location", c.location(loc))
	}
	redact.Func(c.sent.Redact).Header(h)
}

// location returns where a redirect leads: for one within the platform, a path of the
// proxy.
func (c *call) location(loc string) string {
	u, err := url.Parse(loc)
	if err != nil || u.Scheme != c.upstream.Scheme || u.Host != c.upstream.Host {
		return loc
	}
	rest, ok := strings.CutPrefix(u.Path, strings.TrimSuffix(c.upstream.Path, "/"))
	if !ok || !strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "//") {
		return loc
	}
	u.Scheme, u.Host, u.User, u.Path, u.RawPath = "", "", nil, rest, ""
	return u.String()
}

// trailed is a body whose trailers are filtered when they are there.
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

// Bounds of the body of an error, which is read before it is passed on. Searching it takes
// up to 40 ms.
const (
	maxErrorBody = 256 << 10
	maxErrorWait = 10 * time.Second
)

const gzipCoding = "gzip"

// checkBody removes the credential from the body of an error. One that cannot be
// searched, because of its size or its coding, or because it does not end, is replaced.
func (c *call) checkBody(resp *http.Response) {
	sent := resp.Body
	timer := time.AfterFunc(maxErrorWait, func() {
		c.cancel() // a body that net/http decompresses cannot be closed while its first byte is awaited
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
