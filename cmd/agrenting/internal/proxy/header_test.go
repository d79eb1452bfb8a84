package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

const (
	platformURL = "https://api.agrenting.test"
	proxysKey   = "Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6Gh1Jk0Ms"
	agentA      = "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1"
	agentB      = "00000000-9d0f-4d39-8a51-94f9e0d4c7a2"
)

// platform is a platform without a network. It keeps the last request.
type platform struct {
	header http.Header
	url    *url.URL
	serve  http.HandlerFunc // nil returns 200
}

// RoundTrip implements [http.RoundTripper].
func (p *platform) RoundTrip(req *http.Request) (*http.Response, error) {
	p.header, p.url = req.Header.Clone(), req.URL
	w := httptest.NewRecorder()
	if p.serve != nil {
		p.serve(w, req)
	}
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// inFrontOf returns a proxy with a key and, unless it is "", an agent.
func inFrontOf(tb testing.TB, p http.RoundTripper, agent string, change ...func(*proxy.Config)) *proxy.Proxy {
	tb.Helper()
	opts := []agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(platformURL), agrenting.WithTransport(p),
		agrenting.WithCredential(agrenting.APIKey(proxysKey)), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}),
	}
	if agent != "" {
		opts = append(opts, agrenting.WithAgentID(agent))
	}
	client, err := agrenting.New(opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, client.Close()) })
	upstream, err := url.Parse(platformURL)
	require.NoError(tb, err)
	cfg := proxy.Config{Upstream: upstream, Transport: client.Transport(), Agent: agent}
	for _, c := range change {
		c(&cfg)
	}
	return proxy.New(cfg)
}

// ask sends a request with headers in pairs, whose names are not changed.
func ask(tb testing.TB, p *proxy.Proxy, method, target string, header ...string) *httptest.ResponseRecorder {
	tb.Helper()
	return askBody(tb, p, method, target, http.NoBody, header...)
}

// askBody is ask with a body.
func askBody(tb testing.TB, p *proxy.Proxy, method, target string, body io.Reader, header ...string) *httptest.ResponseRecorder {
	tb.Helper()
	return serve(p, newRequest(tb, method, target, body, header...))
}

func newRequest(tb testing.TB, method, target string, body io.Reader, header ...string) *http.Request {
	tb.Helper()
	req := httptest.NewRequestWithContext(tb.Context(), method, "/", body)
	u, err := url.ParseRequestURI(target)
	require.NoError(tb, err)
	req.URL = u
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	return req
}

func serve(p *proxy.Proxy, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, req)
	return w
}

func TestCallersHeadersAreComparedByLetters(t *testing.T) {
	t.Parallel()
	const value = "of-the-caller"
	for _, name := range []string{
		"Authorization", "authorization", "AUTHORIZATION", "Authorization_", "X-Api-Key", "X_API_KEY", "x-api_key", "X.Api.Key", "XApiKey",
		"Api-Key", "api_key", "Cookie", "Cookie2", "X_Proxy_Token", "Proxy_Authorization",
		"X-HTTP-Method-Override", "X_Http_Method_Override", "X-Method_Override", "X_METHOD_OVERRIDE", "Method-Override", "X-HTTP-Method",
		"X_Http_Method", "X-Method", "X-Forwarded-Method", "X_Forwarded_Method", "X-Forwarded-Uri", "X-Forwarded-For", "X_Forwarded_Host",
		"X-Original-Method", "X_ORIGINAL_METHOD", "X-Original-URL", "X_Original_Url", "X-Original-Uri", "X-Rewrite-URL", "X_Rewrite_Url",
		"Origin_", "Referer", "Sec-Fetch-Mode", "Sec_Fetch_Mode", "Content_Length", "Transfer_Encoding", "Host_", "Connection_",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var up platform
			assert.Equal(t, http.StatusOK, ask(t, inFrontOf(t, &up, ""), http.MethodGet, pending, name, value).Code)
			assert.Equal(t, []string{proxysKey}, up.header["X-Api-Key"])
			for other, values := range up.header {
				assert.NotContains(t, strings.Join(values, ","), value, other)
			}
		})
	}
}

func TestOtherHeadersPass(t *testing.T) {
	t.Parallel()
	var up platform
	p := inFrontOf(t, &up, "")
	for _, name := range []string{"X-Agent-Id", "X-Idempotency-Key", "Accept", "X-Trace_Id", "X-Request-Id", "X-Payment-Method", "If-None-Match"} {
		assert.Equal(t, http.StatusOK, ask(t, p, http.MethodGet, pending, name, "x").Code)
		assert.Equal(t, []string{"x"}, up.header[name], name)
	}
}

