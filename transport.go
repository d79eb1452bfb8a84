package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/retry"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/shield"
	"github.com/agrenting/agrenting-go/internal/socket"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Transport is an [http.RoundTripper] that adds the credential, X-Agent-ID, renewal, and
// retries to requests to the platform:
//
//   - Requests to the pinned origins (those of the base URL and the allowed ones) get
//     exactly one credential header. A credential that the caller set wins; nothing is
//     then added or sent again. [WithCredentialOverride] replaces it instead.
//   - Requests to other origins get no credential. A redirect that leaves the pinned
//     origins removes credentials and X-Agent-ID, even those that the caller set, and
//     they are not added again if a later redirect comes back.
//   - Plain http is refused, except on loopback and with [WithInsecureHTTP].
//   - After a 401 to the SDK's own credential, the credential is renewed if it has expired
//     or is dead, or if it may be. The request is resent if its body can be.
//   - The caller's requests are not changed, and bodies are not buffered.
//
// A Transport is immutable and safe for concurrent use.
type Transport struct {
	base     http.RoundTripper
	creds    *credentialCache
	origins  origin.Set
	agent    agentHeader
	insecure bool
	inQuery  bool // the credential goes into the query, for WebSockets
	override bool // the credential that the caller set is replaced
	retry    *retry.Retrier
	core     *core
}

var _ http.RoundTripper = (*Transport)(nil)

// NewTransport returns a Transport for programs with their own http.Client. It takes the
// options of [New], with src in place of the credential options. It makes no request.
//
// The http.Client decides which redirects it follows. Those that leave the pinned
// origins carry no credential. Close it with [Transport.Close].
func NewTransport(src CredentialSource, opts ...Option) (*Transport, error) {
	core, err := newCore(append(slices.Clip(opts), WithCredentialSource(src)))
	if err != nil {
		return nil, err
	}
	return core.transport, nil
}

// Close ends renewal and waits for its goroutine. Requests fail with
// [ErrClosed] afterwards. For a [Client]'s transport, use [Client.Close].
func (t *Transport) Close() error { return t.core.close() }

// CloseIdleConnections closes the idle connections of the base, as
// [http.Client.CloseIdleConnections] asks.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements [http.RoundTripper]. Errors that it makes itself match
// [ErrInsecureURL], [ErrInvalidAgentID], [ErrNoCredential],
// [ErrEnvironmentMismatch], [ErrClosed] or are a [*RenewalError]. Errors of the base
// are returned unchanged, except that they do not show the credentials of the request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil {
		closeBody(req)
		return nil, fmt.Errorf("%w: the request has no URL", ErrInvalidOption)
	}
	if t.core.monitor.observes(req.Context()) {
		return t.observed(req)
	}
	return t.route(req) //nolint:contextcheck // the request has it
}

// observed is route for requests that instrumentations or the log observe.
func (t *Transport) observed(req *http.Request) (resp *http.Response, err error) {
	own := origin.Credentials(req.Header)
	ctx, trip := t.core.monitor.depart(req.Context(), req.Method, req.URL, "", func(text string) string {
		return secret.Redact(t.creds.redact(text), own...)
	})
	trip.issues = t.core.routes.issue(req)
	defer func() { // also if the base panics
		if resp != nil {
			resp.Request = noteIn(resp.Request).on(req)
		}
		trip.arrive(ctx, resp, err)
	}()
	pc := *perCallFrom(req.Context()) // an instrumentation may return another context
	pc.trip = trip
	return t.route(req.WithContext(pc.in(ctx))) //nolint:contextcheck // the request has it
}

