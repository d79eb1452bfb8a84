package agrentingtest

import (
	"maps"
	"net/http"
)

// authenticate exchanges an API key for a session. It does not need a body.
func (s *Server) authenticate(x *exchange) (reply, *failure) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	if k := x.who.key; !s.nodes.accept(k.known, k.revoked, s.now(), x.lags) { // revoked since it was authenticated
		return reply{}, unauthorized("invalid or revoked API key")
	}
	e, token := s.addSession(x.who.key, s.nodes.cfg.SessionLag)
	return s.sessionReply(token, e), nil
}

// logout ends the session of the request. With an API key, it ends every session
// that was obtained with that key. The response is not published.
func (s *Server) logout(x *exchange) (reply, *failure) {
	if x.who.token != nil {
		return reply{}, forbidden("a user token has no session")
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	s.endSessions(func(e *session) bool {
		if x.who.session != nil {
			return e == x.who.session
		}
		return e.key == x.who.key
	})
	s.stats.logouts.Add(1)
	return reply{status: http.StatusOK}, nil
}

// rotateKey revokes a key at once and responds with its successor. A request with
// a key, or with a session obtained with a key, rotates that key. A request of
// the owner for the agent rotates the key with the key_id in the body, or the
// agent's newest live key.
func (s *Server) rotateKey(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	keyID := v.text("key_id", false, 100)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	old, f := keyToRotate(&x.who, keyID)
	if f != nil {
		return reply{}, f
	}
	s.revokeKey(old)
	k, secret := s.dir.addKey(old.agent, old.name, s.now(), s.nodes.cfg.KeyLag)
	s.stats.rotations.Add(1)
	s.stats.keysCreated.Add(1)
	return reply{status: http.StatusOK, data: s.issuedKey(k, secret)}, nil
}

// keyToRotate needs the lock.
func keyToRotate(who *actor, keyID string) (*key, *failure) {
	if who.token == nil {
		switch k := who.key; {
		case k.revoked.IsZero():
			if keyID != "" && keyID != k.id {
				return nil, forbidden("a key can rotate only itself")
			}
			return k, nil
		case who.session != nil:
			// The session outlived its key. Whether it could rotate the successor of the
			// key is not published, so it cannot.
			return nil, notFound("live key of this session")
		default: // another rotation came first
			return nil, unauthorized("invalid or revoked API key")
		}
	}
	var newest *key
	for _, k := range who.agent.keys {
		if k.revoked.IsZero() && (keyID == "" || k.id == keyID) {
			newest = k
		}
	}
	if newest == nil {
		return nil, notFound("live key")
	}
	return newest, nil
}

// issuedKey renders a new key with its secret, which no other response has.
func (s *Server) issuedKey(k *key, secret string) map[string]any {
	m := map[string]any{
		"id":          k.id,
		"agent_id":    k.agent.id,
		"name":        k.name,
		"environment": k.agent.environment(),
		"created_at":  timestamp(k.created),
	}
	if s.cfg.brokenKeys {
		maps.Copy(m, map[string]any{
			"id":          map[string]any{"value": 42},
			"agent_id":    []any{true, nil},
			"name":        17,
			"environment": false,
			"created_at":  -1.5,
		})
	}
	m[s.cfg.keyField] = secret
	return m
}
