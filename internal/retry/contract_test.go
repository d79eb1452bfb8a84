package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestProxyAuthRequiredIsNotRetried(t *testing.T) {
	t.Parallel()
	own := func() *http.Transport { return &http.Transport{} }
	for name, tc := range map[string]struct {
		base   func() *http.Transport
		status string
		asked  int32
		want   string
	}{
		"default base":                 {agrenting.NewBaseTransport, "407 Proxy Authentication Required", 1, "the proxy requires credentials"},
		"default base, another reason": {agrenting.NewBaseTransport, "407 authenticationrequired", 1, "the proxy requires credentials"},
		"default base, no reason":      {agrenting.NewBaseTransport, "407", 1, "the proxy requires credentials"},
		"base of the caller":           {own, "407 Proxy Authentication Required", 1, "Proxy Authentication Required"},
		"proxy without a route":        {agrenting.NewBaseTransport, "502 Bad Gateway", 4, "Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, http.MethodConnect, r.Method)
				asked.Add(1)
				conn, _, err := http.NewResponseController(w).Hijack()
				if assert.NoError(t, err) {
					_, _ = io.WriteString(conn, "HTTP/1.1 "+tc.status+"\r\nContent-Length: 0\r\n\r\n")
					_ = conn.Close()
				}
			}))
			t.Cleanup(proxy.Close)
			target, err := url.Parse(proxy.URL)
			require.NoError(t, err)
			base := tc.base()
			base.Proxy = http.ProxyURL(target)
			tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), sdktest.Sleepless)
			_, _, err = sdktest.Get(t.Context(), tr, "/x")
			require.ErrorContains(t, err, tc.want)
			assert.Equal(t, tc.asked, asked.Load())
		})
	}
}

func TestA407IsTriedOnce(t *testing.T) {
	t.Parallel()
	base := sdktest.Answers(http.StatusProxyAuthRequired)
	code, _, err := sdktest.Get(t.Context(), sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1"))), "/x")
	require.NoError(t, err)
	assert.Equal(t, http.StatusProxyAuthRequired, code)
	assert.Equal(t, 1, base.Count())
}

// nothing is a base that breaks the contract of RoundTripper.
var nothing = &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) { return nil, nil }} //nolint:nilnil // see above

func TestNilResponseOfBaseIsAnError(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{"platform": "/x", "another host": "https://other.test/x"} {
		for source, src := range map[string]func() agrenting.CredentialSource{
			"static":   func() agrenting.CredentialSource { return agrenting.Static(agrenting.APIKey("k1")) },
			"renewing": func() agrenting.CredentialSource { return sdktest.NewSource("k1") },
		} {
			t.Run(name+", "+source, func(t *testing.T) {
				t.Parallel()
				base := &sdktest.Script{Answer: nothing.Answer}
				_, _, err := sdktest.Get(t.Context(), sdktest.TransportOver(t, base, src()), target)
				require.ErrorContains(t, err, "the base transport returned neither a response nor an error")
				assert.Equal(t, 1, base.Count(), "another attempt cannot help")
			})
		}
	}
}

func TestSDKCallsSurviveNilResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const want = "the base transport returned neither a response nor an error"
		for name, session := range map[string][]agrenting.Option{"key": nil, "session": {agrenting.WithSession()}} {
			c, err := agrenting.New(append(session, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL),
				agrenting.WithCredential(agrenting.APIKey("k1")), agrenting.WithTransport(&sdktest.Script{Answer: nothing.Answer}))...)
			require.NoError(t, err)
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.ErrorContains(t, err, want, name)
			err = c.Verify(t.Context())
			require.ErrorContains(t, err, want, name)
			require.NoError(t, c.Close())
		}
	})
}

func TestResponseWithoutABodyIsEmpty(t *testing.T) {
	t.Parallel()
	for _, codes := range [][]int{{200}, {404}, {503, 200}, {409, 200}, {401, 200}} {
		t.Run(fmt.Sprint(codes), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := sdktest.NewSource("k1")
				base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
					src.Replace(agrenting.APIKey("k2"))
					return &http.Response{StatusCode: codes[min(n, len(codes))-1]}, nil
				}}
				req := sdktest.Request(t, http.MethodPost, "/x", nil)
				req.Header.Set("X-Idempotency-Key", "key")
				resp, err := sdktest.TransportOver(t, sdktest.Verifying("k2", base), src).RoundTrip(req)
				require.NoError(t, err)
				assert.Empty(t, readAll(t, resp))
			})
		})
	}
}

