package agrenting

import (
	"context"
	"fmt"
	"net/http"
	"time"
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

// SessionService exchanges keys for sessions by hand. Use [Client.Sessions].
type SessionService struct{ client *Client }

// Session is a session token and what came with it.
type Session struct {
	// Credential is the token; its Expires is zero when the platform did not
	// say, or not readably.
	Credential Credential
	// AgentID and AgentName tell whose key was exchanged, where the platform
	// says so.
	AgentID, AgentName string
	// Issued is the platform's clock when it answered, zero when unknown.
	Issued time.Time
}

// Authenticate exchanges the client's API key for a session. It calls the
// platform each time: the endpoint allows 10 calls a minute per IP and then
// locks the IP out for 5 minutes (platform documentation, "Rate Limits"), which
// is a [*LockoutError]. It follows no redirect and repeats nothing, but for the
// other documented path where the platform does not know that of [Routes].
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

// Logout ends the session: with a session token that one, with an API key what
// the platform ends for it. The platform's documents disagree on which of the
// two it wants; the client's credential is sent.
func (s *SessionService) Logout(ctx context.Context) error {
	_, err := s.client.Do(ctx, http.MethodDelete, s.client.core.routes.Logout, nil, new(acknowledged))
	return err
}
