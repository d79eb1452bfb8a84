package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// The tests in this file and in transport_protocols_test.go hold the transport to the
// contract of [http.RoundTripper], and to what programs expect of a client above it.

// bodies are all that were made for one request, of requests and of responses.
type bodies struct {
	mu  sync.Mutex
	all []*sdktest.SpyBody
}

func (b *bodies) make(content string) *sdktest.SpyBody {
	b.mu.Lock()
	defer b.mu.Unlock()
	body := sdktest.NewSpyBody(content)
	b.all = append(b.all, body)
	return body
}

func TestContract_bodies_areClosedInEveryOutcome(t *testing.T) {
	t.Parallel()
	const nothing, dropped, stalled = -1, 0, 1
	ctx := func(req *http.Request, _ chan struct{}) *http.Request {
		ctx, cancel := context.WithCancel(req.Context())
		time.AfterFunc(time.Millisecond, cancel)
		return req.WithContext(ctx)
	}
	channel := func(req *http.Request, cancel chan struct{}) *http.Request {
		time.AfterFunc(time.Millisecond, func() { close(cancel) })
		req.Cancel = cancel //nolint:staticcheck // it is a part of the contract
		return req
	}
	endings := map[string]func(*http.Request, chan struct{}) *http.Request{"context": ctx, "Cancel": channel, "no": nil}
	for _, codes := range [][]int{
		{200},
		{204},
		{302},
		{404},
		{407},
		{401},
		{401, 200},
		{401, dropped},
		{401, nothing},
		{503},
		{503, 200},
		{503, 401, 200},
		{429, dropped, 200},
		{409, 200},
		{dropped},
		{nothing},
		{503, nothing},
		{stalled},
		{503, stalled},
		{401, stalled},
	} {
		for ending, end := range endings {
			if last := codes[len(codes)-1]; last == stalled && end == nil {
				continue // nothing would end it
			}
			for _, getBody := range []bool{true, false} {
				t.Run(fmt.Sprintf("%v, %s cancellation, GetBody %t", codes, ending, getBody), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						var requests, responses bodies
						src := sdktest.NewSource("k1")
						cancel := make(chan struct{})
						base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
							sdktest.ReadBody(r)
							switch code := codes[min(n, len(codes))-1]; code {
							case nothing:
								return nil, nil //nolint:nilnil // it breaks the contract
							case dropped:
								return nil, io.ErrUnexpectedEOF
							case stalled:
								select {
								case <-r.Context().Done():
								case <-cancel:
								}
								return nil, errors.New("canceled")
							default:
								if code == http.StatusUnauthorized {
									src.Replace(agrenting.APIKey("k2"))
								}
								resp := sdktest.Reply(code, "")
								resp.Body = responses.make(strings.Repeat("response ", 1<<10))
								return resp, nil
							}
						}}
						req := sdktest.Request(t, http.MethodPost, "/x", requests.make("content"))
						req.Header.Set("X-Idempotency-Key", "key")
						if getBody {
							req.GetBody = func() (io.ReadCloser, error) { return requests.make("content"), nil }
						}
						if end != nil {
							req = end(req, cancel)
						}
						tr := sdktest.TransportOver(t, sdktest.Verifying("k2", base), src)
						resp, err := tr.RoundTrip(req)
						require.Equal(t, err == nil, resp != nil, "either a response or an error")
						if resp != nil {
							_ = resp.Body.Close()
						}
						synctest.Wait()
						for i, b := range requests.all {
							assert.Equal(t, 1, b.Closed(), "body %d of the request", i+1)
						}
						for i, b := range responses.all {
							assert.Positive(t, b.Closed(), "body of response %d", i+1)
						}
					})
				})
			}
		}
	}
}

