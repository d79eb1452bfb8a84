package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

const limit = 64 << 10

// keeping lets a proxy keep bodies up to limit.
func keeping(c *proxy.Config) { c.ReplayLimit, c.ReplayMemory = limit, 64*limit }

// sized returns a body of n bytes that differ.
func sized(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%23)
	}
	return b
}

// chunked hides the length of a body.
type chunked struct{ io.Reader }

// echoes lets the platform echo bodies behind its authentication. It counts those that
// were sent with Expect.
func (w *world) echoes(path string) {
	w.srv.Handle(path, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "" {
			w.expects.Add(1)
		}
		got, err := io.ReadAll(r.Body) // all of it before the response begins
		assert.NoError(w.t, err)
		_, _ = rw.Write(got)
	}))
}

// startMortal starts a world in which the sessions can be ended one after the other. It returns
// after the SDK has found out that the platform's verdict about a session is reliable. The SDK
// checks that in the background after the first session was rejected.
func startMortal(t *testing.T, s setup, method string) *world {
	t.Helper()
	asked := make(chan struct{}, 1000)
	s.client = append(s.client, agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 1000}))
	s.server = append(s.server, agrentingtest.WithoutRateLimits())
	s.base = func(base http.RoundTripper) http.RoundTripper {
		return roundTrip(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil && resp.StatusCode == http.StatusOK && req.URL.Path == pending { // where the SDK asks
				asked <- struct{}{}
			}
			return resp, err
		})
	}
	w := start(t, s)
	w.echoes(method + " /echo")
	content := sized(1)
	w.sendBody(t, method, content, bytes.NewReader(content))
	w.srv.RevokeSessions()
	w.sendBody(t, method, content, bytes.NewReader(content))
	<-asked
	return w
}

// sendBody sends a body and checks that it is echoed.
func (w *world) sendBody(t *testing.T, method string, content []byte, body io.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+"/echo", body)
	require.NoError(t, err)
	resp, err := w.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(got[:min(len(got), 300)]))
	require.True(t, bytes.Equal(content, got), "%d bytes of %d came", len(got), len(content))
}

func TestBodySurvivesDeadSession(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{"1 byte": 1, "1 KiB": 1 << 10, "at the limit": limit, "over the limit": limit + 1, "long": 20 * limit}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := startMortal(t, setup{change: keeping}, method)
			for name, n := range sizes {
				for _, known := range []bool{true, false} {
					content := sized(n)
					var body io.Reader = bytes.NewReader(content)
					if !known {
						body = chunked{body}
					}
					w.srv.RevokeSessions()
					t.Log(name, known)
					w.sendBody(t, method, content, body)
				}
			}
		})
	}
}

func TestBodySurvivesRotationByOtherProcess(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "keys")
	store := func() agrenting.Store {
		s, err := agrenting.FileStore(folder)
		require.NoError(t, err)
		return s
	}
	w := start(t, setup{change: keeping, client: []agrenting.Option{agrenting.WithStore(store())}, server: []agrentingtest.Option{agrentingtest.WithoutRateLimits()}})
	w.echoes("POST /echo")
	content := sized(1 << 10)
	w.sendBody(t, http.MethodPost, content, bytes.NewReader(content))
	other, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(w.srv.Transport()),
		agrenting.WithStore(store()), agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}))
	require.NoError(t, err)
	defer other.Close()
	for range 3 {
		_, err := other.Rotate(t.Context())
		require.NoError(t, err)
		w.sendBody(t, http.MethodPost, content, bytes.NewReader(content))
	}
}