// Request.Cancel is what http.Client.Timeout and programs older than contexts use.
func TestClosedCancelChannelEndsARequest(t *testing.T) {
	t.Parallel()
	src := func(c agrenting.CredentialSource) func(*sdktest.Source) agrenting.CredentialSource {
		return func(*sdktest.Source) agrenting.CredentialSource { return c }
	}
	fixed := src(agrenting.Static(agrenting.APIKey("k1")))
	renewing := func(s *sdktest.Source) agrenting.CredentialSource { return s }
	stuck := src(agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
		<-ctx.Done()
		return agrenting.Credential{}, ctx.Err()
	}))
	status := func(code int) sdktest.RoundTripFunc {
		return func(*http.Request) (*http.Response, error) { return sdktest.Reply(code, ""), nil }
	}
	for name, tc := range map[string]struct {
		source   func(*sdktest.Source) agrenting.CredentialSource
		answer   sdktest.RoundTripFunc
		attempts int
	}{
		"while the base waits": {fixed, func(r *http.Request) (*http.Response, error) {
			<-r.Cancel //nolint:staticcheck // as http.Transport does
			return nil, errCanceledByBase
		}, 1},
		"in the pause of a retry":            {fixed, status(http.StatusServiceUnavailable), 1},
		"in the pause after an error":        {fixed, func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 1},
		"in the pause of a resend":           {renewing, status(http.StatusUnauthorized), 1},
		"while the credential is requested":  {stuck, status(http.StatusOK), 0},
		"while the platform gives a verdict": {renewing, status(http.StatusUnauthorized), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				after := time.Millisecond
				base := &sdktest.Script{Answer: func(_ int, r *http.Request) (*http.Response, error) { return tc.answer(r) }}
				held := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					if sdktest.IsVerify(r) { // as slow as it gets
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					return base.RoundTrip(r)
				})
				if name == "while the platform gives a verdict" {
					after = time.Second
				}
				tr := sdktest.TransportOver(t, held, tc.source(sdktest.NewSource("k1")),
					agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: 24 * time.Hour, MaxDelay: 24 * time.Hour}))
				cancel := make(chan struct{})
				req := sdktest.Request(t, http.MethodGet, "/x", nil)
				req.Cancel = cancel //nolint:staticcheck // this is what is tested
				time.AfterFunc(after, func() { close(cancel) })
				began := time.Now()
				err := sdktest.Failure(tr, req)
				require.Error(t, err)
				if tc.attempts > 0 && name == "while the base waits" {
					require.ErrorIs(t, err, errCanceledByBase)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
				assert.Equal(t, after, time.Since(began))
				assert.Equal(t, tc.attempts, base.Count())
			})
		})
	}
}

func TestRequestCanceledDuringAnAttemptIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]int{"response": http.StatusServiceUnavailable, "error": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 { // a pause may be over before it begins
				cancel := make(chan struct{})
				answers := sdktest.Answers(outcome)
				base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					if answers.Count() == 0 {
						close(cancel)
					}
					return answers.RoundTrip(r)
				})
				req := sdktest.Request(t, http.MethodGet, "/x", nil)
				req.Cancel = cancel //nolint:staticcheck // this is what is tested
				resp, err := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), sdktest.Sleepless).RoundTrip(req)
				if outcome == 0 {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				} else {
					require.NoError(t, err)
					readAll(t, resp)
				}
				assert.Equal(t, 1, answers.Count())
			}
		})
	}
}

// errCanceledByBase has the text of an unexported error of net/http.
var errCanceledByBase = errors.New("net/http: request canceled")

func TestOpenCancelChannel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("k1")
		base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
			switch n {
			case 1:
				return sdktest.Reply(http.StatusServiceUnavailable, ""), nil
			case 2:
				src.Replace(agrenting.APIKey("k2"))
				return sdktest.Reply(http.StatusUnauthorized, ""), nil
			default:
				return sdktest.Reply(http.StatusOK, "done"), nil
			}
		}}
		req := sdktest.Request(t, http.MethodGet, "/x", nil)
		req.Cancel = make(chan struct{}) //nolint:staticcheck // this is what is tested
		resp, err := sdktest.TransportOver(t, sdktest.Verifying("k2", base), src).RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, "done", readAll(t, resp))
		assert.Equal(t, 3, base.Count())
	}) // no goroutine is left in the bubble
}
