// Package proxy lends a credential to programs of the same machine: a reverse
// proxy on a loopback port or a unix socket, whose transport adds what its
// callers never see.
package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
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
	headerProxyToken = "X-Proxy-Token"
	headerProxyAuth  = "Proxy-Authorization"
)

// credentialHeaders never come through: the proxy's credential is the one that
// is sent.
var credentialHeaders = []string{"Authorization", "X-Api-Key", "Api-Key", "Cookie", headerProxyToken, headerProxyAuth}

// overrideHeaders would let a caller do something else than what was allowed.
var overrideHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// browserHeaders tell of the page in the browser, which the platform does not
// know.
var browserHeaders = []string{"Origin", "Referer"}

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
		ModifyResponse: p.answer,
		ErrorHandler:   p.failed,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // it would go to standard error
	}
	return p
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Log == nil {
		p.serve(w, r)
		return
	}
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	defer p.log(r, rec, time.Now())
	p.serve(rec, r)
}

func (p *Proxy) log(r *http.Request, rec *recorder, start time.Time) {
	p.cfg.Log.LogAttrs(r.Context(), slog.LevelInfo, "proxy: request", slog.String("method", r.Method),
		slog.String("path", r.URL.Path), slog.Int("status", rec.status), slog.Duration("took", time.Since(start)))
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	if ref := p.guard.check(r); ref != nil {
		refuse(w, ref.status, ref.code, ref.text, 0)
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && p.guard.pages[origin] {
		if p.preflight(w, r, origin) {
			return
		}
	}
	p.reverse.ServeHTTP(w, r)
}

// preflight answers a browser that asks whether a page may call.
func (p *Proxy) preflight(w http.ResponseWriter, r *http.Request, origin string) bool {
	h := w.Header()
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
	w.WriteHeader(http.StatusNoContent)
	return true
}

// rewrite makes the request to the platform: bare of what the caller said about
// itself. The transport adds the rest.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	pr.SetURL(p.cfg.Upstream)
	for _, names := range [][]string{credentialHeaders, overrideHeaders, browserHeaders} {
		for _, name := range names {
			delete(pr.Out.Header, name)
		}
	}
	for name := range pr.Out.Header {
		if strings.HasPrefix(name, "Sec-Fetch-") {
			delete(pr.Out.Header, name)
		}
	}
}

// answer keeps the platform's cookies away from the caller, and its redirects
// within the proxy.
func (p *Proxy) answer(resp *http.Response) error {
	delete(resp.Header, "Set-Cookie")
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(resp.Header, name) // the proxy's own say whose pages may read
		}
	}
	if loc := resp.Header.Get("Location"); loc != "" {
		up := p.cfg.Upstream
		if u, err := url.Parse(loc); err == nil && u.Scheme == up.Scheme && u.Host == up.Host {
			u.Scheme, u.Host, u.User = "", "", nil
			if rest, ok := strings.CutPrefix(u.Path, strings.TrimSuffix(up.Path, "/")); ok && strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "//") {
				u.Path, u.RawPath = rest, ""
				resp.Header.Set("Location", u.String())
			}
		}
	}
	return nil
}

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

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] through to flushing and hijacking.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
