package replay_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// soon bounds what must not hang; nothing is measured by it.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// gated is a handler behind k2: a request with another credential gets a
// 401, so that what is behind it is reached by a replay.
func gated(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if sdktest.SecretOf(r.Header) != "k2" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, sdktest.RevokedBody)
			return
		}
		next(w, r)
	}
}

// events sends one event, waits until it was read, and sends another.
func events(first <-chan struct{}) http.HandlerFunc {
	return gated(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-first:
			_, _ = io.WriteString(w, "data: 2\n\n")
		case <-r.Context().Done():
		}
	})
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	t.Parallel()

	first := make(chan struct{})
	srv := httptest.NewServer(events(first))
	t.Cleanup(srv.Close)
	c := sdktest.ClientOver(t, sdktest.Loopback(t), sdktest.Refuser(), agrenting.WithBaseURL(srv.URL))
	resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, srv.URL+"/events", nil).WithContext(soon(t)))
	require.NoError(t, err)
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "data: 1\n", line)
	close(first) // only now the server continues
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "\ndata: 2\n\n", string(rest))
}

type sinkFunc func([]byte) (int, error)

func (f sinkFunc) Write(p []byte) (int, error) { return f(p) }

func TestDoStreamsEventsToWriter(t *testing.T) {
	t.Parallel()

	first := make(chan struct{})
	srv := httptest.NewServer(events(first))
	t.Cleanup(srv.Close)
	c := sdktest.ClientOver(t, sdktest.Loopback(t), sdktest.Refuser(), agrenting.WithBaseURL(srv.URL), agrenting.WithTimeout(0))
	var got strings.Builder
	_, err := c.Do(soon(t), http.MethodGet, "/events", nil, sinkFunc(func(p []byte) (int, error) {
		if got.Len() == 0 {
			close(first)
		}
		return got.Write(p)
	}))
	require.NoError(t, err)
	assert.Equal(t, "data: 1\n\ndata: 2\n\n", got.String())
}

// echo upgrades the connection and sends back what it gets.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

func assertEchoes(t *testing.T, rt http.RoundTripper, target string) {
	t.Helper()
	req := sdktest.Request(t, http.MethodGet, target, nil).WithContext(soon(t))
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok, "the body can be written to")
	r := bufio.NewReader(conn)
	for _, line := range []string{"one\n", "two\n"} {
		_, err = io.WriteString(conn, line)
		require.NoError(t, err)
		got, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, line, got)
	}
}

func TestAnUpgradedConnectionCanBeWrittenTo(t *testing.T) {
	t.Parallel()

	srv := httptest.NewServer(gated(echo))
	t.Cleanup(srv.Close)
	assertEchoes(t, sdktest.TransportOver(t, sdktest.Loopback(t), sdktest.Refuser(), agrenting.WithBaseURL(srv.URL)), srv.URL+"/ws")
}

func serveTLS(t *testing.T, h http.Handler, http2 bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// proxies are the two ways to configure a reverse proxy. Both leave the inbound
// client's credentials in the request unless strip removes them.
var proxies = map[string]func(target *url.URL, strip bool) *httputil.ReverseProxy{
	"Rewrite": func(target *url.URL, strip bool) *httputil.ReverseProxy {
		return &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			if strip {
				stripCredentials(p.Out.Header)
			}
		}}
	},
	"Director": func(target *url.URL, strip bool) *httputil.ReverseProxy {
		return &httputil.ReverseProxy{Director: func(r *http.Request) { //nolint:staticcheck // still in use out there
			r.URL.Scheme, r.URL.Host = target.Scheme, target.Host // and Host stays the inbound one
			if strip {
				stripCredentials(r.Header)
			}
		}}
	},
}

func stripCredentials(h http.Header) {
	for _, name := range []string{"Authorization", "X-API-Key", "Api-Key", "X-Agent-ID"} {
		h.Del(name)
	}
}

