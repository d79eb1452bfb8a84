package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

const page = "http://localhost:5173"

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func TestEchoesAreRemoved(t *testing.T) {
	t.Parallel()
	const most = 256 << 10
	for name, tc := range map[string]struct {
		status int
		header []string // of the platform
		body   string
		want   string // "" for the proxy's own
	}{
		"JSON":             {400, nil, `{"errors":[{"message":"bad key ` + proxysKey + `"}]}`, `{"errors":[{"message":"bad key [redacted]"}]}`},
		"escaped JSON":     {401, nil, `{"a":"\u005a` + proxysKey[1:] + `"}`, `{"a":"[redacted]"}`},
		"text":             {500, nil, "key " + proxysKey + "\xff", "key [redacted]\xff"},
		"base64":           {403, nil, base64.RawStdEncoding.EncodeToString([]byte(proxysKey)), "[redacted]"},
		"hex":              {403, nil, `{"a":"` + hex.EncodeToString([]byte(proxysKey)) + `"}`, `{"a":"[redacted]"}`},
		"redirect":         {302, []string{"Location", "/x?k=" + proxysKey}, `<a href="/x?k=` + proxysKey + `">`, `<a href="/x?k=[redacted]">`},
		"gzip":             {422, []string{"Content-Encoding", "gzip", "ETag", `"x"`}, zipped("key " + proxysKey), "key [redacted]"},
		"gzip, nothing":    {422, []string{"Content-Encoding", "gzip"}, zipped("nothing"), zipped("nothing")},
		"identity":         {422, []string{"Content-Encoding", "identity"}, "key " + proxysKey, "key [redacted]"},
		"nothing":          {404, nil, `{ "errors" : [] }`, `{ "errors" : [] }`},
		"empty":            {404, nil, "", ""},
		"another coding":   {500, []string{"Content-Encoding", "br"}, "key " + proxysKey, ""},
		"two codings":      {500, []string{"Content-Encoding", "gzip, gzip"}, zipped(zipped(proxysKey)), ""},
		"no gzip":          {500, []string{"Content-Encoding", "gzip"}, "key " + proxysKey, ""},
		"too large":        {500, nil, strings.Repeat("x", most) + proxysKey, ""},
		"too large, gzip":  {500, []string{"Content-Encoding", "gzip"}, zipped(strings.Repeat("x", most) + proxysKey), ""},
		"at the bound":     {500, nil, strings.Repeat("x ", most/2), strings.Repeat("x ", most/2)},
		"success":          {200, nil, "data", "data"},
		"success, gzip":    {200, []string{"Content-Encoding", "gzip"}, zipped("data"), zipped("data")},
		"success, br":      {200, []string{"Content-Encoding", "br"}, "br", "br"},
		"success, no body": {204, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := platform{serve: func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				for i := 0; i < len(tc.header); i += 2 {
					h.Set(tc.header[i], tc.header[i+1])
				}
				h.Set("X-Debug", "you sent "+r.Header.Get("X-Api-Key"))
				h.Add("X-Debug", base64.RawStdEncoding.EncodeToString([]byte(proxysKey)))
				h.Set("X-Other", "kept")
				h.Set("Content-Length", strconv.Itoa(len(tc.body)))
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}}
			w := ask(t, inFrontOf(t, &up, ""), http.MethodGet, pending)
			got := body(t, w)
			assert.Equal(t, tc.status, w.Code)
			assert.Equal(t, []string{"you sent [redacted]", "[redacted]"}, w.Header()["X-Debug"])
			assert.Equal(t, "kept", w.Header().Get("X-Other"))
			assert.Equal(t, strconv.Itoa(len(got)), w.Header().Get("Content-Length"))
			for name, values := range w.Header() {
				assert.NotContains(t, strings.Join(values, ","), proxysKey, name)
			}
			if tc.want == "" && tc.body != "" {
				assert.Contains(t, got, `"PROXY_BODY"`)
				assert.True(t, json.Valid([]byte(got)))
				assert.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
			} else {
				assert.Equal(t, tc.want, got)
			}
			if got != tc.body {
				assert.NotContains(t, w.Header(), "Content-Encoding")
				assert.NotContains(t, w.Header(), "Etag")
			}
		})
	}
}

