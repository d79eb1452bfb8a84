package origin

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// Identity reports which headers the caller has set: a credential, an agent. A header map
// may contain names that are not canonical, and servers read them, too. So Identity checks
// each name, but only once, because ranging over a map is a large part of the transport's
// cost.
func Identity(h http.Header) (credential, agent bool) {
	rest := len(h)
	for name := range h {
		// Most names differ in length, so they need no comparison.
		if n := len(name); n < 64 && identityLengths>>n&1 != 0 {
			switch n {
			case len(wire.HeaderAuthorization):
				credential = credential || readAs(name, wire.HeaderAuthorization)
			case len(wire.HeaderAPIKey):
				credential = credential || readAs(name, wire.HeaderAPIKey)
			case len(wire.HeaderAPIKeyAlias):
				credential = credential || readAs(name, wire.HeaderAPIKeyAlias)
			case len(wire.HeaderAgentID):
				agent = agent || readAs(name, wire.HeaderAgentID)
			}
		}
		rest--
		if rest == 0 {
			break // avoids searching the map for another name
		}
	}
	return credential, agent
}

// CredentialHeader returns the name of a header in which the caller has set a credential, in
// the spelling of the platform's documents. It returns "" if there is none.
func CredentialHeader(h http.Header) string {
	for _, want := range []string{wire.HeaderAuthorization, "X-API-Key", wire.HeaderAPIKeyAlias} {
		for name := range h {
			if len(name) == len(want) && readAs(name, want) {
				return want
			}
		}
	}
	return ""
}

// identityLengths has a bit for the length of each name that [Identity] searches for.
const identityLengths = uint64(1)<<len(wire.HeaderAuthorization) | 1<<len(wire.HeaderAPIKey) |
	1<<len(wire.HeaderAPIKeyAlias) | 1<<len(wire.HeaderAgentID)

// readAs reports whether a server may read name as the header want, which has the same
// length. Header names are case-insensitive, and some servers treat "_" as "-".
func readAs(name, want string) bool {
	const lower = 'a' - 'A'
	for i := range len(want) {
		c := name[i]
		if c == '_' {
			c = '-'
		}
		if c|lower != want[i]|lower {
			return false
		}
	}
	return true
}

// plainName returns the canonical form of a header name, as servers may read it.
func plainName(name string) string {
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// Sensitive reports whether a header identifies or authenticates the sender, or may contain
// a URL with a secret.
func Sensitive(name string) bool {
	switch plainName(name) {
	case wire.HeaderAgentID, "Referer", "Www-Authenticate":
		return true
	default:
		return Secret(name)
	}
}

// Secret reports whether the value of a header is a secret, or contains one.
func Secret(name string) bool {
	switch plainName(name) {
	case wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias, "Proxy-Authorization", "Cookie", "Cookie2":
		return true
	default:
		return false
	}
}

// WithoutUser returns the request to send in place of one that a redirect has caused:
// without the user information of its URL, and without the header that net/http has made
// from it. The response has chosen that user, not the caller. If the caller's first request
// had the same user, WithoutUser returns req itself.
func WithoutUser(req *http.Request) *http.Request {
	user, first := req.URL.User, req
	for p := previous(first); p != nil; p = previous(first) {
		first = p
	}
	if user == nil || first == req {
		return req
	}
	password, _ := user.Password()
	made := "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	if first.Header.Get(wire.HeaderAuthorization) == made {
		return req
	}
	out, u := *req, *req.URL
	out.URL, u.User = &u, nil
	if req.Header.Get(wire.HeaderAuthorization) == made {
		out.Header = req.Header.Clone()
		out.Header.Del(wire.HeaderAuthorization)
	}
	return &out
}

// DeleteCredentials removes the headers in which [Identity] finds a credential.
func DeleteCredentials(h http.Header) {
	for name := range h {
		switch plainName(name) {
		case wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias:
			delete(h, name)
		}
	}
}

// Credentials returns the secrets in the credential headers that the caller set.
func Credentials(h http.Header) []string {
	var out []string
	for name, values := range h {
		switch plainName(name) {
		case wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias, "Proxy-Authorization":
			for _, v := range values {
				// The scheme is not a secret, and it occurs in ordinary text.
				if _, rest, ok := strings.Cut(v, " "); ok {
					v = rest
				}
				out = append(out, strings.TrimSpace(v))
			}
		}
	}
	return out
}
