package agrentingtest

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"time"
)

// SessionShape is a form of the authenticate response. Some are documented or used
// by live clients, and others test clients for robustness.
type SessionShape uint32

const (
	// ShapeLive is the form that clients of the live API read: data.session_token and
	// data.expires_at.
	ShapeLive SessionShape = iota
	// ShapeDocs is the form in the platform's API page: data.token and data.agent{id,
	// name}, without an expiry.
	ShapeDocs
	// ShapeBoth has the fields of both forms.
	ShapeBoth
	// ShapeBadExpiry is ShapeLive with an expires_at that is not a time.
	ShapeBadExpiry
	// ShapePastExpiry is ShapeLive with an expires_at that is an hour ago. The session
	// is still valid for its whole lifetime.
	ShapePastExpiry
	// ShapeFlat is ShapeLive without an envelope.
	ShapeFlat
)

// String returns the name of the constant.
func (s SessionShape) String() string {
	names := [...]string{"ShapeLive", "ShapeDocs", "ShapeBoth", "ShapeBadExpiry", "ShapePastExpiry", "ShapeFlat"}
	if int(s) < len(names) {
		return names[s]
	}
	return "SessionShape(?)"
}

type session struct {
	id      string
	key     *key
	sum     digest
	expires time.Time
	known   time.Time // when lagging nodes accept it
	ended   time.Time // before it expires; zero if not ended
}

// NewSession exchanges a key for a session, as authenticate does, but without a
// request. All nodes of [WithNodes] accept it at once. It panics if keySecret does
// not belong to a live key.
func (s *Server) NewSession(keySecret string) (token string, expires time.Time) {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := lookup(d.keyBySum, sum(keySecret), func(k *key) digest { return k.sum })
	if !ok || !k.revoked.IsZero() {
		panic("agrentingtest: NewSession: not the secret of a live key of this server")
	}
	e, token := s.addSession(k, 0)
	return token, e.expires
}

// addSession needs the lock.
func (s *Server) addSession(k *key, lag time.Duration) (*session, string) {
	d := s.dir
	now := s.now()
	if len(d.sessions) >= d.sweepAt {
		s.forgetSessions(now)
		d.sweepAt = max(1024, 2*len(d.sessions))
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token := base64.RawURLEncoding.EncodeToString(b)
	e := &session{
		id: newUUID(), key: k, sum: sum(token), expires: now.Add(time.Duration(s.ttl.Load())), known: now.Add(lag),
	}
	if s.cfg.dyingSessions {
		e.ended = k.revoked // a lagging node has accepted a revoked key
	}
	d.sessions[e.sum] = e
	s.stats.sessions.Add(1)
	return e, token
}

// forgetSessions removes the sessions that no node accepts anymore. It needs the
// lock.
func (s *Server) forgetSessions(now time.Time) {
	maps.DeleteFunc(s.dir.sessions, func(_ digest, e *session) bool {
		gone := !now.Before(e.expires) || !e.ended.IsZero() && !now.Before(e.ended.Add(s.nodes.cfg.RevocationLag))
		if gone {
			delete(s.dir.ends, e.id) // it can no longer be revoked
		}
		return gone
	})
}

// endSessions needs the lock.
func (s *Server) endSessions(which func(*session) bool) {
	for _, e := range s.dir.sessions {
		if which(e) {
			s.endSession(e)
		}
	}
}

// endSession needs the lock.
func (s *Server) endSession(e *session) {
	if e.ended.IsZero() {
		e.ended = s.now()
		s.dir.revoked(e.id)
	}
}

// RevokeSessions ends every session.
func (s *Server) RevokeSessions() {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	s.endSessions(func(*session) bool { return true })
}

// RevokeSession ends one session. It has no effect on an unknown token.
func (s *Server) RevokeSession(token string) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	if e := s.dir.sessions[sum(token)]; e != nil {
		s.endSession(e)
	}
}

// sessionReply returns the response with a new session in the configured shape.
func (s *Server) sessionReply(token string, e *session) reply {
	name := e.key.agent.profile.name
	shape := s.cfg.shape
	live := map[string]any{"session_token": token, "expires_at": e.expires.UTC().Format(time.RFC3339)}
	agent := map[string]any{"id": e.key.agent.id, "name": name}
	switch shape {
	case ShapeDocs:
		return reply{status: 200, data: map[string]any{"token": token, "agent": agent}}
	case ShapeBoth:
		live["token"], live["agent"] = token, agent
	case ShapeBadExpiry:
		live["expires_at"] = "in a while"
	case ShapePastExpiry:
		live["expires_at"] = s.now().Add(-time.Hour).UTC().Format(time.RFC3339)
	case ShapeFlat:
		return reply{status: 200, flat: live}
	case ShapeLive:
	}
	return reply{status: 200, data: live}
}
