package agrenting

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/agrenting/agrenting-go/internal/hook"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// RequestInfo describes a request that begins, for example {"GET", "https", "agrenting.com",
// "/api/v1/agents", ""}. See [Instrumentation]. Most programs only use Method and Purpose.
// Fields may be added.
type RequestInfo struct {
	// Method, Scheme, Host, and Path are those of the request, such as "GET", "https",
	// "agrenting.com", and "/api/v1/agents". Host has the port if the URL has one. Path is
	// escaped and at most 256 characters long, without anything that looks like a secret.
	// It contains IDs and may be any path, so do not use it as the label of a metric.
	Method, Scheme, Host, Path string
	// Purpose is empty for a request of the program. For a request that the SDK makes
	// itself, it is "exchange" (of a key for a session), "logout", "verify" (of a
	// credential), or "rotate".
	Purpose string
}

// RequestResult describes how a request ended, for example with StatusCode 200 after two
// Attempts. Most programs only use StatusCode and Duration. Fields may be added.
type RequestResult struct {
	// StatusCode is that of the response; 0 if there is none.
	StatusCode int
	// Err is the error that the caller gets; nil if there is a response. Its text may quote
	// what a server sent.
	Err error
	// Attempts is how often the request was sent, 0 if it was not.
	Attempts int
	// Duration is how long the request took, including all waiting.
	Duration time.Duration
	// RequestID is the ID in the headers of the response; empty if there is none. If the
	// response may contain a new secret, or the SDK itself made the request, it is empty
	// unless it is a UUID.
	RequestID string
	// Rate is the state of the rate limit.
	Rate Rate
}

// AttemptInfo describes an attempt to send a request, for example Number 2 with the Reason
// "renewed". See [Instrumentation]. Most programs only use Number and Reason. Fields may be
// added.
type AttemptInfo struct {
	// Number counts the attempts of the request from 1.
	Number int
	// Reason is "first", "retry" (after a transient failure), or, for a resend after a 401,
	// "same" (with the same credential, which may be valid), "renewed" (the credential was
	// renewed because of the 401), or "switched" (a newer credential was already in use).
	Reason string
	// Generation, Kind, and Fingerprint describe the credential that the SDK adds. They are
	// zero if it adds none: at other origins, and if the caller has set a credential.
	// Generation is also zero for requests that the SDK makes itself.
	Generation  uint64
	Kind        Kind
	Fingerprint string
	// Source is where that credential is from, as in [Status], such as "AGRENTING_API_KEY".
	Source string
	// Waited is how long the request waited for this credential. After a 401, it includes
	// the time that the SDK needs to find out whether the credential is still valid.
	Waited time.Duration
}

// AttemptResult describes how an attempt ended. New fields may be added.
type AttemptResult struct {
	// StatusCode is that of the response; 0 if there is none.
	StatusCode int
	// Err is the error of the base transport; nil if there is a response. Its text may quote
	// what a server sent.
	Err error
	// Duration is how long the attempt took.
	Duration time.Duration
}

// monitor is what observes the requests of a client. A nil monitor observes none.
type monitor struct {
	requests hook.Chain[RequestInfo, RequestResult]
	attempts hook.Chain[AttemptInfo, AttemptResult]
	log      *slog.Logger // may be nil
}

// debug reports whether requests are logged.
func (r *monitor) debug(ctx context.Context) bool {
	return r.log != nil && r.log.Enabled(ctx, slog.LevelDebug)
}

// observes reports whether a request with ctx is observed.
func (r *monitor) observes(ctx context.Context) bool {
	return r != nil && (!r.requests.Empty() || !r.attempts.Empty() || r.debug(ctx))
}

// trip is one request on its way through the SDK, as instrumentations and the log see it. A
// nil trip records nothing.
type trip struct {
	of      *monitor
	debug   bool // it is logged
	info    RequestInfo
	began   time.Time
	end     func(RequestResult) // may be nil
	attempt AttemptInfo         // the last one
	waiting time.Time           // since when the next attempt waits for its credential; zero if it does not
	sent    time.Time           // when the attempt under way began; zero between attempts
	done    func(AttemptResult) // may be nil
	// issues is set if the response may have a new secret, or is to the SDK itself. clean
	// removes the credentials of the request from a text of the response.
	issues bool
	clean  func(text string) string
	// foreign is set if the request has no credential of the SDK although others have: its
	// rate is that of another budget.
	foreign bool
}

