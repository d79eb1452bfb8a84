package agrenting

import (
	"net/http"

	"github.com/agrenting/agrenting-go/internal/retry"
)

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
