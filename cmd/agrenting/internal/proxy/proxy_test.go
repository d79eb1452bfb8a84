package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

func stringBody(s string) io.Reader {
	if s == "" {
		return nil
	}
	return strings.NewReader(s)
}

const pending = "/api/v1/hirings/pending"

func TestCallersUseTheKeyWithoutSeeingIt(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	resp, body := w.send(http.MethodGet, pending, "")
	assert.Equal(t, http.StatusOK, resp.StatusCode, body)
	assert.Equal(t, []string{w.key.Secret}, w.arrived()["X-Api-Key"])

	task := fmt.Sprintf(`{"agent_id":%q,"task_type":"general","input":{}}`, w.agent.ID)
	resp, body = w.send(http.MethodPost, "/api/v1/tasks", task, "Content-Type", "application/json", "X-Idempotency-Key", "once")
	assert.NotEqual(t, http.StatusUnauthorized, resp.StatusCode, body)
	assert.Equal(t, "once", w.arrived().Get("X-Idempotency-Key"))
}

func TestCredentialsOfCallersDoNotComeThrough(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	for _, h := range [][]string{
		{"Authorization", "Bearer theirs"},
		{"X-Api-Key", "theirs"},
		{"api-key", "theirs"},
		{"Cookie", "session=theirs"},
		{"X-Proxy-Token", "theirs"},
		{"Proxy-Authorization", "Bearer theirs"},
		{"X-Http-Method-Override", "DELETE"},
		{"Referer", "http://127.0.0.1/theirs"},
		{"Sec-Fetch-Mode", "theirs"},
	} {
		require.Equal(t, http.StatusOK, w.status(http.MethodGet, pending, h...), h)
		got := w.arrived()
		assert.Equal(t, []string{w.key.Secret}, got["X-Api-Key"], h)
		if http.CanonicalHeaderKey(h[0]) != "X-Api-Key" {
			assert.NotContains(t, got, http.CanonicalHeaderKey(h[0]))
		}
		for _, values := range got {
			assert.NotContains(t, strings.Join(values, " "), "theirs")
		}
	}
	assert.Equal(t, http.StatusOK, w.status(http.MethodGet, pending, "X-Agent-ID", w.agent.ID), "who acts is theirs to say")
	assert.Equal(t, w.agent.ID, w.arrived().Get("X-Agent-ID"))
}

func TestProxyRefusesForeignHostNames(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	u, err := url.Parse(w.url)
	require.NoError(t, err)
	for host, want := range map[string]int{
		u.Host: http.StatusOK, "localhost:" + u.Port(): http.StatusOK, "LOCALHOST:" + u.Port(): http.StatusOK,
		"evil.example:" + u.Port(): http.StatusMisdirectedRequest, "evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1:1": http.StatusMisdirectedRequest, "127.0.0.1": http.StatusMisdirectedRequest, "localhost": http.StatusMisdirectedRequest,
		"localhost.:" + u.Port(): http.StatusMisdirectedRequest, "[::1]:" + u.Port(): http.StatusMisdirectedRequest,
	} {
		assert.Equal(t, want, w.status(http.MethodGet, pending, "Host", host), host)
	}
}