func TestBodilessErrorsKeepTheirLength(t *testing.T) {
	t.Parallel()
	up := platform{serve: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "12345")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("ETag", `"x"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	}}
	p := inFrontOf(t, &up, "")
	for _, w := range []*httptest.ResponseRecorder{ask(t, p, http.MethodHead, pending), ask(t, p, http.MethodGet, pending, "If-None-Match", `"x"`)} {
		assert.Equal(t, "12345", w.Header().Get("Content-Length"))
		assert.Equal(t, `"x"`, w.Header().Get("ETag"))
		assert.Empty(t, body(t, w))
	}
}

// stalled responds with an error whose body never ends. A body that net/http decompresses
// ends with its request only, not when it is closed.
type stalled struct {
	closed       chan struct{}
	decompressed bool
}

func (s stalled) RoundTrip(req *http.Request) (*http.Response, error) {
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, "key "+proxysKey) }()
	var once sync.Once
	end := func() { once.Do(func() { close(s.closed) }); _ = w.CloseWithError(io.ErrUnexpectedEOF) }
	if s.decompressed {
		context.AfterFunc(req.Context(), end)
		end = func() { <-req.Context().Done() }
	}
	return &http.Response{
		StatusCode: http.StatusBadRequest, Header: http.Header{}, ContentLength: -1, Request: req,
		Body: struct {
			io.Reader
			io.Closer
		}{r, closer(end)},
	}, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func TestStalledErrorBodyIsReplaced(t *testing.T) {
	t.Parallel()
	for _, decompressed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up := stalled{make(chan struct{}), decompressed}
			began := time.Now()
			w := ask(t, inFrontOf(t, up, ""), http.MethodGet, pending)
			assert.Equal(t, http.StatusBadRequest, w.Code)
			assert.Contains(t, body(t, w), "it was incomplete")
			assert.Less(t, time.Since(began), time.Minute)
			<-up.closed
		})
	}
}

func TestTrailersAreFiltered(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	w.srv.Handle("GET /trailers", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Announced, Set-Cookie")
		_, _ = io.WriteString(rw, "body")
		rw.Header().Set("X-Announced", r.Header.Get("X-Api-Key"))
		rw.Header().Set("Set-Cookie", "a=b")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "x "+r.Header.Get("X-Api-Key"))
	}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/trailers", http.NoBody)
	require.NoError(t, err)
	resp, err := w.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "[redacted]", resp.Trailer.Get("X-Announced"))
	assert.Equal(t, "x [redacted]", resp.Trailer.Get("X-Late"))
	assert.Empty(t, resp.Trailer.Get("Set-Cookie"))
}

// informing responds with informational responses before the final one.
func informing(rw http.ResponseWriter, r *http.Request) {
	for _, status := range []int{http.StatusProcessing, http.StatusEarlyHints} {
		h := rw.Header()
		h.Set("Link", "</style.css>; rel=preload")
		h.Set("X-Debug", r.Header.Get("X-Api-Key"))
		h.Set("Set-Cookie", "a=b")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Location", "http://"+r.Host+"/api/v1/x")
		rw.WriteHeader(status)
		clear(h)
	}
	rw.Header().Set("Vary", "Accept")
	_, _ = io.WriteString(rw, "final")
}

func TestInformationalResponsesAreFiltered(t *testing.T) {
	t.Parallel()
	w := start(t, setup{change: func(c *proxy.Config) { c.Origins = []string{page} }})
	w.srv.Handle("GET /informing", http.HandlerFunc(informing))
	var early []http.Header
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code != http.StatusContinue {
				early = append(early, http.Header(header))
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/informing", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Origin", page)
	resp, err := w.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "final", string(got))
	assert.Equal(t, page, resp.Header.Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "*", resp.Header.Get("Access-Control-Expose-Headers"))
	assert.ElementsMatch(t, []string{"Accept", "Origin"}, resp.Header.Values("Vary"))
	require.Len(t, early, 2)
	for _, h := range early {
		assert.Equal(t, http.Header{
			"Link": {"</style.css>; rel=preload"}, "X-Debug": {"[redacted]"}, "Location": {"/api/v1/x"},
		}, h)
	}
}

// A caller is told that its connection ends, also after an informational response.
func TestHeadersOfServeOutliveInformationalResponses(t *testing.T) {
	t.Parallel()
	w := start(t, setup{handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Connection", "close")
			next.ServeHTTP(rw, r)
		})
	}})
	w.srv.Handle("GET /informing", http.HandlerFunc(informing))
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /informing HTTP/1.1\r\nHost: %s\r\n\r\n", strings.TrimPrefix(w.url, "http://"))
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	for _, status := range []int{http.StatusProcessing, http.StatusEarlyHints, http.StatusOK} {
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, status, resp.StatusCode)
		assert.Equal(t, status == http.StatusOK, resp.Close)
	}
}

func TestPagesReadErrorsOfTheProxy(t *testing.T) {
	t.Parallel()
	p := inFrontOf(t, failing{}, "", func(c *proxy.Config) { c.Origins = []string{page} })
	w := ask(t, p, http.MethodGet, pending, "Origin", page)
	assert.Equal(t, http.StatusBadGateway, w.Code)
	assert.Equal(t, page, w.Header().Get("Access-Control-Allow-Origin"))
}

func TestSessionsAreRedactedToo(t *testing.T) {
	t.Parallel()
	w := start(t, setup{client: []agrenting.Option{agrenting.WithSession()}})
	w.srv.Handle("GET /echo", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Debug", r.Header.Get("Authorization"))
		rw.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(rw, r.Header.Get("Authorization"))
	}))
	for range 2 {
		resp, got := w.send(http.MethodGet, "/echo", "")
		assert.Equal(t, http.StatusTeapot, resp.StatusCode)
		assert.Equal(t, "Bearer [redacted]", got)
		assert.Equal(t, "Bearer [redacted]", resp.Header.Get("X-Debug"))
		w.srv.RevokeSessions()
	}
}
