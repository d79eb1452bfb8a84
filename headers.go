package agrenting

import (
	"net/http"
	"strings"
)

// Header names in canonical form, the form of the keys of header maps. The platform
// documents them on its page "Authentication", and X-Idempotency-Key on "Idempotency".
const (
	headerAPIKey         = "X-Api-Key"
	headerAPIKeyAlias    = "Api-Key"
	headerAuthorization  = "Authorization"
	headerAgentID        = "X-Agent-Id"
	headerIdempotencyKey = "X-Idempotency-Key"
)

// identityHeaders reports which headers the caller has set: a credential, an agent.
// Header maps may have names that are not canonical, and servers read them too, so it
// checks each name, once: ranging over a map is a large part of the transport's cost.
func identityHeaders(h http.Header) (credential, agent bool) {
	rest := len(h)
	for name := range h {
		// Most names differ in length, so they need no comparison.
		switch len(name) {
		case len(headerAuthorization):
			credential = credential || readAs(name, headerAuthorization)
		case len(headerAPIKey):
			credential = credential || readAs(name, headerAPIKey)
		case len(headerAPIKeyAlias):
			credential = credential || readAs(name, headerAPIKeyAlias)
		case len(headerAgentID):
			agent = agent || readAs(name, headerAgentID)
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

// sensitive reports whether a header names or proves an identity, or may carry a
// secret in a URL.
func sensitive(name string) bool {
	switch plainName(name) {
	case headerAuthorization, headerAPIKey, headerAPIKeyAlias, headerAgentID,
		"Proxy-Authorization", "Cookie", "Cookie2", "Referer", "Www-Authenticate":
		return true
	default:
		return false
	}
}

// credentialsIn are the secrets in the credential headers that the caller set.
func credentialsIn(h http.Header) []string {
	var out []string
	for name, values := range h {
		switch plainName(name) {
		case headerAuthorization, headerAPIKey, headerAPIKeyAlias:
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
