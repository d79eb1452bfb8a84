package agrenting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/session"
	"github.com/agrenting/agrenting-go/internal/shield"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// platformCalls makes the SDK's own calls. It implements session.Platform,
// rotation.Platform and evidence.Asker.
type platformCalls struct{ core *core }

// direct is a call that the SDK makes for its own purposes. It goes directly to the
// base transport: without retries, redirects, and any credential other than the given
// one. No error contains the body of a response.
type direct struct {
	method, path string
	purpose      string // see RequestInfo
	query        url.Values
	body         any // nil: none
	cred         Credential
	// keyHeader puts the credential into the header for API keys, whatever its kind.
	keyHeader bool
	agentID   string
	idemKey   string
	// close ends the connection after the call: the next one must not reach the same node,
	// which may lag behind, only because of that.
	close bool
}

// maxDirectBody bounds the responses of such calls.
const maxDirectBody = 256 << 10

func (p platformCalls) direct(ctx context.Context, d direct) (_ *directAnswer, err error) {
	u, err := origin.Join(p.core.base, d.path, d.query)
	if err != nil {
		return nil, err
	}
	name, values := d.cred.header(p.core.cfg.keyHeader)
	if d.keyHeader {
		name, values = p.core.cfg.keyHeader, []string{d.cred.Reveal()}
	}
	header := http.Header{name: values}
	if d.agentID != "" {
		header[wire.HeaderAgentID] = []string{d.agentID}
	}
	if d.idemKey != "" {
		header[wire.HeaderIdempotencyKey] = []string{d.idemKey}
	}
	call := wire.Call{Method: d.method, URL: u, Header: header, UserAgent: userAgent(p.core.cfg.userAgent), Body: d.body, Close: d.close}
	var trip *trip
	if p.core.monitor.observes(ctx) {
		ctx, trip = p.core.monitor.depart(ctx, d.method, u, d.purpose, func(text string) string {
			return secret.Redact(text, d.cred.Reveal())
		})
		trip.issues = true
	}
	var arrived *http.Response
	defer func() { trip.arrive(ctx, arrived, err) }() // also if the base panics
	issues := false
	a, err := call.Do(ctx, func(req *http.Request) (*http.Response, error) {
		if trip != nil {
			req = trip.send(req, AttemptInfo{Kind: d.cred.Kind(), Fingerprint: d.cred.Fingerprint()})
		}
		resp, err := p.core.transport.shielded(req, d.cred)
		if resp != nil && resp.Body != nil {
			shield.Body(req, d.cred.c, resp)
		}
		issues = p.core.routes.issue(req)
		return resp, err
	}, maxDirectBody)
	if err != nil {
		return nil, err
	}
	arrived = &http.Response{StatusCode: a.Status, Header: a.Header}
	return &directAnswer{
		answer: a, status: a.Status, header: a.Header, jsonErr: a.JSONErr, raw: a.Body, secret: d.cred.Reveal(), issues: issues, host: u.Host,
	}, nil
}

// directAnswer is the response to a direct call.
type directAnswer struct {
	answer  *wire.Answer
	status  int
	header  http.Header
	jsonErr error
	raw     []byte
	secret  string // of the credential, for redaction
	issues  bool   // it may have a new secret
	host    string // that answered
}

// ok reports whether the platform did what it was asked for.
func (a *directAnswer) ok() bool { return a.answer.OK() }

// fromPlatform reports whether the platform gave the answer.
func (a *directAnswer) fromPlatform() bool { return a.answer.FromPlatform() }

// issued is the key in a response.
func (a *directAnswer) issued() (IssuedKey, bool) { return issuedIn(a.raw, APIKey) }

// apiError makes the typed error of a response that is not ok.
func (a *directAnswer) apiError() *APIError {
	r := &Response{StatusCode: a.status, Header: a.header, Attempts: 1}
	r.readHeader()
	e := newAPIError(r, &a.answer.Envelope, nil, a.issues, a.secret)
	e.Method, e.Path = a.answer.Method, secret.Path(a.answer.Path, a.secret)
	if isRedirect(a.status) {
		e.cause = errRedirect
	}
	return e
}

