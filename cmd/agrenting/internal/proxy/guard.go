package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

// guard decides which requests the proxy accepts.
type guard struct {
	hosts map[string]bool // nil accepts any
	pages map[string]bool // origins other than the proxy's own
	token [sha256.Size]byte
	asks  bool
	allow []Rule
	agent string // "" allows callers to name any
	// issuing permits calls that return a new secret.
	issuing bool
}

func newGuard(cfg *Config) guard {
	g := guard{allow: cfg.Allow, agent: cfg.Agent, issuing: cfg.Issuing, asks: cfg.Token != "", pages: map[string]bool{}}
	g.token = sha256.Sum256([]byte(cfg.Token))
	if cfg.Hosts != nil {
		g.hosts = map[string]bool{}
		for _, h := range cfg.Hosts {
			g.hosts[ascii.ToLower(h)] = true
		}
	}
	for _, o := range cfg.Origins {
		g.pages[o] = true
	}
	return g
}

// refusal is the response to a request that is not accepted.
type refusal struct {
	status     int
	code, text string
}

// check returns nil for a request that is accepted.
func (g *guard) check(r *http.Request) *refusal {
	if ref := g.checkHost(r); ref != nil {
		return ref
	}
	switch {
	case r.URL.Host != "" && !g.ownHost(r.URL.Host), r.Method == http.MethodConnect:
		return &refusal{http.StatusForbidden, "PROXY_NOT_FORWARD", "this is not a forward proxy: use its URL instead of the platform's"}
	case !isMethod(r.Method):
		// Servers interpret other methods differently, and the response to TRACE would show the
		// credential.
		return &refusal{http.StatusMethodNotAllowed, "PROXY_METHOD", "the proxy passes on only " + strings.Join(methods, ", ") + ", in uppercase"}
	case !knownUpgrade(r.Header):
		// Another protocol would bypass these checks.
		return &refusal{http.StatusBadRequest, "PROXY_UPGRADE", "the only upgrade that is passed on is to websocket"}
	}
	if ref := g.checkPage(r); ref != nil {
		return ref
	}
	if g.asks && !g.isPreflight(r) && !g.hasToken(r.Header) && !g.hasParameter(r) {
		// Not 407: this is not a forward proxy, and fetch hides that status from programs.
		return &refusal{http.StatusUnauthorized, "PROXY_TOKEN", "send the proxy's own token as Proxy-Authorization: Bearer or X-Proxy-Token"}
	}
	if !g.namesAgent(r.Header) {
		return &refusal{
			http.StatusForbidden, "PROXY_OTHER_AGENT",
			"this proxy acts for another agent: leave out X-Agent-ID, or start the proxy with --any-agent",
		}
	}
	if !plainPath(r.URL) {
		return &refusal{http.StatusBadRequest, "PROXY_PATH", "the path has dot segments, empty segments, or escaped slashes"}
	}
	if isControl(r.URL.Path) {
		return &refusal{http.StatusForbidden, "PROXY_SANDBOX", "the proxy does not pass on the control routes of a sandbox: send this to the sandbox"}
	}
	if r.URL.Path == "/favicon.ico" {
		// A browser requests it for a page that another page has opened and that was refused.
		return &refusal{http.StatusNotFound, "PROXY_ICON", "the proxy has no icon"}
	}
	if g.allow != nil && !g.isPreflight(r) && !g.allowed(r) {
		return &refusal{http.StatusForbidden, "PROXY_NOT_ALLOWED", "the --allow rules of the proxy do not permit this request"}
	}
	if !g.issuing && Issues(r.Method, r.URL.Path) {
		return &refusal{http.StatusForbidden, "PROXY_ISSUING", "the response would contain a new secret, which callers must not see; start the proxy with --allow-issuing to permit it"}
	}
	return nil
}

// isControl reports whether a path is one of the routes that script faults in a sandbox,
// which are for programs of this machine and not for web pages. The sandbox cannot detect
// the caller of the proxy.
func isControl(path string) bool {
	return path == "/_sandbox" || strings.HasPrefix(path, "/_sandbox/")
}

// checkHost refuses other host names, which may have been made to resolve to this machine (DNS
// rebinding).
func (g *guard) checkHost(r *http.Request) *refusal {
	if g.hosts == nil || g.hosts[ascii.ToLower(r.Host)] {
		return nil
	}
	return &refusal{http.StatusMisdirectedRequest, "PROXY_HOST", "use the loopback name and port of this proxy as the host"}
}

// methods are the methods that the proxy passes on.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

func isMethod(name string) bool { return slices.Contains(methods, name) }

// namesAgent reports whether a caller names only the proxy's agent, or none.
func (g *guard) namesAgent(h http.Header) bool {
	if g.agent == "" {
		return true
	}
	for name, values := range h {
		if isAgentHeader(name) && slices.ContainsFunc(values, func(v string) bool { return !ascii.EqualFold(strings.TrimSpace(v), g.agent) }) {
			return false
		}
	}
	return true
}

