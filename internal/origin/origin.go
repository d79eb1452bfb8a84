package origin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Origin is a scheme, host, and port: the unit to which credentials are pinned. net/http
// strips credentials on redirects, too, but it compares only host names and keeps custom
// headers, which is not enough here.
type Origin struct {
	scheme string
	host   string // lower case, without the scheme's default port
}

// Of returns the origin of a URL, in normal form.
func Of(u *url.URL) Origin {
	o := Origin{scheme: ascii.ToLower(u.Scheme)}
	host, port := ascii.ToLower(u.Hostname()), u.Port()
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

// matches does not allocate for a URL in normal form, which is the common case.
func (o Origin) matches(u *url.URL) bool {
	return (u.Host == o.host && u.Scheme == o.scheme) || Of(u) == o
}

// String returns the origin as a URL without a path.
func (o Origin) String() string { return o.scheme + "://" + o.host }

// IsLoopback reports whether the host of a URL is this machine: localhost or a loopback
// address. It does not resolve other names, because their addresses may change.
func IsLoopback(u *url.URL) bool {
	host := ascii.ToLower(u.Hostname())
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return a.Unmap().IsLoopback()
}

// IsLocal reports whether the host of a URL means the machine that resolves it. It accepts
// more than [IsLoopback], because resolvers differ: it also accepts names below localhost,
// names with a dot at the end, and unspecified addresses. For a proxy, such a host would
// mean the machine of the proxy.
func IsLocal(u *url.URL) bool {
	host := strings.TrimRight(ascii.ToLower(u.Hostname()), ".")
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified()
}

// Secure reports whether a request may be sent to u: over https, over http to this
// machine, or over http to any host if insecureOK is set.
func Secure(u *url.URL, insecureOK bool) bool {
	switch {
	case u.Scheme == "https", ascii.EqualFold(u.Scheme, "https"): // the first comparison is faster
		return true
	case ascii.EqualFold(u.Scheme, "http"):
		return insecureOK || IsLoopback(u)
	default:
		return false
	}
}

// InsecureError returns the error for a URL that is not [Secure]. It matches
// [ErrInsecure].
func InsecureError(u *url.URL) error {
	return fmt.Errorf("%w: %s; use https; WithInsecureHTTP allows plain http, which anyone on the network path can read (loopback addresses are always allowed)",
		ErrInsecure, Of(u))
}

// ParseBase parses and checks a base URL. Errors never show its user information or
// query string.
func ParseBase(raw string, insecureOK bool) (*url.URL, error) {
	u, err := Parse(raw, insecureOK)
	if err != nil {
		return nil, err
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: a base URL must not have a query string or a fragment; expected something like https://agrenting.com", ErrInvalid)
	}
	return u, trimPath(u)
}

// trimPath removes the slashes at the end of a path. It keeps escaped slashes, because
// they are part of the last segment.
func trimPath(u *url.URL) error {
	escaped := strings.TrimRight(u.EscapedPath(), "/")
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return fmt.Errorf("%w: the path of a URL is not escaped correctly", ErrInvalid)
	}
	u.Path, u.RawPath = path, escaped
	return nil
}

// Parse parses and checks a URL, and puts its scheme and host into normal form. Errors
// never show the URL.
func Parse(raw string, insecureOK bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: not a valid URL%s; expected something like https://agrenting.com", ErrInvalid, strayIn(raw))
	}
	switch {
	case u.Scheme == "" || u.Host == "" || u.Hostname() == "":
		return nil, fmt.Errorf("%w: a URL needs a scheme and a host, such as https://agrenting.com", ErrInvalid)
	case u.User != nil:
		return nil, fmt.Errorf("%w: a URL must not contain user information; pass the credential with WithCredential", ErrInvalid)
	case !ascii.EqualFold(u.Scheme, "https") && !ascii.EqualFold(u.Scheme, "http"):
		return nil, fmt.Errorf("%w: the scheme of a URL must be https", ErrInvalid)
	case !Secure(u, insecureOK):
		return nil, InsecureError(u)
	}
	o := Of(u)
	u.Scheme, u.Host = o.scheme, o.host
	return u, nil
}

// strayIn describes the first character that is invalid in a URL. It returns "" if there
// is none.
func strayIn(raw string) string {
	i := strings.IndexFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"'`<>", r) })
	switch {
	case i < 0:
		return ""
	case raw[i] == ' ' || ('\t' <= raw[i] && raw[i] <= '\r'):
		return fmt.Sprintf(" (white space at byte %d)", i+1)
	case raw[i] < ' ' || raw[i] == 0x7f:
		return fmt.Sprintf(" (a control character at byte %d)", i+1)
	default:
		return fmt.Sprintf(" (%c at byte %d)", raw[i], i+1)
	}
}