// errRedirect is the cause if a call that must not be redirected gets a redirect.
var errRedirect = fmt.Errorf("%w: calls that send a key do not follow redirects. If this call has never worked and you trust the URL that the platform redirects to, set it as the base URL (agrenting.com and www.agrenting.com are different hosts)", ErrForeignOrigin)

func isRedirect(status int) bool { return status >= 300 && status < 400 }

// lockout is how long the platform locks an IP out if it does not say (platform
// documentation, "Rate Limits").
const lockout = 5 * time.Minute

// Authenticate implements session.Platform. The key goes into the header for API
// keys, a user token too: the platform's example has it there.
func (p platformCalls) Authenticate(ctx context.Context, path string, key secret.Credential, leave bool) (*wire.Answer, error) {
	a, err := p.direct(ctx, direct{
		method: http.MethodPost, path: path, purpose: "exchange", cred: Credential{key}, keyHeader: true, close: leave,
	})
	if err != nil {
		return nil, err
	}
	if a.ok() {
		if a.jsonErr == nil {
			p.core.evidence.Of(key, evidence.Given).Accept()
		}
		return a.answer, nil
	}
	e := a.apiError()
	if !a.fromPlatform() && !isRedirect(a.status) && a.status < http.StatusInternalServerError && a.status != http.StatusTooManyRequests {
		return a.answer, notThePlatform(a)
	}
	r := hint.Response{
		Status: a.status, Host: p.core.base.Host, Path: a.answer.Path, Base: p.core.base.EscapedPath(),
		Credential: p.core.creds.describe(Credential{key}, p.core.evidence.Of(key, evidence.Given)),
	}
	e.Hint = r.Text()
	if a.status != http.StatusTooManyRequests {
		return a.answer, e
	}
	after, ok := wire.RetryAfter(a.header, time.Now())
	if !ok {
		after = lockout
	}
	return a.answer, &LockoutError{RetryAt: time.Now().Add(min(max(after, time.Second), session.MaxPause)), Err: e}
}

// SessionDead implements session.Platform.
func (p platformCalls) SessionDead(ctx context.Context, s secret.Credential, lately bool) bool {
	return p.core.evidence.Of(s, provenance(lately)).Judge(ctx) == evidence.Dead
}

// KeyDead implements session.Platform.
func (p platformCalls) KeyDead(ctx context.Context, key secret.Credential) bool {
	return p.core.evidence.Of(key, evidence.Given).Confirms(ctx)
}

// RetryAt implements session.Platform.
func (p platformCalls) RetryAt(err error) (at time.Time, locked bool) {
	_, locked = errors.AsType[*LockoutError](err)
	return retryAt(err), locked
}

// retryAt returns when the source can be asked again, according to its error.
func retryAt(err error) time.Time {
	if l, ok := errors.AsType[*LockoutError](err); ok {
		return l.RetryAt
	}
	if p, ok := errors.AsType[*session.PausedError](err); ok {
		return p.Until
	}
	if l, ok := errors.AsType[*session.LimitError](err); ok {
		return l.Until
	}
	if p, ok := errors.AsType[*pausedError](err); ok {
		return p.at
	}
	if a, ok := errors.AsType[*APIError](err); ok && a.RetryAfter > 0 {
		return time.Now().Add(min(a.RetryAfter, session.MaxPause))
	}
	return time.Time{}
}

// pausedError is an error of a source that can be asked again at some time.
type pausedError struct {
	at      time.Time
	lasting bool // the source would fail again
	err     error
}

func (e *pausedError) Error() string { return e.err.Error() }
func (e *pausedError) Unwrap() error { return e.err }

// Verdict implements evidence.Asker.
func (p platformCalls) Verdict(ctx context.Context, c secret.Credential) evidence.Verdict {
	a, _ := p.verify(ctx, c)
	switch {
	case a == nil || !a.fromPlatform():
		return evidence.Unknown
	case a.status == http.StatusUnauthorized:
		return evidence.Dead
	case accepts(a.status):
		return evidence.Alive
	default:
		return evidence.Unknown
	}
}

