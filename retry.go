package agrenting

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// RetryPolicy says how failed requests are repeated. Zero fields mean the
// defaults.
//
// Repeated are GET, HEAD, OPTIONS, TRACE, DELETE, PUT, and whatever carries
// X-Idempotency-Key, if its body can be had again (none, or GetBody); on
// connection errors, 408, 425, 429 and 5xx but 501, and on 409
// IDEMPOTENCY_PENDING with the same key. Anything else is sent once.
type RetryPolicy struct {
	// MaxAttempts bounds how often a request is sent, the first time included;
	// default 4, as the platform's own client does; 1 repeats nothing.
	MaxAttempts int
	// BaseDelay is the longest pause before the first repetition; it doubles
	// each time. The pause itself is drawn at random from zero up to that.
	// Default 500 ms.
	BaseDelay time.Duration
	// MaxDelay caps the doubling; default 30 s.
	MaxDelay time.Duration
	// MaxRetryAfter caps what the platform may ask for by Retry-After. When it
	// asks for more, the request is not repeated, and its answer carries the
	// time; default 60 s.
	MaxRetryAfter time.Duration
}

func (p RetryPolicy) validate() error {
	if p.MaxAttempts < 0 || p.BaseDelay < 0 || p.MaxDelay < 0 || p.MaxRetryAfter < 0 {
		return optionError("RetryPolicy", "a field is negative; 0 means its default, MaxAttempts: 1 repeats nothing")
	}
	return nil
}

func (p RetryPolicy) withDefaults() RetryPolicy {
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

// retrier repeats what is safe to repeat. A request that succeeds at once
// never gets here: its first attempt is made directly, and only a retryable
// outcome enters go-retryablehttp, as its attempt 0.
type retrier struct {
	policy RetryPolicy
	log    *slog.Logger
}

func newRetrier(policy RetryPolicy, log *slog.Logger) *retrier {
	return &retrier{policy: policy.withDefaults(), log: log}
}

// repeatable decides by the request alone, before anything is known of the
// outcome.
func repeatable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodDelete, http.MethodPut:
		return true
	default:
		return hasIdempotencyKey(req.Header)
	}
}

func hasIdempotencyKey(h http.Header) bool {
	v := h[wire.HeaderIdempotencyKey]
	return len(v) > 0 && v[0] != ""
}

// worthwhile reports whether an outcome should enter a series of attempts.
func (r *retrier) worthwhile(req *http.Request, resp *http.Response, err error) bool {
	if err == nil && resp.StatusCode < http.StatusBadRequest {
		return false
	}
	return r.policy.MaxAttempts > 1 && repeatable(req) && r.transient(req, resp, err)
}

// transient reports whether the outcome may be another one next time.
func (r *retrier) transient(req *http.Request, resp *http.Response, err error) bool {
	if err != nil {
		return !isContextError(req.Context(), err) && !isPermanent(err)
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
	_, ok := errors.AsType[tls.RecordHeaderError](err) // plain http on the other side
	return ok
}

// maxPeek bounds what is read ahead of a 409 to find its code.
const maxPeek = 64 << 10

// isPending reads the code of a 409 and leaves the body as it was.
func isPending(resp *http.Response) bool {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxPeek))
	var rest io.Reader = resp.Body
	if err != nil {
		rest = errReader{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), resp.Body}
	env, err := wire.Decode(head)
	return err == nil && len(env.Errors) > 0 && env.Errors[0].Code == codeIdempotencyPending
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// series is one request on its way through several attempts. It is the
// transport under go-retryablehttp: to that library, every outcome is an empty
// success, and whether and when to go on is asked of the series.
type series struct {
	retrier *retrier
	t       *Transport
	req     *http.Request
	resp    *http.Response
	err     error
	local   bool // err was made here and not by the base
	n       int  // attempts so far
	wait    time.Duration
	pausing bool          // between two attempts
	body    io.ReadCloser // of the next attempt, if it has one
}

