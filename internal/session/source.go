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

// Config describes a [Source]. Endpoint, Platform, Keys, and Report are required. Most
// programs only set these four and Records, such as record.Config{Store: store}.
type Config struct {
	Endpoint *Endpoint
	Platform Platform
	Keys     Keys
	Report   Report
	// Records describes the store in which sessions are shared. Without a store, they are
	// not shared.
	Records record.Config
	// MaxExchanges limits the exchanges in 60 s that were not caused by an expiry; 0
	// means 8.
	MaxExchanges int
}

// Source yields sessions: from the store if another process has obtained a usable one,
// otherwise by an exchange. It is safe for concurrent use.
type Source struct {
	cfg    Config
	holder string // random name of this process in leases

	mu       sync.Mutex
	key      secret.Credential // the last session was obtained with this key
	last     grant
	refused  secret.Credential            // the source's key, if it is dead and key is used instead
	recent   []time.Time                  // exchanges of the last minute
	failure  error                        // of the last exchange, nil if it succeeded
	skew     time.Duration                // the platform\'s clock minus ours, about
	replaced []secret.Credential          // sessions of key that were in use before the last
	slot     *record.Slot[record.Session] // of the sessions of slotKey
	slotKey  secret.Credential
	storeErr error // of the last attempt to use the store
}

// New returns a source.
func New(cfg Config) *Source { return &Source{cfg: cfg, holder: wire.NewUUID()} }

const (
	// maxKeyChanges bounds how many successors of a refused key are tried in one fetch. A
	// key may be replaced while its predecessor is being replaced.
	maxKeyChanges = 3
	// maxReplaced bounds how many replaced sessions are remembered.
	maxReplaced = 8
)

// Fetch returns the current session, or obtains a new one.
func (s *Source) Fetch(ctx context.Context, q renew.Query[secret.Credential]) (renew.Grant[secret.Credential], error) {
	key, err := s.Key(ctx)
	if err != nil {
		return grant{}, err
	}
	if s.expired(key) {
		// If the source does not have another key, the platform decides, because a clock
		// may be wrong.
		if next, err := s.cfg.Keys.Successor(ctx, key); err == nil {
			key = next
		}
	}
	// The key may have changed, but this renewal may be late: the current session may
	// already belong to the new key. Also, a session that ends with its key cannot be
	// extended by another session of that key.
	if (q.Reason == renew.Recheck || q.Reason == renew.Manual || (q.Reason == renew.Early && s.endsWith(key))) && q.HasCurrent && !q.HasRejected {
		if g, ok := s.unchanged(key, q.Current); ok {
			return g, nil
		}
	}
	g, key, err := s.obtain(ctx, q, key)
	for n := 0; n < maxKeyChanges && wasRefused(err); n++ {
		// The platform refused the key, not a session. The key may have just been
		// replaced in its source.
		next, kerr := s.cfg.Keys.Successor(ctx, key)
		if kerr != nil {
			return g, errors.Join(err, kerr)
		}
		if next.Equal(key) {
			break
		}
		g, key, err = s.obtain(ctx, q, next)
	}
	if old, ok := s.before(key); ok && wasRefused(err) {
		// For example, a file contains only half a key. The last accepted key is used
		// until the source has another one.
		if g, err := s.exchangeWith(ctx, q, old); err == nil {
			s.fallBack(key)
			g.Recheck = s.cfg.Keys.Recheck()
			s.note(old, g)
			return g, nil
		}
	}
	if err != nil {
		return g, err
	}
	g.Recheck = s.cfg.Keys.Recheck()
	s.note(key, g)
	return g, nil
}

// instead returns the key to use: the last accepted key, if the source still has the key
// that was refused.
func (s *Source) instead(key secret.Credential) secret.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refused.IsZero() && s.refused.Equal(key) && !s.key.IsZero() {
		return s.key
	}
	return key
}

// before returns the last accepted key, if it differs from key.
func (s *Source) before(key secret.Credential) (secret.Credential, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key, !s.key.IsZero() && !s.key.Equal(key) && !s.refused.Equal(key)
}

func (s *Source) fallBack(refused secret.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = refused
}

// exchangeWith is like obtain, for a key that must not be replaced while it is used.
func (s *Source) exchangeWith(ctx context.Context, q query, key secret.Credential) (grant, error) {
	g, _, err := s.obtain(ctx, q, key)
	return g, err
}

// Key returns the key that the sessions are obtained with.
func (s *Source) Key(ctx context.Context) (secret.Credential, error) {
	key, err := s.cfg.Keys.Key(ctx)
	return s.instead(key), err
}

// unchanged handles a recheck of the key. As long as the current session belongs to that
// key, an exchange is not needed.
func (s *Source) unchanged(key, current secret.Credential) (grant, bool) {
	s.mu.Lock()
	g := s.last
	same := !g.Value.IsZero() && key.Equal(s.key) && current.Equal(g.Value)
	s.mu.Unlock()
	if !same {
		return grant{}, false
	}
	g.Recheck = s.cfg.Keys.Recheck()
	g.Issued = time.Time{} // the time is in the past and would look like a skewed clock
	return g, true
}

// note records the current session.
func (s *Source) note(key secret.Credential, g grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.last.Value; !old.IsZero() && key.Equal(s.key) && !old.Equal(g.Value) {
		s.replaced = append(s.replaced[max(0, len(s.replaced)+1-maxReplaced):], old)
	}
	if !key.Equal(s.key) {
		s.refused = secret.Credential{}
	}
	s.key, s.last, s.failure = key, g, nil
}