func TestAReverseProxyAuthenticatesForItsClients(t *testing.T) {
	t.Parallel()

	for form, newProxy := range proxies {
		for _, front2 := range []bool{false, true} {
			for _, back2 := range []bool{false, true} {
				for inbound, tc := range map[string]struct {
					header http.Header
					strip  bool
					want   map[string][]string
					agent  []string
				}{
					"none":    {want: map[string][]string{"X-Api-Key": {"k2"}}, agent: []string{"agent-1"}},
					"removed": {http.Header{"Authorization": {"Bearer theirs"}, "X-Agent-Id": {"theirs"}}, true, map[string][]string{"X-Api-Key": {"k2"}}, []string{"agent-1"}},
					"kept":    {http.Header{"Authorization": {"Bearer theirs"}}, false, map[string][]string{"Authorization": {"Bearer theirs"}}, nil},
				} {
					t.Run(fmt.Sprintf("%s, h2 %t to h2 %t, credentials %s", form, front2, back2, inbound), func(t *testing.T) {
						t.Parallel()
						type arrival struct {
							host, proto, body string
							creds             map[string][]string
							agent             []string
						}
						arrived := make(chan arrival, 1)
						back := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if sdktest.SecretOf(r.Header) == "k1" {
								w.WriteHeader(http.StatusUnauthorized)
								return
							}
							b, _ := io.ReadAll(r.Body)
							arrived <- arrival{r.Host, r.Proto, string(b), sdktest.CredentialsOf(r.Header), r.Header["X-Agent-Id"]}
							_, _ = io.WriteString(w, "answer")
						}), back2)
						base := sdktest.Trusting(t, back)
						base.ForceAttemptHTTP2 = back2
						target, err := url.Parse(back.URL)
						require.NoError(t, err)
						proxy := newProxy(target, tc.strip)
						tr := sdktest.TransportOver(t, base, sdktest.Refuser(), agrenting.WithBaseURL(back.URL), agrenting.WithAgentID("agent-1"))
						// The first key is a stale one; a body that streams through cannot be replayed.
						_, _, err = sdktest.Get(soon(t), tr, back.URL+"/warm")
						require.NoError(t, err)
						<-arrived
						proxy.Transport = tr
						front := serveTLS(t, proxy, front2)

						req := sdktest.Request(t, http.MethodPost, front.URL+"/x", strings.NewReader("body")).WithContext(soon(t))
						maps.Copy(req.Header, tc.header)
						resp, err := front.Client().Do(req)
						require.NoError(t, err)
						assert.Equal(t, http.StatusOK, resp.StatusCode)
						assert.Equal(t, "answer", readAll(t, resp))
						got := <-arrived
						proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}
						assert.Equal(t, proto[front2], resp.Proto)
						assert.Equal(t, proto[back2], got.proto)
						assert.Equal(t, "body", got.body)
						assert.Equal(t, tc.want, got.creds)
						assert.Equal(t, tc.agent, got.agent)
						if inbound != "kept" {
							assert.Equal(t, target.Host, got.host, "our credential goes to our host")
						}
					})
				}
			}
		}
	}
}

func TestAReverseProxyUpgradesConnections(t *testing.T) {
	t.Parallel()

	for form, newProxy := range proxies {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			back := httptest.NewServer(gated(echo))
			t.Cleanup(back.Close)
			target, err := url.Parse(back.URL)
			require.NoError(t, err)
			proxy := newProxy(target, true)
			proxy.Transport = sdktest.TransportOver(t, sdktest.Loopback(t), sdktest.Refuser(), agrenting.WithBaseURL(back.URL))
			front := httptest.NewServer(proxy)
			t.Cleanup(front.Close)
			assertEchoes(t, sdktest.Loopback(t), front.URL+"/ws")
		})
	}
}

func TestReverseProxyStreamsEvents(t *testing.T) {
	t.Parallel()

	first := make(chan struct{})
	back := httptest.NewServer(events(first))
	t.Cleanup(back.Close)
	target, err := url.Parse(back.URL)
	require.NoError(t, err)
	proxy := proxies["Rewrite"](target, true)
	proxy.Transport = sdktest.TransportOver(t, sdktest.Loopback(t), sdktest.Refuser(), agrenting.WithBaseURL(back.URL))
	front := serveTLS(t, proxy, true)
	resp, err := front.Client().Do(sdktest.Request(t, http.MethodGet, front.URL+"/events", nil).WithContext(soon(t)))
	require.NoError(t, err)
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "data: 1\n", line)
	close(first)
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Contains(t, string(rest), "data: 2")
}
