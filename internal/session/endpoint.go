package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Endpoint is the authenticate endpoint. It is safe for concurrent use.
type Endpoint struct {
	platform Platform
	path     string
	// swapped is set while the platform serves the other documented path but not the
	// configured one.
	swapped atomic.Bool
	// failed is set while the last exchange has failed. Its connection may be dead, or
	// may lead to a faulty node.
	failed atomic.Bool
}

// NewEndpoint returns the endpoint at path.
func NewEndpoint(path string, p Platform) *Endpoint { return &Endpoint{platform: p, path: path} }

// Session is a session that was obtained by an exchange, such as {Credential: c,
// AgentName: "Scribe"}. Most programs only read Credential.
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
// Exchange tries the other documented form once, and remembers it if the platform serves
// it. If something else responds at a remembered path, Exchange tries the configured path
// once. For example, a gateway may have known neither path for some time.
func (e *Endpoint) Exchange(ctx context.Context, key secret.Credential) (Session, error) {
	first, second := e.path, otherPath(e.path)
	swapped := second != "" && e.swapped.Load()
	if swapped {
		first, second = second, first
	}
	s, a, err := e.exchangeAt(ctx, first, key)
	if second == "" || a == nil || serves(a, err) || (!swapped && !errors.Is(err, wire.ErrRouteNotFound)) {
		return s, err
	}
	found, a, oerr := e.exchangeAt(ctx, second, key)
	switch {
	case serves(a, oerr):
		e.swapped.Store(!swapped)
	case errors.Is(oerr, wire.ErrRouteNotFound):
		return Session{}, err
	}
	return found, oerr
}

// serves reports whether the outcome of an exchange shows that the platform serves the
// path. Any other response may come from a gateway, or from a route for pages.
func serves(a *wire.Answer, err error) bool {
	if err == nil {
		return true
	}
	return a != nil && a.FromPlatform() && (a.Status == http.StatusUnauthorized ||
		a.Status == http.StatusTooManyRequests || a.Status >= http.StatusInternalServerError)
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

// exchangeAt makes the exchange at path. With an error, the answer is nil if there was no
// response.
func (e *Endpoint) exchangeAt(ctx context.Context, path string, key secret.Credential) (Session, *wire.Answer, error) {
	a, err := e.platform.Authenticate(ctx, path, key, e.failed.Load())
	e.failed.Store(err != nil)
	if err != nil {
		return Session{}, a, err
	}
	s, err := decode(a, key)
	if err != nil && !a.FromPlatform() {
		err = fmt.Errorf("%w, so %w", err, wire.ErrNotPlatform)
	}
	if err != nil {
		return Session{}, a, &wire.CallError{Method: a.Method, Path: a.Path, Err: fmt.Errorf("%w: %w", wire.ErrMalformed, err)}
	}
	s.Issued = a.Sent()
	return s, a, nil
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
