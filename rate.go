package agrenting

import "time"

// Rate is the state of the rate limit that a call counted against (platform
// documentation, "Rate Limits"), for example a Limit of 100 with 37 remaining. Most programs
// only use RetryAfter. The platform does not send the time of the reset.
type Rate struct {
	// Known is false if the response had no rate-limit headers.
	Known bool
	// Limit is the number of requests per window. Remaining is how many are left.
	Limit, Remaining int
	// RetryAfter is how long to wait, if the call was limited, for example 30 s.
	RetryAfter time.Duration
}
