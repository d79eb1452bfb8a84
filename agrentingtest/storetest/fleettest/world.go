package fleettest

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// RouteAuth is the route of exchanges, as [agrentingtest.Server.Count] names it.
const RouteAuth = "POST /api/v1/auth/authenticate"

// keyRecord is the name of the record that has the key.
const keyRecord = "key"

// World is a platform with an agent and its key.
type World struct {
	Server *agrentingtest.Server
	Agent  *agrentingtest.Agent
	// Key is the agent's initial key.
	Key agrentingtest.Key
}

// NewWorld starts a platform without rate limits. It ends with the test.
func NewWorld(t *testing.T, opts ...agrentingtest.Option) *World {
	t.Helper()
	srv := agrentingtest.NewServer(append([]agrentingtest.Option{
		agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(500_000),
	}, opts...)...)
	t.Cleanup(srv.Close)
	w := &World{Server: srv, Agent: srv.NewAgent(srv.NewUser("owner"), agrentingtest.AgentConfig{Name: "worker"})}
	w.Key = srv.NewKey(w.Agent.ID)
	return w
}

// Policy returns a policy for rotations on demand, with short durations.
func (w *World) Policy(s agrenting.Strategy) agrenting.RotationPolicy {
	return agrenting.RotationPolicy{
		Strategy: s, Every: -1, AgentID: w.Agent.ID, KeyID: w.Key.ID, Grace: 50 * time.Millisecond,
		Lease: time.Second, CallTimeout: 500 * time.Millisecond, RetryEvery: 100 * time.Millisecond,
	}
}

// Client returns a client of the platform that keeps its key in store.
func (w *World) Client(t *testing.T, store agrenting.Store, p agrenting.RotationPolicy, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
		agrenting.WithInsecureHTTP(), agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)),
		agrenting.WithStore(store), agrenting.WithRotation(p),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// StaleKeys returns the live keys except the newest.
func (w *World) StaleKeys() []agrentingtest.KeyInfo {
	live := w.Server.LiveKeys(w.Agent.ID)
	if len(live) <= 1 {
		return nil
	}
	return live[:len(live)-1]
}

// Call makes a request.
func Call(ctx context.Context, c *agrenting.Client) error {
	_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	return err
}

// Load is clients that make requests until Stop.
type Load struct {
	cancel        context.CancelFunc
	wg            sync.WaitGroup
	calls, failed atomic.Int64
	mu            sync.Mutex
	errs          []error
}

// StartLoad has each client make a request at the interval.
func StartLoad(ctx context.Context, interval time.Duration, clients ...*agrenting.Client) *Load {
	l := &Load{}
	ctx, l.cancel = context.WithCancel(ctx)
	for _, c := range clients {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				err := Call(ctx, c)
				if ctx.Err() != nil {
					return
				}
				l.calls.Add(1)
				if err != nil {
					l.failed.Add(1)
					l.mu.Lock()
					l.errs = append(l.errs, err)
					l.mu.Unlock()
				}
				pause(ctx, interval)
			}
		})
	}
	return l
}

// Stop ends the requests. It fails the test if a request has failed.
func (l *Load) Stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	t.Logf("%d requests, %d failed", l.calls.Load(), l.failed.Load())
	for _, err := range l.errs[:min(3, len(l.errs))] {
		t.Errorf("a request failed: %v", err)
	}
}

// Median returns the median, 0 of none. It sorts all.
func Median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// StateOf decodes the data of a key record.
func StateOf(ctx context.Context, data []byte) (agrenting.KeyState, error) {
	s := agrenting.MemoryStore()
	if _, err := s.Save(ctx, keyRecord, data, ""); err != nil {
		return agrenting.KeyState{}, err
	}
	return agrenting.LoadKeyState(ctx, s)
}

// SealedStateOf decodes the data of a key record that is sealed for a place, see
// [agrenting.Sealed].
func SealedStateOf(ctx context.Context, data []byte, place string, key agrenting.SealingKey) (agrenting.KeyState, error) {
	s := agrenting.MemoryStore()
	if _, err := s.Save(ctx, keyRecord, data, ""); err != nil {
		return agrenting.KeyState{}, err
	}
	sealed, err := agrenting.Sealed(s, place, key)
	if err != nil {
		return agrenting.KeyState{}, err
	}
	return agrenting.LoadKeyState(ctx, sealed)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
