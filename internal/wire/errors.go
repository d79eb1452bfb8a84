package wire

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

var (
	// ErrUnauthorized is in every error about a 401. The root has it under the same
	// name, as it has ErrRouteNotFound.
	ErrUnauthorized = errors.New("agrenting: unauthorized")
	// ErrRouteNotFound is in every error about a 404 with the code ROUTE_NOT_FOUND.
	ErrRouteNotFound = errors.New("agrenting: route not found")
)

// A CallError names the call that failed, without its query string.
type CallError struct {
	Method, Path string
	Err          error
}

// NewCallError names the call of req. If the context of req has ended, the error
// says that first.
func NewCallError(req *http.Request, err error) *CallError {
	return &CallError{Method: req.Method, Path: req.URL.Path, Err: ended(req.Context(), err)}
}

// Error implements error.
func (e *CallError) Error() string {
	text := secret.WithoutQueries(e.Err.Error())
	return "agrenting: " + e.Method + " " + e.Path + ": " + strings.TrimPrefix(text, "agrenting: ")
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// contextError is the end of a context, described by its cause. It also matches the
// context's own error and what had happened until then.
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

// ended describes err by the end of ctx, if ctx has ended.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case errors.Is(err, ctx.Err()), errors.Is(err, cause):
		return &contextError{cause: cause, ctx: ctx.Err()}
	default:
		return &contextError{cause: cause, ctx: ctx.Err(), last: err}
	}
}
