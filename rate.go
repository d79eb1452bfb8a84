package agrenting

import "time"

// Rate is the state of the rate limit that a call counted against (platform
// documentation, "Rate Limits"). The platform sends no time of reset.
type Rate struct {
	// Known is false if the answer had no rate-limit headers.
	Known bool
	// Limit is the number of requests per window, Remaining what is left.
	Limit, Remaining int
	// RetryAfter is set if the call was limited.
	RetryAfter time.Duration
}
