package session_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// exchanging changes the responses of the authenticate endpoint.
type exchanging struct {
	http.RoundTripper

	change func(n int, resp *http.Response)
	n      int
}

func (e *exchanging) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.RoundTripper.RoundTrip(req)
	if err == nil && strings.HasSuffix(req.URL.Path, "/authenticate") {
		e.n++
		e.change(e.n, resp)
	}
	return resp, err
}

// stored makes a response look as if a cache had stored it an hour ago.
func stored(age string) func(http.Header) {
	return func(h http.Header) {
		sent, err := http.ParseTime(h.Get("Date"))
		if err == nil {
			h.Set("Date", sent.Add(-time.Hour).Format(http.TimeFormat))
		}
		h["Age"] = []string{age}
	}
}

func TestUnreliableDateTeachesNoClockSkew(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(http.Header){
		"stored":         stored("3600"),
		"age of 0":       stored("0"),
		"malformed age":  stored("an hour"),
		"malformed date": func(h http.Header) { h.Set("Date", "today") },
		"no date":        func(h http.Header) { h.Del("Date") },
		"two dates":      func(h http.Header) { h["Date"] = []string{"Fri, 31 Dec 1999 23:59:59 GMT", h.Get("Date")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Second), agrentingtest.WithoutRateLimits())
				base := &exchanging{RoundTripper: w.Server.Transport(), change: func(_ int, resp *http.Response) { change(resp.Header) }}
				c := w.Client(agrenting.WithTransport(base))
				for range 60 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Second)
				}
				assert.Zero(t, w.Unauthorized(), "no session is used after its end")
				assert.Zero(t, c.Status().ClockSkew)
				assert.InDelta(t, 8, w.Exchanges(), 2)
			})
		})
	}
}

// A firewall that refuses every third request has another clock than the platform.
func TestStray401WithWrongDate_causesNoExchange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour), agrentingtest.WithoutRateLimits())
		n := 0
		c := w.Client(agrenting.WithTransport(sdktest.Between(w.Server.Transport(), func(r *http.Request) *http.Response {
			if r.URL.Path != "/api/v1/agents" {
				return nil
			}
			n++
			if n%3 != 0 {
				return nil
			}
			return sdktest.Reply(http.StatusUnauthorized, `{"error":"no"}`, "Date", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
		})))
		for range 100 {
			began := time.Now()
			require.NoError(t, w.Call(c))
			require.Less(t, time.Since(began), time.Second)
			sdktest.Advance(time.Second)
		}
		assert.Equal(t, 1, w.Exchanges())
	})
}

// SkewOf ignores a difference of the clocks of less than 2 s.
func TestSessionEndedBySlightlyFastPlatformIsRenewedUnasked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithClockSkew(time.Second))
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Window: -1}))
		require.NoError(t, w.Call(c))
		sdktest.Advance(time.Minute + 200*time.Millisecond)
		began := time.Now()
		require.NoError(t, w.Call(c))
		assert.Zero(t, time.Since(began), "no pause, and no question about the session")
		assert.Equal(t, 1, w.Unauthorized())
		assert.Equal(t, 2, w.Exchanges())
	})
}

func TestClockSkewOutlivesStoredResponses(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"alone": false, "shared": true} {
		for _, skew := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
			t.Run(name+" "+skew.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewSessionWorld(t, agrentingtest.WithClockSkew(skew), agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
					base := &exchanging{RoundTripper: w.Server.Transport(), change: func(n int, resp *http.Response) {
						if n > 1 {
							stored("3600")(resp.Header)
						}
					}}
					policy := agrenting.SessionPolicy{}
					if shared {
						policy.Store = sdktest.NewFailingStore()
					}
					first := w.Client(agrenting.WithTransport(base), agrenting.WithSession(policy))
					for range 10 {
						require.NoError(t, w.Call(first))
						sdktest.Advance(20 * time.Second)
					}
					second := w.Client(agrenting.WithTransport(base), agrenting.WithSession(policy))
					if shared {
						require.NoError(t, w.Call(second))
						assert.InDelta(t, skew.Seconds(), second.Status().ClockSkew.Seconds(), 2)
					}
					assert.InDelta(t, skew.Seconds(), first.Status().ClockSkew.Seconds(), 2)
					assert.Zero(t, w.Unauthorized())
				})
			})
		}
	}
}

func TestSlowResponseIsNotClockSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute))
		base := &exchanging{RoundTripper: w.Server.Transport(), change: func(int, *http.Response) { sdktest.Advance(10 * time.Second) }}
		policy := agrenting.WithSession(agrenting.SessionPolicy{Window: -1, Store: sdktest.NewFailingStore()})
		first, second := w.Client(agrenting.WithTransport(base), policy), w.Client(agrenting.WithTransport(base), policy)
		require.NoError(t, w.Call(first))
		require.NoError(t, w.Call(second))
		require.Equal(t, 1, w.Exchanges())
		for _, c := range []*agrenting.Client{first, second} {
			assert.Zero(t, c.Status().ClockSkew)
			assert.WithinDuration(t, time.Now().Add(50*time.Second), c.Status().Expires, time.Second)
		}
	})
}

func TestLockoutWithDateEndsByPlatformClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"same clock": 0, "platform ahead": 10 * time.Minute, "platform behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithClockSkew(skew))
				until := time.Now().Add(skew + 30*time.Second)
				w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, until.UTC().Format(http.TimeFormat)))
				store := sdktest.NewFailingStore()
				first := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
				second := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
				for _, c := range []*agrenting.Client{first, second} {
					var lockout *agrenting.LockoutError
					require.ErrorAs(t, w.Call(c), &lockout)
					assert.WithinDuration(t, time.Now().Add(30*time.Second), lockout.RetryAt, time.Second)
				}
				sdktest.Advance(32 * time.Second)
				require.NoError(t, w.Call(first))
				require.NoError(t, w.Call(second))
				assert.Equal(t, 2, w.Exchanges())
			})
		})
	}
}

func TestFailedExchangeIsRepeatedByPlatformClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"platform ahead": 10 * time.Minute, "platform behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithClockSkew(skew))
				until := time.Now().Add(skew + 20*time.Second)
				w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, until.UTC().Format(http.TimeFormat)))
				c := w.Client()
				var failed *agrenting.RenewalError
				require.ErrorAs(t, w.Call(c), &failed)
				assert.WithinDuration(t, time.Now().Add(20*time.Second), failed.RetryAt, time.Second)
			})
		})
	}
}
