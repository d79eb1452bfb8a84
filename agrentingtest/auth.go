package agrentingtest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
)

// CredentialKind is the kind of credential that authenticated a request, such as
// "session".
type CredentialKind string

// The kinds of credential. The empty kind means that the request was anonymous or
// refused.
const (
	KindAPIKey    CredentialKind = "api_key"
	KindSession   CredentialKind = "session"
	KindUserToken CredentialKind = "user_token"
)

// Principal is the agent or user that a request was authenticated as, such as the
// agent "550e8400-e29b-41d4-a716-446655440000" with an API key. Most programs only
// read AgentID and UserID.
type Principal struct {
	Kind         CredentialKind
	CredentialID string // ID of the key, session, or token
	KeyID        string // the API key, or the key that the session was obtained with
	UserID       string // the user who has the token, or the owner of the agent
	AgentID      string // the acting agent; empty if a user acts without an agent
	Sandbox      bool
	Scopes       []string // the scopes of a user token; nil means all scopes
}

// String returns "agent:<id>" or "user:<id>", or "" if there is neither.
func (p Principal) String() string {
	switch {
	case p.AgentID != "":
		return "agent:" + p.AgentID
	case p.UserID != "":
		return "user:" + p.UserID
	default:
		return ""
	}
}

// Allows reports whether the principal has at least one of the scopes. Agents and
// unscoped tokens have all scopes. The plain scope "read" includes every scope that
// ends in :read or :discover, and "write" includes all others.
func (p Principal) Allows(scopes ...string) bool {
	if p.Kind != KindUserToken || p.Scopes == nil || len(scopes) == 0 {
		return true
	}
	return slices.ContainsFunc(scopes, func(want string) bool {
		general := "write"
		if want == "read" || strings.HasSuffix(want, ":read") || strings.HasSuffix(want, ":discover") {
			general = "read"
		}
		return slices.Contains(p.Scopes, want) || slices.Contains(p.Scopes, general)
	})
}

type principalKey struct{}

// PrincipalFrom returns the principal of a request in a handler that is registered
// with [Server.Handle], [Server.HandleAgent], or [Server.HandlePublic].
func PrincipalFrom(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(Principal)
	return p, ok
}

// actor is a principal with the entries of the directory that the routes need. The
// zero actor is anonymous.
type actor struct {
	kind    CredentialKind
	key     *key       // the API key, or the key that the session was obtained with
	session *session   // for KindSession
	token   *userToken // for KindUserToken
	agent   *agent     // the acting agent; nil for a user without agent context
}

func (w *actor) principal() Principal {
	p := Principal{Kind: w.kind}
	if w.key != nil {
		p.CredentialID, p.KeyID = w.key.id, w.key.id
	}
	if w.session != nil {
		p.CredentialID = w.session.id
	}
	if w.token != nil {
		p.CredentialID, p.UserID = w.token.id, w.token.user.id
		p.Scopes, p.Sandbox = slices.Clone(w.token.scopes), w.token.sandbox
	}
	if w.agent != nil {
		p.AgentID, p.Sandbox = w.agent.id, w.agent.sandbox
		if p.UserID == "" {
			p.UserID = w.agent.ownerID()
		}
	}
	return p
}

// sees reports whether an agent is visible to the actor. Sandbox and production are
// invisible to each other. A user without agent context sees the user's own agents
// of both.
func (w *actor) sees(a *agent) bool {
	switch {
	case w.agent != nil:
		return a.sandbox == w.agent.sandbox
	case w.token != nil:
		return a.sandbox == w.token.sandbox || !w.token.sandbox && a.owner == w.token.user
	default:
		return !a.sandbox
	}
}

// manages reports whether the actor may administer an agent: the agent itself or its
// owner.
func (w *actor) manages(a *agent) bool {
	if w.token != nil {
		return a.owner == w.token.user
	}
	return w.agent == a
}

// credentialHeaders returns the credentials that a request presents.
func credentialHeaders(h http.Header) (apiKeys, authorizations []string) {
	apiKeys = slices.Concat(h["X-Api-Key"], h["Api-Key"])
	return apiKeys, h["Authorization"]
}

// identify finds the actor of a request. If lagging is true, it uses the outdated
// view of a lagging node. It returns a nil actor and no failure for a request
// without a credential.
func (s *Server) identify(h http.Header, lagging bool) (*actor, *failure) {
	apiKeys, bearers := credentialHeaders(h)
	switch len(apiKeys) + len(bearers) {
	case 0:
		return nil, nil
	case 1:
	default:
		// The platform does not publish which one would win. A client that sends two has a
		// bug either way.
		return nil, unauthorized("more than one credential header on one request")
	}
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	if len(apiKeys) == 1 {
		return s.identifyKey(apiKeys[0], lagging)
	}
	scheme, secret, ok := strings.Cut(bearers[0], " ")
	if !ok || !ascii.EqualFold(scheme, "Bearer") {
		return nil, unauthorized("the Authorization header must be a bearer token")
	}
	return s.identifyBearer(strings.TrimSpace(secret), lagging)
}

