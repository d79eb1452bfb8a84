package agrenting

import (
	"bufio"
	"context"
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

func socketURL(t *testing.T, c *Client, s Socket) SocketURL {
	t.Helper()
	u, err := c.SocketURL(t.Context(), s)
	require.NoError(t, err)
	return u
}

func TestTheKindOfACredentialChoosesSocketAndParameter(t *testing.T) {
	t.Parallel()
	const host = "wss://api.agrenting.test"
	secret := url.QueryEscape(probeSecret)
	for name, c := range map[string]struct {
		cred   Credential
		socket Socket
		want   string // without the credential
		param  string
	}{
		"api key":          {APIKey(probeSecret), Socket{}, host + "/socket/agent/websocket?vsn=2.0.0", "&api_key="},
		"user token":       {UserToken(probeSecret), Socket{}, host + "/socket/hirer/websocket?vsn=2.0.0", "&api_key="},
		"session":          {SessionToken(probeSecret, time.Time{}), Socket{}, host + "/socket/websocket?vsn=2.0.0", "&session_token="},
		"a path":           {APIKey(probeSecret), Socket{Path: SocketShared}, host + "/socket/websocket?vsn=2.0.0", "&api_key="},
		"a whole path":     {APIKey(probeSecret), Socket{Path: "/socket/websocket"}, host + "/socket/websocket?vsn=2.0.0", "&api_key="},
		"a slash too many": {APIKey(probeSecret), Socket{Path: "/socket/agent/"}, host + "/socket/agent/websocket?vsn=2.0.0", "&api_key="},
		"a version":        {APIKey(probeSecret), Socket{Version: "1.0.0"}, host + "/socket/agent/websocket?vsn=1.0.0", "&api_key="},
		"for a client":     {APIKey(probeSecret), Socket{Endpoint: true}, host + "/socket/agent", "?api_key="},
		"parameters":       {APIKey(probeSecret), Socket{Query: url.Values{"a": {"1 &"}}}, host + "/socket/agent/websocket?a=1+%26&vsn=2.0.0", "&api_key="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := socketURL(t, clientOver(t, &recorder{}, Static(c.cred)), c.socket)
			assert.Equal(t, c.want, u.Address())
			assert.Equal(t, c.want+c.param+secret, u.Reveal())
			parsed, err := url.Parse(u.Reveal())
			require.NoError(t, err)
			assert.Equal(t, []string{probeSecret}, parsed.Query()[strings.Trim(c.param, "?&=")], "it arrives as it is")
		})
	}
}

func TestASocketIsAtTheBaseURL(t *testing.T) {
	t.Parallel()
	at := func(base string, opts ...Option) string {
		return socketURL(t, keyed(t, &recorder{}, append([]Option{WithBaseURL(base)}, opts...)...), Socket{Endpoint: true}).Address()
	}
	assert.Equal(t, "wss://api.agrenting.test/prefix/socket/agent", at("https://api.agrenting.test/prefix/"))
	assert.Equal(t, "ws://127.0.0.1:4000/socket/agent", at("http://127.0.0.1:4000"))
	assert.Equal(t, "ws://api.agrenting.test/socket/agent", at("http://api.agrenting.test", WithInsecureHTTP()))
	_, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)), WithBaseURL("http://api.agrenting.test"))
	require.ErrorIs(t, err, ErrInsecureURL)
}

func TestASocketThatLeadsAstrayIsRefused(t *testing.T) {
	t.Parallel()
	c := keyed(t, &recorder{})
	for name, s := range map[string]struct {
		socket Socket
		want   error
	}{
		"another host":     {Socket{Path: "//evil.test/socket"}, ErrForeignOrigin},
		"a whole URL":      {Socket{Path: "wss://evil.test/socket"}, ErrForeignOrigin},
		"relative":         {Socket{Path: "socket/agent"}, ErrInvalidOption},
		"dots":             {Socket{Path: "/socket/../x"}, ErrInvalidOption},
		"a query":          {Socket{Path: "/socket?api_key=x"}, ErrInvalidOption},
		"a fragment":       {Socket{Path: "/socket#x"}, ErrInvalidOption},
		"a second key":     {Socket{Query: url.Values{"api_key": {"x"}}}, ErrInvalidOption},
		"a second session": {Socket{Query: url.Values{"Session_Token": {"x"}}}, ErrInvalidOption},
	} {
		_, err := c.SocketURL(t.Context(), s.socket)
		require.ErrorIs(t, err, s.want, name)
		assertClean(t, err.Error(), testKey)
	}
	_, err := clientOver(t, &recorder{}, newMint(testKey), WithAnonymous()).SocketURL(t.Context(), Socket{})
	require.ErrorIs(t, err, ErrNoCredential)
}

func TestASocketHasTheGuardsOfAnyRequest(t *testing.T) {
	t.Parallel()
	src := newMint("sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8")
	c := clientOver(t, &recorder{}, src, WithEnvironment(Production))
	_, err := c.SocketURL(t.Context(), Socket{})
	require.ErrorIs(t, err, ErrEnvironmentMismatch)
	resp, err := c.SocketHTTPClient().Do(request(t, http.MethodGet, "/socket/agent/websocket", nil))
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	require.ErrorIs(t, err, ErrEnvironmentMismatch)

	closed := keyed(t, &recorder{})
	require.NoError(t, closed.Close())
	_, err = closed.SocketURL(t.Context(), Socket{})
	require.ErrorIs(t, err, ErrClosed)
}

