package wire

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReadHeaderIgnoresMalformedValues(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sunset := time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC)
	for name, tc := range map[string]struct {
		header http.Header
		want   Header
	}{
		"none": {nil, Header{}},
		"all": {
			http.Header{
				"X-Request-Id": {"r1"}, "Request-Id": {"r2"}, "X-Ratelimit-Limit": {"100"}, "X-Ratelimit-Remaining": {"0"},
				"Retry-After": {"7"}, "Sunset": {"Sat, 31 Oct 2026 23:59:59 GMT"},
			},
			Header{RequestID: "r1", Rate: Rate{Known: true, Limit: 100, RetryAfter: 7 * time.Second}, Sunset: sunset},
		},
		"other request ID": {http.Header{"Request-Id": {"r2"}}, Header{RequestID: "r2"}},
		"half a rate":      {http.Header{"X-Ratelimit-Limit": {"100"}}, Header{Rate: Rate{Limit: 100}}},
		"malformed":        {http.Header{"Retry-After": {"soon"}, "Sunset": {"soon"}}, Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ReadHeader(tc.header, now)
			assert.True(t, tc.want.Sunset.Equal(got.Sunset))
			got.Sunset = tc.want.Sunset
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestDateIsZeroIfUnreadable(t *testing.T) {
	t.Parallel()
	assert.True(t, Date(http.Header{}).IsZero())
	assert.True(t, Date(http.Header{"Date": {"today"}}).IsZero())
	assert.Equal(t, 1999, Date(http.Header{"Date": {"Fri, 31 Dec 1999 23:59:59 GMT"}}).Year())
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{
		"", "0", "1", "7", " 60 ", "-1", "+5", "1.5", "1e3", "0x10", "86400", "9223372036854775807", "9223372036854775808",
		"99999999999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT",
		"Fri Dec 31 23:59:59 1999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "7, 8", "7\r\n8", "٧",
	} {
		f.Add(v)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v string) {
		d, ok := RetryAfter(http.Header{"Retry-After": {v}}, now)
		assert.GreaterOrEqual(t, d, time.Duration(0))
		assert.LessOrEqual(t, d, maxRetryAfter)
		if !ok {
			assert.Zero(t, d)
		}
	})
}
