package agrenting

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSocketClientHasTheGuardsOfAnyRequest(t *testing.T) {
	t.Parallel()
	dial := func(c *Client) error {
		resp, err := c.SocketHTTPClient().Do(request(t, http.MethodGet, "/socket/agent/websocket", nil))
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		return err
	}
	src := newMint("sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8")
	require.ErrorIs(t, dial(clientOver(t, &recorder{}, src, WithEnvironment(Production))), ErrEnvironmentMismatch)

	closed := keyed(t, &recorder{})
	require.NoError(t, closed.Close())
	require.ErrorIs(t, dial(closed), ErrClosed)
}

func TestSocketClientIsNotPrinted(t *testing.T) {
	t.Parallel()
	c := clientOver(t, forgetful(http.StatusOK, "{}"), Static(APIKey(probeSecret)))
	probe(t, "socket client", c.SocketHTTPClient().Transport, probeSecret)
}

func TestSocketClientEscapesTheCredential(t *testing.T) {
	t.Parallel()
	base := &recorder{}
	resp, err := clientOver(t, base, Static(APIKey(probeSecret))).SocketHTTPClient().Do(request(t, http.MethodGet, "/socket", nil))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, base.requests(), 1)
	parsed, err := url.Parse(base.requests()[0].url)
	require.NoError(t, err)
	assert.Equal(t, []string{probeSecret}, parsed.Query()["api_key"], "it arrives unchanged")
}

func TestSocketClientSendsCredentialOnlyInQuery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cred  Credential
		param string
	}{
		"api key":    {APIKey(testKey), "api_key"},
		"user token": {UserToken(testKey), "api_key"},
		"session":    {SessionToken(testKey, time.Time{}), "session_token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &recorder{}
			client := clientOver(t, base, Static(c.cred))
			req := request(t, http.MethodGet, "/socket/agent/websocket?vsn=2.0.0", nil)
			req.Header.Set("Upgrade", "websocket")
			resp, err := client.SocketHTTPClient().Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			got := base.requests()
			require.Len(t, got, 1)
			assert.Equal(t, apiURL+"/socket/agent/websocket?vsn=2.0.0&"+c.param+"="+testKey, got[0].url)
			assert.Empty(t, got[0].credentials(), "one credential a request")
			assert.Equal(t, "websocket", got[0].header.Get("Upgrade"))
			assert.Equal(t, apiURL+"/socket/agent/websocket?vsn=2.0.0", req.URL.String(), "the caller's request is not changed")
			assert.Equal(t, http.Header{"Upgrade": {"websocket"}}, req.Header)
			assert.NotContains(t, resp.Request.URL.String(), testKey, "and what the response refers to has no credential")
			assert.Nil(t, perCallFrom(resp.Request.Context()).trace, "it is the caller's own")

			_, err = client.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)
			assert.NotEmpty(t, base.requests()[1].credentials(), "other requests have it in a header as ever")
		})
	}
}

func TestTheSocketClientLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target string
		header string
	}{
		"another host":                 {"https://elsewhere.test/socket", ""},
		"another port":                 {"https://api.agrenting.test:444/socket", ""},
		"a key of the caller's":        {"/socket?api_key=own", ""},
		"spelt differently":            {"/socket?vsn=1&api%5fkey=own", ""},
		"a session of the caller's":    {"/socket?session_token=own", ""},
		"a header of the caller's":     {"/socket", "X-Api-Key"},
		"his Authorization, lowercase": {"/socket", "authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusUnauthorized, "")
			req := request(t, http.MethodGet, c.target, nil)
			trace := new(Trace)
			if c.header != "" {
				req.Header[c.header] = []string{"own"}
			}
			client := keyed(t, base).SocketHTTPClient()
			// A trace that was used before must not pass for a credential of this request.
			warm := request(t, http.MethodGet, "/socket", nil)
			warm = warm.WithContext(ContextWithTrace(t.Context(), trace))
			resp, err := client.Do(warm)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 1, trace.Attempts)

			resp, err = client.Do(req.WithContext(ContextWithTrace(t.Context(), trace)))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			got := base.requests()
			require.Len(t, got, 2)
			assert.Contains(t, got[0].url, testKey)
			assert.Equal(t, req.URL.String(), got[1].url)
			assert.NotContains(t, fmt.Sprint(got[1].header), testKey)
			if c.header != "" {
				assert.Equal(t, []string{"own"}, got[1].header[c.header])
			}
		})
	}
}