func TestForeignWebPagesAreRefused(t *testing.T) {
	t.Parallel()

	const page = "http://localhost:5173"
	w := start(t, setup{change: func(c *proxy.Config) { c.Origins = []string{page} }})
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, http.StatusOK},
		{[]string{"Origin", w.url}, http.StatusOK},
		{[]string{"Origin", w.url, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{[]string{"Sec-Fetch-Site", "none"}, http.StatusOK},
		{[]string{"Origin", page, "Sec-Fetch-Site", "same-site"}, http.StatusOK},
		{[]string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{[]string{"Origin", "null"}, http.StatusForbidden},
		{[]string{"Origin", ""}, http.StatusForbidden},
		{[]string{"Origin", strings.Replace(w.url, "http", "https", 1)}, http.StatusForbidden},
		{[]string{"Origin", "http://localhost:5174"}, http.StatusForbidden},
		{[]string{"Origin", w.url, "Origin", "https://evil.example"}, http.StatusForbidden},
		{[]string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{[]string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{[]string{"Origin", w.url, "Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
	} {
		assert.Equal(t, c.want, w.status(http.MethodGet, pending, c.header...), c.header)
	}
	assert.NotContains(t, w.arrived(), "Origin")

	before := w.srv.Count("*")
	resp, _ := w.send(http.MethodOptions, pending, "", "Origin", page, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-proxy-token")
	assert.Equal(t, http.StatusNoContent, resp.StatusCode)
	assert.Equal(t, page, resp.Header.Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "x-proxy-token", resp.Header.Get("Access-Control-Allow-Headers"))
	assert.Equal(t, before, w.srv.Count("*"), "a preflight is answered here")
	resp, _ = w.send(http.MethodGet, pending, "", "Origin", page)
	assert.Equal(t, page, resp.Header.Get("Access-Control-Allow-Origin"))
}

func TestProxyRequiresToken(t *testing.T) {
	t.Parallel()

	w := start(t, setup{change: func(c *proxy.Config) { c.Token = "made-up-token" }})
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, http.StatusUnauthorized},
		{[]string{"X-Proxy-Token", "wrong"}, http.StatusUnauthorized},
		{[]string{"X-Proxy-Token", ""}, http.StatusUnauthorized},
		{[]string{"Authorization", "Basic made-up-token"}, http.StatusUnauthorized},
		{[]string{"X-Proxy-Token", "made-up-token"}, http.StatusOK},
		{[]string{"Proxy-Authorization", "Bearer made-up-token"}, http.StatusOK},
		{[]string{"Proxy-Authorization", "bearer  made-up-token"}, http.StatusOK},
		{[]string{"Authorization", "Bearer made-up-token"}, http.StatusOK},
		{[]string{"X-Api-Key", "made-up-token"}, http.StatusOK},
	} {
		assert.Equal(t, c.want, w.status(http.MethodGet, pending, c.header...), c.header)
	}
	resp, body := w.send(http.MethodGet, pending, "")
	assert.Equal(t, `Bearer realm="agrenting proxy"`, resp.Header.Get("WWW-Authenticate"))
	assert.Contains(t, body, `"PROXY_TOKEN"`)
	for _, r := range w.srv.Requests() {
		for _, values := range r.Header {
			assert.NotContains(t, strings.Join(values, " "), "made-up-token", "the platform sees nothing of it")
		}
	}
}

func TestProxyForwardsOnlyAllowedRequests(t *testing.T) {
	t.Parallel()

	w := start(t, setup{change: func(c *proxy.Config) {
		for _, text := range []string{"GET /api/v1/agents*", "POST /api/v1/tasks", "* /api/*/health"} {
			rule, err := proxy.ParseRule(text)
			require.NoError(t, err)
			c.Allow = append(c.Allow, rule)
		}
	}})
	for request, want := range map[string]int{
		"GET /api/v1/agents":                            http.StatusOK,
		"GET /api/v1/agents?limit=1":                    http.StatusOK,
		"HEAD /api/v1/agents":                           http.StatusOK,
		"GET /api/v1/agents/" + w.agent.ID:              http.StatusOK,
		"GET /api/v1/health":                            http.StatusOK,
		"DELETE /api/v1/agents":                         http.StatusForbidden,
		"GET /api/v1/tasks":                             http.StatusForbidden,
		"POST /api/v1/tasks/x":                          http.StatusForbidden,
		"GET /api/v1/agents/../tasks":                   http.StatusBadRequest,
		"GET /api/v1/agents/%2e%2e/tasks":               http.StatusBadRequest,
		"GET /api/v1/agents%2f..%2ftasks":               http.StatusBadRequest,
		"GET /api/v1/agents//tasks":                     http.StatusBadRequest,
		"GET /api/v1/agents/..%5ctasks":                 http.StatusBadRequest,
		"GET /api/v1/agents/%252e%252e/tasks":           http.StatusBadRequest,
		"GET /api/v1/agents;/../tasks":                  http.StatusBadRequest,
		"GET /api/v1/agents/did%3Aagrenting%3Anobody-1": http.StatusNotFound,
	} {
		method, path, _ := strings.Cut(request, " ")
		assert.Equal(t, want, w.status(method, path), request)
	}
	for _, bad := range []string{"", "GET", "/api", "GET api", "GET /a b", "GET /a?b", "/a /b"} {
		_, err := proxy.ParseRule(bad)
		require.Error(t, err, bad)
	}
}

// A web page that the proxy serves must not script faults. The sandbox cannot detect the caller
// of the proxy.
func TestControlRoutesAreNotPassedOn(t *testing.T) {
	t.Parallel()
	w := start(t, setup{change: func(c *proxy.Config) { c.Issuing = true }})
	w.srv.HandlePublic("/_sandbox/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w.srv.HandlePublic("/_sandboxes", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for request, want := range map[string]int{
		"GET /_sandbox":            http.StatusForbidden,
		"GET /_sandbox/report":     http.StatusForbidden,
		"GET /favicon.ico":         http.StatusNotFound,
		"GET /%5fsandbox/report":   http.StatusForbidden,
		"POST /_sandbox/revoke":    http.StatusForbidden,
		"OPTIONS /_sandbox/faults": http.StatusForbidden,
		"GET /_sandboxes":          http.StatusOK,
	} {
		method, path, _ := strings.Cut(request, " ")
		assert.Equal(t, want, w.status(method, path), request)
	}
	_, body := w.send(http.MethodGet, "/_sandbox/report", "")
	assert.Contains(t, body, `"PROXY_SANDBOX"`)
}

func TestCallersGetNoSecretsOfTheirOwn(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	issuing := []string{
		"/api/v1/auth/authenticate", "/auth/authenticate", "/api/v1/auth/rotate-key", "/api/v1/auth/rotate-key/", "/API/v1/auth/rotate-key",
		"/api/v1/agents/register", "/api/v1/agents", "/api/v1/agents/" + w.agent.ID + "/credentials", "/api/v1/user/tokens",
		"/api/v1/accounts/register", "/api/v1/accounts/register/", "/api/v1/webhooks", "/api/v1/Webhooks/",
	}
	for _, path := range issuing {
		assert.Equal(t, http.StatusForbidden, w.status(http.MethodPost, path), path)
	}
	assert.Zero(t, w.srv.Count("*"))
	assert.Equal(t, http.StatusOK, w.status(http.MethodGet, "/api/v1/agents"))
	assert.Equal(t, http.StatusOK, w.status(http.MethodGet, "/api/v1/webhooks"))
	assert.Equal(t, http.StatusNotFound, w.status(http.MethodPost, "/api/v1/webhooks/wh_1/test"))

	w = start(t, setup{change: func(c *proxy.Config) { c.Issuing = true }})
	assert.Equal(t, http.StatusOK, w.status(http.MethodPost, "/api/v1/auth/authenticate"))
}

func TestProxyRefusesRoutesThatShowKeys(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	assert.Equal(t, http.StatusMethodNotAllowed, w.status(http.MethodTrace, pending))
	assert.Equal(t, http.StatusBadRequest, w.status(http.MethodGet, pending, "Connection", "Upgrade", "Upgrade", "h2c, TLS/1.0"))
	assert.Equal(t, http.StatusBadRequest, w.status(http.MethodGet, pending, "Connection", "Upgrade", "Upgrade", "web\u017foc\u212aet"))
	assert.Zero(t, w.srv.Count("*"))

	raw := func(text string) string {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, text)
		require.NoError(t, err)
		line, err := bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		return line
	}
	host := strings.TrimPrefix(w.url, "http://")
	assert.Contains(t, raw("GET http://evil.example/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n"), "421", "the absolute form is the host's")
	assert.Contains(t, raw("CONNECT "+host+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"), "403")
}

// Each part is sent only after the previous one has arrived. A proxy that waits for more would
// wait forever.
func TestResponsesAreStreamed(t *testing.T) {
	t.Parallel()

	for name, header := range map[string][2]string{
		"events":         {"Content-Type", "text/event-stream"},
		"unknown length": {"Content-Type", "text/plain"},
		"known length":   {"Content-Length", "27"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := start(t, setup{})
			more := make(chan struct{})
			w.srv.Handle("GET /pieces", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set(header[0], header[1])
				for i := range 3 {
					assert.NoError(t, http.NewResponseController(rw).Flush()) // of the header alone, at first
					select {
					case <-more:
					case <-r.Context().Done():
					}
					fmt.Fprintf(rw, "data: %d\n\n", i)
				}
			}))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/pieces", http.NoBody)
			require.NoError(t, err)
			resp, err := w.client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			r := bufio.NewReader(resp.Body)
			for i := range 3 {
				more <- struct{}{}
				line, err := r.ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
				_, _ = r.ReadString('\n')
			}
		})
	}
}

// echo upgrades a connection and sends back what comes.
func echo(rw http.ResponseWriter, _ *http.Request) {
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(conn, buf)
}

func (w *world) upgrade() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	host := strings.TrimPrefix(w.url, "http://")
	conn, err := new(net.Dialer).DialContext(w.t.Context(), "tcp", host)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /socket/agent HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
	require.NoError(w.t, err)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // the connection is closed
	require.NoError(w.t, err)
	require.Equal(w.t, http.StatusSwitchingProtocols, resp.StatusCode)
	return conn, r
}

func TestWebSocketsPass(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	w.srv.Handle("GET /socket/agent", http.HandlerFunc(echo)) // behind the platform's authentication
	conn, r := w.upgrade()
	for _, word := range []string{"one\n", "two\n"} {
		_, err := io.WriteString(conn, word)
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, word, line)
	}
}

