package agrentingtest

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// maxPlatformBody is the maximum size of a body that the platform's own routes read.
const maxPlatformBody = 1 << 20

// exchange is the processing of one request.
type exchange struct {
	s     *Server
	r     *http.Request
	out   *answer
	entry *Request
	fault Fault
	ip    string
	who   actor
	rate  allowance
	lags  bool   // whether its node lags
	part  bool   // part of another request, which was charged for both
	known *actor // the actor of the credential in the headers; nil before that is known
	body  []byte // of a platform route

	inQuery []string // the credentials in the query of a route of HandleQuery

	route   string // the pattern that serves the request; empty before it is known
	refusal string // why the platform refused the request
	counted bool   // already in the report
}

type exchangeKey struct{}

// serve processes a request: it applies faults, finds the route, authenticates, applies
// limits and idempotency, and calls the route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "the platform is closed", http.StatusServiceUnavailable)
		return
	}
	defer s.inflight.Done()
	if s.cfg.control && isControl(r.URL.Path) {
		s.serveControl(w, r)
		return
	}
	x := s.begin(w, r)
	defer x.report(r.Context())
	x.obstruct()
	x.respond()
	x.out.release()
}

// respond calls the route or the fault that replaces it. It also applies a fault that
// follows the route.
func (x *exchange) respond() {
	f := &x.fault
	if !f.replaces() {
		x.serveRoute()
		return
	}
	if f.after {
		kept := x.out.Header().Clone()
		x.serveRoute()
		if x.out.hijacked {
			return
		}
		if f.response == respondNothing {
			x.answered(cmp.Or(x.out.status, http.StatusOK))
		}
		x.out.discard(kept)
	}
	x.replace()
}

// serveRoute serves the request, unless its endpoint is retired.
func (x *exchange) serveRoute() {
	if x.s.life.gone(x.r.Method, x.r.URL.Path) {
		x.refuse(fail(http.StatusGone, defaultCode(http.StatusGone), "this endpoint has been retired"))
		return
	}
	x.dispatch()
}

// report adds the request to the report unless that is already done, and writes the line
// of [WithLogger]. It does so also for requests that were cut off.
func (x *exchange) report(ctx context.Context) {
	if !x.counted {
		x.count(0)
	}
	if !x.s.cfg.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	x.s.cfg.logger.LogAttrs(ctx, slog.LevelDebug, "request",
		slog.String("method", x.r.Method), slog.String("path", x.r.URL.Path),
		slog.Int("status", x.out.status), slog.String("principal", x.who.principal().String()),
		slog.String("fault", x.fault.name), slog.String("request_id", x.entry.ID))
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	s.stats.requests.Add(1)
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		ip = r.RemoteAddr
	}
	x := &exchange{s: s, ip: ip}
	if whole := exchangeOf(r); whole != nil && whole.s == s {
		x.part, x.lags, x.known = true, whole.lags, whole.knows(r.Header)
	} else {
		x.lags = s.nodes.lagging(r)
	}
	shown, hidden := s.loggedQuery(r)
	x.inQuery = hidden
	x.entry = &Request{
		ID:         "req_" + randomHex(8),
		Method:     r.Method,
		Path:       r.URL.Path,
		RawPath:    r.URL.EscapedPath(),
		Query:      shown,
		Header:     r.Header.Clone(),
		Host:       r.Host,
		Proto:      r.Proto,
		RemoteAddr: r.RemoteAddr,
		ReceivedAt: s.now(),
	}
	x.rate = s.limits.peek("ip:"+ip, s.limits.limits.General)
	if fault, ok := s.script.next(r.Method, r.URL.Path); ok {
		s.stats.faults.Add(1)
		x.fault = fault
		x.entry.Fault = fault.name
	}
	s.log.add(x.entry, func() string {
		_, pattern := s.findRoute(r)
		return pattern
	})
	x.out = &answer{
		ResponseWriter: w,
		x:              x,
		delivery:       x.fault.delivery,
		bytes:          x.fault.bytes,
		hold:           x.fault.after && x.fault.replaces() || x.fault.delivery == deliverHalf,
	}
	x.r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if r.Body != nil && r.Body != http.NoBody {
		x.r.Body = &loggedBody{ReadCloser: r.Body, log: s.log, entry: x.entry}
	}
	return x
}

// obstruct applies the faults that come before the route.
func (x *exchange) obstruct() {
	f := &x.fault
	if f.delay > 0 && !x.wait(f.delay) {
		panic(http.ErrAbortHandler)
	}
	if f.revoke {
		x.s.revokePresented(x.r)
		x.known = nil
	}
	h := x.out.Header()
	for _, kv := range f.headers {
		h.Add(kv[0], kv[1])
	}
	sunset := x.s.life.sunset(x.r.Method, x.r.URL.Path)
	if !f.sunset.IsZero() {
		sunset = f.sunset
	}
	if !sunset.IsZero() {
		h.Set("Sunset", sunset.UTC().Format(http.TimeFormat))
	}
}

