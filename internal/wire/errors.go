package wire

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

var (
	// ErrUnauthorized is in every error about a 401. The root package has the same value under
	// this name, and also ErrRouteNotFound.
	ErrUnauthorized = errors.New("agrenting: unauthorized")
	// ErrRouteNotFound is in every error about a 404 with the code ROUTE_NOT_FOUND.
	ErrRouteNotFound = errors.New("agrenting: route not found")
	// ErrNoResponse is the error if a transport violates the contract of [http.RoundTripper].
	ErrNoResponse = errors.New("agrenting: the base transport returned neither a response nor an error")
)

// A CallError names the call that failed, without its query string. Its text is safe to log: it is
// one line of bounded length.
type CallError struct {
	// Path is escaped, as it was sent.
	Method, Path string
	Err          error

	text string // made once: net/http may quote megabytes
}

// NewCallError returns an error that names the call of req. If the context of req has ended, the
// error reports that first.
func NewCallError(req *http.Request, err error) *CallError {
	e := &CallError{Method: req.Method, Path: req.URL.EscapedPath(), Err: ended(req.Context(), err)}
	e.text = e.make()
	return e
}

// Error implements error.
func (e *CallError) Error() string {
	if e.text == "" { // not from NewCallError
		return e.make()
	}
	return e.text
}

func (e *CallError) make() string {
	text := strings.TrimPrefix(secret.CleanText(e.Err.Error()), "agrenting: ")
	return "agrenting: " + e.Method + " " + secret.Path(e.Path) + ": " + text
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// A WaitError says what a request was waiting for when its context ended, if that was not the
// platform's response.
type WaitError struct {
	For string // such as "a credential from AGRENTING_KEY_FILE"
	Err error  // why the context ended
	// Last is why the wait has not succeeded so far; nil if there was no failure.
	Last error
}

// Error implements error.
func (e *WaitError) Error() string {
	text := "waiting for " + e.For
	if e.Last != nil {
		text += " (the last attempt failed: " + strings.TrimPrefix(e.Last.Error(), "agrenting: ") + ")"
	}
	return text + ": " + e.Err.Error()
}

// Timeout reports whether a deadline ended the wait.
func (e *WaitError) Timeout() bool { return errors.Is(e.Err, context.DeadlineExceeded) }

// Unwrap returns the cause, and the failure before it.
func (e *WaitError) Unwrap() []error {
	if e.Last == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Last}
}

// contextError reports the end of a context, described by its cause. It also matches the context's
// own error and the last error before the end.
type contextError struct{ cause, ctx, last error }

func (e *contextError) Error() string {
	text := e.cause.Error()
	if e.last != nil {
		text += ", after: " + e.last.Error()
	}
	return text
}

func (e *contextError) Unwrap() []error {
	if e.last == nil {
		return []error{e.cause, e.ctx}
	}
	return []error{e.cause, e.ctx, e.last}
}

// EndOf returns an error about the end of ctx, described by its cause. It matches the cause and
// ctx.Err().
func EndOf(ctx context.Context) error {
	return &contextError{cause: context.Cause(ctx), ctx: ctx.Err()}
}

// ended returns err, or the end of ctx if ctx has ended.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case isWait(err):
		return &contextError{cause: err, ctx: ctx.Err()}
	case errors.Is(err, ctx.Err()), errors.Is(err, cause):
		return &contextError{cause: cause, ctx: ctx.Err()}
	default:
		return &contextError{cause: cause, ctx: ctx.Err(), last: err}
	}
}

func isWait(err error) bool {
	_, ok := errors.AsType[*WaitError](err)
	return ok
}
