package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// SessionPolicy tunes [WithSession]. Zero fields mean the defaults.
type SessionPolicy struct {
	// Window is the fraction of a session's lifetime before its end in which
	// it is renewed ahead; default 0.2, at most 0.5. It comes to no more than
	// 1 h, and is spread by a tenth either way, so that a fleet does not renew
	// in step. Negative means never ahead: requests then wait when a session
	// has expired.
	Window float64
	// Timeout bounds one exchange; default 30 s.
	Timeout time.Duration
	// LogoutOnClose ends the session at the platform when the client is closed.
	// It is ignored if sessions are shared, since others use them.
	LogoutOnClose bool
	// Store shares sessions with other processes, without keeping the key there.
	// Default: that of [WithStore], if there is one. In it, sessions are encrypted
	// under the API key and of no use without it.
	Store Store
}

// WithSession exchanges the API key for sessions and authenticates requests with
// them: `Authorization: Bearer`. Sessions are renewed before they expire, also
// without traffic, and after a 401; requests notice nothing. The key itself is
// sent to the authenticate endpoint only, which follows no redirect.
//
// Most programs give no policy. If there are several, the last one wins.
//
// With [WithStore] or SessionPolicy.Store, processes share sessions, so that many
// workers that start together make one call of the authenticate endpoint, which
// locks an IP out after 10 calls a minute (platform documentation, "Rate
// Limits").
//
// If the platform gives no readable expiry, a session is used until it is
// rejected.
func WithSession(policy ...SessionPolicy) Option {
	return func(cfg *config) error {
		p := SessionPolicy{}
		if len(policy) > 0 {
			p = policy[len(policy)-1]
		}
		if p.Timeout < 0 {
			return optionError("WithSession", "the timeout is negative")
		}
		if p.Window > 0.5 {
			return optionError("WithSession", "a window of %v is more than half of a session's life", p.Window)
		}
		cfg.session = &p
		return nil
	}
}

// exchanger is the source of sessions: it buys them with the key that keys
// yields, and looks at the store first.
type exchanger struct {
	core *core
	keys CredentialSource
	// recheck is how often keys is looked at for another key; nil means only
	// when a session is needed.
	recheck func() time.Duration

	mu     sync.Mutex
	bought Credential   // the key that the session in use was bought with
	left   []Credential // see hasLeft
	last   renew.Grant[*stamp]
	// shared is the record of the sessions of sharedKey.
	shared    *record.Slot[record.Session]
	sharedKey Credential
	holder    string // random name of this process in leases
	// storeErr is of the last attempt to use the store.
	storeErr error
}

// fetch implements the engine's source.
func (x *exchanger) fetch(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error) {
	key, err := x.key(ctx)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	// Whoever has a renewal made because of another key may be late: it may have been
	// taken up meanwhile.
	if (q.Reason == renew.Recheck || q.Reason == renew.Manual) && q.HasCurrent && !q.HasRejected {
		if g, ok := x.unchanged(key, q.Current); ok {
			return g, nil
		}
	}
	g, err := x.obtain(ctx, q, &key)
	for n := 0; n < maxKeyChanges && errors.Is(err, ErrUnauthorized); n++ {
		// The key was refused, not a session: it may have been replaced in its
		// source just now.
		next, kerr := x.otherKey(ctx, key)
		if kerr != nil {
			return g, errors.Join(err, kerr)
		}
		if next.Equal(key) {
			return g, err
		}
		key = next
		g, err = x.obtain(ctx, q, &key)
	}
	if err != nil {
		return g, err
	}
	if x.recheck != nil {
		g.Recheck = x.recheck()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.last.Value; old != nil && key.Equal(x.bought) && !sameStamp(old, g.Value) {
		x.left = append(x.left[max(0, len(x.left)+1-maxLeft):], old.cred)
	}
	x.bought, x.last = key, g
	return g, nil
}

// maxLeft bounds how many replaced sessions are remembered.
const maxLeft = 8

// hasLeft reports whether a session was in use here and has been replaced by
// another of its key: a store that cannot be written may still have it.
func (x *exchanger) hasLeft(session Credential) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.left, session.Equal)
}

// maxKeyChanges bounds how many successors of a refused key are tried in one
// fetch. A key may be replaced while its predecessor is.
const maxKeyChanges = 3

// unchanged serves a look at the key: while it is the one that bought the session,
// there is nothing to exchange.
func (x *exchanger) unchanged(key Credential, current *stamp) (renew.Grant[*stamp], bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.last.Value == nil || !key.Equal(x.bought) || !sameStamp(current, x.last.Value) {
		return renew.Grant[*stamp]{}, false
	}
	g := x.last
	if x.recheck != nil {
		g.Recheck = x.recheck()
	}
	g.Issued = time.Time{} // that was then; it would be taken for a skewed clock
	return g, true
}

func (x *exchanger) key(ctx context.Context) (Credential, error) {
	key, err := x.keys.Credential(ctx)
	if err != nil {
		return Credential{}, err
	}
	return key, x.core.checkKey(key)
}

// otherKey asks for a successor of a key that the platform refused.
func (x *exchanger) otherKey(ctx context.Context, refused Credential) (Credential, error) {
	r, ok := x.keys.(Refresher)
	if !ok {
		return x.key(ctx)
	}
	key, err := r.Refresh(ctx, refused)
	if err != nil {
		return Credential{}, err
	}
	return key, x.core.checkKey(key)
}

// checkKey holds the key that buys sessions against what any credential must
// pass.
func (c *core) checkKey(key Credential) error {
	if key.Kind() == KindSession {
		return fmt.Errorf("%w: WithSession needs an API key to exchange, and there is a session token instead of one", ErrInvalidCredential)
	}
	return c.admit(key)
}

