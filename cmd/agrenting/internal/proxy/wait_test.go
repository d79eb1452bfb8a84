package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

const timeout = time.Minute

func bounded(c *proxy.Config) { c.Timeout = timeout }

// after responds after a while, unless the request ends before.
func after(d time.Duration, body io.Reader) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			_, _ = io.Copy(io.Discard, req.Body)
		}
		select {
		case <-time.After(d):
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(whileAlive{req.Context(), body}), ContentLength: -1, Request: req}, nil
	}
}

// whileAlive is a body that breaks off when its request ends, or if that has a deadline.
type whileAlive struct {
	ctx  context.Context
	body io.Reader
}

func (w whileAlive) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if _, limited := w.ctx.Deadline(); limited || w.ctx.Err() != nil {
		return 0, context.DeadlineExceeded
	}
	return n, err
}

func TestWaitForHeadersIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := ask(t, inFrontOf(t, after(time.Hour, http.NoBody), "", bounded), http.MethodGet, pending)
		assert.Equal(t, http.StatusGatewayTimeout, w.Code)
		assert.Contains(t, body(t, w), `"PROXY_TIMEOUT"`)
		assert.Equal(t, timeout, time.Since(began))
	})
}

// slow yields one byte after each pause.
type slow struct {
	pause time.Duration
	left  int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	<-time.After(s.pause)
	s.left--
	p[0] = 'x'
	return 1, nil
}

func TestOnlyTheWaitForHeadersIsBounded(t *testing.T) {
	t.Parallel()
	const pieces = 5
	for name, up := range map[string]*slow{"nothing": nil, "long upload": {timeout - time.Second, pieces}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				req := newRequest(t, http.MethodPost, pending, http.NoBody)
				if up != nil {
					req.Body, req.ContentLength = io.NopCloser(up), pieces
				}
				w := serve(inFrontOf(t, after(timeout-time.Second, &slow{timeout, pieces}), "", bounded), req)
				assert.Equal(t, http.StatusOK, w.Code)
				assert.Equal(t, strings.Repeat("x", pieces), body(t, w))
			})
		})
	}
}

// Reads of the body after the response has come do not start the wait again.
func TestEarlyResponseToUploadIsComplete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pieces = 5
		up := roundTrip(func(req *http.Request) (*http.Response, error) {
			go func() { _, _ = io.Copy(io.Discard, req.Body) }()
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(whileAlive{req.Context(), &slow{timeout, pieces}}), ContentLength: -1, Request: req}, nil
		})
		req := newRequest(t, http.MethodPost, pending, http.NoBody)
		req.Body, req.ContentLength = io.NopCloser(&slow{timeout / 2, 3}), 3
		w := serve(inFrontOf(t, up, "", bounded), req)
		assert.Equal(t, strings.Repeat("x", pieces), body(t, w))
	})
}

// The wait counts from the last byte of a body of unknown length too.
func TestSlowBodyOfUnknownLengthIsNotCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, http.MethodPost, pending, http.NoBody)
		req.Body, req.ContentLength = io.NopCloser(&slow{timeout / 2, 5}), -1
		w := serve(inFrontOf(t, after(timeout-time.Second, strings.NewReader("done")), "", bounded, keeping), req)
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, "done", body(t, w))
	})
}

// A retry that could not end in time is not started, so the existing response is not lost.
func TestNoRetryIsPlannedBeyondTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		up := roundTrip(func(req *http.Request) (*http.Response, error) {
			attempts.Add(1)
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"61"}}, Body: http.NoBody, Request: req}, nil
		})
		retries := func(c *proxy.Config) {
			client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(platformURL), agrenting.WithTransport(up),
				agrenting.WithCredential(agrenting.APIKey(proxysKey)), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxRetryAfter: time.Hour}))
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, client.Close()) })
			c.Transport = client.Transport()
		}
		w := ask(t, inFrontOf(t, up, "", bounded, retries), http.MethodGet, pending)
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.EqualValues(t, 1, attempts.Load())
	})
}

