package wire

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Header is what the headers of an answer say.
type Header struct {
	RequestID string
	Rate      Rate
	// Sunset is when the route will be retired, zero if no date is announced.
	Sunset time.Time
}

// Rate is the state of a rate limit.
type Rate struct {
	Known            bool
	Limit, Remaining int
	RetryAfter       time.Duration
}

// ReadHeader reads the headers of an answer that came at now.
func ReadHeader(h http.Header, now time.Time) Header {
	var out Header
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if out.RequestID == "" {
			out.RequestID = h.Get(name)
		}
	}
	limit, err1 := strconv.Atoi(h.Get("X-Ratelimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("X-Ratelimit-Remaining"))
	out.Rate = Rate{Known: err1 == nil && err2 == nil, Limit: limit, Remaining: remaining}
	out.Rate.RetryAfter, _ = RetryAfter(h, now)
	if t, err := http.ParseTime(h.Get("Sunset")); err == nil {
		out.Sunset = t
	}
	return out
}

// Date returns the Date of an answer, zero if there is none.
func Date(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// maxRetryAfter keeps absurd values within a time.Duration.
const maxRetryAfter = 365 * 24 * time.Hour

// RetryAfter reads both forms of Retry-After, seconds and an HTTP date. The platform
// documents seconds (platform documentation, "Rate Limits"); its own client reads
// both. It reports whether there is a valid one.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	const most = int64(maxRetryAfter / time.Second)
	if s, err := strconv.ParseInt(v, 10, 64); err == nil {
		if s < 0 {
			return 0, false
		}
		return time.Duration(min(s, most)) * time.Second, true
	}
	if strings.Trim(v, "0123456789") == "" {
		return maxRetryAfter, true // more digits than an int64 holds
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(max(0, t.Sub(now)), maxRetryAfter), true
}