// depart begins a trip. Call arrive at its end, with the same context. clean removes the
// credentials that are known from a text.
func (r *monitor) depart(ctx context.Context, method string, u *url.URL, purpose string, clean func(string) string) (context.Context, *trip) {
	t := &trip{of: r, debug: r.debug(ctx), began: time.Now(), clean: clean, info: RequestInfo{
		Method: method, Scheme: u.Scheme, Host: u.Host, Path: secret.Path(clean(u.EscapedPath())), Purpose: purpose,
	}}
	if method == "" {
		t.info.Method = http.MethodGet
	}
	ctx, t.end = r.requests.Begin(ctx, t.info)
	return ctx, t
}

// wait records that the request waits for a credential from now on.
func (t *trip) wait() {
	if t != nil {
		t.waiting = time.Now()
	}
}

// resend records why the request is resent.
func (t *trip) resend(same, renewed bool) {
	switch {
	case t == nil:
	case same:
		t.attempt.Reason = "same"
	case renewed:
		t.attempt.Reason = "renewed"
	default:
		t.attempt.Reason = "switched"
	}
}

// use records that further attempts carry another credential.
func (t *trip) use(redactor func() *secret.Redactor) {
	before := t.clean
	t.clean = func(text string) string { return before(redactor().Redact(text)) }
}

// requestID returns the ID in a header of the response, as far as it can be shown.
func (t *trip) requestID(id string) string {
	if id == "" || (t.issues && !secret.IsUUID(id)) {
		return ""
	}
	return secret.Clean(t.clean(id))
}

// send begins an attempt. with describes its credential. It returns the request to send.
func (t *trip) send(out *http.Request, with AttemptInfo) *http.Request {
	with.Number, with.Reason = t.attempt.Number+1, t.attempt.Reason
	if with.Number == 1 {
		with.Reason = "first"
	} else if with.Reason == "" {
		with.Reason = "retry"
	}
	t.sent = time.Now()
	if !t.waiting.IsZero() {
		with.Waited, t.waiting = t.sent.Sub(t.waiting), time.Time{}
	}
	t.attempt = with
	if t.debug {
		t.of.log.LogAttrs(out.Context(), slog.LevelDebug, "agrenting: request",
			append(t.attrs(), slog.Int("attempt", with.Number), slog.String("reason", with.Reason))...)
	}
	ctx, done := t.of.attempts.Begin(out.Context(), with)
	if t.done = done; ctx != out.Context() {
		out = out.WithContext(ctx)
	}
	return out
}

// received ends the attempt under way, if there is one. resp may be nil.
func (t *trip) received(resp *http.Response, err error) {
	if t == nil || t.sent.IsZero() {
		return
	}
	if t.done != nil {
		r := AttemptResult{Err: err, Duration: time.Since(t.sent)}
		if resp != nil {
			r.StatusCode = resp.StatusCode
		}
		t.done(r)
	}
	t.sent, t.done, t.attempt.Reason = time.Time{}, nil, ""
}

// arrive ends the trip with a response or an error, or with neither if the base panicked.
func (t *trip) arrive(ctx context.Context, resp *http.Response, err error) {
	if t == nil {
		return
	}
	t.received(resp, err)
	r := RequestResult{Err: err, Attempts: t.attempt.Number, Duration: time.Since(t.began)}
	if resp != nil {
		h := wire.ReadHeader(resp.Header, time.Now())
		r.StatusCode, r.RequestID = resp.StatusCode, t.requestID(h.RequestID)
		if !t.foreign {
			r.Rate = Rate(h.Rate)
		}
	}
	if t.end != nil {
		t.end(r)
	}
	if !t.debug {
		return
	}
	attrs := append(t.attrs(), slog.Duration("duration", r.Duration), slog.Int("attempts", r.Attempts))
	if r.RequestID != "" {
		attrs = append(attrs, slog.String("request_id", r.RequestID))
	}
	if resp != nil {
		t.of.log.LogAttrs(ctx, slog.LevelDebug, "agrenting: response", append(attrs, slog.Int("status", r.StatusCode))...)
	} else if err != nil {
		attrs = append(attrs, slog.String("error", secret.Clean(secret.WithoutQueries(err.Error()))))
		t.of.log.LogAttrs(ctx, slog.LevelDebug, "agrenting: request failed", attrs...)
	}
}

// attrs describe the request and its last attempt in a record.
func (t *trip) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("method", t.info.Method), slog.String("host", t.info.Host), slog.String("path", t.clean(t.info.Path))}
	if t.info.Purpose != "" {
		attrs = append(attrs, slog.String("purpose", t.info.Purpose))
	}
	if t.attempt.Generation > 0 {
		attrs = append(attrs, slog.Uint64("generation", t.attempt.Generation))
	}
	if t.attempt.Fingerprint != "" {
		attrs = append(attrs, slog.String("credential", t.attempt.Fingerprint))
	}
	return attrs
}
