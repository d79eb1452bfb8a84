package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestOnlySafeTransientFailuresAreRetried(t *testing.T) {
	t.Parallel()

	const dropped = 0
	outcomes := map[int]bool{
		dropped: true, 408: true, 425: true, 429: true, 500: true, 502: true, 503: true, 504: true, 507: true, 599: true,
		501: false, 400: false, 402: false, 403: false, 404: false, 409: false, 410: false, 422: false, 423: false,
		200: false, 204: false, 301: false, 304: false,
	}
	requests := map[string]struct {
		method string
		edit   func(*http.Request)
		safe   bool
	}{
		"GET":     {method: http.MethodGet, safe: true},
		"no name": {method: "", safe: true},
		"HEAD":    {method: http.MethodHead, safe: true},
		"OPTIONS": {method: http.MethodOptions, safe: true},
		"TRACE":   {method: http.MethodTrace, safe: true},
		"DELETE":  {method: http.MethodDelete, safe: true},
		"PUT":     {method: http.MethodPut, safe: true},
		"POST":    {method: http.MethodPost},
		"PATCH":   {method: http.MethodPatch},
		"get":     {method: "get"},
		"PURGE":   {method: "PURGE"},
		"POST with a key": {method: http.MethodPost, safe: true, edit: func(r *http.Request) {
			r.Header.Set("X-Idempotency-Key", "key")
		}},
		"PATCH with a key": {method: http.MethodPatch, safe: true, edit: func(r *http.Request) {
			r.Header.Set("X-Idempotency-Key", "key")
		}},
		"POST with an empty key": {method: http.MethodPost, edit: func(r *http.Request) { r.Header.Set("X-Idempotency-Key", "") }},
		"PUT of a stream":        {method: http.MethodPut, edit: func(r *http.Request) { r.GetBody = nil }},
		"POST of a stream with a key": {method: http.MethodPost, edit: func(r *http.Request) {
			r.Header.Set("X-Idempotency-Key", "key")
			r.GetBody = nil
		}},
	}
	for name, rq := range requests {
		for code, transient := range outcomes {
			t.Run(fmt.Sprintf("%s, %d", name, code), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					base := sdktest.Answers(code)
					tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
					req := sdktest.Request(t, rq.method, "/x", strings.NewReader("body"))
					req.Method = rq.method
					if rq.edit != nil {
						rq.edit(req)
					}
					resp, err := tr.RoundTrip(req)
					if code == dropped {
						assert.Equal(t, io.ErrUnexpectedEOF, err)
					} else {
						require.NoError(t, err)
						assert.Equal(t, code, resp.StatusCode)
						assert.Equal(t, http.StatusText(code), readAll(t, resp), "the last response is the caller's, with its body")
						assert.Equal(t, req.Header, resp.Request.Header)
						assert.Same(t, req.URL, resp.Request.URL)
					}
					want := 1
					if transient && rq.safe {
						want = 4
					}
					assert.Equal(t, want, base.Count())
				})
			})
		}
	}
}

func TestBothFormsOfRetryAfterAreHonoured(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		header      func(now time.Time) string
		least, most time.Duration // the pause
	}{
		"seconds":        {fixed("7"), 7 * time.Second, 7*time.Second + 1200*time.Millisecond},
		"spaces":         {fixed(" 7 "), 7 * time.Second, 7*time.Second + 1200*time.Millisecond},
		"zero":           {fixed("0"), 0, 500 * time.Millisecond},
		"the most":       {fixed("60"), 60 * time.Second, 67 * time.Second},
		"date":           {inAWhile(9 * time.Second), 8 * time.Second, 11 * time.Second},
		"date gone by":   {inAWhile(-time.Hour), 0, 500 * time.Millisecond},
		"none":           {fixed(""), 0, 500 * time.Millisecond},
		"garbage":        {fixed("soon"), 0, 500 * time.Millisecond},
		"negative":       {fixed("-5"), 0, 500 * time.Millisecond},
		"fraction":       {fixed("1.5"), 0, 500 * time.Millisecond},
		"RFC 850 date":   {func(n time.Time) string { return n.UTC().Add(9 * time.Second).Format(time.RFC850) }, 8 * time.Second, 11 * time.Second},
		"asctime date":   {func(n time.Time) string { return n.UTC().Add(9 * time.Second).Format(time.ANSIC) }, 8 * time.Second, 11 * time.Second},
		"date elsewhere": {fixed("Thu, 01 Jan 1970 00:00:00 GMT"), 0, 500 * time.Millisecond},
	}
	for name, tc := range cases {
		for _, code := range []int{429, 503} {
			t.Run(fmt.Sprintf("%s, %d", name, code), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
						if n == 1 {
							return sdktest.Reply(code, "", "Retry-After", tc.header(time.Now())), nil
						}
						return sdktest.Reply(200, "done"), nil
					}}
					tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
					began := time.Now()
					status, body, err := sdktest.Get(t.Context(), tr, "/x")
					took := time.Since(began)
					require.NoError(t, err)
					assert.Equal(t, 200, status)
					assert.Equal(t, "done", body)
					assert.GreaterOrEqual(t, took, tc.least)
					assert.LessOrEqual(t, took, tc.most)
				})
			})
		}
	}
}

