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

// Date returns when the platform sent a response, by its own clock. It is zero if the
// response does not say so: if there is no valid Date, or if there is an Age, even of 0,
// because the response then comes from a cache (RFC 9111, section 5.1).
func Date(h http.Header) time.Time {
	if len(h.Values("Age")) > 0 {
		return time.Time{}
	}
	return date(h)
}

// date returns the Date of a response; zero if it is missing, malformed, or ambiguous.
func date(h http.Header) time.Time {
	values := h.Values("Date")
	if len(values) == 0 {
		return time.Time{}
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return time.Time{}
		}
	}
	t, err := http.ParseTime(values[0])
	if err != nil {
		return time.Time{}
	}
	return t
}

// sameClock is how far the Date of a response may be from a clock that agrees with it:
// it has whole seconds, and the response took some time to arrive.
const sameClock = 2 * time.Second

// clock returns what the platform's clock showed when a response arrived, at now by the
// local clock. It is the Date of the response, plus its Age if it was stored in a cache.
// A stored response whose Date agrees with the local clock got that Date from the cache,
// so its Age is not added. Without a valid Date and Age, the local clock counts.
func clock(h http.Header, now time.Time) time.Time {
	sent, stored := date(h), h.Values("Age")
	switch {
	case sent.IsZero():
		return now
	case len(stored) == 0, now.Sub(sent).Abs() <= sameClock:
		return sent
	}
	age, ok := seconds(strings.TrimSpace(stored[0]))
	if !ok {
		return now
	}
	return sent.Add(age)
}

// maxWait keeps absurd values within a time.Duration.
const maxWait = 365 * 24 * time.Hour

// seconds reads a number of seconds, at most [maxWait].
func seconds(v string) (time.Duration, bool) {
	s, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err == nil && s >= 0:
		return time.Duration(min(s, int64(maxWait/time.Second))) * time.Second, true
	case v != "" && strings.Trim(v, "0123456789") == "":
		return maxWait, true // more digits than an int64 holds
	default:
		return 0, false
	}
}

// RetryAfter reads both forms of Retry-After, seconds and an HTTP date. The platform
// documents seconds (platform documentation, "Rate Limits"); its own client reads
// both. A date is read by the platform's clock, which the response's own Date shows.
// Of several values, the longest counts. It reports whether there is a valid one.
func RetryAfter(h http.Header, now time.Time) (after time.Duration, ok bool) {
	for _, v := range h.Values("Retry-After") {
		d, valid := seconds(strings.TrimSpace(v))
		if !valid {
			d, valid = until(v, h, now)
		}
		after, ok = max(after, d), ok || valid
	}
	return after, ok
}

// until reads a Retry-After that is a date. Dates have whole seconds, so the time left
// is at least one second if the date is in the future.
func until(v string, h http.Header, now time.Time) (time.Duration, bool) {
	t, err := http.ParseTime(strings.TrimSpace(v))
	if err != nil {
		return 0, false
	}
	left := t.Sub(clock(h, now))
	if left <= 0 {
		return 0, true
	}
	return min(max(left, time.Second), maxWait), true
}
