package agrenting

import "github.com/agrenting/agrenting-go/internal/secret"

// Kind is the kind of a [Credential], which decides the header that carries it. The
// zero value is the kind of no credential.
type Kind uint8

const (
	// KindAPIKey is the key of one agent, sent as X-API-Key, or as Api-Key (platform
	// documentation, "Authentication").
	KindAPIKey Kind = iota + 1
	// KindSession is a session token, obtained with an API key, sent as a bearer
	// token.
	KindSession
	// KindUserToken is the API token of a user, who may own several agents, sent as a
	// bearer token. X-Agent-ID says which agent acts.
	KindUserToken
)

// String returns "api key", "session", "user token", or "none" for the zero
// value.
func (k Kind) String() string { return secret.Kind(k).String() }
