package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

type (
	query = renew.Query[secret.Credential]
	grant = renew.Grant[secret.Credential]
)

// Config describes a [Source].
type Config struct {
	Endpoint *Endpoint
	Platform Platform
	Keys     Keys
	Report   Report
	// Records describes the store in which sessions are shared. Without a store,
	// they are not.
	Records record.Config
}

// Source yields sessions: from the store if another process has obtained a usable
// one, else by an exchange. It is safe for concurrent use.
type Source struct {
	cfg    Config
	holder string // random name of this process in leases

	mu       sync.Mutex
	key      secret.Credential // that the last session was obtained with
	last     grant
	replaced []secret.Credential          // sessions of key that were in use before the last
	slot     *record.Slot[record.Session] // of the sessions of slotKey
	slotKey  secret.Credential
	storeErr error // of the last attempt to use the store
}

// New returns a source.
func New(cfg Config) *Source { return &Source{cfg: cfg, holder: wire.NewUUID()} }

const (
	// maxKeyChanges bounds how many successors of a refused key are tried in one
	// fetch. A key may be replaced while its predecessor is.
	maxKeyChanges = 3
	// maxReplaced bounds how many replaced sessions are remembered.
	maxReplaced = 8
)

// Fetch returns a session in use, or obtains one.
func (s *Source) Fetch(ctx context.Context, q renew.Query[secret.Credential]) (renew.Grant[secret.Credential], error) {
	key, err := s.cfg.Keys.Key(ctx)
	if err != nil {
		return grant{}, err
	}
	// The key may have changed, but this renewal may be late: the session in use may
	// be of the new key already.
	if (q.Reason == renew.Recheck || q.Reason == renew.Manual) && q.HasCurrent && !q.HasRejected {
		if g, ok := s.unchanged(key, q.Current); ok {
			return g, nil
		}
	}
	g, key, err := s.obtain(ctx, q, key)
	for n := 0; n < maxKeyChanges && errors.Is(err, wire.ErrUnauthorized); n++ {
		// The key was refused, not a session: it may have just been replaced in its
		// source.
		next, kerr := s.cfg.Keys.Successor(ctx, key)
		if kerr != nil {
			return g, errors.Join(err, kerr)
		}
		if next.Equal(key) {
			return g, err
		}
		g, key, err = s.obtain(ctx, q, next)
	}
	if err != nil {
		return g, err
	}
	g.Recheck = s.cfg.Keys.Recheck()
	s.note(key, g)
	return g, nil
}

// unchanged answers a recheck of the key: while the session in use is of that key,
// there is nothing to exchange.
func (s *Source) unchanged(key, current secret.Credential) (grant, bool) {
	s.mu.Lock()
	g := s.last
	same := !g.Value.IsZero() && key.Equal(s.key) && current.Equal(g.Value)
	s.mu.Unlock()
	if !same {
		return grant{}, false
	}
	g.Recheck = s.cfg.Keys.Recheck()
	g.Issued = time.Time{} // that was then; it would be taken for a skewed clock
	return g, true
}

// note remembers the session in use.
func (s *Source) note(key secret.Credential, g grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.last.Value; !old.IsZero() && key.Equal(s.key) && !old.Equal(g.Value) {
		s.replaced = append(s.replaced[max(0, len(s.replaced)+1-maxReplaced):], old)
	}
	s.key, s.last = key, g
}

// wasReplaced reports whether a session was in use here and was replaced by
// another of its key: a store that cannot be written may still have it.
func (s *Source) wasReplaced(session secret.Credential) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.replaced, session.Equal)
}

// obtain gets a session for a key. It returns the key that the session is of:
// another one if the key was replaced while another process was waited for.
func (s *Source) obtain(ctx context.Context, q query, key secret.Credential) (grant, secret.Credential, error) {
	if s.cfg.Records.Store == nil {
		g, err := s.exchange(ctx, key)
		return g, key, err
	}
	var dead string // a token that the platform refuses
	usable := func(rec record.Session) (grant, bool) {
		g, ok := s.adopt(rec, q, key)
		if ok = ok && rec.Token != dead; ok && q.HasRejected && s.cfg.Platform.Refuses(ctx, g.Value) {
			// It met the same end as the rejected one, as when all sessions of a key
			// are ended at once. To ask costs a call, but spares the caller a 401 that
			// no other session could have prevented.
			dead, ok = rec.Token, false
		}
		return g, ok
	}
	for {
		g, err := s.obtainShared(ctx, key, usable)
		replaced, ok := errors.AsType[*keyReplacedError](err)
		if !ok {
			return g, key, err
		}
		key = replaced.by
	}
}

// exchange makes the exchange.
func (s *Source) exchange(ctx context.Context, key secret.Credential) (grant, error) {
	got, err := s.cfg.Endpoint.Exchange(ctx, key)
	if err != nil {
		return grant{}, err
	}
	if err := s.cfg.Keys.Admit(got.Credential); err != nil {
		return grant{}, err
	}
	return grant{Value: got.Credential, Expires: got.Credential.Expires(), Issued: got.Issued}, nil
}

// adopt takes the session of a record if it serves the query: not the one that
// was rejected or is about to be replaced, and not expired.
func (s *Source) adopt(rec record.Session, q query, key secret.Credential) (grant, bool) {
	if rec.Token == "" {
		return grant{}, false
	}
	c := secret.NewSession(rec.Token, rec.Expires, key)
	if (q.HasCurrent && c.Equal(q.Current)) || (q.HasRejected && c.Equal(q.Rejected)) || s.cfg.Keys.Admit(c) != nil {
		return grant{}, false
	}
	now := time.Now().Add(rec.Skew) // the platform's
	life := rec.Expires.Sub(rec.Issued.Add(rec.Skew))
	if (!rec.Expires.IsZero() && life > 0 && !now.Before(rec.Expires)) || s.wasReplaced(c) {
		return grant{}, false
	}
	return grant{Value: c, Expires: rec.Expires, Issued: now, Life: max(0, life), Reason: renew.Adopted}, true
}

// StoreError returns why the store could not do what it was asked for when it was
// last used; nil if it could.
func (s *Source) StoreError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.storeErr
}

func (s *Source) setStoreError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storeErr = err
}

// failed reports that the store did not do what it was asked for.
func (s *Source) failed(what string, err error) {
	s.setStoreError(err)
	s.cfg.Report.StoreFailed(what, err)
}