func TestCallersParametersAreRemoved(t *testing.T) {
	t.Parallel()
	var up platform
	p := inFrontOf(t, &up, "")
	for query, want := range map[string]string{
		"":                                     "",
		"a=b&c=%20&d&a=+":                      "a=b&c=%20&d&a=+",
		"method=card&page=2":                   "method=card&page=2",
		"api_key=x":                            "",
		"a=b&api_key=x&c=d":                    "a=b&c=d",
		"API_KEY=x&Session_Token=x&a":          "a",
		"session_token=x&api_key":              "",
		"api%5Fkey=x&%61pi_key=x&a=b":          "a=b",
		"api%255Fkey=x&api%25255fkey=x&a=b":    "a=b",
		"api_key[]=x&api_key%5B0%5D=x&a[]=b":   "a[]=b",
		"api-key=x&api.key=x&+api_key=x&x=y":   "x=y",
		"x-api-key=x&authorization=x&x=y":      "x=y",
		"_method=DELETE&%5Fmethod=DELETE&x=y":  "x=y",
		"x-http-method-override=DELETE&x=y":    "x=y",
		"x=api_key=y":                          "x=api_key=y",
		"access_token=x&apikey=x&my_api_key=x": "my_api_key=x",
	} {
		assert.Equal(t, http.StatusOK, ask(t, p, http.MethodGet, pending+"?"+query).Code, query)
		assert.Equal(t, want, up.url.RawQuery, query)
	}
	for _, query := range []string{"a=b;api_key=x", "api_key=x;a=b", ";api_key=x;", "a=b&c=d;session_token=x&e=f", "api_key;=x", "%zz=1&api_key=x"} {
		assert.Equal(t, http.StatusOK, ask(t, p, http.MethodGet, pending+"?"+query).Code, query)
		for _, gone := range []string{"key", "token"} {
			assert.NotContains(t, up.url.RawQuery, gone, query)
		}
	}
}

func TestNestedEncodingsOfParametersAreBounded(t *testing.T) {
	t.Parallel()
	var up platform
	query := "%" + strings.Repeat("25", 200_000) + "61pi_key=x"
	assert.Equal(t, http.StatusOK, ask(t, inFrontOf(t, &up, ""), http.MethodGet, pending+"?"+query).Code)
	assert.Equal(t, query, up.url.RawQuery)
}

func TestOnlyKnownMethodsPass(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{
		"GET": 200, "HEAD": 200, "POST": 200, "PUT": 200, "PATCH": 200, "DELETE": 200, "OPTIONS": 200,
		"get": 405, "Post": 405, "TRACE": 405, "TRACK": 405, "DEBUG": 405, "PROPFIND": 405, "QUERY": 405, "CONNECT": 403, "delete": 405,
	} {
		var up platform
		w := ask(t, inFrontOf(t, &up, ""), method, pending)
		assert.Equal(t, want, w.Code, method)
		assert.Equal(t, want == http.StatusOK, up.header != nil, method)
		if want == http.StatusMethodNotAllowed {
			assert.Equal(t, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", w.Header().Get("Allow"))
			assert.Contains(t, w.Body.String(), `"PROXY_METHOD"`)
		}
	}
	for _, rule := range []string{"get /x", "Get /x", "PROPFIND /x", "CONNECT /x", "TRACE /x", "G* /x"} {
		_, err := proxy.ParseRule(rule)
		assert.ErrorContains(t, err, "in uppercase", rule)
	}
}

func TestAgentIsPinned(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		agent  string // of the proxy; "" lets callers name any
		header []string
		want   string // that the platform sees; "" for a refusal
	}{
		"none":            {agentA, nil, agentA},
		"the same":        {agentA, []string{"X-Agent-Id", agentA}, agentA},
		"the same, twice": {agentA, []string{"X-Agent-Id", agentA, "X-Agent-Id", " " + agentA}, agentA},
		"the same, odd":   {agentA, []string{"x_agent_id", agentA}, agentA},
		"in capitals":     {agentA, []string{"X-Agent-Id", strings.ToUpper(agentA)}, agentA},
		"another":         {agentA, []string{"X-Agent-Id", agentB}, ""},
		"another, odd":    {agentA, []string{"X_AGENT_ID", agentB}, ""},
		"lower case":      {agentA, []string{"x-agent-id", agentB}, ""},
		"one of two":      {agentA, []string{"X-Agent-Id", agentA, "X-Agent-Id", agentB}, ""},
		"two spellings":   {agentA, []string{"X-Agent-Id", agentA, "X-Agent_id", agentB}, ""},
		"a list":          {agentA, []string{"X-Agent-Id", agentA + ", " + agentB}, ""},
		"empty":           {agentA, []string{"X-Agent-Id", ""}, ""},
		"any":             {"", []string{"X-Agent-Id", agentB}, agentB},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var up platform
			w := ask(t, inFrontOf(t, &up, tc.agent), http.MethodGet, pending, tc.header...)
			if tc.want == "" {
				assert.Equal(t, http.StatusForbidden, w.Code)
				assert.Contains(t, w.Body.String(), `"PROXY_OTHER_AGENT"`)
				assert.NotContains(t, w.Body.String(), agentA, "a caller need not know it")
				assert.Nil(t, up.header)
				return
			}
			assert.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, []string{tc.want}, up.header["X-Agent-Id"])
			assert.NotContains(t, up.header, "x_agent_id")
		})
	}
	var up platform
	free := inFrontOf(t, &up, agentA, func(c *proxy.Config) { c.Agent = "" })
	assert.Equal(t, http.StatusOK, ask(t, free, http.MethodGet, pending, "X-Agent-Id", agentB).Code)
	assert.Equal(t, []string{agentB}, up.header["X-Agent-Id"])
}

