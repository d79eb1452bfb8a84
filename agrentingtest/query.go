package agrentingtest

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/agrenting/agrenting-go/internal/ascii"
)

// The query parameters with the credential of a socket (platform documentation,
// "Channels" and "WebSocket").
const (
	paramAPIKey       = "api_key"
	paramSessionToken = "session_token"
)

// filtered replaces credentials in the query of logged requests, as in Phoenix.
const filtered = "[FILTERED]"

// HandleQuery adds a route with the credential in the query, like the platform's sockets:
// api_key, which is an API key or a user token, or session_token. It accepts only the
// given kinds, or all kinds if there are none. Faults, the log, and [PrincipalFrom] work
// as with [Server.Handle]. A user token acts for an agent only if the request has
// X-Agent-ID. Requests count toward [RateLimits].Channel.
//
// refuse responds to a request if its credential is missing, invalid, of another kind, or
// one of several. Header-based authentication of these routes is not documented, so a
// credential in a header is refused too. If refuse is nil, the response is the same 401
// or 403 as on other routes.
//
// The handler gets the query without the credential, and the log shows [FILTERED] instead
// of it. Package agrentingtest/sockettest uses HandleQuery for the platform's sockets.
func (s *Server) HandleQuery(pattern string, h, refuse http.Handler, kinds ...CredentialKind) {
	s.inQuery.Store(pattern, true)
	s.extra.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.hideQuery(r)
		who, f := s.identifyQuery(r, x.lags, kinds)
		if f != nil {
			x.refuseQuery(f, refuse)
			return
		}
		if f := x.accept(who, access{level: levelKnown, mode: agentIfGiven, channel: true}); f != nil {
			x.refuse(f)
			return
		}
		if f := x.scripted(); f != nil {
			x.refuse(f)
			return
		}
		h.ServeHTTP(x.out, x.r.WithContext(context.WithValue(r.Context(), principalKey{}, x.who.principal())))
	})
}

// hideQuery removes the credentials from the query that the handler gets.
func (x *exchange) hideQuery(r *http.Request) {
	q := r.URL.Query()
	maps.DeleteFunc(q, func(name string, _ []string) bool { return isCredentialParam(name) })
	u := *r.URL
	u.RawQuery = q.Encode()
	x.r = r.WithContext(r.Context())
	x.r.URL, x.r.RequestURI = &u, u.RequestURI()
}

// loggedQuery returns the query of a request for the log, and the credentials that it
// replaced. It does not replace a credential on a route that does not expect one in the
// query, because that is a bug that a test should find.
func (s *Server) loggedQuery(r *http.Request) (shown url.Values, hidden []string) {
	q := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if isCredentialParam(name) && s.expectsCredential(r) {
			hidden = append(hidden, q[name]...)
			q[name] = slices.Repeat([]string{filtered}, len(q[name]))
		}
	}
	return q, hidden
}

// expectsCredential reports whether a request is for a route of HandleQuery.
func (s *Server) expectsCredential(r *http.Request) bool {
	_, pattern := s.extra.Handler(r)
	_, ok := s.inQuery.Load(pattern)
	return ok
}

// isCredentialParam reports whether a parameter may have a credential. It ignores case,
// so that a misspelled parameter is not logged either.
func isCredentialParam(name string) bool {
	return ascii.EqualFold(name, paramAPIKey) || ascii.EqualFold(name, paramSessionToken)
}

// refuseQuery responds to a request with a credential that is not accepted.
func (x *exchange) refuseQuery(f *failure, refuse http.Handler) {
	if refuse == nil {
		x.refuse(f)
		return
	}
	refuse.ServeHTTP(x.out, x.r)
}

// queryCredentials returns the credentials in a query.
func queryCredentials(u *url.URL) (apiKeys, sessions []string) {
	q := u.Query()
	return q[paramAPIKey], q[paramSessionToken]
}

// identifyQuery is like identify for a credential in the query.
func (s *Server) identifyQuery(r *http.Request, lagging bool, kinds []CredentialKind) (*actor, *failure) {
	apiKeys, sessions := queryCredentials(r.URL)
	inHeader, bearers := credentialHeaders(r.Header)
	switch {
	case len(inHeader)+len(bearers) > 0:
		return nil, unauthorized("the credential of this route must be sent only in the query")
	case len(apiKeys)+len(sessions) == 0:
		return nil, unauthorized("a credential is required: api_key or session_token in the query")
	case len(apiKeys)+len(sessions) > 1:
		return nil, unauthorized("more than one credential in the query")
	}
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	var who *actor
	var f *failure
	if len(apiKeys) == 1 {
		who, f = s.identifyKey(apiKeys[0], lagging)
	} else {
		who, f = s.identifyBearer(strings.TrimSpace(sessions[0]), lagging)
	}
	switch {
	case f != nil:
		return nil, f
	case (who.kind == KindSession) != (len(sessions) == 1):
		return nil, unauthorized("session_token takes a session, and api_key everything else")
	case len(kinds) > 0 && !slices.Contains(kinds, who.kind):
		return nil, forbidden("this route does not accept a credential of the kind %s", who.kind)
	}
	return who, nil
}

// Revoked returns a channel that is closed when a credential is revoked: an API key, a
// user token, or a session that is ended before it expires. credentialID is
// [Principal].CredentialID. If the credential is already revoked or unknown, the channel
// is closed at once. The channel is not closed when a session or token expires, because
// nothing happens on the server then.
func (s *Server) Revoked(credentialID string) <-chan struct{} {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.ends[credentialID]; c != nil {
		return c
	}
	c := make(chan struct{})
	if !d.alive(credentialID) {
		close(c)
		return c
	}
	if d.ends == nil {
		d.ends = make(map[string]chan struct{})
	}
	d.ends[credentialID] = c
	return c
}

// alive reports whether a credential is known and not revoked. It needs the lock.
func (d *directory) alive(credentialID string) bool {
	if k := d.keys[credentialID]; k != nil {
		return k.revoked.IsZero()
	}
	if t := d.tokens[credentialID]; t != nil {
		return t.revoked.IsZero()
	}
	for e := range maps.Values(d.sessions) {
		if e.id == credentialID {
			return e.ended.IsZero()
		}
	}
	return false
}

// revoked closes the channel of a revoked credential. It needs the lock.
func (d *directory) revoked(credentialID string) {
	if c := d.ends[credentialID]; c != nil {
		close(c)
		delete(d.ends, credentialID)
	}
}

// BeforeClose makes [Server.Close] call f before it closes the connections, so that a
// handler can end a hijacked connection, such as a WebSocket, in an orderly way. At that
// time, the server no longer accepts requests. Functions run at the same time, and Close
// waits for all of them, so f should return soon. f must not call Close. If the server is
// already closed, BeforeClose calls f at once.
func (s *Server) BeforeClose(f func()) {
	s.ownedMu.Lock()
	closed := s.farewells.closed
	if !closed {
		s.farewells.all = append(s.farewells.all, f)
	}
	s.ownedMu.Unlock()
	if closed {
		f()
	}
}

// farewells has the functions of [Server.BeforeClose].
type farewells struct {
	closed bool
	all    []func()
}

// sayFarewell calls the functions of [Server.BeforeClose].
func (s *Server) sayFarewell() {
	s.ownedMu.Lock()
	all := s.farewells.all
	s.farewells = farewells{closed: true}
	s.ownedMu.Unlock()
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Go(f)
	}
	wg.Wait()
}
