// Package proxy lends a credential to programs of the same machine: a reverse
// proxy on a loopback port or a unix socket, whose transport adds what its
// callers never see.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/agrenting/agrenting-go"
)

// Config says what a proxy lends, and to whom.
type Config struct {
	// Upstream is the platform's base URL.
	Upstream *url.URL
	// Transport adds the credential.
	Transport http.RoundTripper
	// Hosts are the values of Host by which callers may address the proxy; nil
	// takes any, as behind a unix socket, which no browser reaches.
	Hosts []string
	// Token is asked of every caller; "" asks for none.
	Token string
	// Allow lists what may be called; nil allows everything.
	Allow []Rule
	// Agent is the only agent that callers may name; "" lets them name any.
	Agent string
	// Issuing lets calls through whose answer has a new secret in it.
	Issuing bool
	// Origins are those of web pages that may call the proxy, beside its own.
	Origins []string
	// Explain turns an error of the transport into status, code and text.
	Explain func(error) (status int, code, text string, retryAfter time.Duration)
	// Log is told of every request; nil is silent.
	Log *slog.Logger
}

// Headers by which callers send the proxy's own token.
const (
	headerProxyToken = "X-Proxy-Token" // #nosec G101 -- the name of a header
	headerProxyAuth  = "Proxy-Authorization"
)

// Proxy is an [http.Handler]. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	guard   guard
	reverse *httputil.ReverseProxy
}

// flushInterval bounds how long a piece of an answer of known length may wait
// for the next: flushing each at once costs a tenth of the throughput. Events
// and answers of unknown length are always passed on at once.
const flushInterval = 10 * time.Millisecond

// New makes a proxy.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, guard: newGuard(&cfg)}
	// A BufferPool would raise the throughput by a fifth and the 99th percentile
	// of the latency by a third: less garbage means rarer collections, which then
	// stand out. Who waits for an answer has more of the latter.
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      cfg.Transport,
		FlushInterval:  flushInterval,
		ModifyResponse: answer,
		ErrorHandler:   p.failed,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // it would go to standard error
	}
	return p
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := newCall(w, p.cfg.Upstream)
	if p.cfg.Log != nil {
		defer p.log(r, c, time.Now())
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
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), callKey{}, c))
	defer cancel()
	c.cancel = cancel
	ctx = agrenting.ContextWithTrace(ctx, &c.sent)
	p.reverse.ServeHTTP(c, r.WithContext(ctx))
}

func (p *Proxy) log(r *http.Request, c *call, start time.Time) {
	p.cfg.Log.LogAttrs(r.Context(), slog.LevelInfo, "proxy: request", slog.String("method", r.Method),
		slog.String("path", r.URL.EscapedPath()), slog.Int("status", c.status), slog.Duration("took", time.Since(start)))
}

// preflight answers a browser that asks whether a page may call.
func preflight(c *call, r *http.Request, origin string) bool {
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

// rewrite makes the request to the platform, without what the caller may not decide. The
// transport adds the rest.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	pr.SetURL(p.cfg.Upstream)
	cleanRequest(pr.Out, p.cfg.Agent != "")
}

// answer is the hook of the reverse proxy for responses of the platform.
func answer(resp *http.Response) error {
	if resp.Request != nil {
		if c, ok := resp.Request.Context().Value(callKey{}).(*call); ok {
			c.answer(resp)
			return nil
		}
	}
	return errNoCall
}

// errNoCall means that the transport has lost the context of a request, so that the
// credential of the request is not known.
var errNoCall = errors.New("proxy: a response without its request")

func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		// Nobody is there to be told, or the proxy is closing.
		refuse(w, http.StatusServiceUnavailable, "PROXY_CLOSING", "the request was cut short", 0)
		return
	}
	status, code, text, after := http.StatusBadGateway, "PROXY_UPSTREAM", "the platform cannot be reached", time.Duration(0)
	if p.cfg.Explain != nil {
		status, code, text, after = p.cfg.Explain(err)
	}
	refuse(w, status, code, text, after)
}