// route sends a request that may be sent: with the SDK's credential if it is for the
// platform, and without it otherwise.
func (t *Transport) route(req *http.Request) (*http.Response, error) {
	if !t.origins.IsBase(req) {
		if !origin.Secure(req.URL, t.insecure) {
			closeBody(req)
			return nil, origin.InsecureError(req.URL)
		}
		if !t.origins.Manages(req) {
			return t.pass(req, origin.Bare(req), false)
		}
		if out := origin.WithoutUser(req); out != req {
			resp, err := t.route(out)
			if resp != nil {
				resp.Request = noteIn(resp.Request).on(req)
			}
			return resp, err
		}
	}
	credential, agent := origin.Identity(req.Header)
	if !t.override && (credential || (t.inQuery && socket.HasCredential(req.URL))) {
		return t.pass(req, req, true)
	}
	ctx, stop := wire.Context(req)
	defer stop()
	resp, local, err := t.attempt(ctx, req, agent)
	if local || !t.retry.Worthwhile(ctx, req, resp, err) {
		return resp, err
	}
	resp, err = t.retry.Run(ctx, req, resp, err, t.retryAttempt)
	if resp != nil {
		resp.Request = noteIn(resp.Request).on(req)
	}
	return resp, err
}

// retryAttempt is attempt for a request that is retried.
func (t *Transport) retryAttempt(ctx context.Context, req *http.Request) (resp *http.Response, local bool, err error) {
	_, agent := origin.Identity(req.Header)
	return t.attempt(ctx, req, agent)
}

// pass sends out unchanged, on behalf of req, which gets no credential of the SDK. own is set if
// the reason is a credential of the caller.
func (t *Transport) pass(req, out *http.Request, own bool) (*http.Response, error) {
	if t.core.cfg.logger != nil && !t.core.cfg.anonymous {
		t.core.told.hosts.LogMissing(t.core.cfg.logger, t.origins, req, own)
	}
	trip := t.tripOf(perCallFrom(req.Context()))
	if trip != nil {
		trip.foreign = true
		out = trip.send(out, AttemptInfo{})
	}
	resp, err := t.send(out, Credential{}, nil)
	trip.received(resp, err)
	if resp != nil {
		note := answerNote{issues: t.origins.Has(req.URL) && t.core.routes.issued(req, resp)}
		refused := resp.StatusCode == http.StatusUnauthorized && !t.core.cfg.anonymous
		if refused {
			note.t, note.missing = t, hint.Why(t.origins, req, own)
		}
		if resp.Request = req; refused && own {
			resp.Body = &notedBody{resp.Body, note}
		} else {
			resp.Request = note.on(req)
		}
	}
	return resp, err
}

// send sends out, which has a credential of the SDK or none, and leaves the gate when the
// response's headers are there.
func (t *Transport) send(out *http.Request, cred Credential, g *gate.Gate) (*http.Response, error) {
	if g != nil {
		defer g.Leave()
	}
	resp, err := wire.Answered(t.shielded(out, cred))
	if t.inQuery && resp != nil && !cred.IsZero() {
		socket.Clean(out.URL, resp.Header)
	}
	return resp, err
}

// shielded sends a request with a credential of the SDK, or with none, through the base transport.
// An error of a request that asks for a secret may quote what the server sent.
func (t *Transport) shielded(req *http.Request, cred Credential) (*http.Response, error) {
	resp, err := shield.Send(t.base, req, cred.c)
	if err != nil && t.origins.Has(req.URL) && t.core.routes.issue(req) {
		err = secret.CleanError(err, secret.RedactLikely)
	}
	return resp, err
}