// The race detector watches the request, too.
func TestContract_request_isUnchangedByConcurrentUses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const uses = 200
		var calls atomic.Int64
		src := sdktest.NewSource("k1")
		tr := sdktest.TransportOver(t, sdktest.Verifying("k2", sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			defer r.Header.Set("X-Written-By", "the base")
			switch n := calls.Add(1); {
			case sdktest.SecretOf(r.Header) != "k2":
				src.Replace(agrenting.APIKey("k2"))
				return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody), nil
			case n%3 == 0:
				return sdktest.Reply(http.StatusServiceUnavailable, "busy"), nil
			case n%5 == 0:
				return nil, io.ErrUnexpectedEOF
			default:
				return sdktest.Reply(http.StatusOK, "done"), nil
			}
		})), src, agrenting.WithAgentID("agent-1"), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 20}))
		req := sdktest.Request(t, http.MethodGet, "/x?q=1", http.NoBody)
		req.Header = http.Header{"Accept": {"a", "b"}, "x-odd": {"1"}}
		req.Trailer = http.Header{"X-T": nil}
		req.Cancel = make(chan struct{}) //nolint:staticcheck // it is a part of the request
		check := sdktest.Freeze(t, req)
		var running sync.WaitGroup
		for range uses {
			running.Go(func() {
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				assert.Same(t, req, resp.Request)
				b, err := io.ReadAll(resp.Body)
				assert.NoError(t, err)
				assert.NoError(t, resp.Body.Close())
				assert.Equal(t, "done", string(b))
			})
		}
		running.Wait()
		check()
		assert.Greater(t, calls.Load(), int64(uses), "some were sent again")
	})
}

// stallingBody ends with its request.
type stallingBody struct{ ctx context.Context }

func (b stallingBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (stallingBody) Close() error { return nil }

func TestContract_clientTimeout_endsEachPhase(t *testing.T) {
	t.Parallel()
	const timeout = 700 * time.Millisecond
	var stall sdktest.RoundTripFunc = func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	status := func(code int, header ...string) sdktest.RoundTripFunc {
		return func(*http.Request) (*http.Response, error) { return sdktest.Reply(code, "{}", header...), nil }
	}
	for name, tc := range map[string]struct {
		exchange, verify, call sdktest.RoundTripFunc
		took                   time.Duration
		code                   int // 0 if it fails
	}{
		"in the headers": {call: stall, took: timeout},
		"in the body": {call: func(r *http.Request) (*http.Response, error) {
			resp := sdktest.Reply(http.StatusOK, "")
			resp.Body = stallingBody{r.Context()}
			return resp, nil
		}, took: timeout},
		"in the exchange":          {exchange: stall, took: timeout},
		"in the verdict":           {call: status(http.StatusUnauthorized), verify: stall, took: timeout},
		"in the pause of a resend": {call: status(http.StatusUnauthorized), verify: status(http.StatusOK), took: timeout},
		"in the pause of a retry":  {call: status(http.StatusServiceUnavailable, "Retry-After", "5"), code: http.StatusServiceUnavailable},
		"not at all":               {code: http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				platform := w.Server.Transport()
				answer := func(r *http.Request, by sdktest.RoundTripFunc) (*http.Response, error) {
					if by == nil {
						return platform.RoundTrip(r)
					}
					return by(r)
				}
				c := w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					switch {
					case strings.HasSuffix(r.URL.Path, "/authenticate"):
						return answer(r, tc.exchange)
					case sdktest.IsVerify(r):
						return answer(r, tc.verify)
					default:
						return answer(r, tc.call)
					}
				})))
				h := c.HTTPClient()
				h.Timeout = timeout
				began := time.Now()
				resp, err := h.Do(sdktest.Request(t, http.MethodGet, w.Server.URL+"/api/v1/agents", nil))
				if err == nil {
					defer resp.Body.Close()
					_, err = io.ReadAll(resp.Body)
				}
				assert.Equal(t, tc.took, time.Since(began))
				if tc.code > 0 {
					require.NoError(t, err)
					assert.Equal(t, tc.code, resp.StatusCode)
					return
				}
				var timedOut interface{ Timeout() bool }
				require.ErrorAs(t, err, &timedOut)
				assert.True(t, timedOut.Timeout())
			})
		})
	}
}
