package agrentingtest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// createKey creates a key of an agent. Only this response has the secret.
func (s *Server) createKey(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	name := v.text("name", false, 255)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	a, f := s.managedAgent(x)
	if f != nil {
		return reply{}, f
	}
	if limit := s.cfg.maxKeys; limit > 0 && a.liveKeys() >= limit {
		return reply{}, fail(http.StatusUnprocessableEntity, CodeValidation,
			"the agent already has %d keys, the maximum", limit)
	}
	spare := a.liveKeys() > 0
	k, secret := s.dir.addKey(a, name, s.now(), s.nodes.cfg.KeyLag)
	k.spare = spare
	s.stats.keysCreated.Add(1)
	return reply{status: http.StatusCreated, data: s.issuedKey(k, secret)}, nil
}

func (a *agent) liveKeys() (n int) {
	for _, k := range a.keys {
		if k.revoked.IsZero() {
			n++
		}
	}
	return n
}

// listKeys lists the keys of an agent, including revoked ones, without their secrets.
func (s *Server) listKeys(x *exchange) (reply, *failure) {
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	a, f := s.managedAgent(x)
	if f != nil {
		return reply{}, f
	}
	return page(x, a.keys, func(k *key) uint64 { return k.seq }, (*key).render)
}

func (k *key) render() map[string]any {
	m := map[string]any{
		"id":           k.id,
		"agent_id":     k.agent.id,
		"name":         k.name,
		"last4":        k.hint,
		"environment":  k.agent.environment(),
		"created_at":   timestamp(k.created),
		"last_used_at": optionalTime(unixNano(k.used.Load())),
	}
	if !k.revoked.IsZero() {
		m["revoked_at"] = timestamp(k.revoked)
	}
	return m
}

// deleteKey revokes a key of an agent. A key may revoke itself.
func (s *Server) deleteKey(x *exchange) (reply, *failure) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	a, f := s.managedAgent(x)
	if f != nil {
		return reply{}, f
	}
	k := s.dir.keys[strings.ToLower(x.r.PathValue("cid"))]
	if k == nil || k.agent != a || !s.revokeKey(k) {
		return reply{}, notFound("credential")
	}
	if k.replaced() {
		s.stats.overlaps.Add(1)
	}
	return reply{status: http.StatusOK, data: map[string]any{"id": k.id, "revoked_at": timestamp(k.revoked)}}, nil
}

// replaced reports whether a key that was just revoked has a successor, as at the end of
// a rotation by overlap. If so, it records that the successor has replaced a key. A
// spare key, such as one that was issued by mistake, does not have a successor.
func (k *key) replaced() bool {
	if k.spare {
		return false
	}
	for _, next := range slices.Backward(k.agent.keys) {
		if next.seq > k.seq && next.spare && next.revoked.IsZero() {
			next.spare = false
			return true
		}
	}
	return false
}

// createToken creates a user token with at most the permissions of the token that
// creates it. Only this response has the secret.
func (s *Server) createToken(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	cfg := TokenConfig{
		Name:    v.text("name", true, 255),
		Scopes:  v.list("scopes", false),
		Sandbox: x.who.token.sandbox,
	}
	for _, scope := range cfg.Scopes {
		if !scopeForm.MatchString(scope) {
			v.complain("scopes", "must be words like read or agents:read")
			break
		}
	}
	const maxLifetime = 100 * 365 * 24 * 60 * 60
	var seconds int64
	if v.get("expires_in", "a whole number of seconds", false, &seconds) && (seconds <= 0 || seconds > maxLifetime) {
		v.complain("expires_in", "must be greater than 0")
	}
	cfg.TTL = time.Duration(seconds) * time.Second
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if own := x.who.token.scopes; own != nil {
		p := x.who.principal()
		if cfg.Scopes == nil {
			cfg.Scopes = own
		}
		for _, scope := range cfg.Scopes {
			if !p.Allows(scope) {
				return reply{}, forbidden("the token lacks the scope %s and cannot grant it", scope)
			}
		}
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	t, secret := s.dir.addToken(x.who.token.user, cfg, s.now())
	s.stats.tokensCreated.Add(1)
	m := t.render()
	m["token"] = secret
	return reply{status: http.StatusCreated, data: m}, nil
}

// listTokens lists the user's tokens that are not revoked.
func (s *Server) listTokens(x *exchange) (reply, *failure) {
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	var tokens []*userToken
	for _, t := range x.who.token.user.tokens {
		if t.revoked.IsZero() {
			tokens = append(tokens, t)
		}
	}
	return page(x, tokens, func(t *userToken) uint64 { return t.seq }, (*userToken).render)
}

func (t *userToken) render() map[string]any {
	return map[string]any{
		"id":           t.id,
		"name":         t.name,
		"last4":        t.hint,
		"scopes":       t.scopes,
		"created_at":   timestamp(t.created),
		"expires_at":   optionalTime(t.expires),
		"last_used_at": optionalTime(unixNano(t.used.Load())),
	}
}

// deleteToken revokes a token of the user. A token may revoke itself.
func (s *Server) deleteToken(x *exchange) (reply, *failure) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	t := s.dir.tokens[strings.ToLower(x.r.PathValue("id"))]
	if t == nil || t.user != x.who.token.user || !s.revokeToken(t) {
		return reply{}, notFound("token")
	}
	return reply{status: http.StatusOK, data: map[string]any{"id": t.id, "revoked_at": timestamp(t.revoked)}}, nil
}
