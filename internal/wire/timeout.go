package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Limit ends ctx after d, unless d is 0. The cause is an error that names the option by
// which the limit was set.
func Limit(ctx context.Context, d time.Duration, option string) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, timeoutError{limit: d, option: option})
}

// timeoutError is the error of a call that [Limit] has ended.
type timeoutError struct {
	limit    time.Duration
	option   string
	answered bool // a part of the response had arrived
}

func (e timeoutError) Error() string {
	what := "no response"
	if e.answered {
		what = "the response was not complete"
	}
	return fmt.Sprintf("%s within %v (%s)", what, e.limit, e.option)
}
func (e timeoutError) Timeout() bool { return true }
func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }

// Incomplete returns the error of a response to req that broke off. err is the reason, or a
// [*CallError] with the reason.
func Incomplete(req *http.Request, err error) error {
	if call, ok := errors.AsType[*CallError](err); ok {
		err = call.Err
	}
	cause := context.Cause(req.Context())
	limit, limited := errors.AsType[timeoutError](cause)
	switch {
	case errors.Is(err, ErrMalformed): // the response is too long
		return NewCallError(req, err)
	case limited:
		limit.answered = true
		return &CallError{Method: req.Method, Path: req.URL.EscapedPath(), Err: limit}
	case cause != nil && errors.Is(err, cause):
		return NewCallError(req, &WaitError{For: "the rest of the response", Err: cause})
	default:
		return NewCallError(req, fmt.Errorf("the response was not complete: %w", err))
	}
}