// attempt sends req once with the current credential, and resends it after a refusal as
// often as credentialCache.after decides. local reports that the error was made
// here and not by the base.
//
// ctx bounds what the SDK itself waits for; see [wire.Context]. agentSet is set if the
// caller named an agent in a header of the request.
func (t *Transport) attempt(ctx context.Context, req *http.Request, agentSet bool) (resp *http.Response, local bool, err error) {
	pc := perCallFrom(ctx)
	agent := &t.agent
	switch {
	case agentSet:
		agent = &noAgent
	case pc.agent.set():
		agent = &pc.agent
	}
	if agent.err != nil {
		closeBody(req)
		return nil, true, agent.err
	}
	trip := t.tripOf(pc)
	trip.wait()
	gen, err := t.creds.enter(ctx)
	if err != nil {
		closeBody(req)
		return nil, true, err
	}
	body := replay.Of(req, t.creds.renewable())
	out := t.withCredential(req, gen, agent)
	if body.Guarded() { // saves a store if it is nil
		out.Body = body.First(req)
	}
	var seen doubt
	for {
		pc.trace.sent(gen)
		history := gen.Value.history
		var sent time.Time
		if history.NeedsTime() {
			sent = time.Now()
		}
		if trip != nil {
			if !gen.Value.cred.IsZero() && trip.attempt.Generation != gen.Number {
				trip.use(gen.Value.redactor)
			}
			out = trip.send(out, t.creds.attemptInfo(gen))
		}
		resp, err = t.send(out, gen.Value.cred, gen.Value.gate)
		if resp != nil {
			// The copy with the credential is not returned: callers may log the response's request.
			resp.Request = req
			if issues := t.core.routes.issued(req, resp); issues || resp.StatusCode >= http.StatusBadRequest {
				resp.Request = answerNote{t: t, generation: gen, issues: issues}.on(req)
				if t.core.cfg.logger != nil && !t.inQuery {
					t.core.told.hosts.LogHandshake(t.core.cfg.logger, req, resp)
				}
			}
		}
		if err != nil || !t.refused(resp) {
			body.Release()
			if err == nil {
				if !history.IsQuiet() {
					recordSuccess(req, resp, history, sent)
				}
				readAhead(pc, out, gen, resp)
			}
			pc.trace.lost(resp, err)
			trip.received(resp, err)
			return resp, errors.Is(err, wire.ErrNoResponse), err
		}
		trip.received(resp, nil)
		trip.wait()
		next, err := t.creds.after(ctx, refusal{
			gen: gen, path: evidence.Route{Method: req.Method, Path: req.URL.Path}, sent: sent, date: wire.Date(resp.Header),
		}, &seen)
		if err != nil {
			body.Release()
			_ = resp.Body.Close()
			return nil, true, err
		}
		if next == nil {
			body.Release()
			return resp, false, nil
		}
		// With the same credential, the node may have been the reason. Its connection
		// must not be used again: the rest of the response is not read.
		elsewhere := next.Number == gen.Number
		settle, discard := replay.Settle, replay.Discard
		if elsewhere {
			settle, discard = replay.Abandon, replay.Abandon
		}
		if req.GetBody != nil {
			settle(resp)
		}
		again, err := body.Again(req)
		if err != nil {
			resp.Request = answerNote{t: t, generation: gen, notReplayed: err, issues: t.core.routes.issued(req, resp)}.on(req)
			pc.trace.failed(err)
			return resp, false, nil
		}
		if req.GetBody == nil {
			discard(resp)
		}
		before := gen.Number
		if gen, err = t.creds.reenter(ctx, next); err != nil {
			body.Release()
			if again != nil {
				_ = again.Close()
			}
			return nil, true, err
		}
		trip.resend(gen.Number == before, seen.renewed)
		out = t.withCredential(req, gen, agent)
		out.Body, out.Close = again, req.Close || elsewhere
		if _, std := t.base.(*http.Transport); std && body.Guarded() {
			out.GetBody = body.Unread()
		}
	}
}

// refused reports whether the platform has refused the credential. Phoenix refuses a
// WebSocket with 403, whatever the reason.
func (t *Transport) refused(resp *http.Response) bool {
	return resp.StatusCode == http.StatusUnauthorized || (t.inQuery && resp.StatusCode == http.StatusForbidden)
}

