package agrenting

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Connections are counted, not timed: net/http puts one back before it reports
// the end of the body that came over it.
func TestRequestsAtOnceReuseTheirConnections(t *testing.T) {
	t.Parallel()
	const callers, rounds = 50, 3
	var opened atomic.Int64
	arrived := make(chan chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-<-arrived
		_, _ = w.Write([]byte(`{"data":null}`))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	for range rounds {
		release := make(chan struct{})
		var running sync.WaitGroup
		for range callers {
			running.Go(func() {
				_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				assert.NoError(t, err)
			})
		}
		for range callers {
			arrived <- release // all are under way before one is answered
		}
		close(release)
		running.Wait()
	}
	assert.EqualValues(t, callers, opened.Load(), "%d rounds of %d requests at once need no more connections than one", rounds, callers)
}

// replaceDefault sets http.DefaultTransport for one test, which must not be parallel.
func replaceDefault(t *testing.T, with http.RoundTripper) {
	t.Helper()
	std := http.DefaultTransport                                     //nolint:forbidigo // it is restored
	set := func(rt http.RoundTripper) { http.DefaultTransport = rt } //nolint:forbidigo,reassign // programs do this
	set(with)
	t.Cleanup(func() { set(std) })
}

//nolint:paralleltest // it replaces http.DefaultTransport
func TestReplacedDefaultTransportGetsRequests(t *testing.T) {
	seen := &sharedRecorder{}
	replaceDefault(t, seen)
	c, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Len(t, seen.requests(), 1)
	assert.Equal(t, testKey, secretOf(seen.requests()[0].header))
	assert.Zero(t, seen.closed, "other code uses it too")
}

// sharedRecorder counts how often its idle connections are closed.
type sharedRecorder struct {
	recorder

	closed int
}

func (r *sharedRecorder) CloseIdleConnections() { r.closed++ }

//nolint:paralleltest // it replaces http.DefaultTransport
func TestDefaultBaseKeepsSeparateConnections(t *testing.T) {
	std, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	for name, from := range map[string]http.RoundTripper{"default": std, "no limits": &http.Transport{}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			replaceDefault(t, from)
			c, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)))
			require.NoError(t, err)
			defer c.Close()
			base, ok := BaseOf(c).(*http.Transport)
			require.True(t, ok)
			assert.NotSame(t, std, base)
			assert.Equal(t, 10*time.Second, base.TLSHandshakeTimeout)
			assert.Equal(t, 30*time.Second, base.HTTP2.SendPingTimeout)
		})
	}
}

//nolint:paralleltest // it replaces http.DefaultTransport
func TestLoopbackUsesNoProxy(t *testing.T) {
	proxy := &url.URL{Scheme: "http", Host: "proxy.test:3128"}
	replaceDefault(t, &http.Transport{Proxy: http.ProxyURL(proxy)})
	c, err := New(WithCredential(APIKey(testKey)), WithAllowedOrigins("http://localhost:4000"))
	require.NoError(t, err)
	defer c.Close()
	own, ok := BaseOf(c).(*http.Transport)
	require.True(t, ok)
	for target, want := range map[string]*url.URL{
		"http://localhost:4000": nil, "http://LOCALHOST": nil, "http://127.0.0.1:4000": nil, "https://127.1.2.3": nil,
		"http://[::1]:4000": nil, "https://[::ffff:127.0.0.1]": nil, "http://[::1%25lo]:4000": nil, "http://localhost.:4000": nil,
		"http://api.localhost": nil, "https://0.0.0.0": nil,
		"https://agrenting.com": proxy, "https://127.0.0.1.nip.io": proxy, "http://agrenting.com": proxy,
	} {
		for name, base := range map[string]*http.Transport{"NewBaseTransport": NewBaseTransport(), "default": own} {
			got, err := base.Proxy(request(t, http.MethodGet, target+"/x", nil))
			require.NoError(t, err)
			assert.Equal(t, want, got, "%s of %s", target, name)
		}
	}
}

// A proxy of the program gets nothing that is for this machine, in clear or otherwise.
//
//nolint:paralleltest // it replaces http.DefaultTransport
func TestProxyDoesNotGetRequestsForLoopback(t *testing.T) {
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data":null}`)) }))
	defer platform.Close()
	via, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	replaceDefault(t, &http.Transport{Proxy: http.ProxyURL(via)})
	for name, opts := range map[string][]Option{
		"base URL":       {WithBaseURL(platform.URL)},
		"allowed origin": {WithBaseURL("https://agrenting.test"), WithAllowedOrigins(platform.URL)},
		"changed base":   {WithBaseURL(platform.URL), WithTransport(NewBaseTransport())},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(append([]Option{WithoutEnvironment(), WithCredential(APIKey(testKey))}, opts...)...)
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Do(t.Context(), http.MethodGet, platform.URL+"/x", nil, nil)
			require.NoError(t, err)
			assert.Zero(t, asked.Load())
		})
	}
}