// replace sends the response of a fault that replaces the route.
func (x *exchange) replace() {
	f := &x.fault
	switch f.response {
	case respondRoute, respondFailure: // the route has responded
	case respondNothing:
		panic(http.ErrAbortHandler)
	case respondStatus:
		x.refuse(f.failure())
	case respondRedirect:
		x.drain()
		x.out.Header().Set("Location", f.location)
		x.out.WriteHeader(f.status)
	case respondPage:
		x.drain()
		x.out.foreign = true
		x.send(f.status, pageType, htmlPage(f.status))
	case respondEmpty:
		x.drain()
		x.out.foreign = true
		x.out.WriteHeader(f.status)
	}
}

// wait reports false if the client left or the server was closed.
func (x *exchange) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.r.Context().Done():
	case <-x.s.alive.Done():
	}
	return false
}

// waitForEnd waits until the client leaves or the server is closed.
func (x *exchange) waitForEnd() {
	select {
	case <-x.r.Context().Done():
	case <-x.s.alive.Done():
	}
}

// dispatch finds the route. The routes that a test has added take precedence over those
// of the platform.
func (x *exchange) dispatch() {
	mux, pattern := x.s.findRoute(x.r)
	x.route = pattern
	if mux != nil {
		mux.ServeHTTP(x.out, x.r)
		return
	}
	x.refuse(routeNotFound(x.r))
}

// findRoute returns the mux that serves a request and the pattern of its route. It
// returns nil if there is none.
func (s *Server) findRoute(r *http.Request) (mux *http.ServeMux, pattern string) {
	escaped := r.URL.EscapedPath()
	if clean := path.Clean("/" + escaped); clean != strings.TrimSuffix(escaped, "/") && escaped != "/" {
		return nil, "" // A ServeMux would redirect; the platform has no such route.
	}
	for _, mux := range []*http.ServeMux{s.extra, s.platform} {
		if _, pattern := mux.Handler(r); pattern != "" {
			return mux, pattern
		}
	}
	return nil, ""
}

// answered is called once, before the response is sent or dropped.
func (x *exchange) answered(status int) {
	switch status {
	case http.StatusUnauthorized:
		x.s.stats.unauthorized.Add(1)
	case http.StatusTooManyRequests:
		x.s.stats.limited.Add(1)
	}
	x.s.log.update(func() { x.entry.Status = status })
	if x.fault.response == respondNothing {
		status = 0 // the client does not receive the response
	}
	x.count(status)
}

func (x *exchange) meta() meta {
	return meta{Version: "1.0", Timestamp: timestamp(x.s.now()), RequestID: x.entry.ID}
}

const jsonType = "application/json; charset=utf-8"

func (x *exchange) send(status int, contentType string, body []byte) {
	if contentType != "" {
		x.out.Header().Set("Content-Type", contentType)
	}
	x.out.WriteHeader(status)
	_, _ = x.out.Write(body) // the client may have left
}

func (x *exchange) refuse(f *failure) {
	x.refusal = f.err.Message
	x.drain()
	if f.retryAfter != "" {
		x.out.Header().Set("Retry-After", f.retryAfter)
	}
	x.send(f.status, jsonType, encodeFailure(f, x.meta()))
}

// drain reads a short body that the route did not read, so that the log also shows the
// bodies of refused requests. It does not read streams or bodies that wait for a 100.
func (x *exchange) drain() {
	if n := x.r.ContentLength; n > 0 && n <= maxLoggedBody && x.r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, x.r.Body) // reads what is available
	}
}

// access describes what a route requires of a request.
type access struct {
	level  level
	mode   agentMode
	scopes []string // for a user token: at least one of them

	channel bool // counts toward the rate limit of channels
}

type level uint8

const (
	levelOpen     level = iota // credentials are not checked
	levelOptional              // anonymous, or a valid credential
	levelExchange              // an API key, with the limits of authenticate
	levelKnown                 // any valid credential
	levelUser                  // a user token
)

// admit authenticates a request, determines the acting agent, and charges the limits.
func (x *exchange) admit(a access) *failure {
	s := x.s
	if a.level == levelExchange {
		s.stats.authenticates.Add(1)
		rate, wait := s.limits.authenticate(x.ip)
		x.rate = rate
		if wait > 0 {
			return limited(wait)
		}
	}
	if a.level == levelOpen {
		return x.charge("ip:"+x.ip, s.limits.limits.General)
	}
	who, f := x.identify()
	switch {
	case f != nil:
		return f
	case who == nil && a.level == levelOptional:
		return x.charge("ip:"+x.ip, s.limits.limits.General)
	case who == nil:
		return unauthorized("a credential is required")
	}
	return x.accept(who, a)
}

