package retry

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// tooMany returns a 429 with a Retry-After.
func tooMany(after string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusTooManyRequests,
		Header:     http.Header{"Retry-After": {after}},
		Body:       http.NoBody,
	}
}

func TestPauseIsDrawnBelowDoublingLimit(t *testing.T) {
	t.Parallel()

	p := Policy{BaseDelay: 100 * time.Millisecond, MaxDelay: time.Second}.WithDefaults()
	for i, ms := range []int{100, 200, 400, 800, 1000, 1000, 1000} {
		limit := time.Duration(ms) * time.Millisecond
		var lowest, highest time.Duration = limit, 0
		for range 2000 {
			d, ok := p.pause(i+1, nil)
			require.True(t, ok)
			lowest, highest = min(lowest, d), max(highest, d)
		}
		assert.GreaterOrEqual(t, lowest, time.Duration(0))
		assert.LessOrEqual(t, highest, limit)
		assert.Less(t, lowest, limit/10, "the whole range is used")
		assert.Greater(t, highest, limit-limit/10)
	}
	d, ok := Policy{BaseDelay: 1 << 62, MaxDelay: 1 << 62}.WithDefaults().pause(1000, nil)
	assert.True(t, ok)
	assert.GreaterOrEqual(t, d, time.Duration(0), "no overflow")
}

func TestPauseIsSlightlyLongerThanRetryAfter(t *testing.T) {
	t.Parallel()
	p := Policy{BaseDelay: time.Second, MaxDelay: time.Hour, MaxRetryAfter: time.Minute}
	for range 100 {
		pause, ok := p.pause(10, tooMany("10")) //nolint:bodyclose // it has none
		require.True(t, ok)
		assert.GreaterOrEqual(t, pause, 10*time.Second)
		assert.LessOrEqual(t, pause, 12*time.Second, "a tenth and the first pause")
	}
}

func TestPauseReadsDatesByThePlatformsClock(t *testing.T) {
	t.Parallel()
	p := Policy{BaseDelay: time.Second, MaxDelay: time.Hour, MaxRetryAfter: time.Minute}
	for name, tc := range map[string]struct {
		skew time.Duration
		age  string // seconds that the response was stored
	}{
		"same clock":      {0, ""},
		"platform ahead":  {10 * time.Minute, ""},
		"platform behind": {-10 * time.Minute, ""},
		"stored":          {0, "3600"},
		"stored, ahead":   {10 * time.Minute, "60"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			platform := time.Now().UTC().Add(tc.skew)
			resp := tooMany(platform.Add(10 * time.Second).Format(http.TimeFormat)) //nolint:bodyclose // it has none
			if tc.age != "" {
				age, err := time.ParseDuration(tc.age + "s")
				require.NoError(t, err)
				platform = platform.Add(-age)
				resp.Header["Age"] = []string{tc.age}
			}
			resp.Header["Date"] = []string{platform.Format(http.TimeFormat)}
			pause, ok := p.pause(1, resp)
			require.True(t, ok)
			assert.GreaterOrEqual(t, pause, 10*time.Second)
			assert.LessOrEqual(t, pause, 12*time.Second)

			resp = tooMany(platform.Add(2*time.Hour + p.MaxRetryAfter).Format(http.TimeFormat)) //nolint:bodyclose // it has none
			resp.Header["Date"] = []string{platform.Format(http.TimeFormat)}
			_, ok = p.pause(1, resp)
			assert.False(t, ok)
		})
	}
}

func TestWithDefaultsFillsZeroFields(t *testing.T) {
	t.Parallel()

	want := Policy{MaxAttempts: 4, BaseDelay: 500 * time.Millisecond, MaxDelay: 30 * time.Second, MaxRetryAfter: time.Minute}
	assert.Equal(t, want, Policy{}.WithDefaults())
	own := Policy{MaxAttempts: 1, BaseDelay: 1, MaxDelay: 1, MaxRetryAfter: 1}
	assert.Equal(t, own, own.WithDefaults())
}

func FuzzPause(f *testing.F) {
	for _, v := range []string{
		"", "0", "1", "7", " 60 ", "-1", "+5", "1.5", "1e3", "0x10", "86400", "9223372036854775807", "9223372036854775808",
		"99999999999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT",
		"Fri Dec 31 23:59:59 1999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "7, 8", "7\r\n8", "٧",
	} {
		f.Add(v, "")
		f.Add(v, "Fri, 31 Dec 1999 23:59:56 GMT")
	}
	f.Fuzz(func(t *testing.T, v, sent string) {
		resp := tooMany(v) //nolint:bodyclose // it has none
		resp.Header["Date"] = []string{sent}
		d, _ := wire.RetryAfter(resp.Header, time.Now().Add(time.Second)) // not later than that of the pause
		// No request waits longer than the policy allows.
		p := Policy{}.WithDefaults()
		pause, ok := p.pause(1, resp)
		assert.GreaterOrEqual(t, pause, time.Duration(0))
		assert.LessOrEqual(t, pause, p.MaxRetryAfter+p.MaxRetryAfter/10+p.BaseDelay)
		if ok && d <= p.MaxRetryAfter {
			assert.GreaterOrEqual(t, pause, d, "never before the time it asked for")
		}
	})
}
