package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/session"
)

// sessionKeys implements session.Keys over a source of keys. What a source can do
// beyond yielding a key is found by optional interfaces.
type sessionKeys struct {
	core   *core
	source CredentialSource
}

// Key implements session.Keys.
func (k sessionKeys) Key(ctx context.Context) (secret.Credential, error) {
	return k.checked(credentialFrom(ctx, k.source))
}

// Successor implements session.Keys.
func (k sessionKeys) Successor(ctx context.Context, refused secret.Credential) (secret.Credential, error) {
	return k.checked(refreshFrom(ctx, k.source, Credential{refused}))
}

func (k sessionKeys) checked(key Credential, err error) (secret.Credential, error) {
	if err != nil {
		return secret.Credential{}, err
	}
	return key.c, k.core.checkKey(key)
}

// Lineage implements session.Keys.
func (k sessionKeys) Lineage(key secret.Credential) string {
	if l, ok := k.source.(interface{ lineage(key Credential) string }); ok {
		return l.lineage(Credential{key})
	}
	return record.LineageOf(key)
}

// Recheck implements session.Keys.
func (k sessionKeys) Recheck() time.Duration { return recheckInterval(k.source) }

// Admit implements session.Keys.
func (k sessionKeys) Admit(c secret.Credential) error { return k.core.admit(Credential{c}) }

// checkKey checks a key before it is exchanged or kept in a store, as any credential is
// checked before it is sent.
func (c *core) checkKey(key Credential) error {
	option := "WithStore"
	switch {
	case c.cfg.session != nil:
		option = "WithSession"
	case c.cfg.rotation != nil:
		option = "WithRotation"
	}
	switch kind := key.Kind(); {
	case kind == KindSession:
		return fmt.Errorf("%w: %s requires an API key, but the credential is a session token. "+
			"Pass the API key, or remove %s", ErrInvalidCredential, option, option)
	case kind == KindUserToken && option != "WithStore":
		return fmt.Errorf("%w: %s requires the API key of an agent, but the credential is a user token. "+
			"Pass an API key, or remove %s: a user token is sent unchanged. If this is the API key of an agent although it begins with ap_, "+
			"make it with APIKey, or set %s to api_key", ErrInvalidCredential, option, option, environ.CredentialType)
	}
	return c.admit(key)
}

// exchangeableKey returns the credential that can be exchanged for sessions: with
// [WithSession] the one behind the sessions, else the one in use.
func (c *core) exchangeableKey(ctx context.Context) (Credential, error) {
	if c.sessions == nil {
		l, err := c.creds.get(ctx)
		if err != nil {
			return Credential{}, err
		}
		return l.Value.cred, nil
	}
	key, err := c.sessions.Key(ctx)
	return Credential{key}, err
}

// sessionCache is the cache of sessions of the keys that src yields. from is what name means.
func (c *core) sessionCache(name string, from any, src CredentialSource) *credentialCache {
	cfg := session.Config{
		Endpoint: c.endpoint, Platform: platformCalls{c}, Keys: sessionKeys{core: c, source: src}, Report: c,
		MaxExchanges: c.cfg.session.MaxExchanges,
	}
	if store := c.cfg.sessionStore(); store != nil {
		cfg.Records = c.recordConfig(store, "")
	}
	c.sessions = session.New(cfg)
	k := c.newRenewingCache(name, from, true, renew.Config[*preparedCredential]{
		Fetch:     c.fetchSession,
		Timeout:   c.cfg.session.Timeout,
		Window:    c.cfg.session.Window,
		RetryAt:   retryAt,
		Proactive: c.cfg.session.Window >= 0,
	})
	k.exchanges = true
	return k
}

// fetchSession is the engine's source of sessions.
func (c *core) fetchSession(ctx context.Context, q renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error) {
	in := renew.Query[secret.Credential]{
		Reason: q.Reason, HasRejected: q.HasRejected, Proven: q.Proven, HasCurrent: q.HasCurrent,
	}
	if q.HasRejected {
		in.Rejected = q.Rejected.cred.c
	}
	if q.HasCurrent {
		in.Current = q.Current.cred.c
	}
	g, err := c.sessions.Fetch(ctx, in)
	if p, ok := errors.AsType[*session.PausedError](err); ok && p.Locked {
		err = &LockoutError{RetryAt: p.Until, Err: err}
	}
	if err != nil {
		return renew.Grant[*preparedCredential]{}, err
	}
	out := renew.Grant[*preparedCredential]{Value: q.Current, Expires: g.Expires, Issued: g.Issued, Life: g.Life, Recheck: g.Recheck, Reason: g.Reason}
	same := q.HasCurrent && g.Value.Equal(in.Current) && g.Value.Expires().Equal(in.Current.Expires())
	if !same || q.Current.gate.Over() {
		out.Value, err = c.prepare(Credential{g.Value}, provenance(session.Lately(g)))
	}
	return out, err
}

// StoreFailed implements session.Report. The process continues with what it has in
// memory.
func (c *core) StoreFailed(what string, err error) {
	c.emit(slog.LevelWarn, Event{Time: time.Now(), Type: EventStoreFailed, Reason: what, Err: err})
}

// logoutTimeout bounds the logout of Close.
const logoutTimeout = 5 * time.Second

// logout ends only the session in use at the platform. With the key,
// which the newer of the platform's documents asks for, the sessions of other
// processes would also end. An error is ignored: the session expires anyway.
func (c *core) logout() {
	if p := c.cfg.session; p == nil || !p.LogoutOnClose || c.cfg.sessionStore() != nil || c.creds.latest().IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	_, _ = platformCalls{c}.direct(ctx, direct{method: http.MethodDelete, path: c.routes.Logout, purpose: "logout", cred: c.creds.latest()})
}
