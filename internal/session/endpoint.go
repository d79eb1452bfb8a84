package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Endpoint is the authenticate endpoint. It is safe for concurrent use.
type Endpoint struct {
	platform Platform
	path     string
	// swapped is set while the platform knows the other documented path but not the
	// configured one.
	swapped atomic.Bool
	// failed is set while the last exchange has failed. Its connection may be dead, or
	// may lead to a faulty node.
	failed atomic.Bool
}

// NewEndpoint returns the endpoint at path.
func NewEndpoint(path string, p Platform) *Endpoint { return &Endpoint{platform: p, path: path} }

// Session is a session that was obtained by an exchange.
type Session struct {
	Credential secret.Credential
	// AgentID and AgentName describe the agent that the exchanged key belongs to;
	// empty if the platform does not say.
	AgentID, AgentName string
	// Issued is the platform's time when it responded; zero if it is not known, as for
	// a response from a cache.
	Issued time.Time
}

// Exchange exchanges a key for a session. If the platform does not know the path,
// Exchange tries the other documented form once, and remembers it if it works. The
// remembered path may later turn out to be wrong, for example because a gateway knew
// neither path for some time.
func (e *Endpoint) Exchange(ctx context.Context, key secret.Credential) (Session, error) {
	path := e.path
	other, swapped := otherPath(path), false
	if other != "" && e.swapped.Load() {
		path, other, swapped = other, path, true
	}
	s, err := e.exchangeAt(ctx, path, key)
	if other == "" || !errors.Is(err, wire.ErrRouteNotFound) {
		return s, err
	}
	found, oerr := e.exchangeAt(ctx, other, key)
	if errors.Is(oerr, wire.ErrRouteNotFound) {
		return Session{}, err
	}
	e.swapped.Store(!swapped)
	return found, oerr
}

// otherPath returns the other one of the two documented paths, or "" if path is
// neither (platform documentation, "Authentication" and "API overview").
func otherPath(path string) string {
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

func (e *Endpoint) exchangeAt(ctx context.Context, path string, key secret.Credential) (Session, error) {
	a, err := e.platform.Authenticate(ctx, path, key, e.failed.Load())
	e.failed.Store(err != nil)
	if err != nil {
		return Session{}, err
	}
	s, err := decode(a, key)
	if err != nil && !a.FromPlatform() {
		err = fmt.Errorf("%w, so %w", err, wire.ErrNotPlatform)
	}
	if err != nil {
		return Session{}, &wire.CallError{Method: a.Method, Path: a.Path, Err: fmt.Errorf("%w: %w", wire.ErrMalformed, err)}
	}
	s.Issued = a.Sent()
	return s, nil
}

// decode reads the documented forms: "token" with "agent" in the platform's API
// overview, and "session_token" with "expires_at" in its live responses. If the expiry
// is missing or cannot be read, the token is still used.
func decode(a *wire.Answer, key secret.Credential) (Session, error) {
	if a.JSONErr != nil {
		return Session{}, a.JSONErr
	}
	var o wire.Object
	if err := json.Unmarshal(a.Envelope.Data, &o); err != nil {
		return Session{}, errors.New("the data is not an object")
	}
	token := o.String("session_token", "token", "access_token")
	if token == "" {
		return Session{}, errors.New("no token under session_token or token")
	}
	s := Session{Credential: secret.NewSession(token, o.Time("expires_at"), key)}
	if problem := s.Credential.Problem(); problem != "" {
		return Session{}, fmt.Errorf("%w: the session token %s", secret.ErrInvalidCredential, problem)
	}
	agent := o.Object("agent")
	s.AgentID, s.AgentName = agent.String("id"), agent.String("name")
	if s.AgentID == "" {
		s.AgentID = o.String("agent_id")
	}
	return s, nil
}
