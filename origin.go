package agrenting

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// origin is scheme, host, and port: the unit to which credentials are pinned. When
// net/http strips credentials on redirects, it compares only host names and leaves
// custom headers alone, which is not enough here.
type origin struct {
	scheme string
	host   string // lower case, without the scheme's default port
}

func originOf(u *url.URL) origin {
	o := origin{scheme: strings.ToLower(u.Scheme)}
	host, port := lowerASCII(u.Hostname()), u.Port()
	if (o.scheme == "https" && port == "443") || (o.scheme == "http" && port == "80") {
		port = ""
	}
	switch {
	case port != "":
		o.host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		o.host = "[" + host + "]"
	default:
		o.host = host
	}
	return o
}

// lowerASCII returns s with A-Z in lower case. Unicode's rules would turn some other
// letters, such as U+0130, into ASCII letters. IDNA, which decides where a request
// goes, treats those differently.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// matches does not allocate in the common case, a URL in normal form.
func (o origin) matches(u *url.URL) bool {
	return (u.Host == o.host && u.Scheme == o.scheme) || originOf(u) == o
}

func (o origin) String() string { return o.scheme + "://" + o.host }

// isLoopback reports whether a URL's host is this machine: localhost or a loopback
// address. It does not resolve other names, because their addresses may change.
func isLoopback(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// secureURL reports whether a request may be sent to u at all.
func secureURL(u *url.URL, insecureOK bool) bool {
	switch {
	case u.Scheme == "https", strings.EqualFold(u.Scheme, "https"): // the first comparison is cheaper
		return true
	case strings.EqualFold(u.Scheme, "http"):
		return insecureOK || isLoopback(u)
	default:
		return false
	}
}

func insecureError(u *url.URL) error {
	return fmt.Errorf("%w: %s; use https, or WithInsecureHTTP if you know what reads along (loopback needs no opt-in)",
		ErrInsecureURL, originOf(u))
}

// parseBaseURL validates a base URL. Errors never show its user information or
// query string.
func parseBaseURL(raw string, insecureOK bool) (*url.URL, error) {
	u, err := parseOriginURL(raw, insecureOK)
	if err != nil {
		return nil, err
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: a base URL has no query string and no fragment, such as https://agrenting.com", ErrInvalidOption)
	}
	return u, trimPath(u)
}

// trimPath removes the slashes at the end of a path, except escaped ones, which are
// part of the last segment.
func trimPath(u *url.URL) error {
	escaped := strings.TrimRight(u.EscapedPath(), "/")
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return fmt.Errorf("%w: the path of a URL is not escaped as it should be", ErrInvalidOption)
	}
	u.Path, u.RawPath = path, escaped
	return nil
}

func parseOriginURL(raw string, insecureOK bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a URL; it looks like https://agrenting.com", ErrInvalidOption)
	}
	switch {
	case u.Scheme == "" || u.Host == "" || u.Hostname() == "":
		return nil, fmt.Errorf("%w: a URL has a scheme and a host, such as https://agrenting.com", ErrInvalidOption)
	case u.User != nil:
		return nil, fmt.Errorf("%w: a URL may not carry user information; pass credentials as credentials", ErrInvalidOption)
	case !strings.EqualFold(u.Scheme, "https") && !strings.EqualFold(u.Scheme, "http"):
		return nil, fmt.Errorf("%w: the scheme of a URL is https", ErrInvalidOption)
	case !secureURL(u, insecureOK):
		return nil, insecureError(u)
	}
	o := originOf(u)
	u.Scheme, u.Host = o.scheme, o.host
	return u, nil
}

// originSet has the pinned origins: those that may receive credentials. The base
// URL's is the first.
type originSet []origin

// newOriginSet returns the origins of the base URL and of the allowed URLs.
func newOriginSet(base *url.URL, allowed []string, insecureOK bool) (originSet, error) {
	set := originSet{originOf(base)}
	for _, raw := range allowed {
		u, err := parseOriginURL(raw, insecureOK)
		if err != nil {
			return nil, err
		}
		if o := originOf(u); !slices.Contains(set, o) {
			set = append(set, o)
		}
	}
	return set, nil
}

// has reports whether credentials may be sent to u.
func (set originSet) has(u *url.URL) bool {
	if u.Opaque != "" && !opaqueStays(u) {
		return false
	}
	for _, o := range set {
		if o.matches(u) {
			return true
		}
	}
	return false
}

// opaqueStays reports whether an opaque part, which is written to the wire unchanged,
// names the same host as the URL. In absolute form it would decide where a front end
// forwards to.
func opaqueStays(u *url.URL) bool {
	rest, absolute := strings.CutPrefix(u.Opaque, "//")
	if !absolute {
		return strings.HasPrefix(u.Opaque, "/")
	}
	host, _, _ := strings.Cut(rest, "/")
	return strings.EqualFold(host, u.Host)
}

// manages reports whether the SDK adds its credential to req: its URL is at a pinned
// origin, and so was every request of the redirect chain before it. A chain that has
// left once gets no credential, even when it comes back: the foreign host has chosen
// the target.
func (set originSet) manages(req *http.Request) bool {
	if !set.has(req.URL) {
		return false
	}
	for p := previous(req); p != nil; p = previous(p) {
		if !set.has(p.URL) {
			return false
		}
	}
	return true
}

// previous is the request whose redirect caused req. net/http sets
// Request.Response on such requests.
func previous(req *http.Request) *http.Request {
	if req.Response == nil || req.Response.Request == nil || req.Response.Request.URL == nil {
		return nil
	}
	return req.Response.Request
}

// bare returns the request to send where the SDK's credential may not go. The caller's
// own credentials go where the caller sent them, but do not follow a redirect to
// another origin.
func bare(req *http.Request) *http.Request {
	target := originOf(req.URL)
	for p := previous(req); p != nil; p = previous(p) {
		if originOf(p.URL) != target {
			return stripped(req)
		}
	}
	return req
}

func stripped(req *http.Request) *http.Request {
	out := *req
	out.Header = make(http.Header, len(req.Header))
	for name, values := range req.Header {
		if !sensitive(name) {
			out.Header[name] = values
		}
	}
	return &out
}

// checkRedirect is the policy of the Client: it follows redirects only within the
// pinned origins. A redirect that leaves them would end with a request without a
// credential, whose answer the caller did not ask for.
func (set originSet) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case !set.has(req.URL):
		return fmt.Errorf("%w: a redirect leads to %s; if that host is yours to trust, name it by WithAllowedOrigins, or make it the base URL",
			ErrForeignOrigin, originOf(req.URL))
	case len(via) >= 10:
		return fmt.Errorf("agrenting: stopped after %d redirects", len(via))
	default:
		return nil
	}
}