// verify makes the call that asks about a credential.
func (p platformCalls) verify(ctx context.Context, c secret.Credential) (*directAnswer, error) {
	return p.direct(ctx, direct{method: http.MethodGet, path: p.core.routes.Verify, purpose: "verify", cred: Credential{c}, close: true})
}

// accepts reports whether a status shows that the platform accepts the credential.
func accepts(status int) bool {
	switch status {
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusConflict, http.StatusUnprocessableEntity:
		return true
	default:
		return status >= 200 && status < 300
	}
}

// notThePlatform is the error of a response that another party gave in the platform's place.
func notThePlatform(a *directAnswer) error {
	problem := "not in the platform's format"
	if a.jsonErr != nil {
		problem = "not JSON"
	}
	return &wire.CallError{Method: a.answer.Method, Path: a.answer.Path, Err: fmt.Errorf(
		"%w: %d with a body that is %s, so %w. %s", ErrMalformedResponse, a.status, problem, wire.ErrNotPlatform,
		hint.NotPlatform(a.host, ""))}
}

// Issue implements rotation.Platform.
func (p platformCalls) Issue(ctx context.Context, by rotation.Caller, agent, name, idempotencyKey string) rotation.Answer {
	return p.call(ctx, by, true, direct{
		method: http.MethodPost, path: p.core.keysPath(agent), body: map[string]string{"name": name}, idemKey: idempotencyKey,
	})
}

// RotateInPlace implements rotation.Platform.
func (p platformCalls) RotateInPlace(ctx context.Context, by rotation.Caller, idempotencyKey string) rotation.Answer {
	return p.call(ctx, by, true, direct{method: http.MethodPost, path: p.core.routes.RotateKey, idemKey: idempotencyKey})
}

// Revoke implements rotation.Platform.
func (p platformCalls) Revoke(ctx context.Context, by rotation.Caller, agent, id string) rotation.Answer {
	seg, err := pathSegment(id)
	if err != nil {
		return rotation.Answer{Outcome: rotation.Refused, Err: err}
	}
	return p.call(ctx, by, false, direct{method: http.MethodDelete, path: p.core.keysPath(agent) + "/" + seg})
}

// maxKeyPages bounds how much of a list of keys is read, at 100 a page.
const maxKeyPages = 100

// List implements rotation.Platform.
func (p platformCalls) List(ctx context.Context, by rotation.Caller, agent string) (keys []rotation.ListedKey, answer rotation.Answer) {
	path, pages := p.core.keysPath(agent), 0
	for k, err := range wire.List[Key](ctx, path, func(at url.Values) (wire.Page, error) {
		pages++
		if pages > maxKeyPages {
			return wire.Page{}, nil
		}
		q := url.Values{"limit": {"100"}}
		maps.Copy(q, at)
		a, err := p.direct(ctx, direct{
			method: http.MethodGet, path: path, purpose: "rotate", query: q, cred: Credential{by.Credential}, agentID: by.Agent,
		})
		if answer = rotationAnswer(a, err, false); answer.Outcome != rotation.Done {
			return wire.Page{}, answer.Err
		}
		return a.answer.Page()
	}) {
		if err != nil {
			switch {
			case answer.Err != nil: // of the call
			case ctx.Err() != nil: // between two calls
				answer = rotation.Answer{Err: err}
			default: // the page does not decode
				answer = rotation.Answer{Outcome: rotation.Refused, Err: err}
			}
			return nil, answer
		}
		keys = append(keys, rotation.ListedKey{ID: k.ID, Name: k.Name, Created: k.Created, Revoked: k.Revoked, Fits: k.fits})
	}
	return keys, answer
}