func TestFailuresAreRetriedIfSafe(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		method string
		header []string
		want   int
	}{
		"PUT":             {http.MethodPut, nil, 4},
		"POST":            {http.MethodPost, nil, 1},
		"POST with a key": {http.MethodPost, []string{"X-Idempotency-Key", "once"}, 4},
		"PATCH":           {http.MethodPatch, nil, 1},
	} {
		for _, n := range []int{1, limit, limit + 1} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				var attempts atomic.Int64
				up := roundTrip(func(req *http.Request) (*http.Response, error) {
					attempts.Add(1)
					status := http.StatusServiceUnavailable
					if n <= limit { // a longer one is not asked for
						got, err := io.ReadAll(req.Body)
						if err != nil || len(got) != n {
							status = http.StatusTeapot
						}
					} else if req.Header.Get("Expect") != "100-continue" {
						status = http.StatusTeapot
					}
					return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
				})
				p := inFrontOf(t, up, "", keeping, withRetries(t, up))
				w := askBody(t, p, tc.method, pending, bytes.NewReader(sized(n)), tc.header...)
				assert.Equal(t, http.StatusServiceUnavailable, w.Code)
				assert.EqualValues(t, tc.want, attempts.Load())
			})
		}
	}
}

func TestMemoryForBodiesIsBounded(t *testing.T) {
	t.Parallel()
	const room = 1 << 10
	w := startMortal(t, setup{change: func(c *proxy.Config) { c.ReplayLimit, c.ReplayMemory = limit, room }}, http.MethodPost)
	send := func(n int, hide bool) {
		t.Helper()
		content := sized(n)
		var body io.Reader = bytes.NewReader(content)
		if hide {
			body = chunked{body}
		}
		w.srv.RevokeSessions()
		w.sendBody(t, http.MethodPost, content, body)
	}
	for range 3 { // what was taken is given back
		for _, hide := range []bool{false, true} {
			send(room, false)
			assert.Zero(t, w.expects.Swap(0))
			send(room+1, hide)
			assert.EqualValues(t, 1, w.expects.Swap(0), "there is no room, so the body is not kept")
		}
	}
}

// A request whose body breaks off is not sent: the platform would see a part of it.
func TestTruncatedBodyIsNotSent(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int64{"known length": 10, "unknown length": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // however slowly the body is read
				up := roundTrip(func(*http.Request) (*http.Response, error) {
					t.Error("the request was sent")
					return nil, io.ErrUnexpectedEOF
				})
				req := newRequest(t, http.MethodPost, pending, io.MultiReader(strings.NewReader("half"), broken{}))
				req.ContentLength = length
				assert.Equal(t, http.StatusBadRequest, serve(inFrontOf(t, up, "", keeping), req).Code)
			})
		})
	}
}

// The caller sends the second half only when it has the response to the first.
func TestStreamsPassInBothDirections(t *testing.T) {
	t.Parallel()
	for name, choose := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2":   func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			protocols := new(http.Protocols)
			choose(protocols)
			streamBothWays(t, protocols)
		})
	}
}

func streamBothWays(t *testing.T, protocols *http.Protocols) {
	t.Helper()
	w := start(t, setup{change: keeping, server: []agrentingtest.Option{agrentingtest.WithTLS()}})
	w.srv.Handle("POST /echo", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		piece := make([]byte, 6)
		for {
			n, err := r.Body.Read(piece)
			_, _ = rw.Write(piece[:n])
			if err != nil || http.NewResponseController(rw).Flush() != nil {
				return
			}
		}
	}))
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // instead of a deadlock
	defer cancel()
	body, more := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/echo", body)
	require.NoError(t, err)
	go func() { _, _ = io.WriteString(more, "first\n") }()
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	for _, line := range []string{"second", "third\n", ""} {
		got := make([]byte, 6)
		_, err = io.ReadFull(resp.Body, got)
		require.NoError(t, err)
		if line == "" {
			break
		}
		_, err = io.WriteString(more, line)
		require.NoError(t, err)
	}
	require.NoError(t, more.Close())
	_, err = resp.Body.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestRequestTrailersPass(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"kept": 10, "longer": 2 * limit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{change: func(c *proxy.Config) { keeping(c); c.Agent = "me" }})
			got := make(chan http.Header, 1)
			w.srv.Handle("POST /trailers", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				assert.NoError(t, err)
				assert.EqualValues(t, size, n)
				got <- r.Trailer.Clone()
			}))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/trailers", chunked{bytes.NewReader(sized(size))})
			require.NoError(t, err)
			req.Trailer = http.Header{}
			for _, name := range []string{"X-Checksum", "X-Api-Key", "X_Api_Key", "Authorization", "X-Agent-Id", "X-Http-Method-Override", "Keep-Alive"} {
				req.Trailer[name] = []string{"of-the-caller"}
			}
			resp, err := w.client.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, http.Header{"X-Checksum": {"of-the-caller"}}, <-got)
		})
	}
}

