package origin

import (
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// Identity reports which headers the caller has set: a credential, an agent.
// Header maps may have names that are not canonical, and servers read them too, so it
// checks each name, once: ranging over a map is a large part of the transport's cost.
func Identity(h http.Header) (credential, agent bool) {
	rest := len(h)
	for name := range h {
		// Most names differ in length, so they need no comparison.
		switch len(name) {
		case len(wire.HeaderAuthorization):
			credential = credential || readAs(name, wire.HeaderAuthorization)
		case len(wire.HeaderAPIKey):
			credential = credential || readAs(name, wire.HeaderAPIKey)
		case len(wire.HeaderAPIKeyAlias):
			credential = credential || readAs(name, wire.HeaderAPIKeyAlias)
		case len(wire.HeaderAgentID):
			agent = agent || readAs(name, wire.HeaderAgentID)
		}
		rest--
		if rest == 0 {
			break // saves the search of the map for another name
		}
	}
	return credential, agent
}

// readAs reports whether a server may read name as the header want, which has the same
// length: header names are case-insensitive, and some servers treat "_" as "-".
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

// plainName is the canonical form of a header's name as servers may read it.
func plainName(name string) string {
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// Sensitive reports whether a header names or proves an identity, or may carry a
// secret in a URL.
func Sensitive(name string) bool {
	switch plainName(name) {
	case wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias, wire.HeaderAgentID,
		"Proxy-Authorization", "Cookie", "Cookie2", "Referer", "Www-Authenticate":
		return true
	default:
		return false
	}
}

// Credentials returns the secrets in the credential headers that the caller set.
func Credentials(h http.Header) []string {
	var out []string
	for name, values := range h {
		switch plainName(name) {
		case wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias:
			for _, v := range values {
				// The scheme is not a secret, and occurs in innocent text.
				if _, rest, ok := strings.Cut(v, " "); ok {
					v = rest
				}
				out = append(out, strings.TrimSpace(v))
			}
		}
	}
	return out
}
