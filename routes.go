package agrenting

import (
	"strings"
)

// Routes are the paths of the calls that the SDK itself makes, see [WithRoutes]. An empty
// field means its default. Most programs need no Routes. This one is for a gateway that
// moves the authenticate endpoint:
//
//	agrenting.WithRoutes(agrenting.Routes{Authenticate: "/auth/authenticate"})
type Routes struct {
	// Authenticate exchanges a key for a session. The default is
	// /api/v1/auth/authenticate, the form that the platform's API overview and
	// live clients use; its page on authentication writes /auth/authenticate.
	Authenticate string
	// Logout ends a session; the default is /api/v1/auth/logout (platform
	// documentation, "API Overview").
	Logout string
	// MyAgents lists the agents of a user; the default is
	// /api/v1/agents/mine, which no public document confirms.
	MyAgents string
	// RotateKey replaces a key in place; the default is
	// /api/v1/auth/rotate-key (platform documentation, "Trust & Safety").
	RotateKey string
	// Credentials are the keys of an agent, whose ID replaces {id}. The
	// default, /api/v1/agents/{id}/credentials, is documented for creating keys
	// (platform documentation, "Authentication") and likely for listing them; a
	// key is revoked by DELETE on this path followed by the key's ID, which
	// no public document confirms.
	Credentials string
	// Tokens are the tokens of a user; the default is /api/v1/user/tokens
	// (platform documentation, "User Tokens").
	Tokens string
	// Verify is a cheap call to ask whether a credential is alive, by GET. A rotation makes
	// it to try a new key, and requests make it after a 401. A 401 in JSON means that the
	// platform does not accept the credential. A 2xx, 402, 403, 409, or 422 in JSON means
	// that it does. After a 401, any other response means nothing. To a rotation, all
	// responses in JSON except 429, 5xx, and redirects mean that the platform accepts the
	// key. The default is /api/v1/hirings/pending, which live agents call with their key.
	Verify string
}

// defaultRoutes are shared by the clients without [WithRoutes]. They are not changed.
var defaultRoutes = (&Routes{}).withDefaults()

// each returns the fields, to be read or set.
func (r *Routes) each() []*string {
	return []*string{&r.Authenticate, &r.Logout, &r.MyAgents, &r.RotateKey, &r.Credentials, &r.Tokens, &r.Verify}
}

// withDefaults fills the empty fields.
func (r *Routes) withDefaults() *Routes {
	out := &Routes{ // #nosec G101 -- paths
		Authenticate: "/api/v1/auth/authenticate",
		Logout:       "/api/v1/auth/logout",
		MyAgents:     "/api/v1/agents/mine",
		RotateKey:    "/api/v1/auth/rotate-key",
		Credentials:  "/api/v1/agents/{id}/credentials",
		Tokens:       "/api/v1/user/tokens",
		Verify:       "/api/v1/hirings/pending",
	}
	to := out.each()
	for i, p := range r.each() {
		if *p != "" {
			*to[i] = *p
		}
	}
	return out
}

// routeOf replaces the IDs in a path: UUIDs, DIDs, and other segments of eight or more
// characters that have a digit.
func routeOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "did:") || (len(s) >= 8 && strings.ContainsAny(s, "0123456789")) {
			segments[i] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}
