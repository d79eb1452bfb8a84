package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
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
// is a [*LockoutError]. It follows no redirect and repeats nothing.
func (s *SessionService) Authenticate(ctx context.Context) (*Session, error) {
	key, err := s.client.core.key(ctx)
	if err != nil {
		return nil, err
	}
	if key.Kind() == KindSession {
		return nil, fmt.Errorf("%w: a session token cannot be exchanged for another; authenticate needs an API key", ErrInvalidCredential)
	}
	return s.client.core.exchangeAt(ctx, s.client.core.routes.Authenticate, key)
}

// Logout ends the session: with a session token that one, with an API key what
// the platform ends for it. The platform's documents disagree on which of the
// two it wants; the client's credential is sent.
func (s *SessionService) Logout(ctx context.Context) error {
	_, err := s.client.Do(ctx, http.MethodDelete, s.client.core.routes.Logout, nil, nil)
	return err
}

// maxExchangeBody bounds the answer of the authenticate endpoint.
const maxExchangeBody = 64 << 10

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

// sendKey sends a request without a body and with key in the header for API
// keys, a user token too: the platform's examples of the calls around sessions
// have it there. It goes straight to the base: no retry, no redirect, no other
// credential.
func (c *core) sendKey(ctx context.Context, method, path string, key Credential) (*http.Response, error) {
	u, err := c.url(path, nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	req.Header[c.cfg.keyHeader] = []string{key.Reveal()}
	resp, err := c.transport.base.RoundTrip(req)
	if err != nil {
		return nil, &callError{method: method, path: u.Path, err: withoutURL(err)}
	}
	resp.Request = &http.Request{Method: method, URL: u}
	return resp, nil
}

// exchangeAt makes one call of the authenticate endpoint.
func (c *core) exchangeAt(ctx context.Context, path string, key Credential) (*Session, error) {
	resp, err := c.sendKey(ctx, http.MethodPost, path, key)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	body, err := readBounded(resp.Body, maxExchangeBody)
	if err != nil {
		return nil, &callError{method: resp.Request.Method, path: resp.Request.URL.Path, err: err}
	}
	return readExchange(resp, body, key)
}

func readExchange(resp *http.Response, body []byte, key Credential) (*Session, error) {
	req := resp.Request
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header, Attempts: 1}
	r.readHeader(time.Now())
	env, derr := decodeEnvelope(body)
	if resp.StatusCode < 200 || resp.StatusCode >= 300 || len(env.errors) > 0 {
		e := newAPIError(r, env, nil, key.Reveal())
		e.Method, e.Path = req.Method, req.URL.Path
		switch {
		case resp.StatusCode == http.StatusTooManyRequests:
			after := r.Rate.RetryAfter
			if after <= 0 {
				after = lockout
			}
			return nil, &LockoutError{RetryAt: time.Now().Add(after), Err: e}
		case resp.StatusCode >= 300 && resp.StatusCode < 400:
			e.cause = fmt.Errorf("%w: the key follows no redirect; make the platform's canonical URL the base URL", ErrForeignOrigin)
		}
		return nil, e
	}
	if derr != nil {
		return nil, &callError{method: req.Method, path: req.URL.Path, err: fmt.Errorf("%w: %w", ErrMalformedResponse, errNotJSON)}
	}
	s, err := decodeSession(env.data, key)
	if err != nil {
		return nil, &callError{method: req.Method, path: req.URL.Path, err: err}
	}
	s.Issued = dateOf(resp.Header)
	return s, nil
}

// withoutURL drops what net/http says about the URL from an error.
func withoutURL(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed before an answer came: %w", err)
	}
	return err
}

// decodeSession reads the documented shapes: "token" with "agent" in the
// platform's API overview, "session_token" with "expires_at" in its live
// answers. An expiry that is missing or cannot be read does not cost the token.
func decodeSession(data json.RawMessage, key Credential) (*Session, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: the data is not an object", ErrMalformedResponse)
	}
	token := firstString(m, "session_token", "token", "access_token")
	if token == "" {
		return nil, fmt.Errorf("%w: no token under session_token or token", ErrMalformedResponse)
	}
	s := &Session{Credential: exchangedSession(token, expiryOf(m), key)}
	if err := s.Credential.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedResponse, err)
	}
	var agent map[string]json.RawMessage
	if json.Unmarshal(m["agent"], &agent) == nil {
		s.AgentID, s.AgentName = firstString(agent, "id"), firstString(agent, "name")
	}
	if s.AgentID == "" {
		s.AgentID = firstString(m, "agent_id")
	}
	return s, nil
}

func firstString(m map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		var v string
		if json.Unmarshal(m[name], &v) == nil && strings.TrimSpace(v) != "" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// expiryOf reads expires_at, an ISO 8601 time or seconds since 1970. Zero means
// unknown.
func expiryOf(m map[string]json.RawMessage) time.Time {
	if t, err := time.Parse(time.RFC3339, firstString(m, "expires_at")); err == nil {
		return t
	}
	if t, err := time.Parse("2006-01-02T15:04:05.999999999", firstString(m, "expires_at")); err == nil {
		return t // ISO 8601 without a zone; the platform writes UTC
	}
	var unix int64
	if json.Unmarshal(m["expires_at"], &unix) == nil && unix > 0 && unix < 1<<40 {
		return time.Unix(unix, 0)
	}
	return time.Time{}
}
