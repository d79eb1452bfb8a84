package agrenting

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

var scribe = AgentRegistration{
	Name: "Scribe", DID: "did:agrenting:scribe", Capabilities: []string{"writing"}, PricingModel: "fixed", BasePrice: "1.50",
	Description: "writes", Category: "text", Metadata: map[string]any{"callback_url": "https://scribe.example"},
}

// sleepless repeats without pauses worth the name, for tests on real
// connections.
var sleepless = WithRetryPolicy(RetryPolicy{BaseDelay: 1, MaxDelay: 1})

var errDown = errors.New("connection refused")

// breakableStore is a store that can be out of reach.
type breakableStore struct {
	Store
	down  atomic.Bool
	loads atomic.Int64
	slow  atomic.Int64 // how long an answer is on its way, in ns
}

func (s *breakableStore) Load(ctx context.Context, name string) (Record, error) {
	s.loads.Add(1)
	if s.down.Load() {
		return Record{}, errDown
	}
	rec, err := s.Store.Load(ctx, name)
	advance(time.Duration(s.slow.Load()))
	return rec, err
}

func (s *breakableStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if s.down.Load() {
		return "", errDown
	}
	return s.Store.Save(ctx, name, data, prev)
}

const routeRotate = "POST /api/v1/auth/rotate-key"

// rotationWorld is a platform with an owner, an agent and its key.
type rotationWorld struct {
	t     *testing.T
	srv   *agrentingtest.Server
	owner agrentingtest.Token
	agent *agrentingtest.Agent
	key   agrentingtest.Key
}

func newRotationWorld(t *testing.T, opts ...agrentingtest.Option) *rotationWorld {
	t.Helper()
	opts = append([]agrentingtest.Option{agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()}, opts...)
	w := &rotationWorld{t: t, srv: agrentingtest.NewServer(opts...)}
	t.Cleanup(w.srv.Close)
	user := w.srv.NewUser("owner")
	w.owner = w.srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner"})
	w.agent = w.srv.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"})
	w.key = w.srv.NewKey(w.agent.ID)
	return w
}

// client keeps the key in store, which it fills; nil if the policy has a store.
func (w *rotationWorld) client(store Store, p RotationPolicy, opts ...Option) *Client {
	w.t.Helper()
	if p.AgentID == "" {
		p.AgentID = w.agent.ID
	}
	if store != nil {
		opts = append([]Option{WithStore(store)}, opts...)
	}
	c, err := New(append([]Option{
		WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
		WithCredential(APIKey(w.key.Secret)), WithRotation(p),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *rotationWorld) call(c *Client) error {
	_, err := c.Do(w.t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
	return err
}