// pausing yields a piece, pauses for longer than the proxy waits for the end of a body, and
// ends. It sets the trailers of its request at its end, as net/http does.
type pausing struct {
	piece []byte
	of    *http.Request
	to    http.Header
}

func (p *pausing) Read(b []byte) (int, error) {
	if len(p.piece) > 0 {
		n := copy(b, p.piece)
		p.piece = p.piece[n:]
		return n, nil
	}
	<-time.After(time.Second)
	maps.Copy(p.of.Trailer, p.to)
	return 0, io.EOF
}

func TestTrailersOfPausingBodyPass(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ size, length int }{
		"kept": {10, -1}, "longer": {2 * limit, -1}, "known length": {10, 10}, "known length, longer": {2 * limit, 2 * limit},
	} {
		size := tc.size
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var announced, got http.Header
				up := roundTrip(func(req *http.Request) (*http.Response, error) {
					announced = req.Trailer.Clone()
					sent, err := io.ReadAll(req.Body)
					if err != nil {
						return nil, err
					}
					assert.Len(t, sent, size)
					got = req.Trailer.Clone()
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
				})
				req := newRequest(t, http.MethodPost, pending, http.NoBody)
				req.ContentLength = int64(tc.length)
				req.Trailer = http.Header{"X-Checksum": nil, "Authorization": nil}
				req.Body = io.NopCloser(&pausing{sized(size), req, http.Header{"X-Checksum": {"sum"}, "Authorization": {"of-the-caller"}}})
				assert.Equal(t, http.StatusOK, serve(inFrontOf(t, up, "", keeping), req).Code)
				if tc.length != 10 { // otherwise they are known by then
					assert.Equal(t, http.Header{"X-Checksum": nil}, announced)
				}
				assert.Equal(t, http.Header{"X-Checksum": {"sum"}}, got)
			})
		})
	}
}

// Callers do not see the platform's response to the Expect of the proxy: Node's fetch fails on a
// 100 that it has not requested.
func TestContinueIsSentOnlyToWaitingCallers(t *testing.T) {
	t.Parallel()
	for _, expects := range []bool{false, true} {
		t.Run(strconv.FormatBool(expects), func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{change: keeping})
			w.echoes("POST /echo")
			host := strings.TrimPrefix(w.url, "http://")
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", host)
			require.NoError(t, err)
			defer conn.Close()
			header := ""
			if expects {
				header = "Expect: 100-continue\r\n"
			}
			content := sized(limit + 1)
			_, err = fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n", host, len(content), header)
			require.NoError(t, err)
			r := bufio.NewReader(conn)
			if expects {
				line, err := r.ReadString('\n')
				require.NoError(t, err)
				assert.Contains(t, line, " 100 ")
				_, err = r.ReadString('\n')
				require.NoError(t, err)
			}
			_, err = conn.Write(content)
			require.NoError(t, err)
			line, err := r.ReadString('\n')
			require.NoError(t, err)
			assert.Contains(t, line, " 200 ")
		})
	}
}

// broken fails every read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// withRetries replaces the transport by one that retries at once.
func withRetries(t *testing.T, base http.RoundTripper) func(*proxy.Config) {
	t.Helper()
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(platformURL), agrenting.WithTransport(base),
		agrenting.WithCredential(agrenting.APIKey(proxysKey)), agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Nanosecond, MaxDelay: time.Nanosecond}))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	return func(c *proxy.Config) { c.Transport = client.Transport() }
}
