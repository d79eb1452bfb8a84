package retry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// repeatable reports whether a request may be sent again. This depends only on the
// request, not on the outcome of an attempt.
func repeatable(req *http.Request) bool {
	if !replayable(req) {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodDelete, http.MethodPut:
		return true
	default:
		return hasIdempotencyKey(req.Header)
	}
}

// replayable reports whether the body of a request can be sent again.
func replayable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

func hasIdempotencyKey(h http.Header) bool {
	v := h[wire.HeaderIdempotencyKey]
	return len(v) > 0 && v[0] != ""
}

// Worthwhile reports whether the outcome of a first attempt calls for [Retrier.Run].
func (r *Retrier) Worthwhile(ctx context.Context, req *http.Request, resp *http.Response, err error) bool {
	return (err != nil || resp.StatusCode >= http.StatusBadRequest || wire.BrokenOff(resp) != nil) && r.worthwhile(ctx, req, resp, err)
}

func (r *Retrier) worthwhile(ctx context.Context, req *http.Request, resp *http.Response, err error) bool {
	return r.policy.MaxAttempts > 1 && r.policy.wants(ctx, Outcome{Request: req, Response: resp, Err: err, Attempt: 1})
}

// wants reports whether an outcome calls for another attempt.
func (p Policy) wants(ctx context.Context, o Outcome) bool {
	if p.Decide == nil {
		return repeatable(o.Request) && transient(ctx, o.Request, o.Response, o.Err)
	}
	if !replayable(o.Request) || ctx.Err() != nil {
		return false
	}
	if o.Err == nil {
		if o.Err = wire.BrokenOff(o.Response); o.Err == nil && o.Response.StatusCode < http.StatusBadRequest {
			return false
		}
	}
	return p.Decide(o, repeatable(o.Request) && transient(ctx, o.Request, o.Response, o.Err))
}

// transient reports whether another attempt may have another outcome.
func transient(ctx context.Context, req *http.Request, resp *http.Response, err error) bool {
	if err == nil {
		err = wire.BrokenOff(resp)
	}
	if err != nil {
		return !isContextError(ctx, err) && !isPermanent(err)
	}
	switch code := resp.StatusCode; code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusConflict:
		return hasIdempotencyKey(req.Header) && isPending(resp)
	case http.StatusNotImplemented:
		return false
	default:
		return code >= http.StatusInternalServerError
	}
}

// isContextError reports whether the call was canceled.
func isContextError(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled)
}

// isPermanent recognizes errors of the base that another attempt cannot fix.
func isPermanent(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok { // the server speaks plain http
		return true
	}
	return wire.IsProxyAuth(err)
}

// maxPeek limits what is read ahead of a 409 to find its code.
const maxPeek = 64 << 10

// isPending reports whether the code of a 409 says that the platform is still working on
// an earlier request. The code must arrive within 200 ms. The body can still be read from
// its beginning.
func isPending(resp *http.Response) bool {
	head, _ := wire.Peek(resp, maxPeek)
	env, err := wire.Decode(head)
	return err == nil && len(env.Errors) > 0 && env.Errors[0].Code == wire.CodeIdempotencyPending
}