func fixed(v string) func(time.Time) string { return func(time.Time) string { return v } }

func inAWhile(d time.Duration) func(time.Time) string {
	return func(now time.Time) string { return now.Add(d).UTC().Format(http.TimeFormat) }
}

func TestRetryAfterBeyondPolicyIsReturned(t *testing.T) {
	t.Parallel()

	for value, want := range map[string]time.Duration{
		"61": 61 * time.Second, "86400": 24 * time.Hour,
		"9223372036854775807": 365 * 24 * time.Hour, "99999999999999999999999999": 365 * 24 * time.Hour,
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
					return sdktest.Reply(429, `{"errors":[{"code":"RATE_LIMITED","message":"later"}]}`, "Retry-After", value), nil
				}}
				c := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithTimeout(0))
				began := time.Now()
				resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				assert.Zero(t, time.Since(began), "the request did not wait")
				require.ErrorIs(t, err, agrenting.ErrRateLimited)
				api, ok := errors.AsType[*agrenting.APIError](err)
				require.True(t, ok)
				assert.Equal(t, want, api.RetryAfter)
				assert.Equal(t, "RATE_LIMITED", api.Code)
				assert.Equal(t, 1, api.Attempts)
				assert.Equal(t, want, resp.Rate.RetryAfter)
				assert.Equal(t, 1, base.Count())
			})
		})
	}
}

func TestTheLastAnswerSurvives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
			return sdktest.Reply(503, fmt.Sprintf(`{"errors":[{"code":"BUSY","message":"attempt %d"}]}`, n), "X-Request-Id", fmt.Sprint("r", n)), nil
		}}
		c := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
		resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, agrenting.ErrServer)
		api, ok := errors.AsType[*agrenting.APIError](err)
		require.True(t, ok)
		assert.Equal(t, "attempt 4", api.Message)
		assert.Equal(t, 4, api.Attempts)
		assert.Equal(t, 4, resp.Attempts)
		assert.Equal(t, "r4", resp.RequestID)
		assert.Contains(t, err.Error(), "4 attempts")
	})
}

func TestAttemptsAreCountedOverRetriesAndReplays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("k1")
		base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
			switch n {
			case 1:
				return nil, io.ErrUnexpectedEOF
			case 2:
				return sdktest.Reply(503, ""), nil
			case 3:
				src.Replace(agrenting.APIKey("k2"))
				return sdktest.Reply(401, ""), nil
			default:
				return sdktest.Reply(200, "{}"), nil
			}
		}}
		resp, err := sdktest.ClientOver(t, sdktest.Verifying("k2", base), src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, 4, resp.Attempts)
		assert.EqualValues(t, 2, resp.Generation)
	})
}

func TestAPauseBeyondTheDeadlineIsNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
			return sdktest.Reply(429, fmt.Sprint("response ", n), "Retry-After", "30"), nil
		}}
		tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		began := time.Now()
		code, body, err := sdktest.Get(ctx, tr, "/x")
		require.NoError(t, err, "the response at hand says more than a missed deadline")
		assert.Equal(t, 429, code)
		assert.Equal(t, "response 2", body)
		assert.Less(t, time.Since(began), 45*time.Second)
		assert.Equal(t, 2, base.Count())
	})
}

