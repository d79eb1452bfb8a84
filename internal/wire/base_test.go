package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func nowhere(*url.URL) bool { return false }

// replaced is a default transport that is not an *http.Transport.
type replaced struct{ http.RoundTripper }

func TestNewBaseHasEveryLimitOfDefaultTransport(t *testing.T) {
	t.Parallel()
	std, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	for name, from := range map[string]http.RoundTripper{
		"default":   std,
		"no limits": &http.Transport{},
		"replaced":  replaced{std},
		"none":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := newBase(from, nowhere)
			assert.NotEqual(t, from, base)
			assert.Equal(t, std.TLSHandshakeTimeout, base.TLSHandshakeTimeout)
			assert.Equal(t, std.IdleConnTimeout, base.IdleConnTimeout)
			assert.Equal(t, std.ExpectContinueTimeout, base.ExpectContinueTimeout)
			assert.Equal(t, std.MaxIdleConns, base.MaxIdleConns)
			assert.Equal(t, std.ForceAttemptHTTP2, base.ForceAttemptHTTP2)
			assert.NotNil(t, base.DialContext)
			assert.Equal(t, 100, base.MaxIdleConnsPerHost)
			assert.Equal(t, 30*time.Second, base.HTTP2.SendPingTimeout)
			assert.Equal(t, 15*time.Second, base.HTTP2.PingTimeout)
		})
	}
	assert.Zero(t, std.MaxIdleConnsPerHost, "the transport of other code is not changed")
	assert.Nil(t, std.HTTP2)
}

func TestNewBaseKeepsSettingsOfProgram(t *testing.T) {
	t.Parallel()
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	base := newBase(&http.Transport{
		DialContext: dial, TLSHandshakeTimeout: 1, IdleConnTimeout: 2, ExpectContinueTimeout: 3, ResponseHeaderTimeout: 4,
		MaxIdleConnsPerHost: 500, HTTP2: &http.HTTP2Config{SendPingTimeout: 5, PingTimeout: 6},
	}, nowhere)
	_, err := base.DialContext(t.Context(), "tcp", "a.test:443")
	require.ErrorIs(t, err, net.ErrClosed)
	assert.EqualValues(t, 1, base.TLSHandshakeTimeout)
	assert.EqualValues(t, 2, base.IdleConnTimeout)
	assert.EqualValues(t, 3, base.ExpectContinueTimeout)
	assert.EqualValues(t, 4, base.ResponseHeaderTimeout)
	assert.Equal(t, 500, base.MaxIdleConnsPerHost)
	assert.Equal(t, 500, base.MaxIdleConns)
	assert.Equal(t, http.HTTP2Config{SendPingTimeout: 5, PingTimeout: 6}, *base.HTTP2)
	assert.Nil(t, base.Proxy)
	assert.False(t, base.ForceAttemptHTTP2, "net/http does not use HTTP/2 with a dialer of the program")
}

func TestNewBaseLimitsTLSHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() { _, _ = server.Read(make([]byte, 1<<10)) }()
			return client, nil
		}
		base := newBase(&http.Transport{DialContext: silent}, nowhere)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/", http.NoBody)
		require.NoError(t, err)
		began := time.Now()
		_, err = base.RoundTrip(req) //nolint:bodyclose // there is none
		require.ErrorContains(t, err, "TLS handshake timeout")
		assert.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestNewBaseUsesNoProxyForDirectURLs(t *testing.T) {
	t.Parallel()
	proxy := &url.URL{Scheme: "http", Host: "proxy.test"}
	base := newBase(&http.Transport{Proxy: http.ProxyURL(proxy)}, func(u *url.URL) bool { return u.Host == "direct.test" })
	for target, want := range map[string]*url.URL{"https://direct.test/x": nil, "https://other.test/x": proxy} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
		require.NoError(t, err)
		got, err := base.Proxy(req)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

// As after http2.ConfigureTransport of golang.org/x/net, which keeps its own connections.
func TestBaseConfiguresHTTP2(t *testing.T) {
	t.Parallel()
	std := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{"h2": nil}}
	base := newBase(std, nowhere)
	assert.Nil(t, base.TLSNextProto)
	assert.True(t, base.ForceAttemptHTTP2)
}
