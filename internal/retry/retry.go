package retry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// A Sender makes one attempt. local is true if the SDK, not the base transport, made
// the error, so that further attempts cannot help.
type Sender func(context.Context, *http.Request) (resp *http.Response, local bool, err error)

// A Retrier sends requests again if that is safe. A request that succeeds at once has
// no extra cost: the caller makes the first attempt. Only if the outcome is
// [Retrier.Worthwhile], go-retryablehttp takes it as its attempt 0.
type Retrier struct {
	policy Policy
	log    *slog.Logger
}

// New returns a Retrier. If log is nil, nothing is logged.
func New(policy Policy, log *slog.Logger) *Retrier {
	return &Retrier{policy: policy.WithDefaults(), log: log}
}

// series is one request with several attempts. It is the transport of go-retryablehttp.
// For that library, every outcome is an empty success, and the series decides whether
// and when another attempt follows.
type series struct {
	retrier *Retrier
	send    Sender
	ctx     context.Context //nolint:containedctx // go-retryablehttp takes no context for its transport
	req     *http.Request
	resp    *http.Response
	err     error
	local   bool // err was made by the SDK, see Sender
	n       int  // attempts so far
	wait    time.Duration
	pausing bool          // between two attempts
	body    io.ReadCloser // of the next attempt, if it has one
}

// Run makes further attempts after a first attempt that ended in resp or err. It
// returns the outcome of the last attempt. go-retryablehttp runs the loop. It does not
// get the URL, because it would print the query string, nor the headers, nor the body,
// which it would buffer. Pauses end when ctx ends.
func (r *Retrier) Run(ctx context.Context, req *http.Request, resp *http.Response, err error, send Sender) (*http.Response, error) {
	s := &series{retrier: r, send: send, ctx: ctx, req: req, resp: resp, err: err}
	conductor := &retryablehttp.Client{
		// No Logger: its records contain URLs. The series has no idle connections
		// to close, so a canceled call does not close the shared ones.
		HTTPClient: &http.Client{Transport: s},
		RetryMax:   r.policy.MaxAttempts - 1,
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return s.again(), nil },
		Backoff:    func(time.Duration, time.Duration, int, *http.Response) time.Duration { return s.wait },
		// The last response belongs to the caller, with its body.
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	baton, berr := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, "https://agrenting.invalid/", nil)
	if berr != nil {
		return resp, err
	}
	// The series already has the response that the conductor returns.
	_, _ = conductor.Do(baton)
	if s.pausing {
		if s.body != nil {
			_ = s.body.Close()
		}
		// The call was canceled between two attempts. The last response is already
		// drained.
		return nil, context.Cause(ctx)
	}
	return s.resp, s.err
}

// RoundTrip implements [http.RoundTripper] for go-retryablehttp.
func (s *series) RoundTrip(*http.Request) (*http.Response, error) {
	s.pausing = false
	if s.n > 0 {
		s.resp, s.local, s.err = s.attempt()
	}
	s.n++
	if s.err != nil {
		return nil, s.err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
}

func (s *series) attempt() (*http.Response, bool, error) {
	req := s.req
	if s.body != nil {
		c := *req
		c.Body, s.body = s.body, nil
		req = &c
	}
	return s.send(s.ctx, req)
}

// again reports whether the outcome calls for another attempt, and sets the pause
// before it.
func (s *series) again() bool {
	p, ctx := s.retrier.policy, s.ctx
	if s.local || s.n >= p.MaxAttempts || ctx.Err() != nil {
		return false
	}
	// The first outcome was already found Worthwhile.
	if s.n > 1 && !p.wants(ctx, Outcome{Request: s.req, Response: s.resp, Err: s.err, Attempt: s.n}) {
		return false
	}
	wait, ok := p.pause(s.n, s.resp)
	if !ok {
		return false
	}
	if end, limited := ctx.Deadline(); limited && time.Until(end) <= wait {
		return false // the current response says more than an error about the deadline
	}
	cause := s.err
	if s.resp != nil {
		if cause == nil {
			cause = wire.BrokenOff(s.resp)
		}
		replay.Settle(s.resp)
	}
	if s.req.GetBody != nil {
		body, err := s.req.GetBody()
		if err != nil {
			return false // the body cannot be sent again; the current response is returned
		}
		s.body = body
	}
	s.wait, s.pausing = wait, true
	s.retrier.logRetry(ctx, s, cause)
	return true
}

// logRetry logs that another attempt follows. cause is nil if the status is the reason.
func (r *Retrier) logRetry(ctx context.Context, s *series, cause error) {
	if r.log == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", s.req.Method), slog.String("path", secret.Path(s.req.URL.EscapedPath())),
		slog.Int("attempt", s.n), slog.Duration("wait", s.wait),
	}
	if s.err == nil {
		attrs = append(attrs, slog.Int("status", s.resp.StatusCode))
	}
	if cause != nil {
		attrs = append(attrs, slog.String("error", secret.Clean(unwrapURLs(cause).Error())))
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, "agrenting: retrying request", attrs...)
}

// unwrapURLs removes what net/http wraps around errors, because it shows query strings.
func unwrapURLs(err error) error {
	for ue, ok := errors.AsType[*url.Error](err); ok && ue.Err != nil; ue, ok = errors.AsType[*url.Error](err) {
		err = ue.Err
	}
	return err
}
