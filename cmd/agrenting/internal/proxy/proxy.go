// Package proxy lends a credential to programs of the same machine. It is a reverse proxy on a
// loopback port or a unix socket. Its transport adds the credential, which callers never see.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go"
)

// Config configures a proxy, for example with Upstream https://agrenting.com and Hosts from [Hosts].
// Most programs only set Upstream, Transport, and Hosts.
type Config struct {
	// Upstream is the platform's base URL.
	Upstream *url.URL
	// Transport adds the credential. It should wait for the platform after Expect:
	// 100-continue, so that a body that is not kept can be sent again.
	Transport http.RoundTripper
	// Socket adds the credential to requests that open a WebSocket, where the platform
	// reads it; nil means Transport.
	Socket http.RoundTripper
	// ReplayLimit is the size of the longest body of a request that is kept in memory so
	// that the request can be sent again, such as 1 << 20; 0 keeps none. Longer ones are
	// sent with Expect: 100-continue.
	ReplayLimit int64
	// ReplayMemory bounds the bodies that are kept at the same time, in bytes. A body
	// that does not fit is sent like one that is longer than ReplayLimit.
	ReplayMemory int64
	// Timeout bounds the wait for the headers of a response, with all attempts, from
	// when the last byte of the request was read; 0 means no bound.
	Timeout time.Duration
	// Hosts are the accepted values of Host, such as 127.0.0.1:8080. nil accepts any, as for a
	// unix socket, which browsers cannot reach.
	Hosts []string
	// Token is required of every caller; "" requires none.
	Token string
	// Allow lists the permitted calls; nil permits all.
	Allow []Rule
	// Agent is the only agent that callers may name; "" permits any.
	Agent string
	// Issuing permits calls that return a new secret.
	Issuing bool
	// Origins are the origins of web pages that may call the proxy, in addition to its own.
	Origins []string
	// DefaultAgent is the agent that is logged if a caller does not name one.
	DefaultAgent string
	// Rejected is called with the generation of the credential when the platform has
	// responded to a caller's request with a 401, or to a WebSocket with a 403. It may be nil.
	Rejected func(generation uint64)
	// Succeeded is called when the platform has responded with a status below 400. It may
	// be nil.
	Succeeded func()
	// Explain turns an error of the transport into the status, code, and text of a response.
	Explain func(error) (status int, code, text string, retryAfter time.Duration)
	// Log gets one record for every request; nil logs nothing.
	Log *slog.Logger
}

// Headers in which callers send the proxy's own token.
const (
	headerProxyToken = "X-Proxy-Token" // #nosec G101 -- the name of a header
	headerProxyAuth  = "Proxy-Authorization"
)

// Proxy is an [http.Handler]. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	guard   guard
	memory  memory
	clean   cleanTexts
	reverse *httputil.ReverseProxy
}

// flushInterval bounds how long a part of a response of known length may wait for the next part.
// Flushing each part immediately reduces the throughput by a tenth. Events and responses of unknown
// length are always passed on immediately.
const flushInterval = 10 * time.Millisecond

// New returns a proxy.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, guard: newGuard(&cfg)}
	p.memory.give(cfg.ReplayMemory)
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      p.transport(),
		FlushInterval:  flushInterval,
		BufferPool:     new(buffers),
		ModifyResponse: answer,
		ErrorHandler:   p.failed,
		ErrorLog:       silent,
	}
	return p
}

// silent discards the log that net/http would write to standard error.
var silent = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)

// transport returns the transport of both kinds of requests.
func (p *Proxy) transport() http.RoundTripper {
	if p.cfg.Socket == nil {
		return p.cfg.Transport
	}
	return transports{plain: p.cfg.Transport, socket: p.cfg.Socket}
}

// transports sends the requests that open a WebSocket through a separate transport.
type transports struct{ plain, socket http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t transports) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, upgrade := req.Header["Upgrade"]; upgrade { // only to WebSocket; see guard
		return t.socket.RoundTrip(req)
	}
	return t.plain.RoundTrip(req)
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := newCall(p, w, r)
	if p.cfg.Log != nil {
		defer c.log(r.Context())
	}
	if ref := p.guard.check(r); ref != nil {
		refuse(c, ref.status, ref.code, ref.text, 0)
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && p.guard.pages[origin] {
		if preflight(c, r, origin) {
			return
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	c.cancel = cancel
	// Copy the request before its body is read: at the end of the body, net/http changes
	// r.Trailer.
	in := r.WithContext(agrenting.ContextWithTrace(&callContext{Context: ctx, call: c}, &c.sent)) //nolint:contextcheck // it is the same context
	in.Body, in.ContentLength, in.Trailer = http.NoBody, 0, nil                                   // the call has the body
	if r.ContentLength < 0 {
		// Otherwise, an HTTP/1.1 response does not begin while the caller's body is read.
		_ = http.NewResponseController(w).EnableFullDuplex() // not every ResponseWriter needs it
	}
	c.announced = slices.Collect(maps.Keys(r.Trailer))
	upload, err := receive(ctx, r, p.cfg.ReplayLimit, &p.memory)
	if err != nil {
		refuse(c, http.StatusBadRequest, "PROXY_REQUEST_BODY", "the body of the request is incomplete", 0)
		return
	}
	if upload != nil {
		c.upload = upload
		defer upload.close()
	}
	c.await()
	defer c.arrived()
	ignoreOffers(in)
	p.reverse.ServeHTTP(c, in)
}

// preflight responds to a browser that asks whether a page may call the proxy.
func preflight(c *call, r *http.Request, origin string) bool {
	if c.final == nil {
		c.final = http.Header{}
	}
	h := c.final
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", "*")
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	if want := r.Header.Get("Access-Control-Request-Headers"); want != "" {
		h.Set("Access-Control-Allow-Headers", want)
	}
	h.Set("Access-Control-Max-Age", "600")
	c.WriteHeader(http.StatusNoContent)
	return true
}

// rewrite creates the request to the platform, without the headers and parameters that the caller
// may not set. The transport adds the rest.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	pr.SetURL(p.cfg.Upstream)
	cleanRequest(pr.Out, p.cfg.Agent != "")
	if c := callOf(pr.Out.Context()); c != nil {
		c.attach(pr.Out)
	}
}

// answer is the hook of the reverse proxy for responses of the platform.
func answer(resp *http.Response) error {
	if resp.Request != nil {
		if c := callOf(resp.Request.Context()); c != nil {
			c.arrived()
			if errors.Is(context.Cause(resp.Request.Context()), errTimeout) {
				return errTimeout // the timer has fired in the meantime
			}
			c.answer(resp)
			return nil
		}
	}
	return errNoCall
}

// errNoCall means that the transport has lost the context of a request, so that the
// credential of the request is not known.
var errNoCall = errors.New("proxy: a response without a request")

func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(context.Cause(r.Context()), errTimeout) {
		refuse(w, http.StatusGatewayTimeout, "PROXY_TIMEOUT", fmt.Sprintf("the platform did not respond within %v, the --timeout of the proxy", p.cfg.Timeout), 0)
		return
	}
	if r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		// The caller has disconnected, or the proxy is closing.
		refuse(w, http.StatusServiceUnavailable, "PROXY_CLOSING", "the request was interrupted", 0)
		return
	}
	status, code, text, after := http.StatusBadGateway, "PROXY_UPSTREAM", "the platform cannot be reached", time.Duration(0)
	if p.cfg.Explain != nil {
		status, code, text, after = p.cfg.Explain(err)
	}
	refuse(w, status, code, text, after)
}
