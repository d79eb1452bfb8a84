package etcdstore_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

const (
	routeAuth  = "POST /api/v1/auth/authenticate"
	routeTasks = "GET /api/v1/tasks"
)

// world is a platform with an agent and its key.
type world struct {
	srv   *agrentingtest.Server
	agent *agrentingtest.Agent
	key   agrentingtest.Key
}

func newWorld(t *testing.T, opts ...agrentingtest.Option) *world {
	t.Helper()
	srv := agrentingtest.NewServer(append([]agrentingtest.Option{
		agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(500_000),
	}, opts...)...)
	t.Cleanup(srv.Close)
	w := &world{srv: srv, agent: srv.NewAgent(srv.NewUser("owner"), agrentingtest.AgentConfig{Name: "worker"})}
	w.key = srv.NewKey(w.agent.ID)
	return w
}

func (w *world) policy(s agrenting.Strategy) agrenting.RotationPolicy {
	return agrenting.RotationPolicy{
		Strategy: s, Every: -1, AgentID: w.agent.ID, KeyID: w.key.ID, Grace: 50 * time.Millisecond,
		Lease: time.Second, CallTimeout: 500 * time.Millisecond, RetryEvery: 100 * time.Millisecond,
	}
}

func (w *world) client(t *testing.T, store agrenting.Store, p agrenting.RotationPolicy, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(w.srv.Transport()),
		agrenting.WithInsecureHTTP(), agrenting.WithCredential(agrenting.APIKey(w.key.Secret)),
		agrenting.WithStore(store), agrenting.WithRotation(p),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func call(ctx context.Context, c *agrenting.Client) error {
	_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	return err
}

// requests has workers call the platform until stop.
type requests struct {
	cancel        context.CancelFunc
	wg            sync.WaitGroup
	calls, failed atomic.Int64
	mu            sync.Mutex
	errs          []error
}

func startLoad(ctx context.Context, every time.Duration, clients ...*agrenting.Client) *requests {
	l := &requests{}
	ctx, l.cancel = context.WithCancel(ctx)
	for _, c := range clients {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				err := call(ctx, c)
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
				select {
				case <-time.After(every):
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

func (l *requests) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	t.Logf("%d requests, %d failed", l.calls.Load(), l.failed.Load())
	for _, err := range l.errs[:min(3, len(l.errs))] {
		t.Errorf("a request failed: %v", err)
	}
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// stateOf decodes the data of a key record.
func stateOf(ctx context.Context, data []byte) (agrenting.KeyState, error) {
	s := agrenting.MemoryStore()
	if _, err := s.Save(ctx, key, data, ""); err != nil {
		return agrenting.KeyState{}, err
	}
	return agrenting.LoadKeyState(ctx, s)
}

// savedAt records when each new key was saved.
type savedAt struct {
	*etcdstore.Store

	mu   sync.Mutex
	when map[string]time.Time // by fingerprint
}

func (s *savedAt) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	rev, err := s.Store.Save(ctx, name, data, previous)
	if err == nil && name == key {
		now := time.Now()
		state, serr := stateOf(ctx, data)
		if serr != nil {
			return rev, serr
		}
		s.mu.Lock()
		if fp := state.Credential.Fingerprint(); s.when[fp].IsZero() {
			s.when[fp] = now
		}
		s.mu.Unlock()
	}
	return rev, err
}

func (s *savedAt) of(fp string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.when[fp]
}

func TestOthersAdoptARotatedKeyInTime(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(strings.ReplaceAll(strategy.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := unique(t)
			a := &savedAt{Store: shared.open(t, name), when: map[string]time.Time{}}
			adopted := make(chan agrenting.Event, 100)
			rotating := w.client(t, a, w.policy(strategy))
			idle := w.client(t, shared.open(t, name), w.policy(strategy), agrenting.WithObserver(func(e agrenting.Event) {
				if e.Type == agrenting.EventRenewed && e.Reason == "adopted" {
					adopted <- e
				}
			}))
			require.NoError(t, call(t.Context(), rotating))
			require.NoError(t, call(t.Context(), idle))
			var took []time.Duration
			for range 15 {
				rot, err := rotating.Rotate(t.Context())
				require.NoError(t, err)
				for {
					e := <-adopted
					if e.Fingerprint == rot.To {
						took = append(took, max(0, e.Time.Sub(a.of(rot.To))))
						break
					}
				}
				require.NoError(t, call(t.Context(), idle))
			}
			for _, r := range w.srv.Requests() {
				assert.NotEqual(t, http.StatusUnauthorized, r.Status, "%s %s", r.Method, r.Path)
			}
			assert.Empty(t, staleKeys(w))
			t.Logf("adoption by %s: median %v, worst %v", strategy, median(took), slices.Max(took))
		})
	}
}

// staleKeys are live keys beyond the one that must be.
func staleKeys(w *world) []agrentingtest.KeyInfo {
	live := w.srv.LiveKeys(w.agent.ID)
	if len(live) <= 1 {
		return nil
	}
	return live[:len(live)-1]
}

func TestManyClientsMakeOneExchange(t *testing.T) {
	t.Parallel()
	const clients = 12
	w := newWorld(t)
	name := unique(t)
	all := make([]*agrenting.Client, clients)
	for i := range all {
		s := shared.open(t, name)
		all[i] = w.client(t, s, w.policy(0), agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 10000}))
	}
	together := func() {
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() { assert.NoError(t, call(t.Context(), c)) })
		}
		wg.Wait()
	}
	together()
	assert.Equal(t, 1, w.srv.Count(routeAuth), "one exchange for %d clients", clients)
	w.srv.RevokeSessions()
	together()
	assert.Equal(t, 2, w.srv.Count(routeAuth), "and one more after a revocation")
}

func TestARotationUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(strings.ReplaceAll(strategy.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := unique(t)
			all := make([]*agrenting.Client, 4)
			for i := range all {
				all[i] = w.client(t, shared.open(t, name), w.policy(strategy))
				require.NoError(t, call(t.Context(), all[i]))
			}
			l := startLoad(t.Context(), time.Millisecond, all...)
			for n := range 6 {
				// Two at once: one rotates, the other adopts.
				var wg sync.WaitGroup
				for _, c := range []*agrenting.Client{all[n%4], all[(n+1)%4]} {
					wg.Go(func() {
						_, err := c.Rotate(t.Context())
						assert.NoError(t, err)
					})
				}
				wg.Wait()
				<-time.After(200 * time.Millisecond)
			}
			l.stop(t)
			assert.Empty(t, staleKeys(w))
		})
	}
}
