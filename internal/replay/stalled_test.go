package replay_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// echoRoute returns the body of the request.
const echoRoute = "/api/v1/echo"

// A request whose first response stalls is compared with one whose first response ends.
// The pauses are as long in both, except for what is random in them.
func TestStalledResponseCosts200ms(t *testing.T) {
	t.Parallel()
	type world = sdktest.SessionWorld
	failing := func(f agrentingtest.Fault) func(*world, agrentingtest.Fault) {
		return func(w *world, stall agrentingtest.Fault) { w.Server.Fault(echoRoute, f.And(stall)) }
	}
	rejecting := func(w *world, stall agrentingtest.Fault) {
		w.Server.RevokeSessions()
		w.Server.Fault(echoRoute, stall)
	}
	exchanging := func(f agrentingtest.Fault) func(*world, agrentingtest.Fault) {
		return func(w *world, stall agrentingtest.Fault) {
			w.Server.RevokeSessions()
			w.Server.Fault(sdktest.RouteAuthenticate, f.And(stall))
		}
	}
	const whole = 1 << 20 // the response has its whole body, but does not end
	for name, tc := range map[string]struct {
		prepare func(w *world, stall agrentingtest.Fault)
		stall   int           // bytes after which the response stalls
		random  time.Duration // by which the pauses differ
	}{
		"401":               {rejecting, 8, 100 * time.Millisecond},
		"401 without body":  {rejecting, 0, 100 * time.Millisecond},
		"401 with body":     {rejecting, whole, 100 * time.Millisecond},
		"429":               {failing(agrentingtest.Status(429, "")), 8, 0},
		"503":               {failing(agrentingtest.Status(503, "")), 8, 0},
		"503 without body":  {failing(agrentingtest.Status(503, "")), 0, 0},
		"503 with body":     {failing(agrentingtest.Status(503, "")), whole, 0},
		"page":              {failing(agrentingtest.Page(502)), 100, 0},
		"409 with body":     {failing(agrentingtest.Status(409, "IDEMPOTENCY_PENDING")), whole, 0},
		"redirect, begun":   {failing(agrentingtest.Redirect(307, echoRoute)), 8, 0},
		"redirect":          {failing(agrentingtest.Redirect(307, echoRoute)), 0, 0},
		"exchange":          {exchanging(agrentingtest.Status(503, "")), 8, 200 * time.Millisecond},
		"exchange, no body": {exchanging(agrentingtest.Status(503, "")), 0, 200 * time.Millisecond},
		"exchange, page":    {exchanging(agrentingtest.Page(502)), 100, 200 * time.Millisecond},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					took := map[bool]time.Duration{}
					for _, stalls := range []bool{false, true} {
						stall := agrentingtest.Delay(0)
						if stalls {
							stall = agrentingtest.Stall(tc.stall)
						}
						w := sdktest.NewSessionWorld(t)
						w.Server.Handle(echoRoute, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) }))
						c := w.Client(sdktest.Sleepless)
						require.NoError(t, w.Call(c))
						sdktest.Advance(6 * time.Second) // a rejected session is then no longer young
						tc.prepare(w, stall)
						took[stalls] = echoTime(t, c, method, w.Server.URL+echoRoute)
					}
					assert.InDelta(t, 200*time.Millisecond, took[true]-took[false], float64(tc.random+time.Millisecond), "%v", took)
				})
			})
		}
	}
}

// echoTime is how long a request takes, with its response.
func echoTime(t *testing.T, c *agrenting.Client, method, target string) time.Duration {
	t.Helper()
	var body string
	if method == http.MethodPost {
		body = "body"
	}
	req := sdktest.Request(t, method, target, strings.NewReader(body))
	req.Header.Set("X-Idempotency-Key", "key")
	began := time.Now()
	resp, err := c.HTTPClient().Do(req)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, body, readAll(t, resp))
	return time.Since(began)
}

func TestStalledConflictIsReturnedComplete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const start, rest = "what comes at once, ", "and what comes late"
		body, platform := io.Pipe()
		base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			resp := sdktest.Reply(http.StatusConflict, "")
			resp.Body = body
			return resp, nil
		})
		go func() {
			_, _ = io.WriteString(platform, start)
			sdktest.Advance(time.Minute)
			_, _ = io.WriteString(platform, rest)
			_ = platform.Close()
		}()
		tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
		req := sdktest.Request(t, http.MethodPost, "/x", nil)
		req.Header.Set("X-Idempotency-Key", "key")
		began := time.Now()
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, 200*time.Millisecond, time.Since(began))
		assert.Equal(t, http.StatusConflict, resp.StatusCode)
		first := make([]byte, 100)
		n, err := resp.Body.Read(first)
		require.NoError(t, err)
		assert.Equal(t, start, string(first[:n]), "what has arrived does not wait for the rest")
		assert.Equal(t, rest, readAll(t, resp))
	})
}