func TestASocketURLHasTheCredentialOfTheMoment(t *testing.T) {
	t.Parallel()
	src := newMint("first-secret-of-a-source")
	p := newPlatform("second-secret-of-a-source")
	c := clientOver(t, p, src)
	assert.Contains(t, socketURL(t, c, Socket{}).Reveal(), "first-secret")
	src.replace(APIKey("second-secret-of-a-source"))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil) // which finds out by a 401
	require.NoError(t, err)
	assert.Contains(t, socketURL(t, c, Socket{}).Reveal(), "second-secret")
}

func TestASocketURLIsNotPrinted(t *testing.T) {
	t.Parallel()
	c := clientOver(t, forgetful(http.StatusOK, "{}"), Static(APIKey(probeSecret)))
	u := socketURL(t, c, Socket{})
	probe(t, "socket URL", u, probeSecret)
	probe(t, "socket client", c.SocketHTTPClient().Transport, probeSecret)
	probe(t, "redacted error", u.Redact(&url.Error{Op: "dial", URL: u.Reveal(), Err: io.EOF}), probeSecret)
	probe(t, "redacted text", u.Redact(errors.New("no route to "+u.Reveal())), probeSecret)
	assert.Contains(t, u.String(), u.Address())
	assert.Contains(t, u.String(), APIKey(probeSecret).Fingerprint())
	assert.Equal(t, "agrenting.SocketURL(none)", SocketURL{}.String())
	require.Error(t, new(SocketURL).UnmarshalText([]byte(u.Reveal())))
	require.Error(t, new(SocketURL).GobDecode(nil))
	_, err := u.GobEncode()
	require.Error(t, err)
}

// leakyError is an error of a library that shows what it dialled.
type leakyError struct {
	text  string
	cause []error
}

func (e *leakyError) Error() string   { return e.text }
func (e *leakyError) Unwrap() []error { return e.cause }

func TestRedactedErrorsStillMatchButDoNotShow(t *testing.T) {
	t.Parallel()
	u := socketURL(t, clientOver(t, &recorder{}, Static(APIKey(probeSecret))), Socket{})
	op := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}

	err := u.Redact(fmt.Errorf("socket: %w", &url.Error{Op: "Get", URL: u.Reveal(), Err: op}))
	assertClean(t, err.Error(), probeSecret)
	assert.Contains(t, err.Error(), u.Address(), "where it went is told")
	assert.Contains(t, err.Error(), "deadline exceeded")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	found, ok := errors.AsType[*net.OpError](err)
	assert.True(t, ok)
	assert.Same(t, op, found)
	_, ok = errors.AsType[*url.Error](err)
	assert.False(t, ok, "it has the URL")
	for e := err; e != nil; e = errors.Unwrap(e) {
		assertClean(t, fmt.Sprintf("%v %+v %#v", e, e, e), probeSecret)
	}

	several := u.Redact(&leakyError{text: "dialling " + u.Reveal(), cause: []error{io.EOF, errors.New(u.Reveal())}})
	assertClean(t, several.Error(), probeSecret)
	require.ErrorIs(t, several, io.EOF)
	_, ok = errors.AsType[*leakyError](several)
	assert.False(t, ok)
	joined := u.Redact(errors.Join(io.EOF, fmt.Errorf("x: %w", &url.Error{URL: u.Reveal(), Err: op})))
	_, ok = errors.AsType[*url.Error](joined)
	assert.False(t, ok, "nothing beneath a joint is handed out")
	require.ErrorIs(t, joined, io.EOF)

	// A joint that shows nothing itself, but has what does beneath.
	quiet := u.Redact(fmt.Errorf("x: %w", &url.Error{URL: "wss://api.agrenting.test", Err: &leakyError{
		text: "no luck", cause: []error{&leakyError{text: u.Reveal()}},
	}}))
	require.Error(t, quiet)
	_, ok = errors.AsType[*leakyError](quiet)
	assert.False(t, ok)
	assertClean(t, fmt.Sprintf("%#v %+v", quiet, errors.Unwrap(quiet)), probeSecret)

	assert.Same(t, op, u.Redact(op), "an error that shows nothing is left alone")
	require.NoError(t, u.Redact(nil))
	assert.Equal(t, io.EOF, SocketURL{}.Redact(io.EOF))
}

func TestTheSocketClientPutsTheCredentialIntoTheQueryAlone(t *testing.T) {
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
			// A trace that was used before must not pass for a stamp.
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

func TestTheSocketClientSendsNothingInClear(t *testing.T) {
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

func TestARejectedSocketIsDialledAgainWithTheNewCredential(t *testing.T) {
	t.Parallel()
	src := newMint("first-secret-of-a-source")
	base := &recorder{then: func(_ int, s seen) *http.Response {
		if !strings.Contains(s.url, "second-secret") {
			return reply(http.StatusUnauthorized, "")
		}
		return reply(http.StatusOK, "")
	}}
	c := clientOver(t, base, src)
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
}

func TestWhatComesBackFromASocketHasNoCredential(t *testing.T) {
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
	u := socketURL(t, c, Socket{})
	req := request(t, http.MethodGet, strings.Replace(u.Address(), "ws", "http", 1), nil)
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
