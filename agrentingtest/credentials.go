package agrentingtest

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"sync/atomic"
	"time"
)

// Key is an agent's API key. Only the caller has the secret: the server keeps
// its hash.
type Key struct {
	ID     string
	Secret string
}

// KeyInfo describes an API key without its secret. A live key has a zero
// Revoked, and a Hint such as "9f3a". Most programs only read ID.
type KeyInfo struct {
	ID       string
	AgentID  string
	Name     string
	Hint     string // the last four characters of the secret
	Sandbox  bool
	Created  time.Time
	LastUsed time.Time // zero if never used
	Revoked  time.Time // zero if the key is live
}

// Token is a user's API token.
type Token struct {
	ID        string
	Secret    string    // such as "ap_…"
	ExpiresAt time.Time // zero if it does not expire
}

// TokenConfig configures a new user token, such as TokenConfig{Scopes:
// []string{"tasks:read"}, TTL: time.Hour}. Most programs only set Scopes, or
// nothing.
type TokenConfig struct {
	Name   string
	Scopes []string      // nil allows everything that the user may do
	TTL    time.Duration // lifetime; 0 means that the token does not expire
	// Sandbox gives the secret the prefix ap_sandbox_ and restricts the token to
	// sandbox agents. The platform does not document such tokens. Without Sandbox,
	// a token has access to the user's sandbox agents and production agents.
	Sandbox bool
}

// digest is the SHA-256 hash of a secret. The server keeps secrets only in this
// form.
type digest [sha256.Size]byte

func sum(secret string) digest { return sha256.Sum256([]byte(secret)) }

// lookup finds a secret by its hash and compares the hashes in constant time, so
// that timing does not reveal how close a guess was.
func lookup[T any](m map[digest]T, d digest, stored func(T) digest) (T, bool) {
	v, ok := m[d]
	if !ok {
		return v, false
	}
	have := stored(v)
	return v, subtle.ConstantTimeCompare(have[:], d[:]) == 1
}

type key struct {
	id      string
	agent   *agent
	name    string
	hint    string
	sum     digest
	created time.Time
	known   time.Time // when lagging nodes accept it
	seq     uint64
	revoked time.Time
	used    atomic.Int64 // Unix nanoseconds
	spare   bool         // created over HTTP in addition to another key; has not replaced a key yet
}

type userToken struct {
	id      string
	user    *user
	name    string
	hint    string
	sum     digest
	scopes  []string
	sandbox bool
	created time.Time
	expires time.Time
	seq     uint64
	revoked time.Time
	used    atomic.Int64
}

// NewKey creates an API key for an agent. All nodes of [WithNodes] accept it at
// once. It panics if there is no such agent.
func (s *Server) NewKey(agentID string) Key {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.find(agentID)
	if a == nil {
		panic(fmt.Sprintf("agrentingtest: NewKey: no agent %q on this server", agentID))
	}
	k, secret := d.addKey(a, "", s.now(), 0)
	return Key{ID: k.id, Secret: secret}
}

// addKey needs the lock.
func (d *directory) addKey(a *agent, name string, now time.Time, lag time.Duration) (*key, string) {
	// The platform documents a prefix only for sandbox keys.
	secret := randomHex(20)
	if a.sandbox {
		secret = "sk_sandbox_" + secret
	}
	k := &key{
		id:      newUUID(),
		agent:   a,
		name:    name,
		hint:    secret[len(secret)-4:],
		sum:     sum(secret),
		created: now,
		known:   now.Add(lag),
		seq:     d.next(),
	}
	d.keys[k.id] = k
	d.keyBySum[k.sum] = k
	a.keys = append(a.keys, k)
	return k, secret
}

// NewToken creates a user token. It panics if there is no such user.
func (s *Server) NewToken(userID string, cfg TokenConfig) Token {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.users[userID]
	if u == nil {
		panic(fmt.Sprintf("agrentingtest: NewToken: no user %q on this server", userID))
	}
	t, secret := d.addToken(u, cfg, s.now())
	return Token{ID: t.id, Secret: secret, ExpiresAt: t.expires}
}

// addToken needs the lock.
func (d *directory) addToken(u *user, cfg TokenConfig, now time.Time) (*userToken, string) {
	secret := "ap_" + randomHex(20)
	if cfg.Sandbox {
		secret = "ap_sandbox_" + randomHex(20)
	}
	t := &userToken{
		id:      newUUID(),
		user:    u,
		name:    cfg.Name,
		hint:    secret[len(secret)-4:],
		sum:     sum(secret),
		sandbox: cfg.Sandbox,
		created: now,
		seq:     d.next(),
	}
	if cfg.Scopes != nil {
		t.scopes = append([]string{}, cfg.Scopes...)
	}
	if cfg.TTL != 0 {
		t.expires = now.Add(cfg.TTL)
	}
	d.tokens[t.id] = t
	d.tokenBySum[t.sum] = t
	u.tokens = append(u.tokens, t)
	return t, secret
}

// RevokeKey revokes a key by its ID, as the dashboard does. It has no effect on
// an unknown or revoked key.
func (s *Server) RevokeKey(id string) {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.keys[id]; k != nil {
		s.revokeKey(k)
	}
}

// revokeKey reports whether the key was live. It needs the lock.
func (s *Server) revokeKey(k *key) bool {
	if !k.revoked.IsZero() {
		return false
	}
	k.revoked = s.now()
	s.stats.keysRevoked.Add(1)
	s.dir.revoked(k.id)
	if s.cfg.dyingSessions {
		s.endSessions(func(e *session) bool { return e.key == k })
	}
	return true
}

// RevokeToken revokes a user token by its ID. It has no effect on an unknown or
// revoked token.
func (s *Server) RevokeToken(id string) {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tokens[id]; t != nil {
		s.revokeToken(t)
	}
}

// revokeToken reports whether the token was live. It needs the lock.
func (s *Server) revokeToken(t *userToken) bool {
	if !t.revoked.IsZero() {
		return false
	}
	t.revoked = s.now()
	s.stats.tokensRevoked.Add(1)
	s.dir.revoked(t.id)
	return true
}

// LiveKeys returns the keys of an agent that are not revoked, the oldest first.
func (s *Server) LiveKeys(agentID string) []KeyInfo {
	d := s.dir
	d.mu.RLock()
	defer d.mu.RUnlock()
	var infos []KeyInfo
	if a := d.find(agentID); a != nil {
		for _, k := range a.keys {
			if k.revoked.IsZero() {
				infos = append(infos, k.info())
			}
		}
	}
	return infos
}

// KeyAlive reports whether secret belongs to a key that is not revoked.
func (s *Server) KeyAlive(secret string) bool {
	d := s.dir
	d.mu.RLock()
	defer d.mu.RUnlock()
	k, ok := lookup(d.keyBySum, sum(secret), func(k *key) digest { return k.sum })
	return ok && k.revoked.IsZero()
}

func (k *key) info() KeyInfo {
	return KeyInfo{
		ID:       k.id,
		AgentID:  k.agent.id,
		Name:     k.name,
		Hint:     k.hint,
		Sandbox:  k.agent.sandbox,
		Created:  k.created,
		LastUsed: unixNano(k.used.Load()),
		Revoked:  k.revoked,
	}
}

func unixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