// wasReplaced reports whether a session was used here and was replaced by another session
// of its key. A store that cannot be written may still contain it.
func (s *Source) wasReplaced(session secret.Credential) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.replaced, session.Equal)
}

// obtain gets a session for a key. It also returns the key that the session belongs to.
// That is a different key if the key was replaced during the wait for another process.
func (s *Source) obtain(ctx context.Context, q query, key secret.Credential) (grant, secret.Credential, error) {
	if s.cfg.Records.Store == nil {
		g, err := s.exchange(ctx, q, key, nil)
		return g, key, err
	}
	var dead string // a token that the platform refuses
	usable := func(rec record.Session, fresh bool) (grant, bool) {
		g, ok := s.adopt(rec, q, key, fresh)
		if ok = ok && rec.Token != dead; ok && q.HasRejected && s.cfg.Platform.SessionDead(ctx, g.Value, Lately(g)) {
			// This session has probably ended like the rejected one, for example because
			// all sessions of a key were ended at once. Asking costs a call, but saves
			// the caller a 401 that no other session could have prevented.
			dead, ok = rec.Token, false
		}
		return g, ok
	}
	for {
		g, err := s.obtainShared(ctx, q, key, usable)
		replaced, ok := errors.AsType[*keyReplacedError](err)
		if !ok {
			return g, key, err
		}
		key = replaced.by
	}
}

// endsWith reports whether the last session ends when its key expires.
func (s *Source) endsWith(key secret.Credential) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.last.Expires.IsZero() && s.last.Expires.Equal(key.Expires())
}

// limited returns a session that ends no later than its key. skew is how far the
// platform's clock is ahead. An end that the platform has not enforced does not count.
func limited(session, key secret.Credential, skew time.Duration) secret.Credential {
	end := key.Expires()
	if end.IsZero() || isPast(end, skew) || (!session.Expires().IsZero() && !end.Before(session.Expires())) {
		return session
	}
	return session.WithExpiry(end)
}

func isPast(end time.Time, skew time.Duration) bool { return !time.Now().Add(skew).Before(end) }

// expired reports whether the key has expired by the platform's clock, as far as that
// clock is known.
func (s *Source) expired(key secret.Credential) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !key.Expires().IsZero() && isPast(key.Expires(), s.skew)
}

// exchange makes the exchange, unless there were too many. shared contains the exchanges
// of all processes, according to a record. A key that the platform refuses counts as dead
// only if the platform confirms that, because the response may come from a gateway.
func (s *Source) exchange(ctx context.Context, q query, key secret.Credential, shared []time.Time) (grant, error) {
	if g, over, err := s.limit(q, shared); over {
		return g, err
	}
	began := time.Now()
	got, err := s.cfg.Endpoint.Exchange(ctx, key)
	if errors.Is(err, wire.ErrUnauthorized) && s.cfg.Platform.KeyDead(ctx, key) {
		err = &RefusedError{Err: err}
	}
	if err == nil {
		err = s.cfg.Keys.Admit(got.Credential)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
	if err != nil {
		return grant{}, err
	}
	s.skew = 0
	if !got.Issued.IsZero() {
		s.skew = renew.SkewOf(got.Issued, began, time.Now())
	}
	c := limited(got.Credential, key, s.skew)
	return grant{Value: c, Expires: c.Expires(), Issued: got.Issued}, nil
}

// lately is how long ago a session was issued at most if parts of the platform may not know
// it yet.
const lately = 4 * time.Second

// Lately reports whether a session was issued a moment ago, as far as that is known.
func Lately(g renew.Grant[secret.Credential]) bool {
	if g.Reason != renew.Adopted || g.Life <= 0 || g.Expires.IsZero() {
		return true
	}
	return g.Life-g.Expires.Sub(g.Issued) < lately
}

// adopt returns the session of a record if it can be used for the query: it has not
// expired, and it is not the session that was rejected or must be replaced. fresh is set if
// this process has seen the session replace another one. It was then issued a moment ago,
// even if the clock of the process that obtained it is behind.
func (s *Source) adopt(rec record.Session, q query, key secret.Credential, fresh bool) (grant, bool) {
	if rec.Token == "" {
		return grant{}, false
	}
	c := secret.NewSession(rec.Token, rec.Expires, key)
	if (q.HasCurrent && c.Equal(q.Current)) || (q.HasRejected && c.Equal(q.Rejected)) || s.cfg.Keys.Admit(c) != nil {
		return grant{}, false
	}
	now := time.Now().Add(rec.Skew) // the platform's
	if latest := rec.Issued.Add(rec.Skew + lately/2); fresh && now.After(latest) {
		now = latest
	}
	life := rec.Expires.Sub(rec.Issued.Add(rec.Skew))
	if (!rec.Expires.IsZero() && life > 0 && !now.Before(rec.Expires)) || s.wasReplaced(c) {
		return grant{}, false
	}
	c = limited(c, key, rec.Skew)
	return grant{Value: c, Expires: c.Expires(), Issued: now, Life: max(0, life), Reason: renew.Adopted}, true
}

// StoreError returns why the store could not do what it was asked to do when it was last
// used, or nil if it could.
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

// failed reports that the store did not do what it was asked to do.
func (s *Source) failed(what string, err error) {
	s.setStoreError(err)
	s.cfg.Report.StoreFailed(what, err)
}
