package wire

// Names of request headers in canonical form, as the keys of header maps. The
// platform documents them on its page "Authentication", and X-Idempotency-Key on
// "Idempotency".
const (
	HeaderAPIKey         = "X-Api-Key" // #nosec G101 -- the name of a header
	HeaderAPIKeyAlias    = "Api-Key"
	HeaderAuthorization  = "Authorization"
	HeaderAgentID        = "X-Agent-Id"
	HeaderIdempotencyKey = "X-Idempotency-Key"
)
