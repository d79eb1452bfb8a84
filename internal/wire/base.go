package wire

import "net/http"

// idleConns is how many idle connections to one host the default base transport keeps.
// [http.DefaultTransport] keeps two: each further concurrent request to the platform
// would open a connection and close it after its answer. The limit for all hosts is
// that of [http.DefaultTransport], 100.
const idleConns = 100

// NewBase returns the default base transport. It is a new clone of
// [http.DefaultTransport], so that other code can neither change nor close it.
func NewBase() *http.Transport {
	base := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		base = t.Clone()
	}
	if base.MaxIdleConnsPerHost == 0 {
		base.MaxIdleConnsPerHost = idleConns
	}
	return base
}