// run takes a request whose first attempt ended in resp or err through further
// ones. go-retryablehttp conducts; it sees neither the URL, whose query string
// it would print, nor the headers, nor the body, which it would buffer.
func (r *retrier) run(t *Transport, req *http.Request, resp *http.Response, err error) (*http.Response, error) {
	s := &series{retrier: r, t: t, req: req, resp: resp, err: err}
	conductor := &retryablehttp.Client{
		// No Logger: its records carry URLs. The series has no idle connections
		// to close, so a cancelled call leaves the shared ones alone.
		HTTPClient: &http.Client{Transport: s},
		RetryMax:   r.policy.MaxAttempts - 1,
		CheckRetry: func(ctx context.Context, _ *http.Response, _ error) (bool, error) { return s.again(ctx), nil },
		Backoff:    func(time.Duration, time.Duration, int, *http.Response) time.Duration { return s.wait },
		// The last answer belongs to the caller, with its body.
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	ctx := req.Context()
	baton, berr := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, "https://agrenting.invalid/", nil)
	if berr != nil {
		return resp, err
	}
	// What the conductor returns is known to the series already.
	_, _ = conductor.Do(baton)
	if s.pausing {
		if s.body != nil {
			_ = s.body.Close()
		}
		// Cancelled between two attempts: the last answer is drained already.
		return nil, context.Cause(ctx)
	}
	if s.resp != nil {
		s.resp.Request = noteOf(s.resp).on(req)
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
	_, agent := origin.Identity(req.Header)
	return s.t.attempt(req, agent)
}

// again decides whether the outcome calls for another attempt, and when.
func (s *series) again(ctx context.Context) bool {
	p := s.retrier.policy
	if s.local || s.n >= p.MaxAttempts {
		return false
	}
	if s.err == nil && s.resp.StatusCode < http.StatusBadRequest {
		return false
	}
	if !s.retrier.transient(s.req, s.resp, s.err) {
		return false
	}
	wait, ok := p.pause(s.n, s.resp)
	if !ok {
		return false
	}
	if end, limited := ctx.Deadline(); limited && time.Until(end) <= wait {
		return false // the answer at hand says more than a missed deadline
	}
	if s.resp != nil {
		replay.Settle(s.resp)
	}
	if s.req.GetBody != nil {
		body, err := s.req.GetBody()
		if err != nil {
			return false // there is nothing to send again; the answer at hand stays
		}
		s.body = body
	}
	s.wait, s.pausing = wait, true
	s.retrier.logRetry(ctx, s)
	return true
}

func (r *retrier) logRetry(ctx context.Context, s *series) {
	if r.log == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", s.req.Method), slog.String("path", s.req.URL.Path),
		slog.Int("attempt", s.n), slog.Duration("wait", s.wait),
	}
	if s.err != nil {
		attrs = append(attrs, slog.String("error", secret.Clean(unwrapURLs(s.err).Error())))
	} else {
		attrs = append(attrs, slog.Int("status", s.resp.StatusCode))
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, "agrenting: repeating a request", attrs...)
}

// unwrapURLs leaves out what net/http wraps around errors: it shows query
// strings.
func unwrapURLs(err error) error {
	for ue, ok := errors.AsType[*url.Error](err); ok && ue.Err != nil; ue, ok = errors.AsType[*url.Error](err) {
		err = ue.Err
	}
	return err
}

// pause is how long to wait after the n-th attempt: full jitter below a
// doubling cap, or what Retry-After asks for. It is not ok when the platform
// asks for more than the policy grants.
func (p RetryPolicy) pause(n int, resp *http.Response) (time.Duration, bool) {
	top := renew.Doubled(p.BaseDelay, p.MaxDelay, n)
	jitter := time.Duration(rand.Int64N(int64(top) + 1)) //nolint:gosec // jitter needs no secrecy
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
		// Never before the time it asked for, and not all at that very moment.
		return after + min(jitter, after/10+p.BaseDelay), true
	}
}