func TestOfferOfHTTP2IsIgnored(t *testing.T) {
	t.Parallel()
	for offer, want := range map[string][]string{
		"h2c": nil, "h2c, websocket": {"websocket"}, "WebSocket,H2C": {"websocket"},
	} {
		var up platform
		w := ask(t, inFrontOf(t, &up, ""), http.MethodGet, pending,
			"Connection", "Upgrade, HTTP2-Settings", "Upgrade", offer, "Http2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		assert.Equal(t, http.StatusOK, w.Code, offer)
		assert.Equal(t, want, up.header["Upgrade"], offer)
		assert.Equal(t, want != nil, up.header["Connection"] != nil, offer)
		assert.NotContains(t, up.header, "Http2-Settings", offer)
	}
}

// withSocket gives the proxy the transport of sockets, over the same platform.
func withSocket(t *testing.T, base http.RoundTripper) func(*proxy.Config) {
	t.Helper()
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(platformURL), agrenting.WithTransport(base),
		agrenting.WithCredential(agrenting.APIKey(proxysKey)))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	return func(c *proxy.Config) { c.Socket = client.SocketHTTPClient().Transport }
}

func TestSocketsCarryTheCredentialInTheQuery(t *testing.T) {
	t.Parallel()
	const token = "made-up-token"
	up := platform{serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Debug", r.URL.RawQuery)
		w.WriteHeader(http.StatusForbidden)
	}}
	p := inFrontOf(t, &up, "", withSocket(t, &up), func(c *proxy.Config) { c.Token = token })
	for query, want := range map[string]int{
		"?vsn=2.0.0&api_key=" + token:       http.StatusForbidden,
		"?session_token=" + token:           http.StatusForbidden,
		"?api_key=x&session_token=" + token: http.StatusForbidden,
		"?api_key=wrong":                    http.StatusUnauthorized,
		"":                                  http.StatusUnauthorized,
	} {
		up.header, up.url = nil, nil
		w := ask(t, p, http.MethodGet, "/socket/agent/websocket"+query, "Connection", "Upgrade", "Upgrade", "WebSocket")
		require.Equal(t, want, w.Code, query)
		if want == http.StatusUnauthorized {
			assert.Nil(t, up.url)
			continue
		}
		assert.Equal(t, []string{proxysKey}, up.url.Query()["api_key"], query)
		assert.NotContains(t, up.url.RawQuery, token)
		assert.NotContains(t, up.header, "X-Api-Key")
		assert.Equal(t, []string{"websocket"}, up.header["Upgrade"])
		assert.NotContains(t, w.Header().Get("X-Debug"), proxysKey)
	}
	w := ask(t, p, http.MethodPost, pending, "Connection", "Upgrade", "Upgrade", "websocket", "X-Proxy-Token", token)
	assert.Equal(t, http.StatusForbidden, w.Code)
	assert.NotContains(t, up.header, "Upgrade", "only GET opens a WebSocket")
	assert.Empty(t, up.url.RawQuery)
	w = ask(t, p, http.MethodGet, pending+"?api_key="+token)
	assert.Equal(t, http.StatusUnauthorized, w.Code, "only sockets carry it in the query")
	w = ask(t, p, http.MethodGet, pending, "X-Proxy-Token", token)
	assert.Equal(t, http.StatusForbidden, w.Code)
	assert.Empty(t, up.url.RawQuery, "other requests have it in a header")
	assert.Equal(t, []string{proxysKey}, up.header["X-Api-Key"])
}

