package sdktest

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// RouteCreateKey is the route that creates a key.
const RouteCreateKey = "POST /api/v1/agents/{id}/credentials"

// RouteRotate is the route that rotates a key in place.
const RouteRotate = "POST /api/v1/auth/rotate-key"

// RotationWorld is a platform with an owner, an agent, and the agent's key.
type RotationWorld struct {
	T      *testing.T
	Server *agrentingtest.Server
	Owner  agrentingtest.Token
	Agent  *agrentingtest.Agent
	Key    agrentingtest.Key
}

// NewRotationWorld starts a platform in memory, so that it works inside a bubble.
func NewRotationWorld(t *testing.T, opts ...agrentingtest.Option) *RotationWorld {
	t.Helper()
	opts = append([]agrentingtest.Option{agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()}, opts...)
	w := &RotationWorld{T: t, Server: agrentingtest.NewServer(opts...)}
	t.Cleanup(w.Server.Close)
	user := w.Server.NewUser("owner")
	w.Owner = w.Server.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner"})
	w.Agent = w.Server.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"})
	w.Key = w.Server.NewKey(w.Agent.ID)
	return w
}

// Client returns a client that keeps the key in store, which it fills; store is
// nil if the policy has a store.
func (w *RotationWorld) Client(store agrenting.Store, p agrenting.RotationPolicy, opts ...agrenting.Option) *agrenting.Client {
	w.T.Helper()
	if p.AgentID == "" {
		p.AgentID = w.Agent.ID
	}
	if store != nil {
		opts = append([]agrenting.Option{agrenting.WithStore(store)}, opts...)
	}
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
		agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithRotation(p),
	}, opts...)...)
	require.NoError(w.T, err)
	w.T.Cleanup(func() { _ = c.Close() })
	return c
}

// Call makes a request with a client.
func (w *RotationWorld) Call(c *agrenting.Client) error {
	_, err := c.Do(w.T.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
	return err
}

// OneLiveKey asserts the required end of every rotation: one key is live, and the
// store contains it.
func (w *RotationWorld) OneLiveKey(store agrenting.Store) record.Key {
	w.T.Helper()
	rec, _, err := LoadRecord(w.T.Context(), store)
	require.NoError(w.T, err)
	assert.Nil(w.T, rec.Intent)
	assert.True(w.T, rec.Pending.IsZero())
	assert.Len(w.T, w.Server.LiveKeys(w.Agent.ID), 1)
	assert.True(w.T, w.Server.KeyAlive(rec.Current.Credential.Reveal()), "the live key is the one in the store")
	return rec
}

// Load starts workers that call the platform until stop is called. stop reports
// failures.
func (w *RotationWorld) Load(c *agrenting.Client, workers int) (stop func() (calls, failed int64)) {
	var calls, failed atomic.Int64
	ctx, cancel := context.WithCancel(w.T.Context())
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				method, in := http.MethodGet, any(nil)
				if (i+n)%5 == 0 { // a body that can be sent only once
					method = http.MethodPost
					in = struct{ *strings.Reader }{strings.NewReader(`{"agent_id":"` + w.Agent.ID + `","task_type":"test"}`)}
				}
				calls.Add(1)
				_, err := c.Do(context.WithoutCancel(ctx), method, "/api/v1/tasks", in, nil, agrenting.CallHeader("Content-Type", "application/json"))
				if err != nil {
					failed.Add(1)
					w.T.Error(err)
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		wg.Wait()
		return calls.Load(), failed.Load()
	}
}

// HeldBy returns a store that contains the key and the intent of another process.
func (w *RotationWorld) HeldBy(holder string, lease time.Duration) (store agrenting.Store, until time.Time) {
	w.T.Helper()
	store, until = StoreWith(agrenting.APIKey(w.Key.Secret)), time.Now().Add(lease)
	rec, rev, err := LoadRecord(w.T.Context(), store)
	require.NoError(w.T, err)
	rec.Current.ID, rec.Agent = w.Key.ID, w.Agent.ID
	rec.Intent = &record.Intent{
		Key: wire.NewUUID(), Strategy: agrenting.Overlap.String(), Stage: string(agrenting.StageIssue), From: rec.Current.Credential.Fingerprint(), Generation: 2,
		Started: time.Now(),
	}
	_, err = SaveHeld(w.T.Context(), store, rec, rev, holder, lease)
	require.NoError(w.T, err)
	return store, until
}

// AgedStore returns a store with the world's key, which is the given number of
// days old.
func (w *RotationWorld) AgedStore(days int, in *record.Intent) agrenting.Store {
	w.T.Helper()
	store := agrenting.MemoryStore()
	_, err := SaveRecord(w.T.Context(), store, record.Key{Agent: w.Agent.ID, Generation: 1, Intent: in, Current: record.StoredKey{
		Credential: SecretCredential(agrenting.APIKey(w.Key.Secret)), Created: WallNow().AddDate(0, 0, -days), ID: w.Key.ID,
	}}, "")
	require.NoError(w.T, err)
	return store
}

// PacedLoad is like Load, but its workers pause, so that rotations do not mostly
// wait for a processor. Its requests take little work on the platform. If bodies
// is set, some requests have bodies that can be sent only once.
func (w *RotationWorld) PacedLoad(c *agrenting.Client, workers int, bodies bool) (sent func() int64, stop func() (calls, failed int64)) {
	var calls, failed atomic.Int64
	ctx, cancel := context.WithCancel(w.T.Context())
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := i; renew.Sleep(ctx, 15*time.Millisecond) == nil; n++ {
				method, path, in := http.MethodGet, "/api/v1/hirings/pending", any(nil)
				if bodies && n%5 == 0 { // a body that can be sent only once
					method, path = http.MethodPost, "/api/v1/tasks"
					in = struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + w.Agent.ID + `","task_type":"test"}`)}
				}
				calls.Add(1)
				_, err := c.Do(context.WithoutCancel(ctx), method, path, in, nil, agrenting.CallHeader("Content-Type", "application/json"))
				if err != nil {
					failed.Add(1)
					w.T.Error(err)
				}
			}
		})
	}
	return calls.Load, func() (int64, int64) {
		cancel()
		wg.Wait()
		return calls.Load(), failed.Load()
	}
}