// A response that was ended because its request was to be sent again, and that the caller
// gets in the end, never looks whole if it is not.
func TestEndedResponseIsCompleteOrError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken off")
	text := strings.Repeat("x", 1<<20)
	for name, tc := range map[string]struct {
		body  func() io.Reader
		least int
		check func(error) bool
	}{
		"whole": {func() io.Reader { return strings.NewReader(text[:64<<10]) }, 64 << 10, func(err error) bool { return err == nil }},
		"broken off": {
			func() io.Reader { return io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)) }, 3,
			func(err error) bool { return errors.Is(err, broken) },
		},
		"large":   {func() io.Reader { return strings.NewReader(text) }, 64 << 10, func(err error) bool { return err != nil }},
		"endless": {func() io.Reader { return sdktest.Endless{} }, 64 << 10, func(err error) bool { return err != nil }},
	} {
		for _, code := range []int{http.StatusUnauthorized, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprint(name, " ", code), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
						sdktest.ReadBody(req)
						resp := sdktest.Reply(code, "")
						resp.Body = io.NopCloser(tc.body())
						return resp, nil
					})
					req := sdktest.Request(t, http.MethodPut, "/x", strings.NewReader("body"))
					req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
					tr := sdktest.TransportOver(t, sdktest.Verifying("k2", base), sdktest.Refuser())
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					assert.Equal(t, code, resp.StatusCode)
					got, err := io.ReadAll(resp.Body)
					assert.True(t, tc.check(err), "%v", err)
					assert.GreaterOrEqual(t, len(got), tc.least)
					require.NoError(t, resp.Body.Close())
				})
			})
		}
	}
}

func TestStalled401IsResentOverEachProtocol(t *testing.T) {
	t.Parallel()
	var compressed strings.Builder
	zip := gzip.NewWriter(&compressed)
	_, _ = zip.Write([]byte(`{"errors":[`))
	_ = zip.Flush()
	for name, tc := range map[string]struct {
		http2          bool
		encoding, text string
	}{
		"HTTP/1":             {false, "identity", ""},
		"HTTP/1, gzip":       {false, "gzip", compressed.String()},
		"HTTP/1, empty gzip": {false, "gzip", ""},
		"HTTP/2":             {true, "identity", ""},
		"HTTP/2, gzip":       {true, "gzip", compressed.String()},
		"HTTP/2, empty gzip": {true, "gzip", ""},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				ended := make(chan struct{})
				srv := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if sdktest.SecretOf(r.Header) == "k2" {
						return
					}
					w.Header().Set("Content-Encoding", tc.encoding)
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, tc.text)
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					close(ended)
				}), tc.http2)
				base := sdktest.Trusting(t, srv)
				base.ForceAttemptHTTP2 = tc.http2
				tr := sdktest.TransportOver(t, sdktest.Verifying("k2", base), sdktest.Refuser(), agrenting.WithBaseURL(srv.URL))
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				resp, err := tr.RoundTrip(sdktest.Request(t, method, srv.URL+"/x", strings.NewReader("body")).WithContext(ctx))
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				assert.Empty(t, readAll(t, resp))
				if tc.encoding == "gzip" && tc.text == "" {
					cancel() // net/http does not close such a body before its request ends
				}
				<-ended
			})
		}
	}
}

// A 401 that may be the fault of one node leads to a resend elsewhere. If the request cannot
// be resent, the caller gets the 401 whole.
func TestResponseToUnreplayableRequestIsComplete(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		getBody func() (io.ReadCloser, error)
		whole   bool
	}{
		"body that exists once": {nil, true},
		"GetBody that fails":    {func() (io.ReadCloser, error) { return nil, errors.New("gone") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				w.Server.Handle(echoRoute, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				c := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)))
				require.NoError(t, w.Call(c))
				w.Server.Fault(echoRoute, agrentingtest.Status(http.StatusUnauthorized, "STRAY"))
				req := sdktest.Request(t, http.MethodPost, w.Server.URL+echoRoute, struct{ io.Reader }{strings.NewReader("body")})
				req.GetBody = tc.getBody
				resp, err := c.HTTPClient().Do(req)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				got, err := io.ReadAll(resp.Body)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, tc.whole, err == nil, "%v", err)
				assert.Equal(t, tc.whole, strings.Contains(string(got), "STRAY"), "%s", got)
				assert.NotContains(t, fmt.Sprint(err), "closed")
			})
		})
	}
}

// The redirect policy of the client may be part of another one, which returns the response
// of the redirect to its caller.
func TestUnfollowedRedirectIsComplete(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"empty": 0, "short": 100, "long": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewSessionWorld(t)
			text := strings.Repeat("x", size)
			w.Server.Handle(echoRoute, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", "/elsewhere")
				rw.WriteHeader(http.StatusFound)
				_, _ = io.WriteString(rw, text)
			}))
			client := w.Client().HTTPClient()
			check := client.CheckRedirect
			client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
				require.NoError(t, check(req, via))
				return http.ErrUseLastResponse
			}
			resp, err := client.Do(sdktest.Request(t, http.MethodGet, w.Server.URL+echoRoute, nil))
			require.NoError(t, err)
			assert.Equal(t, text, readAll(t, resp))
		})
	}
}