func TestRequestsAreLogged(t *testing.T) {
	t.Parallel()
	const inBody = `{"data":[],"meta":{"request_id":"req_body"}}`
	var text bytes.Buffer
	up := platform{serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Query().Get("id") {
		case "header":
			w.Header().Set("X-Request-ID", "req_header")
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, zipped(inBody))
			return
		case "echo":
			_, _ = io.WriteString(w, strings.Replace(inBody, "req_body", proxysKey, 1))
			return
		case "error":
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, inBody)
	}}
	p := inFrontOf(t, &up, "", func(c *proxy.Config) {
		c.Log, c.DefaultAgent = slog.New(slog.NewJSONHandler(&text, nil)), agentA
	})
	for _, tc := range []struct {
		query  string
		header []string
		want   map[string]any
	}{
		{"id=header&api_key=x", nil, map[string]any{"request_id": "req_header", "agent": agentA}},
		{"id=body", []string{"X-Agent-Id", agentB}, map[string]any{"request_id": "req_body", "agent": agentB}},
		{"id=gzip", []string{"Accept-Encoding", "gzip"}, map[string]any{"request_id": "req_body"}},
		{"id=echo", nil, map[string]any{"request_id": "[redacted]"}},
		{"id=error", nil, map[string]any{"request_id": "req_body", "status": 404.0}},
		{"", []string{"Origin", "null"}, map[string]any{"status": 403.0, "code": "PROXY_ORIGIN", "attempts": 0.0, "request_id": nil, "generation": nil}},
	} {
		text.Reset()
		ask(t, p, http.MethodGet, pending+"?"+tc.query, tc.header...)
		assert.NotContains(t, text.String(), "?")
		var got map[string]any
		require.NoError(t, json.Unmarshal(text.Bytes(), &got), "one record: %s", text.String())
		want := map[string]any{"method": "GET", "path": pending, "status": 200.0, "attempts": 1.0, "generation": 1.0, "msg": "proxy: request"}
		maps.Copy(want, tc.want)
		for name, value := range want {
			assert.Equal(t, value, got[name], "%s %s", tc.query, name)
		}
		assert.IsType(t, 0.0, got["duration"])
	}
}

// checked is a platform that is asked about a credential.
type checked struct {
	proxy.Health

	verdict proxy.Verdict
	asked   int
	told    []string
}

func newChecked() *checked {
	c := &checked{verdict: proxy.Alive}
	c.Verify = func(context.Context) (string, proxy.Verdict) {
		c.asked++
		return map[proxy.Verdict]string{proxy.Alive: "alive", proxy.Dead: "dead"}[c.verdict], c.verdict
	}
	c.Tell = func(text string) { c.told = append(c.told, text) }
	return c
}

func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newChecked()
		reject := func(generation uint64) {
			h.Rejected(t.Context(), generation)
			synctest.Wait()
		}
		reject(1)
		reject(1)
		assert.Equal(t, 1, h.asked, "a route that refuses every caller causes few questions")
		assert.Empty(t, h.Problem())
		h.verdict = proxy.Dead
		reject(2)
		assert.Equal(t, 2, h.asked, "another credential is another question")
		assert.Equal(t, "dead", h.Problem())
		reject(3)
		assert.Equal(t, 2, h.asked, "but not while there is a problem")
		<-time.After(time.Minute)
		reject(3)
		assert.Equal(t, 3, h.asked)
		h.Failed("again")
		h.Renewed("new")
		assert.Empty(t, h.Problem())
		h.Renewed("newer")
		h.Failed("why")
		assert.Equal(t, []string{"dead", "new", "why"}, h.told, "each change once")
		h.Close()
		h.Renewed("late")
		h.Recheck(t.Context())
		assert.Len(t, h.told, 3)
	})
}

func TestHealthRechecksWhileFailing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newChecked()
		recheck := func() {
			h.Recheck(t.Context())
			synctest.Wait()
		}
		recheck()
		assert.Zero(t, h.asked, "nothing is known against the credential")
		h.verdict = proxy.Dead
		h.Rejected(t.Context(), 1)
		synctest.Wait()
		for _, step := range []struct {
			verdict proxy.Verdict
			asked   int
			problem string
		}{{proxy.Unknown, 2, "dead"}, {proxy.Dead, 3, "dead"}, {proxy.Alive, 4, ""}, {proxy.Dead, 4, ""}} {
			h.verdict = step.verdict
			before := h.asked
			recheck()
			assert.Equal(t, before, h.asked, "not within 10 s")
			<-time.After(11 * time.Second)
			recheck()
			recheck()
			assert.Equal(t, step.asked, h.asked)
			assert.Equal(t, step.problem, h.Problem())
		}
		assert.Equal(t, []string{"dead", "alive"}, h.told)
		h.Close()
	})
}

