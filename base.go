package agrenting

import "net/http"

// DefaultIdleConns is how many idle connections to one host the default
// transport keeps. [http.DefaultTransport] keeps two, which suits a browser of
// many hosts: of any more requests at once to the platform, each would open a
// connection and close it after its answer. The bound over all hosts stays that
// of [http.DefaultTransport], 100, and idle connections end after 90 s as there.
const DefaultIdleConns = 100

// newBase is a transport of our own, so that nobody else's settings or Close
// reach it. What the program has set on [http.DefaultTransport] holds.
func newBase() *http.Transport {
	base := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		base = t.Clone()
	}
	if base.MaxIdleConnsPerHost == 0 {
		base.MaxIdleConnsPerHost = DefaultIdleConns
	}
	return base
}
