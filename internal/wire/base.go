package wire

import (
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// idleConns is how many idle connections to one host the default base transport keeps.
	// [http.DefaultTransport] keeps two. Each further concurrent request to the platform
	// would open a connection and close it after its response.
	idleConns = 100

	// An HTTP/2 connection gets a ping if no data has arrived on it for pingAfter. If the
	// response does not arrive within pingTimeout, the connection is closed. Without pings,
	// requests would use a dead connection for up to a quarter of an hour.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

// DefaultBase returns the base transport of a client without a configured one: the result of
// [NewBase], or [http.DefaultTransport] if the program has put a tracer or a mock there. own
// reports that no other code uses the transport.
func DefaultBase(direct func(*url.URL) bool) (base http.RoundTripper, own bool) {
	if std := http.DefaultTransport; std != nil { //nolint:forbidigo // it is only read
		if _, ok := std.(*http.Transport); !ok {
			return std, false
		}
	}
	return NewBase(direct), true
}

// NewBase returns a transport with the settings of [http.DefaultTransport]. If the program
// has set a limit there to zero, that limit gets its default. The transport pings HTTP/2
// connections. It does not use a proxy for URLs for which direct returns true.
//
// The transport is new, so other code can neither change nor close it.
func NewBase(direct func(*url.URL) bool) *http.Transport {
	return newBase(http.DefaultTransport, direct) //nolint:forbidigo // it is cloned
}

func newBase(std http.RoundTripper, direct func(*url.URL) bool) *http.Transport {
	base := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if t, ok := std.(*http.Transport); ok {
		base = t.Clone()
		// Clone configures t. Its copy has a TLS configuration and would otherwise not
		// use HTTP/2, even if t does.
		_, http2 := t.TLSNextProto["h2"]
		if http2 { // another HTTP/2 implementation, which would use the connections of t
			base.ForceAttemptHTTP2, base.TLSNextProto = true, nil
		}
	}
	if base.DialContext == nil && base.Dial == nil { //nolint:staticcheck // programs still use it
		base.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	setLimit(&base.TLSHandshakeTimeout, 10*time.Second)
	setLimit(&base.IdleConnTimeout, 90*time.Second)
	setLimit(&base.ExpectContinueTimeout, time.Second)
	setLimit(&base.MaxIdleConnsPerHost, idleConns)
	setLimit(&base.MaxIdleConns, max(idleConns, base.MaxIdleConnsPerHost))
	if base.HTTP2 == nil {
		base.HTTP2 = new(http.HTTP2Config)
	}
	setLimit(&base.HTTP2.SendPingTimeout, pingAfter)
	setLimit(&base.HTTP2.PingTimeout, pingTimeout)
	if base.OnProxyConnectResponse == nil {
		base.OnProxyConnectResponse = CheckProxy
	}
	if proxy := base.Proxy; proxy != nil {
		base.Proxy = func(req *http.Request) (*url.URL, error) {
			if direct(req.URL) {
				return nil, nil //nolint:nilnil // no proxy
			}
			return proxy(req)
		}
	}
	return base
}

func setLimit[T int | time.Duration](limit *T, value T) {
	if *limit == 0 {
		*limit = value
	}
}
