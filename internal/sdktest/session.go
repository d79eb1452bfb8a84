package sdktest

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
)

// RouteAuthenticate is the route that exchanges a key for a session.
const RouteAuthenticate = "POST /api/v1/auth/authenticate"

// SessionWorld is a platform with one agent, and clients that use sessions.
type SessionWorld struct {
	T      *testing.T
	Server *agrentingtest.Server
	Agent  *agrentingtest.Agent
	Key    agrentingtest.Key
}

// NewSessionWorld starts a platform in memory, so that it works inside a bubble.
func NewSessionWorld(t *testing.T, opts ...agrentingtest.Option) *SessionWorld {
	t.Helper()
	opts = append([]agrentingtest.Option{agrentingtest.InMemory()}, opts...)
	w := &SessionWorld{T: t, Server: agrentingtest.NewServer(opts...)}
	t.Cleanup(w.Server.Close)
	w.Agent = w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "worker"})
	w.Key = w.Server.NewKey(w.Agent.ID)
	return w
}

// Client returns a client that uses sessions.
func (w *SessionWorld) Client(opts ...agrenting.Option) *agrenting.Client {
	w.T.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
		agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithSession(),
	}, opts...)...)
	require.NoError(w.T, err)
	w.T.Cleanup(func() { assert.NoError(w.T, c.Close()) })
	return c
}

// Call makes a request with a client.
func (w *SessionWorld) Call(c *agrenting.Client) error {
	_, err := c.Do(w.T.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	return err
}

// Exchanges counts the calls of the authenticate endpoint.
func (w *SessionWorld) Exchanges() int { return w.Server.Count(RouteAuthenticate) }

// RouteVerify is the route with which the SDK asks about a credential.
const RouteVerify = "GET " + verifyPath

// Unauthorized counts the requests that the platform rejected with 401, except those
// with which the SDK asks about a credential.
func (w *SessionWorld) Unauthorized() (n int) {
	for _, r := range w.Server.Requests() {
		if r.Status == http.StatusUnauthorized && r.Path != verifyPath {
			n++
		}
	}
	return n
}

// KeySources are the ways to obtain the key that is exchanged for sessions.
var KeySources = map[string]func(w *SessionWorld) []agrenting.Option{
	"fixed key": func(*SessionWorld) []agrenting.Option { return nil },
	"key file": func(w *SessionWorld) []agrenting.Option {
		path := filepath.Join(w.T.TempDir(), "key")
		require.NoError(w.T, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
		return []agrenting.Option{agrenting.WithCredentialSource(agrenting.FileSource(path))}
	},
	"store": func(w *SessionWorld) []agrenting.Option {
		return []agrenting.Option{
			agrenting.WithStore(StoreWith(agrenting.APIKey(w.Key.Secret))),
			agrenting.WithRotation(agrenting.RotationPolicy{AgentID: w.Agent.ID, Every: -1}),
		}
	},
	"store that is not watched": func(w *SessionWorld) []agrenting.Option {
		return []agrenting.Option{agrenting.WithStore(&BreakableStore{Store: StoreWith(agrenting.APIKey(w.Key.Secret))})}
	},
}

// RenewSession ends the current session of a client and makes the client obtain another
// one. If the session is young, this takes up to 5 s.
func RenewSession(ctx context.Context, srv *agrentingtest.Server, c *agrenting.Client) error {
	a, err := c.Authorize(ctx, c.Status().Origin)
	if err != nil {
		return err
	}
	ended := SecretOf(a.Header())
	srv.RevokeSession(ended)
	for SecretOf(a.Header()) == ended {
		if a, err = a.Rejected(ctx); err != nil {
			return err
		}
	}
	return nil
}

// SessionSlot returns the record in which a client shares the sessions of a key. If the
// client has not made a request yet, its environment is the configured one.
func SessionSlot(c *agrenting.Client, store agrenting.Store, key agrenting.Credential) *record.Slot[record.Session] {
	s := c.Status()
	return record.Sessions(record.Config{
		Store: recordStore{store}, Mismatch: mismatch,
		Of: record.Identity{Origin: s.Origin, Environment: string(s.Environment)},
	}, record.LineageOf(SecretCredential(key)), SecretCredential(key))
}

// Dial makes a handshake as a library with a separate network stack does, and returns
// the status.
func (w *SessionWorld) Dial(a *agrenting.Authorization) int {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), http.MethodGet, w.Server.URL+"/api/v1/agents", http.NoBody)
	require.NoError(w.T, err)
	req.Header = a.Header()
	resp, err := w.Server.Transport().RoundTrip(req)
	require.NoError(w.T, err)
	_ = resp.Body.Close()
	return resp.StatusCode
}