// identifyKey needs the read lock. Clients also send user tokens in this header.
func (s *Server) identifyKey(secret string, lagging bool) (*actor, *failure) {
	d := sum(secret)
	if w := s.identifyAgentKey(d, lagging); w != nil {
		return w, nil
	}
	if w := s.identifyToken(d, lagging); w != nil {
		return w, nil
	}
	return nil, unauthorized("invalid or revoked API key")
}

// identifyAgentKey needs the read lock.
func (s *Server) identifyAgentKey(d digest, lagging bool) *actor {
	k, ok := lookup(s.dir.keyBySum, d, func(k *key) digest { return k.sum })
	now := s.now()
	if !ok || !s.nodes.accept(k.known, k.revoked, now, lagging) {
		return nil
	}
	k.used.Store(now.UnixNano())
	return &actor{kind: KindAPIKey, key: k, agent: k.agent}
}

// identifyBearer needs the read lock.
func (s *Server) identifyBearer(secret string, lagging bool) (*actor, *failure) {
	d := sum(secret)
	now := s.now()
	e, ok := lookup(s.dir.sessions, d, func(e *session) digest { return e.sum })
	if ok && s.nodes.accept(e.known, e.ended, now, lagging) {
		if !now.Before(e.expires) {
			return nil, unauthorized("session expired")
		}
		return &actor{kind: KindSession, key: e.key, session: e, agent: e.key.agent}, nil
	}
	if w := s.identifyToken(d, lagging); w != nil {
		return w, nil
	}
	if s.cfg.bearerKeys {
		if w := s.identifyAgentKey(d, lagging); w != nil {
			return w, nil
		}
	}
	return nil, unauthorized("invalid or revoked token")
}

// identifyToken needs the read lock.
func (s *Server) identifyToken(d digest, lagging bool) *actor {
	t, ok := lookup(s.dir.tokenBySum, d, func(t *userToken) digest { return t.sum })
	now := s.now()
	if !ok || !s.nodes.accept(t.created, t.revoked, now, lagging) || !t.expires.IsZero() && !now.Before(t.expires) {
		return nil
	}
	t.used.Store(now.UnixNano())
	return &actor{kind: KindUserToken, token: t}
}

// agentMode is how a route uses X-Agent-ID.
type agentMode uint8

const (
	agentIfGiven agentMode = iota // an agent only if the header names one
	agentIfClear                  // or the only agent that the user owns
	agentMust                     // the route requires an agent
)

// resolveAgent determines which agent acts. The platform does not publish these
// status codes, so its general table applies: a malformed or missing header is
// VALIDATION_ERROR, an unknown agent is NOT_FOUND, and another user's agent is
// FORBIDDEN. Agents are listed publicly, so the difference reveals nothing.
func (s *Server) resolveAgent(w *actor, h http.Header, mode agentMode) *failure {
	const header = "X-Agent-ID"
	values := h.Values(header)
	if len(values) > 1 {
		return invalid(header, "is present more than once")
	}
	if len(values) == 1 {
		if !isUUID(values[0]) {
			return invalid(header, "must be the UUID of an agent")
		}
		s.dir.mu.RLock()
		defer s.dir.mu.RUnlock()
		a := s.dir.agents[strings.ToLower(values[0])]
		switch {
		case w.token == nil && a != w.agent:
			return forbidden("the credential belongs to another agent than X-Agent-ID")
		case w.token == nil:
			return nil
		case a == nil || w.token.sandbox && !a.sandbox:
			return notFound("agent")
		case a.owner != w.token.user:
			return forbidden("the agent belongs to another user")
		}
		w.agent = a
		return nil
	}
	if w.token == nil || mode == agentIfGiven {
		return nil
	}
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	var candidates []*agent
	for _, a := range w.token.user.agents {
		if a.sandbox || !w.token.sandbox {
			candidates = append(candidates, a)
		}
	}
	switch {
	case len(candidates) == 1:
		w.agent = candidates[0]
	case mode == agentMust && len(candidates) == 0:
		return invalid(header, "is required, and the user owns no agent to act as")
	case mode == agentMust:
		return invalid(header, "is required for users with more than one agent")
	}
	return nil
}

// revokePresented revokes the credentials that a request carries.
func (s *Server) revokePresented(r *http.Request) {
	apiKeys, bearers := credentialHeaders(r.Header)
	inQuery, sessions := queryCredentials(r.URL)
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	revoke := func(secret string) {
		id := sum(secret)
		if k := d.keyBySum[id]; k != nil {
			s.revokeKey(k)
		}
		if t := d.tokenBySum[id]; t != nil {
			s.revokeToken(t)
		}
		if e := d.sessions[id]; e != nil {
			s.endSession(e)
		}
	}
	for _, secret := range slices.Concat(apiKeys, inQuery, sessions) {
		revoke(secret)
	}
	for _, value := range bearers {
		if _, secret, ok := strings.Cut(value, " "); ok {
			revoke(strings.TrimSpace(secret))
		}
	}
}