func TestOnlyReadableCodingsAreAskedFor(t *testing.T) {
	t.Parallel()
	var up platform
	p := inFrontOf(t, &up, "")
	for value, want := range map[string]string{
		"gzip": "gzip", "br, GZIP;q=0.5": "gzip", "gzip, deflate, br, zstd": "gzip", "*": "gzip", "x-gzip": "gzip",
		"br": "identity", "gzip;q=0, br": "identity", "gzip; q=0.000": "identity", "": "identity", "identity": "identity",
	} {
		ask(t, p, http.MethodGet, pending, "Accept-Encoding", value)
		assert.Equal(t, []string{want}, up.header["Accept-Encoding"], value)
	}
	ask(t, p, http.MethodGet, pending)
	assert.NotContains(t, up.header, "Accept-Encoding")
}

// FuzzCallersHeaders looks for a spelling of a header or a parameter by which a caller's
// credential, method, or agent reaches the platform.
func FuzzCallersHeaders(f *testing.F) {
	for _, seed := range [][2]string{
		{"X_API_KEY", "api_key"},
		{"authorization", "Session%5fToken"},
		{"x-http_method-Override", "_method"},
		{"X-Forwarded-Method", "a;api_key"},
		{"X_Original_Method", "%61pi_key[]"},
		{"Cookie", "&api_key=1&"},
		{"X-Agent_Id", "agent_id"},
		{"Proxy-Authorization", ""},
		{"Accept", "limit"},
	} {
		f.Add(seed[0], seed[1])
	}
	var up platform
	p := inFrontOf(f, &up, agentA)
	const value = "of-the-caller"
	secret := map[string]bool{
		"authorization": true, "x-api-key": true, "api-key": true, "cookie": true, "proxy-authorization": true, "x-proxy-token": true,
		"x-http-method-override": true, "x-http-method": true, "x-method-override": true, "x-forwarded-method": true, "x-original-method": true,
		"x-original-url": true, "x-rewrite-url": true, "x-agent-id": true,
	}
	f.Fuzz(func(t *testing.T, name, parameter string) {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
		}) {
			return // a server refuses it
		}
		target := pending + "?" + strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' || r == '#' {
				return -1
			}
			return r
		}, parameter) + "=" + value
		if _, err := url.ParseRequestURI(target); err != nil {
			return
		}
		up.header, up.url = nil, nil
		ask(t, p, http.MethodGet, target, name, value)
		if up.header == nil {
			return // refused
		}
		for got, values := range up.header {
			asRead := strings.ToLower(strings.ReplaceAll(got, "_", "-"))
			if secret[asRead] {
				assert.NotContains(t, strings.Join(values, ","), value, got)
			}
			if asRead == "x-api-key" || asRead == "api-key" || asRead == "authorization" {
				assert.Equal(t, "X-Api-Key", got)
			}
		}
		assert.Equal(t, []string{proxysKey}, up.header["X-Api-Key"])
		assert.Equal(t, []string{agentA}, up.header["X-Agent-Id"])
		for pair := range strings.FieldsFuncSeq(up.url.RawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
			got, _, _ := strings.Cut(pair, "=")
			got, err := url.QueryUnescape(got)
			require.NoError(t, err)
			got = strings.ToLower(strings.TrimSpace(got))
			assert.NotContains(t, []string{"api_key", "session_token", "_method"}, got)
		}
	})
}

func body(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	b, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	return string(b)
}