func TestCanceledCallerReturnsDuringPause(t *testing.T) {
	t.Parallel()

	for name, first := range map[string]int{"after a response": 503, "after an error": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reason := errors.New("no longer wanted")
				base := sdktest.Answers(first)
				c := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithTimeout(0),
					agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: 24 * time.Hour, MaxDelay: 24 * time.Hour}))
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Nanosecond, func() { cancel(reason) })
				began := time.Now()
				_, _, err := sdktest.Get(ctx, c.Transport(), "/x")
				require.ErrorIs(t, err, reason)
				assert.Equal(t, time.Nanosecond, time.Since(began))
				assert.Equal(t, 1, base.Count())

				ctx, cancel = context.WithCancelCause(t.Context())
				time.AfterFunc(time.Nanosecond, func() { cancel(reason) })
				_, err = c.Do(ctx, http.MethodGet, "/x", nil, nil)
				require.ErrorIs(t, err, reason)
			})
		})
	}
}

func TestEachAttemptHasTheCredentialOfTheMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The first session ends during the pause.
		n := 0
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			n++
			return agrenting.SessionToken(fmt.Sprintf("s%d", n), time.Now().Add(20*time.Second)), nil
		})
		var secrets []string
		base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
			secrets = append(secrets, sdktest.SecretOf(r.Header))
			if n == 1 {
				return sdktest.Reply(503, "", "Retry-After", "18"), nil // by then it is renewed ahead
			}
			return sdktest.Reply(200, ""), nil
		}}
		code, _, err := sdktest.Get(t.Context(), sdktest.TransportOver(t, base, src), "/x")
		require.NoError(t, err)
		assert.Equal(t, 200, code)
		assert.Equal(t, []string{"s1", "s2"}, secrets)
	})
}

func TestThePolicyBoundsTheAttempts(t *testing.T) {
	t.Parallel()

	for most, want := range map[int]int{0: 4, 1: 1, 2: 2, 7: 7} {
		t.Run(strconv.Itoa(most), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := sdktest.Answers(503)
				tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: most}))
				code, _, err := sdktest.Get(t.Context(), tr, "/x")
				require.NoError(t, err)
				assert.Equal(t, 503, code)
				assert.Equal(t, want, base.Count())
			})
		})
	}
	_, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k1")), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: -1}))
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}

func TestAPendingIdempotencyKeyIsWaitedFor(t *testing.T) {
	t.Parallel()

	const pending = `{"errors":[{"code":"IDEMPOTENCY_PENDING","message":"still at it"}]}`
	big := strings.Repeat(" ", 128<<10) // more than is read to find the code
	cases := map[string]struct {
		method string
		key    string
		bodies []string // of the 409s; then comes a 200
		calls  int
		want   string
	}{
		"until it is done":   {http.MethodPost, "key", []string{pending, pending}, 3, "done"},
		"to the end":         {http.MethodPost, "key", []string{pending, pending, pending, pending}, 4, pending},
		"without a key":      {http.MethodPost, "", []string{pending}, 1, pending},
		"PUT without a key":  {http.MethodPut, "", []string{pending}, 1, pending},
		"another conflict":   {http.MethodPost, "key", []string{`{"errors":[{"code":"CONFLICT"}]}`}, 1, `{"errors":[{"code":"CONFLICT"}]}`},
		"no JSON":            {http.MethodPost, "key", []string{"conflict"}, 1, "conflict"},
		"nothing":            {http.MethodPost, "key", []string{""}, 1, ""},
		"more than a glance": {http.MethodPost, "key", []string{big + pending}, 1, big + pending},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var keys []string
				base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
					sdktest.ReadBody(r)
					keys = append(keys, r.Header.Get("X-Idempotency-Key"))
					if n <= len(tc.bodies) {
						return sdktest.Reply(409, tc.bodies[n-1]), nil
					}
					return sdktest.Reply(200, "done"), nil
				}}
				tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
				req := sdktest.Request(t, tc.method, "/x", strings.NewReader("body"))
				if tc.key != "" {
					req.Header.Set("X-Idempotency-Key", tc.key)
				}
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				assert.Equal(t, tc.want, readAll(t, resp), "the body is whole")
				assert.Len(t, keys, tc.calls)
				for _, k := range keys {
					assert.Equal(t, tc.key, k)
				}
			})
		})
	}
}

func TestTruncated409IsReturnedUnchanged(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken off")
	base := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
		resp := sdktest.Reply(409, "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"err`), iotest.ErrReader(broken)))
		return resp, nil
	}}
	req := sdktest.Request(t, http.MethodPost, "/x", nil)
	req.Header.Set("X-Idempotency-Key", "key")
	resp, err := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1"))).RoundTrip(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, broken)
	assert.Equal(t, `{"err`, string(b))
	require.NoError(t, resp.Body.Close())
}