func TestSocketClientRefusesPlainConnections(t *testing.T) {
	t.Parallel()
	base := &recorder{}
	client := keyed(t, base).SocketHTTPClient()
	for _, target := range []string{
		"http://api.agrenting.test/socket", "http://api.agrenting.test/socket?api_key=own", "ws://api.agrenting.test/socket", "wss://api.agrenting.test/socket",
	} {
		resp, err := client.Do(request(t, http.MethodGet, target, nil))
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		require.ErrorIs(t, err, ErrInsecureURL)
	}
	assert.Empty(t, base.requests())
}

func TestRefusedSocketIsRedialedWithNewCredential(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			src := newMint("first-secret-of-a-source")
			base := &recorder{then: func(_ int, s seen) *http.Response {
				if !strings.Contains(s.url, "second-secret") {
					return reply(status, "")
				}
				return reply(http.StatusOK, "")
			}}
			c := clientOver(t, verifying("second-secret-of-a-source", base), src)
			_, err := c.Credential(t.Context())
			require.NoError(t, err)
			src.replace(APIKey("second-secret-of-a-source"))
			var trace Trace
			req := request(t, http.MethodGet, "/socket/agent/websocket", nil)
			resp, err := c.SocketHTTPClient().Do(req.WithContext(ContextWithTrace(t.Context(), &trace)))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, 2, trace.Attempts)
			assert.Len(t, base.requests(), 2)
			assert.NotContains(t, base.requests()[1].url, "first-secret")
		})
	}
}

func TestForbiddenSocketReachesTheCaller(t *testing.T) {
	t.Parallel()
	src := newMint("secret-of-a-source")
	c := clientOver(t, verifying("secret-of-a-source", forgetful(http.StatusForbidden, "")), src)
	resp, err := c.SocketHTTPClient().Do(request(t, http.MethodGet, "/socket/agent/websocket", nil))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusForbidden, resp.StatusCode)
}

func TestSocketResponseHasNoCredential(t *testing.T) {
	t.Parallel()
	const other = "https://other.test/socket?api_key="
	base := answering(http.StatusTemporaryRedirect, "", "Location", other+testKey, "X-Echo", testKey)
	resp, err := keyed(t, base).SocketHTTPClient().Do(request(t, http.MethodGet, "/socket", nil))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode, "no redirect is followed")
	assert.Len(t, base.requests(), 1)
	assert.NotContains(t, fmt.Sprint(resp.Header), testKey)
	assert.Contains(t, resp.Header.Get("Location"), other)

	failing := tripFunc(func(req *http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Get", URL: req.URL.String(), Err: io.ErrUnexpectedEOF}
	})
	c := keyed(t, failing, WithRetryPolicy(RetryPolicy{MaxAttempts: 1}))
	resp, err = c.SocketHTTPClient().Do(request(t, http.MethodGet, "/socket", nil))
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assertClean(t, fmt.Sprintf("%v %#v", err, errors.Unwrap(err)), testKey)
}

func TestSocketClientKeepsResponseToCallersCredential(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/socket?api_key=a", "https://elsewhere.test/socket?session_token=a"} {
		base := answering(http.StatusSwitchingProtocols, "", "Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
		resp, err := keyed(t, base).SocketHTTPClient().Do(request(t, http.MethodGet, target, nil))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"), target)

		op := &net.OpError{Op: "dial", Err: errors.New("no route")}
		failing := tripFunc(func(*http.Request) (*http.Response, error) { return nil, op })
		resp, err = keyed(t, failing).SocketHTTPClient().Transport.RoundTrip(request(t, http.MethodGet, target, nil))
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		assert.Same(t, op, err, target)
	}
}

func TestASocketIsUpgradedThroughTheClient(t *testing.T) {
	t.Parallel()
	queries := make(chan url.Values, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.Query()
		conn, rw, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("echo " + line)
		_ = rw.Flush()
	}))
	defer srv.Close()
	c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	defer c.Close()
	req := request(t, http.MethodGet, srv.URL+"/socket/agent/websocket?vsn=2.0.0", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := c.SocketHTTPClient().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok, "a body that can be written is what dialers need")
	_, err = io.WriteString(conn, "hello\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "echo hello\n", line)
	assert.Equal(t, url.Values{"vsn": {"2.0.0"}, "api_key": {testKey}}, <-queries)
}