// obtain gets a session for key: from the store if another process has obtained
// a usable one, else from the platform.
//
// If the key is replaced while another process is waited for, *key is the new one.
func (x *exchanger) obtain(ctx context.Context, q renew.Query[*stamp], key *Credential) (renew.Grant[*stamp], error) {
	if x.core.cfg.sessionStore() == nil {
		return x.buy(ctx, *key)
	}
	dead := "" // the token that is known to be
	usable := func(rec record.Session) (renew.Grant[*stamp], bool) {
		g, ok := x.adopt(rec, q, *key)
		if ok = ok && rec.Token != dead; ok && x.deadToo(ctx, q, g.Value) {
			dead, ok = rec.Token, false
		}
		return g, ok
	}
	for {
		g, err := x.obtainShared(ctx, *key, usable)
		replaced, ok := errors.AsType[*keyReplacedError](err)
		if !ok {
			return g, err
		}
		*key = replaced.by
	}
}

// deadToo reports whether a session of the store met the same end as the one
// that was rejected, as when all sessions of a key are ended at once. It costs a
// call, but spares the caller a 401 that no other session could have mended.
func (x *exchanger) deadToo(ctx context.Context, q renew.Query[*stamp], s *stamp) bool {
	if !q.HasRejected {
		return false
	}
	a, err := x.core.direct(ctx, direct{method: http.MethodGet, path: x.core.routes.Verify, cred: s.cred})
	return err == nil && a.status == http.StatusUnauthorized
}

// failed reports that the store did not do what it was asked for.
func (x *exchanger) failed(what string, err error) {
	x.setStoreError(err)
	x.core.storeFailed(what, err)
}

func (x *exchanger) setStoreError(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.storeErr = err
}

func (x *exchanger) storeError() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.storeErr
}

// adopt takes the session of a record if it serves the query: not the one that
// was rejected or is about to be replaced, and not expired.
func (x *exchanger) adopt(rec record.Session, q renew.Query[*stamp], key Credential) (renew.Grant[*stamp], bool) {
	var none renew.Grant[*stamp]
	if rec.Token == "" {
		return none, false
	}
	cred := exchangedSession(rec.Token, rec.Expires, key)
	s, err := x.core.stamp(cred)
	if err != nil || (q.HasCurrent && sameStamp(s, q.Current)) || (q.HasRejected && sameStamp(s, q.Rejected)) {
		return none, false
	}
	now := time.Now().Add(rec.Skew) // the platform's
	life := rec.Expires.Sub(rec.Issued.Add(rec.Skew))
	if (!rec.Expires.IsZero() && life > 0 && !now.Before(rec.Expires)) || x.hasLeft(cred) {
		return none, false
	}
	return renew.Grant[*stamp]{Value: s, Expires: rec.Expires, Issued: now, Life: max(0, life), Reason: renew.Adopted}, true
}

type pausedError struct {
	at      time.Time
	err     error
	refused bool
}

// Is matches [ErrUnauthorized] when the platform had refused the key: it may
// have been replaced, which each process finds out for itself.
func (e *pausedError) Is(target error) bool { return e.refused && target == ErrUnauthorized }

func (e *pausedError) Error() string { return e.err.Error() }
func (e *pausedError) Unwrap() error { return e.err }

// buy makes the exchange.
func (x *exchanger) buy(ctx context.Context, key Credential) (renew.Grant[*stamp], error) {
	s, err := x.core.exchange(ctx, key)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	st, err := x.core.stamp(s.Credential)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	return renew.Grant[*stamp]{Value: st, Expires: s.Credential.Expires(), Issued: s.Issued}, nil
}

// retryAt reads from a source's error when it wants to be asked again.
func retryAt(err error) time.Time {
	if l, ok := errors.AsType[*LockoutError](err); ok {
		return l.RetryAt
	}
	if p, ok := errors.AsType[*pausedError](err); ok {
		return p.at
	}
	if a, ok := errors.AsType[*APIError](err); ok && a.RetryAfter > 0 {
		return time.Now().Add(min(a.RetryAfter, maxSharedPause))
	}
	return time.Time{}
}

// sessionKeeper is the keeper of sessions bought with what src yields.
func (c *core) sessionKeeper(name string, src CredentialSource) *keeper {
	x := &exchanger{core: c, keys: src, holder: wire.NewUUID()}
	if r, ok := src.(interface{ recheck() time.Duration }); ok {
		x.recheck = r.recheck
	}
	c.keys, c.exchanger = src, x
	k := newRenewingKeeper(name, renew.Config[*stamp]{
		Fetch:     x.fetch,
		Timeout:   c.cfg.session.Timeout,
		Window:    c.cfg.session.Window,
		RetryAt:   retryAt,
		Proactive: c.cfg.session.Window >= 0,
		Observe:   c.observe,
	})
	k.costly = true
	return k
}

// storeFailed reports that sessions cannot be shared for the moment; the
// process goes on with one of its own.
func (c *core) storeFailed(what string, err error) {
	c.emit(slog.LevelWarn, Event{Time: time.Now(), Type: EventStoreFailed, Reason: what, Err: err})
}

// logoutTimeout bounds the logout of Close.
const logoutTimeout = 5 * time.Second

// logout ends the session in use at the platform, and that one alone: with the
// key, which the newer of the platform's documents wants for it, those of other
// processes would end too. It is best effort, the session dies by itself.
func (c *core) logout() {
	if p := c.cfg.session; p == nil || !p.LogoutOnClose || c.cfg.sessionStore() != nil || c.creds.latest().IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	_, _ = c.direct(ctx, direct{method: http.MethodDelete, path: c.routes.Logout, cred: c.creds.latest()})
}