// Set is the list of pinned origins, which may receive credentials. The first one is the
// origin of the base URL.
type Set []Origin

// NewSet returns the origins of the base URL and of the allowed URLs.
func NewSet(base *url.URL, allowed []string, insecureOK bool) (Set, error) {
	set := Set{Of(base)}
	for _, raw := range allowed {
		u, err := Parse(raw, insecureOK)
		if err != nil {
			return nil, err
		}
		if o := Of(u); !slices.Contains(set, o) {
			set = append(set, o)
		}
	}
	return set, nil
}

// Has reports whether credentials may be sent to u.
func (set Set) Has(u *url.URL) bool {
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

// opaqueStays reports whether an opaque part names the same host as the URL. It is written
// to the wire unchanged. In absolute form, it would decide to which host a front end
// forwards the request.
func opaqueStays(u *url.URL) bool {
	rest, absolute := strings.CutPrefix(u.Opaque, "//")
	if !absolute {
		return strings.HasPrefix(u.Opaque, "/")
	}
	host, _, _ := strings.Cut(rest, "/")
	return ascii.EqualFold(host, u.Host)
}

// Foreign returns the error for a URL that is not in the set. It matches [ErrForeign].
func (set Set) Foreign(u *url.URL) error {
	o := Of(u)
	return set.foreignError(o.String()+" is not an allowed origin", o)
}

// Why says why a URL that is not in the set gets no credential.
func (set Set) Why(u *url.URL) string {
	o := Of(u)
	similar := set.similar(o)
	if similar == "" {
		similar = fmt.Sprintf(" (credentials are sent only to %s)", set[0])
	}
	return secret.Clean(o.String()) + " is not a pinned origin" + similar
}

func (set Set) foreignError(text string, o Origin) error {
	return fmt.Errorf("%w: %s%s. If it may receive the credential, add it to WithAllowedOrigins or set it as the base URL",
		ErrForeign, text, set.similar(o))
}

// similar says what an origin has in common with a pinned one, if the two are easily
// confused.
func (set Set) similar(o Origin) string {
	for _, pinned := range set {
		switch {
		case pinned.host == o.host:
			return fmt.Sprintf(" (credentials are sent only to %s)", pinned)
		case pinned.host == "www."+o.host || o.host == "www."+pinned.host:
			return fmt.Sprintf(" (%s and %s are different hosts, and credentials are sent only to %s)", pinned.host, o.host, pinned)
		}
	}
	return ""
}

// Manages reports whether the SDK adds its credential to req. It does so if the URL is at
// a pinned origin, and if every earlier request of the redirect chain was, too. A chain
// that has left the pinned origins once gets no credential, even when it comes back,
// because the foreign host has chosen the target.
func (set Set) Manages(req *http.Request) bool {
	if !set.Has(req.URL) {
		return false
	}
	for p := previous(req); p != nil; p = previous(p) {
		if !set.Has(p.URL) {
			return false
		}
	}
	return true
}

// IsBase reports whether req goes to the origin of the base URL, written in normal form,
// and was not caused by a redirect. The SDK then manages req and may send it. For this
// common case, IsBase is faster than [Secure] and [Set.Manages].
func (set Set) IsBase(req *http.Request) bool {
	u, base := req.URL, &set[0]
	return u.Host == base.host && u.Scheme == base.scheme && u.Opaque == "" && req.Response == nil
}

// previous returns the request whose redirect caused req. net/http sets Request.Response
// on such requests.
func previous(req *http.Request) *http.Request {
	if req.Response == nil || req.Response.Request == nil || req.Response.Request.URL == nil {
		return nil
	}
	return req.Response.Request
}

// Bare returns the request to send to a place that may not receive the SDK's credential.
// The caller's own credentials are sent where the caller sent them, but do not follow a
// redirect to another origin.
func Bare(req *http.Request) *http.Request {
	target := Of(req.URL)
	for p := previous(req); p != nil; p = previous(p) {
		if Of(p.URL) != target {
			return stripped(req)
		}
	}
	return req
}

func stripped(req *http.Request) *http.Request {
	out := *req
	out.Header = make(http.Header, len(req.Header))
	for name, values := range req.Header {
		if !Sensitive(name) {
			out.Header[name] = values
		}
	}
	return &out
}

// CheckRedirect is the redirect policy of a client. It follows redirects only within the
// pinned origins. A redirect to another origin would end with a request without a
// credential and with a response that the caller did not ask for.
func (set Set) CheckRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case !set.Has(req.URL):
		o := Of(req.URL)
		return set.foreignError("a redirect leads to "+o.String(), o)
	case len(via) >= 10:
		return fmt.Errorf("agrenting: stopped after %d redirects", len(via))
	default:
		return nil
	}
}