func TestHTTP2OnBothSides(t *testing.T) {
	t.Parallel()

	w := start(t, setup{server: []agrentingtest.Option{agrentingtest.WithTLS()}})
	var proto string
	w.srv.Handle("GET /proto", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		rw.WriteHeader(http.StatusNoContent)
	}))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	w.client.Transport = transport
	resp, _ := w.send(http.MethodGet, "/proto", "")
	assert.Equal(t, http.StatusNoContent, resp.StatusCode)
	assert.Equal(t, "HTTP/2.0", resp.Proto)
	assert.Equal(t, "HTTP/2.0", proto)
}

func TestTheSocketIsItsOwners(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "s")
	w := start(t, setup{listen: "unix:" + path})
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	assert.Equal(t, http.StatusOK, w.status(http.MethodGet, pending, "Host", "whatever.example"))
	_, err = proxy.Listen(t.Context(), "unix:"+path)
	require.ErrorContains(t, err, "another program is listening")
	_, err = w.stop()
	require.NoError(t, err)
	assert.NoFileExists(t, path)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Empty(t, entries)

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = proxy.Listen(t.Context(), "unix:"+path)
	require.ErrorContains(t, err, "is not a socket")
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	t.Parallel()

	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "localho\u017ft:0", "127.0.0.1", "unix:"} {
		_, err := proxy.Listen(t.Context(), addr)
		require.Error(t, err, addr)
	}
	l, err := proxy.Listen(t.Context(), "localhost:0")
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1", tcpAddr(t, l).IP.String())
	require.NoError(t, l.Close())
}