// Verify implements rotation.Platform. A platform that does not serve the route, or not
// in this way, has not refused the credential.
func (p platformCalls) Verify(ctx context.Context, c secret.Credential) (rotation.Verdict, error) {
	a, err := p.verify(ctx, c)
	switch {
	case err != nil:
		return rotation.Undecided, err
	case !a.fromPlatform():
		return rotation.Undecided, notThePlatform(a)
	case a.status == http.StatusUnauthorized:
		return rotation.Dead, a.apiError()
	case accepts(a.status):
		p.core.evidence.Verifies(c)
		return rotation.Alive, nil
	case refused(a.status):
		return rotation.Alive, nil
	default:
		return rotation.Undecided, a.apiError()
	}
}

// OpenLifeline implements rotation.Platform.
func (p platformCalls) OpenLifeline(ctx context.Context, key secret.Credential) (secret.Credential, string, rotation.Answer) {
	s, err := p.core.endpoint.Exchange(ctx, key)
	if err == nil {
		return s.Credential, s.AgentID, rotation.Answer{Outcome: rotation.Done}
	}
	a := rotation.Answer{Err: err}
	_, locked := errors.AsType[*LockoutError](err)
	api, answered := errors.AsType[*APIError](err)
	switch {
	case locked:
		a.Outcome = rotation.Refused
	case errors.Is(err, wire.ErrNotPlatform):
		a.Denied = true
	case answered && api.StatusCode == http.StatusUnauthorized:
		a.Outcome = rotation.Unauthorized
	case answered && refused(api.StatusCode), errors.Is(err, ErrMalformedResponse): // or a session in an unknown form
		a.Outcome = rotation.Refused
	}
	return secret.Credential{}, "", a
}

func (p platformCalls) call(ctx context.Context, by rotation.Caller, issues bool, d direct) rotation.Answer {
	d.cred, d.agentID, d.purpose = Credential{by.Credential}, by.Agent, "rotate"
	a, err := p.direct(ctx, d)
	return rotationAnswer(a, err, issues)
}

// rotationAnswer returns the outcome of a call; issues is set for calls that issue a key. A
// response outside the platform's envelope has no meaning, unless it has the key, or
// is a response without a body.
func rotationAnswer(a *directAnswer, err error, issues bool) rotation.Answer {
	if err != nil {
		return rotation.Answer{Err: err}
	}
	out := rotation.Answer{Sent: wire.Date(a.header)}
	if issues && a.answer.Success() {
		if k, found := a.issued(); found {
			out.Outcome = rotation.Done
			out.Key = rotation.IssuedKey{
				Credential: k.Credential.c, ID: k.ID, AgentID: k.AgentID, Created: k.Created, Expires: k.Expires,
			}
			return out
		}
		out.Raw = secret.New(string(a.raw))
	}
	switch {
	case a.answer.Success() && !a.fromPlatform() && (issues || a.status != http.StatusNoContent):
		if out.Err = notThePlatform(a); issues {
			out.Outcome = rotation.Truncated
		}
		return out
	case a.ok():
		out.Outcome = rotation.Done
		return out
	}
	e := a.apiError()
	out.Raw, out.Err, out.RetryAfter = secret.Text{}, e, e.RetryAfter
	if !a.fromPlatform() {
		out.Denied = refused(a.status)
		return out
	}
	out.Missing = a.status == http.StatusNotFound || a.status == http.StatusGone
	out.NoRoute = e.Is(ErrRouteNotFound)
	switch {
	case a.status == http.StatusUnauthorized:
		out.Outcome = rotation.Unauthorized
	case refused(a.status):
		out.Outcome = rotation.Refused
	case a.status >= http.StatusInternalServerError:
		out.Outcome = rotation.Failed
	case e.Code == wire.CodeIdempotencyPending:
		out.Outcome = rotation.Pending
	case a.status >= http.StatusBadRequest:
		out.Outcome = rotation.Busy
	}
	return out
}

// refused reports whether the platform has refused the call with this status, and would do so
// again.
func refused(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < http.StatusInternalServerError
}

// keysPath is the path of an agent's keys.
func (c *core) keysPath(agent string) string {
	seg, err := pathSegment(agent)
	if err != nil {
		seg = "unknown"
	}
	return strings.ReplaceAll(c.routes.Credentials, "{id}", seg)
}
