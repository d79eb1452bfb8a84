package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// SessionPolicy configures [WithSession]. A zero field means its default. Most programs
// need no policy. This one renews sessions in the last tenth of their lifetime, and ends the
// session when the client is closed:
//
//	agrenting.WithSession(agrenting.SessionPolicy{Window: 0.1, LogoutOnClose: true})
type SessionPolicy struct {
	// Window is the fraction of a session's lifetime, just before its expiry, in which the
	// SDK renews it; default 0.2, at most 0.5. A session of 15 min is renewed 3 min
	// before its end. The window is at most 1 h, with a jitter of a tenth, so that a
	// fleet does not renew at the same time. Negative means that a session is renewed
	// only after it has expired; requests then wait.
	Window float64
	// Timeout limits one exchange; default 30 s.
	Timeout time.Duration
	// MaxExchanges limits the exchanges in 60 s, by this process and by those that share
	// its store; default 8. The platform locks an address out after 10 calls in a minute
	// (platform documentation, "Rate Limits"). Unless the last exchange failed, the first
	// exchange, scheduled renewals, and those for an expiry or a rotated key are always
	// made, and count. If the limit is reached, a session that is not proven dead
	// continues to be used, and requests that need another one wait.
	MaxExchanges int
	// LogoutOnClose ends the session at the platform when the client is closed.
	// It is ignored if sessions are shared, since others use them.
	LogoutOnClose bool
	// Store shares sessions with other processes, without keeping the key there.
	// Default: the store of [WithStore], if given. Sessions are encrypted under the API
	// key and cannot be read without it.
	Store Store
}

// WithSession exchanges the API key for sessions and authenticates requests with
// them: `Authorization: Bearer`. Sessions are renewed before they expire, even
// without traffic, and when the platform has ended them. Requests are not affected. The key
// itself is sent only to the authenticate endpoint, and no redirect of it is followed.
//
// Most programs give no policy. The last one given wins.
//
// A user token is refused with [ErrInvalidCredential], by [New] or by the first request,
// because the platform documents only the exchange of agents' keys.
//
// With [WithStore] or SessionPolicy.Store, processes share sessions, so that many
// workers that start together make one call of the authenticate endpoint, which
// locks an IP out after 10 calls a minute (platform documentation, "Rate
// Limits").
//
// If the platform gives no readable expiry, a session is used until the platform says
// that it is dead. While an exchange fails, requests that need a session wait, see
// [RetryPolicy].
func WithSession(policy ...SessionPolicy) Option {
	return func(cfg *config) error {
		p := SessionPolicy{}
		if len(policy) > 0 {
			p = policy[len(policy)-1]
		}
		if p.Timeout < 0 {
			return optionError("WithSession", "the timeout is negative")
		}
		if p.MaxExchanges < 0 {
			return optionError("WithSession", "MaxExchanges is negative; 0 means the default")
		}
		if p.Window > 0.5 {
			return optionError("WithSession", "a window of %v is more than half of a session's life", p.Window)
		}
		cfg.session = &p
		return nil
	}
}

// SessionService exchanges keys for sessions on demand. Use [Client.Sessions].
type SessionService struct{ client *Client }

// Session is a session that [SessionService.Authenticate] has obtained. Most programs only
// use Credential, for example to hand it to another program.
type Session struct {
	// Credential is the token. Its Expires is zero if the platform did not give a
	// readable time.
	Credential Credential
	// AgentID and AgentName describe the agent whose key was exchanged; empty if the
	// platform does not say.
	AgentID, AgentName string
	// Issued is the platform's clock when it responded; zero if unknown, as for a
	// response that a cache had stored.
	Issued time.Time
}

// Authenticate exchanges the client's API key for a session. It calls the
// platform each time: the endpoint allows 10 calls a minute per IP and then
// locks the IP out for 5 minutes (platform documentation, "Rate Limits"), which
// is a [*LockoutError]. It follows no redirect and retries nothing. If the platform does
// not know the path of [Routes], it tries the other documented one.
func (s *SessionService) Authenticate(ctx context.Context) (*Session, error) {
	ctx, cancel := s.client.core.limit(ctx)
	defer cancel()
	key, err := s.client.core.exchangeableKey(ctx)
	if err != nil {
		return nil, err
	}
	if key.IsZero() {
		return nil, fmt.Errorf("%w: the client is anonymous, and authenticate needs an API key", ErrNoCredential)
	}
	if key.Kind() == KindSession {
		return nil, fmt.Errorf("%w: a session token cannot be exchanged for another; authenticate needs an API key", ErrInvalidCredential)
	}
	got, err := s.client.core.endpoint.Exchange(ctx, key.c)
	if err != nil {
		return nil, err
	}
	return &Session{
		Credential: Credential{got.Credential}, AgentID: got.AgentID, AgentName: got.AgentName, Issued: got.Issued,
	}, nil
}

// Logout ends a session. It sends the client's credential: a session token ends its own
// session, and an API key ends those of its sessions that the platform chooses, possibly
// all. The platform's documents disagree on which of the two it wants. If the response to
// an attempt was lost and the next one finds that the session has ended, Logout returns
// nil.
func (s *SessionService) Logout(ctx context.Context) error {
	tr := perCallFrom(ctx).trace
	if tr == nil {
		tr = new(Trace)
		ctx = ContextWithTrace(ctx, tr)
	}
	_, err := s.client.Do(ctx, http.MethodDelete, s.client.core.routes.Logout, nil, new(deleted))
	if errors.Is(err, ErrUnauthorized) && tr.unknown && s.client.core.sessionEnded(ctx, tr) {
		return nil
	}
	return err
}

// sessionEnded reports whether a request was last sent with a session, and the platform
// says that it has ended.
func (c *core) sessionEnded(ctx context.Context, tr *Trace) bool {
	if tr.generation == nil || tr.Kind != KindSession {
		return false
	}
	return platformCalls{c}.SessionDead(ctx, tr.generation.Value.cred.c, false)
}