// identify is like [Server.identify]. For a part of another request with the same
// credential, it returns the actor that the other request had when it arrived.
func (x *exchange) identify() (*actor, *failure) {
	if x.known == nil {
		who, f := x.s.identify(x.r.Header, x.lags)
		if who == nil {
			return nil, f
		}
		x.known = who
	}
	who := *x.known // accept sets the acting agent in the copy
	return &who, nil
}

// knows returns the actor of the credential in the headers of a part, if the request has
// the same credential. It returns nil if the actor is not known.
func (x *exchange) knows(part http.Header) *actor {
	keys, bearers := credentialHeaders(part)
	ownKeys, ownBearers := credentialHeaders(x.entry.Header)
	if !slices.Equal(keys, ownKeys) || !slices.Equal(bearers, ownBearers) {
		return nil
	}
	return x.known
}

// accept determines the acting agent of a known caller and charges the limits.
func (x *exchange) accept(who *actor, a access) *failure {
	s := x.s
	f := s.resolveAgent(who, x.r.Header, a.mode)
	x.who = *who
	p := who.principal()
	s.log.update(func() {
		e := x.entry
		e.Principal, e.CredentialKind, e.CredentialID, e.AgentID = p.String(), p.Kind, p.CredentialID, p.AgentID
	})
	if a.level != levelExchange {
		// Two tokens of one user share a bucket. An agent has its own bucket.
		bucket, limit := p.String(), s.limits.general(who.agent)
		if a.channel {
			bucket, limit = "channel:"+bucket, s.limits.channel(who.agent)
		}
		if f := x.charge(bucket, limit); f != nil {
			return f
		}
	}
	switch {
	case f != nil:
		return f
	case a.level == levelUser && who.token == nil:
		return forbidden("this endpoint is for users, not for agents")
	case a.level == levelExchange && who.kind != KindAPIKey:
		return forbidden("only an agent's API key can be exchanged for a session")
	case !p.Allows(a.scopes...):
		return forbidden("the token lacks the scope %s", strings.Join(a.scopes, " or "))
	}
	return nil
}

// charge counts the request toward a limit, unless it is part of another request.
func (x *exchange) charge(bucket string, limit int) *failure {
	if x.part {
		x.rate = x.s.limits.peek(bucket, limit)
		return nil
	}
	rate, wait := x.s.limits.take(bucket, limit)
	x.rate = rate
	if wait > 0 {
		return limited(wait)
	}
	return nil
}

// perform runs a route with the idempotency key of the request, if it has one. A response
// with an idempotency key is held back until it is complete and stored.
func (x *exchange) perform(ctx context.Context, route func(context.Context)) {
	key := x.r.Header.Get(idempotencyHeader)
	if key == "" || x.r.Method != http.MethodPost && x.r.Method != http.MethodPut {
		route(ctx)
		return
	}
	body, f := x.readBody(maxKeyedBody)
	if f != nil {
		x.refuse(f)
		return
	}
	who := x.who.principal().String()
	if who == "" {
		who = "ip:" + x.ip
	}
	scope := newIdemScope(who, x.r.Method+" "+x.r.URL.EscapedPath(), key)
	rec, stored, f := x.s.idem.begin(scope, body)
	switch {
	case f != nil:
		x.refuse(f)
		return
	case stored != nil:
		x.s.stats.replays.Add(1)
		x.s.log.update(func() { x.entry.Replayed = true })
		x.send(stored.status, stored.contentType, stored.body)
		return
	}
	x.out.hold = true
	finished := false
	defer func() {
		if !finished { // the route panicked
			x.s.idem.finish(rec, http.StatusInternalServerError, jsonType,
				encodeFailure(fail(http.StatusInternalServerError, CodeInternal, "internal error"), x.meta()))
		}
	}()
	route(ctx)
	if x.out.status == 0 {
		x.out.WriteHeader(http.StatusOK)
	}
	finished = true
	x.s.idem.finish(rec, x.out.status, x.out.Header().Get("Content-Type"), bytes.Clone(x.out.body))
}

// readBody reads the whole body and makes it available to be read again.
func (x *exchange) readBody(limit int64) ([]byte, *failure) {
	if x.r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, limit+1))
	if err != nil {
		return nil, fail(http.StatusBadRequest, CodeValidation, "the body could not be read")
	}
	if int64(len(body)) > limit {
		return nil, fail(http.StatusRequestEntityTooLarge, CodeValidation, "the body is too large")
	}
	x.r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}
