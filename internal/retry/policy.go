package retry

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// A Policy limits retries. The root package documents its fields.
type Policy struct {
	MaxAttempts   int
	BaseDelay     time.Duration
	MaxDelay      time.Duration
	MaxRetryAfter time.Duration
	// Decide, if set, replaces the default decision, within the limits above. It is called
	// once for each outcome of a request that has a body that can be sent again. retry is
	// the default decision.
	Decide func(o Outcome, retry bool) bool
}

// An Outcome is the response to an attempt, or its error, such as {Request: req, Err:
// io.EOF, Attempt: 1}.
type Outcome struct {
	Request  *http.Request
	Response *http.Response // nil if there is an error
	Err      error
	Attempt  int // from 1
}

// WithDefaults returns the policy with defaults in place of its zero fields.
func (p Policy) WithDefaults() Policy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = 4
	}
	if p.BaseDelay == 0 {
		p.BaseDelay = 500 * time.Millisecond
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = 30 * time.Second
	}
	if p.MaxRetryAfter == 0 {
		p.MaxRetryAfter = 60 * time.Second
	}
	return p
}

// pause returns how long to wait after the n-th attempt. The pause is random, below a limit
// that doubles, or it is the time in Retry-After. The bool is false if the platform asks for
// a longer pause than the policy allows.
func (p Policy) pause(n int, resp *http.Response) (time.Duration, bool) {
	top := renew.Doubled(p.BaseDelay, p.MaxDelay, n)
	jitter := time.Duration(rand.Int64N(int64(top) + 1)) // #nosec G404 -- jitter needs no secrecy
	if resp == nil {
		return jitter, true
	}
	after, ok := wire.RetryAfter(resp.Header, time.Now())
	switch {
	case !ok:
		return jitter, true
	case after > p.MaxRetryAfter:
		return 0, false
	default:
		// Requests are never sent before the time in Retry-After. Jitter keeps clients from
		// sending all at that moment.
		return after + min(jitter, after/10+p.BaseDelay), true
	}
}
