package agrenting_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestDecide_vetoesAndAllows(t *testing.T) {
	t.Parallel()
	veto := func(agrenting.RetryOutcome) bool { return false }
	allow := func(agrenting.RetryOutcome) bool { return true }
	pass := func(o agrenting.RetryOutcome) bool { return o.Retry }
	body := func() io.Reader { return strings.NewReader("body") }
	for name, tc := range map[string]struct {
		decide func(agrenting.RetryOutcome) bool
		method string
		body   func() io.Reader
		code   int
		want   int
	}{
		"veto":                         {veto, http.MethodGet, nil, 503, 1},
		"default of a GET":             {pass, http.MethodGet, nil, 503, 4},
		"default of a POST":            {pass, http.MethodPost, body, 503, 1},
		"default of a 404":             {pass, http.MethodGet, nil, 404, 1},
		"allowed POST":                 {allow, http.MethodPost, body, 503, 4},
		"allowed 404":                  {allow, http.MethodGet, nil, 404, 4},
		"dropped connection":           {allow, http.MethodPost, body, 0, 4},
		"success":                      {allow, http.MethodGet, nil, 200, 1},
		"redirect":                     {allow, http.MethodGet, nil, 302, 1},
		"body that cannot be replayed": {allow, http.MethodPut, func() io.Reader { return io.MultiReader(strings.NewReader("body")) }, 503, 1},
		"body that was sent":           {allow, http.MethodPost, func() io.Reader { return io.MultiReader(strings.NewReader("body")) }, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var attempts []int
				base := sdktest.Answers(tc.code)
				tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithRetryPolicy(agrenting.RetryPolicy{
					Decide: func(o agrenting.RetryOutcome) bool {
						mu.Lock()
						defer mu.Unlock()
						attempts = append(attempts, o.Attempt)
						assert.Equal(t, tc.method+" /x", o.Method+" "+o.Path)
						assert.Equal(t, tc.code, o.StatusCode)
						assert.Equal(t, tc.code == 0, o.Err != nil)
						return tc.decide(o)
					},
				}))
				var b io.Reader
				if tc.body != nil {
					b = tc.body()
				}
				resp, err := tr.RoundTrip(sdktest.Request(t, tc.method, "/x", b))
				if tc.code == 0 {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				} else {
					require.NoError(t, err)
					assert.Equal(t, tc.code, resp.StatusCode)
					readAll(t, resp)
				}
				assert.Equal(t, tc.want, base.Count())
				for i, n := range attempts {
					assert.Equal(t, i+1, n, "each outcome is decided once")
				}
				assert.Less(t, len(attempts), 4, "there is nothing to decide after the last attempt")
			})
		})
	}
}

func TestDecide_limits_areRespected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		allow := func(agrenting.RetryOutcome) bool { calls++; return true }
		base := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
			return sdktest.Reply(429, "", "Retry-After", "3600"), nil
		}}
		tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")),
			agrenting.WithRetryPolicy(agrenting.RetryPolicy{Decide: allow}))
		code, _, err := sdktest.Get(t.Context(), tr, "/x")
		require.NoError(t, err)
		assert.Equal(t, 429, code)
		assert.Equal(t, 1, base.Count(), "the platform asks for more than MaxRetryAfter")

		calls = 0
		ctx, cancel := context.WithCancel(t.Context())
		dropped := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
			cancel()
			return nil, io.ErrUnexpectedEOF
		}}
		tr = sdktest.TransportOver(t, dropped, agrenting.Static(agrenting.APIKey("k1")),
			agrenting.WithRetryPolicy(agrenting.RetryPolicy{Decide: allow}))
		_, _, err = sdktest.Get(ctx, tr, "/x")
		require.Error(t, err)
		assert.Zero(t, calls, "the caller was canceled")
	})
}

func TestDecide_seesNoCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
			if n == 1 {
				return nil, fmt.Errorf("dial: %v: %w", r.Header, io.ErrUnexpectedEOF)
			}
			return sdktest.Reply(503, ""), nil
		}}
		var seen []string
		c := sdktest.Keyed(t, base, agrenting.WithRetryPolicy(agrenting.RetryPolicy{Decide: func(o agrenting.RetryOutcome) bool {
			seen = append(seen, fmt.Sprintf("%+v", o))
			return o.Retry
		}}))
		_, err := c.Do(t.Context(), http.MethodGet, "/x?token="+sdktest.TestKey, nil, nil)
		require.ErrorIs(t, err, agrenting.ErrServer)
		require.Len(t, seen, 3)
		sdktest.AssertNoSecret(t, strings.Join(seen, "\n"), sdktest.TestKey)
	})
}

func TestCallTimeout_replacesTheClientsTimeout(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		client  time.Duration
		call    []agrenting.CallOption
		context time.Duration
		want    time.Duration // 0: the response arrives after 10 min
		says    string
	}{
		"client":     {time.Minute, nil, 0, time.Minute, "the client's WithTimeout"},
		"shorter":    {time.Minute, []agrenting.CallOption{agrenting.CallTimeout(time.Second)}, 0, time.Second, "within 1s (CallTimeout)"},
		"longer":     {time.Minute, []agrenting.CallOption{agrenting.CallTimeout(5 * time.Minute)}, 0, 5 * time.Minute, "CallTimeout"},
		"none":       {time.Minute, []agrenting.CallOption{agrenting.CallTimeout(0)}, 0, 0, ""},
		"last wins":  {time.Minute, []agrenting.CallOption{agrenting.CallTimeout(0), agrenting.CallTimeout(time.Second)}, 0, time.Second, "CallTimeout"},
		"no client":  {0, []agrenting.CallOption{agrenting.CallTimeout(time.Second)}, 0, time.Second, "CallTimeout"},
		"by context": {0, []agrenting.CallOption{agrenting.CallTimeout(time.Hour)}, time.Second, time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(10 * time.Minute):
						return sdktest.Reply(200, "{}"), nil
					case <-r.Context().Done():
						return nil, context.Cause(r.Context())
					}
				})
				c := sdktest.Keyed(t, base, agrenting.WithTimeout(tc.client))
				ctx := t.Context()
				if tc.context > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.context)
					defer cancel()
				}
				began := time.Now()
				_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, tc.call...)
				if tc.want == 0 {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, tc.says)
				assert.Equal(t, tc.want, time.Since(began))
			})
		})
	}
	_, err := sdktest.Keyed(t, new(sdktest.Recorder)).Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallTimeout(-1))
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}
