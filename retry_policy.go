package agrenting

import (
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/retry"
)

// RetryPolicy limits how often and when failed requests are retried. A zero field
// means its default. Most programs need no RetryPolicy. This one sends a request at most
// twice, and waits up to 2 s for the second attempt:
//
//	agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 2, MaxRetryAfter: 2 * time.Second})
//
// Requests are retried only when that is safe: if their method is GET, HEAD, OPTIONS,
// TRACE, DELETE, or PUT, or if they have an X-Idempotency-Key, and if their body can be
// sent again (there is none, or GetBody is set). They are retried after connection
// errors, 408, 425, 429, any 5xx except 501, and 409 IDEMPOTENCY_PENDING with the same
// key, and by [Client.Do] also after a 2xx that breaks off. All other requests are not
// retried, and neither are requests through a proxy that requires credentials (407).
// Resends after a 401 are not retries, and do not count.
type RetryPolicy struct {
	// MaxAttempts limits how often a request is sent, including the first time. The
	// default is 4, as in the platform's own client. With 1, nothing is retried.
	MaxAttempts int
	// BaseDelay is the longest pause before the first retry. It doubles with each
	// retry. The actual pause is a random part of it. The default is 500 ms.
	BaseDelay time.Duration
	// MaxDelay limits the doubling. The default is 30 s.
	MaxDelay time.Duration
	// MaxRetryAfter is the longest Retry-After that is respected. If the platform asks
	// for a longer pause, the request is not retried, and the caller gets the response.
	// The default is 60 s.
	MaxRetryAfter time.Duration
	// RenewalWait is how long a request waits for a new credential when the last attempt
	// to obtain one has failed, as when the authenticate endpoint returns 503. The
	// request's context also limits the wait. The default is 10 s. With a negative value,
	// such requests fail at once. [RenewalError] lists the cases in which they always do.
	RenewalWait time.Duration
	// Decide, if it is set, decides whether a request is retried after an outcome that is
	// an error, a status of 400 or more, or a 2xx that breaks off for Do. [RetryOutcome.Retry]
	// is what the SDK would do, so this never retries a 503:
	//
	//	func(o agrenting.RetryOutcome) bool { return o.Retry && o.StatusCode != 503 }
	//
	// It may allow what the SDK would not, such as a POST without an X-Idempotency-Key. Allow
	// that only if the server may do it twice. It is not called, and nothing is retried, if
	// the request's body cannot be sent again, its context has ended, or the attempts
	// are used up. A Retry-After beyond MaxRetryAfter is respected even if it returns
	// true. It is called on the goroutine of the request, once for each outcome, and must
	// be safe for concurrent use. Calls that the SDK itself makes for sessions and
	// rotations do not ask it. It is not asked about errors that the SDK makes itself,
	// such as a [RenewalError], either.
	Decide func(RetryOutcome) bool
}

// defaultRenewalWait is the default of RetryPolicy.RenewalWait.
const defaultRenewalWait = 10 * time.Second

// renewalWait is RenewalWait with its default, and 0 for not waiting.
func (p RetryPolicy) renewalWait() time.Duration {
	if p.RenewalWait == 0 {
		return defaultRenewalWait
	}
	return max(0, p.RenewalWait)
}

// retries is the part of the policy that is about retries.
func (p RetryPolicy) retries() retry.Policy {
	return retry.Policy{
		MaxAttempts: p.MaxAttempts, BaseDelay: p.BaseDelay, MaxDelay: p.MaxDelay, MaxRetryAfter: p.MaxRetryAfter,
		Decide: decisionOf(p.Decide),
	}
}

// A RetryOutcome is the outcome of one attempt of a request, for [RetryPolicy]. It has
// no credential of the SDK.
type RetryOutcome struct {
	// Method and Path are those of the request.
	Method, Path string
	// StatusCode and Header are those of the response; zero and nil if there is none. The
	// header must not be changed.
	StatusCode int
	Header     http.Header
	// Err is why there is no response, or why it broke off; nil otherwise.
	Err error
	// Attempt counts the attempts of this request, from 1. A request that is resent because of
	// a 401 counts as one.
	Attempt int
	// Retry is what the SDK would do.
	Retry bool
}

// decisionOf is [RetryPolicy].Decide for the package that retries; nil if it is not set.
func decisionOf(decide func(RetryOutcome) bool) func(retry.Outcome, bool) bool {
	if decide == nil {
		return nil
	}
	return func(o retry.Outcome, again bool) bool {
		out := RetryOutcome{Method: o.Request.Method, Path: o.Request.URL.Path, Err: o.Err, Attempt: o.Attempt, Retry: again}
		if out.Method == "" {
			out.Method = http.MethodGet
		}
		if o.Response != nil {
			out.StatusCode, out.Header = o.Response.StatusCode, o.Response.Header
		}
		return decide(out)
	}
}