// The verdict concerns the previous credential.
func TestHealthIgnoresVerdictOnReplacedCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newChecked()
		answer := make(chan struct{})
		h.Verify = func(context.Context) (string, proxy.Verdict) { <-answer; return "dead", proxy.Dead }
		h.Rejected(t.Context(), 1)
		synctest.Wait()
		h.Renewed("new")
		close(answer)
		synctest.Wait()
		assert.Empty(t, h.Problem())
		h.Close()
	})
}

// Phoenix refuses a WebSocket with 403, whatever the reason.
func TestRejectedIsCalledForRefusedRequests(t *testing.T) {
	t.Parallel()
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	for name, tc := range map[string]struct {
		status int
		header []string
		want   []uint64
	}{
		"401":            {http.StatusUnauthorized, nil, []uint64{1}},
		"403":            {http.StatusForbidden, nil, nil},
		"WebSocket, 401": {http.StatusUnauthorized, upgrade, []uint64{1}},
		"WebSocket, 403": {http.StatusForbidden, upgrade, []uint64{1}},
		"WebSocket, 404": {http.StatusNotFound, upgrade, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var generations []uint64
			up := platform{serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tc.status) }}
			p := inFrontOf(t, &up, "", func(c *proxy.Config) { c.Rejected = func(g uint64) { generations = append(generations, g) } })
			assert.Equal(t, tc.status, ask(t, p, http.MethodGet, pending, tc.header...).Code)
			assert.Equal(t, tc.want, generations)
		})
	}
}

func TestSucceededIsCalledForOtherResponses(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{200: 1, 204: 1, 302: 1, 401: 0, 404: 0, 500: 0} {
		succeeded := 0
		up := platform{serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }}
		p := inFrontOf(t, &up, "", func(c *proxy.Config) { c.Succeeded = func() { succeeded++ } })
		ask(t, p, http.MethodGet, pending)
		assert.Equal(t, want, succeeded, status)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	report := proxy.Report{Status: "ok", Generation: 3}
	at, stop, err := proxy.ServeAdmin(t.Context(), "127.0.0.1:0", func(hosts []string) http.Handler {
		return proxy.Admin(hosts, func() proxy.Report { return report }, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "metrics")
		}))
	})
	require.NoError(t, err)
	defer stop()
	get := func(method, target string, header ...string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, at+target, http.NoBody)
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
			if header[i] == "Host" {
				req.Host = header[i+1]
			}
		}
		resp, err := http.DefaultTransport.RoundTrip(req) //nolint:forbidigo // loopback
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	status, text := get(http.MethodGet, "/healthz")
	assert.Equal(t, http.StatusOK, status)
	assert.JSONEq(t, `{"status":"ok","generation":3}`, text)
	report.Status, report.Problem = "no credential", "why"
	status, text = get(http.MethodGet, "/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.JSONEq(t, `{"status":"no credential","problem":"why","generation":3}`, text)
	status, text = get(http.MethodGet, "/metrics")
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "metrics", text)
	u, err := url.Parse(at)
	require.NoError(t, err)
	for _, tc := range []struct {
		method, target string
		header         []string
		want           int
	}{
		{http.MethodGet, "/healthz", []string{"Host", "evil.example:" + u.Port()}, http.StatusMisdirectedRequest},
		{http.MethodGet, "/healthz", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{http.MethodGet, "/metrics", []string{"Host", "evil.example:" + u.Port()}, http.StatusMisdirectedRequest},
		{http.MethodGet, "/metrics", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{http.MethodPost, "/healthz", nil, http.StatusNotFound},
		{http.MethodPost, "/metrics", nil, http.StatusNotFound},
		{http.MethodGet, pending, nil, http.StatusNotFound},
	} {
		status, text = get(tc.method, tc.target, tc.header...)
		assert.Equal(t, tc.want, status, text)
	}
}
