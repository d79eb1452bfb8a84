package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/wire"
)

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
	key, err := s.client.core.key(ctx)
	if err != nil {
		return nil, err
	}
	if key.IsZero() {
		return nil, fmt.Errorf("%w: the client is anonymous, and authenticate needs an API key", ErrNoCredential)
	}
	if key.Kind() == KindSession {
		return nil, fmt.Errorf("%w: a session token cannot be exchanged for another; authenticate needs an API key", ErrInvalidCredential)
	}
	return s.client.core.exchange(ctx, key)
}

// Logout ends the session: with a session token that one, with an API key what
// the platform ends for it. The platform's documents disagree on which of the
// two it wants; the client's credential is sent.
func (s *SessionService) Logout(ctx context.Context) error {
	_, err := s.client.Do(ctx, http.MethodDelete, s.client.core.routes.Logout, nil, new(acknowledged))
	return err
}

// lockout is how long the platform locks an IP out when it does not say
// (platform documentation, "Rate Limits").
const lockout = 5 * time.Minute

// key is the credential that can be exchanged for sessions: with [WithSession]
// the one behind the sessions, else the one in use.
func (c *core) key(ctx context.Context) (Credential, error) {
	if c.keys == nil {
		l, err := c.creds.get(ctx)
		if err != nil {
			return Credential{}, err
		}
		return l.Value.cred, nil
	}
	key, err := c.keys.Credential(ctx)
	if err != nil {
		return Credential{}, err
	}
	return key, c.checkKey(key)
}

// exchange buys a session. When the platform does not know the path, the other
// documented form is tried once, and remembered if it is the right one. What is
// remembered may be wrong another day, as when a gateway knew neither for a while.
func (c *core) exchange(ctx context.Context, key Credential) (*Session, error) {
	path := c.routes.Authenticate
	other, swapped := otherAuthenticatePath(path), false
	if other != "" && c.otherPath.Load() {
		path, other, swapped = other, path, true
	}
	s, err := c.exchangeAt(ctx, path, key)
	if other == "" || !errors.Is(err, ErrRouteNotFound) {
		return s, err
	}
	found, oerr := c.exchangeAt(ctx, other, key)
	if errors.Is(oerr, ErrRouteNotFound) {
		return nil, err
	}
	c.otherPath.Store(!swapped)
	return found, oerr
}

// otherAuthenticatePath is the other of the two documented forms, "" for a path
// that is neither.
func otherAuthenticatePath(path string) string {
	const long, short = "/api/v1/auth/authenticate", "/auth/authenticate"
	switch path {
	case long:
		return short
	case short:
		return long
	default:
		return ""
	}
}

// exchangeAt makes one call of the authenticate endpoint. The key goes into the
// header for API keys, a user token too: the platform's example has it there.
func (c *core) exchangeAt(ctx context.Context, path string, key Credential) (*Session, error) {
	a, err := c.direct(ctx, direct{method: http.MethodPost, path: path, cred: key, keyHeader: true})
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return &wire.CallError{Method: a.answer.Method, Path: a.answer.Path, Err: err} }
	if !a.ok() {
		e := a.apiError()
		if a.status == http.StatusTooManyRequests {
			after := e.RetryAfter
			if after <= 0 {
				after = lockout
			}
			return nil, &LockoutError{RetryAt: time.Now().Add(after), Err: e}
		}
		return nil, e
	}
	if a.jsonErr != nil {
		return nil, fail(fmt.Errorf("%w: %w", ErrMalformedResponse, a.jsonErr))
	}
	s, err := decodeSession(a.answer.Envelope.Data, key)
	if err != nil {
		return nil, fail(err)
	}
	s.Issued = a.answer.Sent()
	return s, nil
}

// decodeSession reads the documented shapes: "token" with "agent" in the
// platform's API overview, "session_token" with "expires_at" in its live
// answers. An expiry that is missing or cannot be read does not cost the token.
func decodeSession(data json.RawMessage, key Credential) (*Session, error) {
	var o wire.Object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("%w: the data is not an object", ErrMalformedResponse)
	}
	token := o.String("session_token", "token", "access_token")
	if token == "" {
		return nil, fmt.Errorf("%w: no token under session_token or token", ErrMalformedResponse)
	}
	s := &Session{Credential: exchangedSession(token, o.Time("expires_at"), key)}
	if err := s.Credential.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedResponse, err)
	}
	agent := o.Object("agent")
	s.AgentID, s.AgentName = agent.String("id"), agent.String("name")
	if s.AgentID == "" {
		s.AgentID = o.String("agent_id")
	}
	return s, nil
}