// recordSuccess records a response that is not a 401, if there is anything to learn from
// it. A web page is not the platform's answer.
func recordSuccess(req *http.Request, resp *http.Response, h *evidence.History, sent time.Time) {
	route := evidence.Route{Method: req.Method, Path: req.URL.Path}
	if h.Quiet(route) {
		return
	}
	success := (resp.StatusCode >= 200 && resp.StatusCode < 300) || resp.StatusCode == http.StatusSwitchingProtocols
	content := ascii.ToLower(resp.Header.Get("Content-Type"))
	if success && strings.HasPrefix(content, "text/html") {
		return
	}
	isJSON := strings.Contains(content, "json")
	accepted := success || (accepts(resp.StatusCode) && isJSON)
	h.Succeeded(route, sent, accepted, success)
	if isJSON && resp.StatusCode < http.StatusInternalServerError {
		h.Answered()
	}
}

// withCredential copies the request, as the RoundTripper contract requires, and
// adds the credential and the agent. The header values are shared with every
// other request.
func (t *Transport) withCredential(req *http.Request, gen *generation, agent *agentHeader) *http.Request {
	out := new(http.Request)
	*out = *req
	out.Header = maps.Clone(req.Header)
	if out.Header == nil {
		out.Header = make(http.Header, 2)
	}
	if t.override {
		origin.DeleteCredentials(out.Header)
		if t.inQuery {
			out.URL = socket.WithoutCredential(out.URL)
		}
	}
	switch {
	case gen.Value.name == "": // the client is anonymous
	case t.inQuery:
		out.URL = socket.WithCredential(out.URL, gen.Value.cred.c)
	default:
		out.Header[gen.Value.name] = gen.Value.cred.c.Values()
	}
	if agent.values != nil {
		out.Header[wire.HeaderAgentID] = agent.values
	}
	// A Host that differs from the URL's would give the credential to another host
	// behind the same front end.
	if out.Host != out.URL.Host {
		out.Host = ""
	}
	return out
}

// tripOf returns the trip of a request of this client, nil if nothing observes it.
func (t *Transport) tripOf(pc *perCall) *trip {
	if pc.trip == nil || pc.trip.of != t.core.monitor { // the base of another client is a client
		return nil
	}
	return pc.trip
}

// answerNote goes with a response that is an error, for [CheckResponse].
type answerNote struct {
	// generation is what the request was sent with: the response may echo it.
	generation *generation
	// notReplayed is why the request was not resent after a 401.
	notReplayed error
	// issues is set if the response may have a new secret.
	issues bool
	// t sent the request, and missing is why it added no credential.
	t       *Transport
	missing hint.Missing
}

type answerNoteKey struct{}

// on returns req with the note, as the Request of a response.
func (n answerNote) on(req *http.Request) *http.Request {
	if n == (answerNote{}) {
		return req
	}
	return req.WithContext(context.WithValue(req.Context(), answerNoteKey{}, n))
}

// notedBody is the body of a response to a request with the caller's own credential, which is
// the caller's request itself: a note cannot be in its context.
type notedBody struct {
	io.ReadCloser
	note answerNote
}

// noteOf is the note of a response, the zero one if there is none. Call it before the body is
// replaced.
func noteOf(resp *http.Response) answerNote {
	if b, ok := resp.Body.(*notedBody); ok {
		return b.note
	}
	return noteIn(resp.Request)
}

// noteIn is the note in the context of a request. The request may be nil.
func noteIn(req *http.Request) answerNote {
	if req == nil {
		return answerNote{}
	}
	n, _ := req.Context().Value(answerNoteKey{}).(answerNote)
	return n
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// String returns a summary without secrets.
func (t *Transport) String() string {
	if t == nil || len(t.origins) == 0 {
		return "agrenting.Transport()"
	}
	return fmt.Sprintf("agrenting.Transport(%s)", t.origins[0])
}

// GoString returns what String returns.
func (t *Transport) GoString() string { return t.String() }

// Format writes what String returns, for every verb and flag.
func (t *Transport) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue returns what String returns.
func (t *Transport) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements [encoding.TextMarshaler], so that JSON shows the
// summary too.
func (t *Transport) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