func tcpAddr(t *testing.T, l net.Listener) *net.TCPAddr {
	t.Helper()
	a, ok := l.Addr().(*net.TCPAddr)
	require.True(t, ok)
	return a
}

func TestRedirectsAndCookiesOfThePlatform(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	var to string
	w.srv.Handle("GET /away", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		http.SetCookie(rw, &http.Cookie{Name: "session", Value: "secret"})
		rw.Header().Set("Location", to)
		rw.WriteHeader(http.StatusFound)
	}))
	for location, want := range map[string]string{
		w.srv.URL + "/api/v1/health?a=b": "/api/v1/health?a=b",
		"/api/v1/health":                 "/api/v1/health",
		"https://elsewhere.example/x":    "https://elsewhere.example/x",
		w.srv.URL + "//evil.example":     w.srv.URL + "//evil.example",
	} {
		to = location
		resp, _ := w.send(http.MethodGet, "/away", "")
		assert.Equal(t, want, resp.Header.Get("Location"))
		assert.NotContains(t, resp.Header, "Set-Cookie")
	}
}

func TestSessionsAreRenewedBehindTheCallersBack(t *testing.T) {
	t.Parallel()

	w := start(t, setup{client: []agrenting.Option{agrenting.WithSession()}})
	for range 3 {
		assert.Equal(t, http.StatusOK, w.status(http.MethodGet, pending))
		assert.NotContains(t, w.arrived(), "X-Api-Key")
		w.srv.RevokeSessions()
	}
	assert.Equal(t, 3, w.srv.Count("POST /api/v1/auth/authenticate"))
}

func TestFailuresAreToldWithoutSecrets(t *testing.T) {
	t.Parallel()

	w := start(t, setup{change: func(c *proxy.Config) {
		c.Transport = failing{}
		c.Explain = func(error) (int, string, string, time.Duration) {
			return http.StatusServiceUnavailable, "CODE", "text", 1500 * time.Millisecond
		}
	}})
	resp, body := w.send(http.MethodGet, pending, "")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.Equal(t, "2", resp.Header.Get("Retry-After"))
	assert.JSONEq(t, `{"data":null,"errors":[{"code":"CODE","message":"text"}]}`, body)

	w = start(t, setup{change: func(c *proxy.Config) { c.Transport = failing{} }})
	resp, body = w.send(http.MethodGet, pending, "")
	assert.Equal(t, http.StatusBadGateway, resp.StatusCode)
	assert.NotContains(t, body, "inner")
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("inner") }