const (
	websocket = "websocket"
	// h2c is HTTP/2 without TLS, which clients such as Java's offer with each first
	// request. A server may ignore the offer (RFC 9110, section 7.8).
	h2c = "h2c"
)

// offered returns the protocols that a request offers to upgrade to, in lower case.
func offered(h http.Header) []string {
	var all []string
	for _, line := range h["Upgrade"] {
		for name := range strings.SplitSeq(line, ",") {
			all = append(all, ascii.ToLower(strings.TrimSpace(name)))
		}
	}
	return all
}

func knownUpgrade(h http.Header) bool {
	return !slices.ContainsFunc(offered(h), func(name string) bool { return name != websocket && name != h2c })
}

// isSocket reports whether a request opens a WebSocket.
func isSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && slices.Contains(offered(r.Header), websocket)
}

// ignoreOffers removes offers of protocols other than WebSocket from a request. It does not
// change the original header, which may be shared.
func ignoreOffers(r *http.Request) {
	if len(r.Header["Upgrade"]) == 0 && len(r.Header["Http2-Settings"]) == 0 {
		return
	}
	socket := isSocket(r)
	r.Header = r.Header.Clone()
	delete(r.Header, "Http2-Settings")
	delete(r.Header, "Upgrade")
	if socket {
		r.Header["Upgrade"] = []string{websocket}
	}
}

func (g *guard) ownHost(host string) bool { return g.hosts == nil || g.hosts[ascii.ToLower(host)] }

// checkPage refuses requests that a web page of another origin makes a browser send.
func (g *guard) checkPage(r *http.Request) *refusal {
	foreign := &refusal{http.StatusForbidden, "PROXY_ORIGIN", "this proxy does not serve web pages of other origins; permit an origin with --allow-origin"}
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return foreign
	}
	if len(origins) == 1 {
		if g.pages[origins[0]] {
			return nil
		}
		u, err := url.Parse(origins[0])
		if err != nil || u.Scheme != "http" || g.hosts == nil || !g.hosts[ascii.ToLower(u.Host)] {
			return foreign
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		// Another port of this machine is "same-site", but another origin.
		if site != "same-origin" && site != "none" {
			return foreign
		}
	}
	return nil
}

// isPreflight reports whether a request is a preflight of a permitted page. Browsers send it
// without a token, and its response reveals nothing.
func (g *guard) isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && g.pages[r.Header.Get("Origin")]
}

// hasToken reports whether a request has the proxy's own token. Clients of the platform without
// support for the proxy send the token like the platform's credential.
func (g *guard) hasToken(h http.Header) bool {
	for _, name := range []string{headerProxyAuth, headerProxyToken, "Authorization", "X-Api-Key", "Api-Key"} {
		for _, v := range h.Values(name) {
			if scheme, rest, ok := strings.Cut(v, " "); ok && ascii.EqualFold(scheme, "bearer") {
				v = strings.TrimSpace(rest)
			}
			if g.isToken(v) {
				return true
			}
		}
	}
	return false
}

// hasParameter reports whether the query has the proxy's own token in a parameter in which
// clients of the platform's sockets send their credential.
func (g *guard) hasParameter(r *http.Request) bool {
	if !isSocket(r) {
		return false
	}
	q := r.URL.Query()
	return slices.ContainsFunc(append(q["api_key"], q["session_token"]...), g.isToken)
}

func (g *guard) isToken(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
}

// plainPath reports whether all servers interpret a path in the same way, so that the platform
// does not serve a path other than the one that was checked.
func plainPath(u *url.URL) bool {
	raw := ascii.ToLower(u.EscapedPath())
	if !strings.HasPrefix(raw, "/") || strings.Contains(raw, "//") {
		return false
	}
	for _, bad := range []string{"%2f", "%5c", "%2e", "%25", "%00", "\\", ";"} {
		if strings.Contains(raw, bad) {
			return false
		}
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func (g *guard) allowed(r *http.Request) bool {
	for _, rule := range g.allow {
		if rule.Match(r.Method, r.URL.Path) {
			return true
		}
	}
	return false
}

const jsonType = "application/json; charset=utf-8"

// refuse writes an error in the platform's envelope, which its clients can decode.
func refuse(w http.ResponseWriter, status int, code, text string, retryAfter time.Duration) {
	if c, ok := w.(*call); ok {
		c.code = code
	}
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("X-Content-Type-Options", "nosniff")
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="agrenting proxy"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", strings.Join(methods, ", "))
	}
	if retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds()+0.999)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(envelope(code, text))
}

// envelope returns the body of an error in the platform's format.
func envelope(code, text string) []byte {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, _ := json.Marshal(struct { //nolint:errchkjson // strings can be encoded
		Data   *struct{} `json:"data"`
		Errors []entry   `json:"errors"`
	}{Errors: []entry{{code, text}}})
	return append(b, '\n')
}
