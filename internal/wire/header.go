package wire

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Header contains the information in the headers of a response. For example, a zero
// Sunset means that the route will not be retired, as far as is known.
type Header struct {
	RequestID string
	Rate      Rate
	// Sunset is when the route will be retired; zero if no date is announced.
	Sunset time.Time
}

// Rate is the state of a rate limit, such as {Known: true, Limit: 60, Remaining: 59}.
// Most programs only read Remaining and RetryAfter.
type Rate struct {
	Known            bool
	Limit, Remaining int
	RetryAfter       time.Duration
}

// ReadHeader reads the headers of a response that arrived at now.
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

// Date returns when the platform sent a response, by the platform's clock. It returns
// zero if Date is missing or invalid. It also returns zero if the response has an Age,
// even an Age of 0, because the response then comes from a cache (RFC 9111, section
// 5.1).
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

// sameClock is how far the Date of a response may differ from a clock that agrees with
// it. Date has whole seconds, and the response took some time to arrive.
const sameClock = 2 * time.Second

// clock returns the platform's time when a response arrived, at now by the local clock.
// It is the Date of the response, plus its Age if the response was stored in a cache. If
// a stored response has a Date that agrees with the local clock, the cache has set that
// Date, so the Age is not added. Without a valid Date and Age, clock returns the local
// time.
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

// maxWait bounds absurd values, so that they fit into a time.Duration.
const maxWait = 365 * 24 * time.Hour

// seconds reads a number of seconds, at most [maxWait].
func seconds(v string) (time.Duration, bool) {
	s, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err == nil && s >= 0:
		return time.Duration(min(s, int64(maxWait/time.Second))) * time.Second, true
	case v != "" && strings.Trim(v, "0123456789") == "":
		return maxWait, true // too large for an int64
	default:
		return 0, false
	}
}

// RetryAfter reads both forms of Retry-After, seconds and an HTTP date. The platform
// documents seconds (platform documentation, "Rate Limits"); its own client reads both.
// A date is compared with the platform's clock, which the response's own Date shows. If
// there are several values, the longest counts. ok reports whether there is a valid one.
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

// until reads a Retry-After that is a date. Dates have whole seconds, so the remaining
// time is at least one second if the date is in the future.
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
