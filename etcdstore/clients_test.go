package etcdstore_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

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
		state, serr := fleettest.StateOf(ctx, data)
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
			w := fleettest.NewWorld(t)
			name := unique(t)
			a := &savedAt{Store: shared.open(t, name), when: map[string]time.Time{}}
			adopted := make(chan agrenting.Event, 100)
			rotating := w.Client(t, a, w.Policy(strategy))
			idle := w.Client(t, shared.open(t, name), w.Policy(strategy), agrenting.WithObserver(func(e agrenting.Event) {
				if e.Type == agrenting.EventRenewed && e.Reason == "adopted" {
					adopted <- e
				}
			}))
			require.NoError(t, fleettest.Call(t.Context(), rotating))
			require.NoError(t, fleettest.Call(t.Context(), idle))
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
				require.NoError(t, fleettest.Call(t.Context(), idle))
			}
			for _, r := range w.Server.Requests() {
				assert.NotEqual(t, http.StatusUnauthorized, r.Status, "%s %s", r.Method, r.Path)
			}
			assert.Empty(t, w.StaleKeys())
			t.Logf("adoption by %s: median %v, worst %v", strategy, fleettest.Median(took), slices.Max(took))
		})
	}
}

func TestManyClientsMakeOneExchange(t *testing.T) {
	t.Parallel()
	const clients = 12
	w := fleettest.NewWorld(t)
	name := unique(t)
	all := make([]*agrenting.Client, clients)
	for i := range all {
		s := shared.open(t, name)
		all[i] = w.Client(t, s, w.Policy(0), agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 10000}))
	}
	together := func() {
		var wg sync.WaitGroup
		for _, c := range all {
			wg.Go(func() { assert.NoError(t, fleettest.Call(t.Context(), c)) })
		}
		wg.Wait()
	}
	together()
	assert.Equal(t, 1, w.Server.Count(fleettest.RouteAuth), "one exchange for %d clients", clients)
	w.Server.RevokeSessions()
	together()
	assert.Equal(t, 2, w.Server.Count(fleettest.RouteAuth), "and one more after a revocation")
}

func TestRotationUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(strings.ReplaceAll(strategy.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := fleettest.NewWorld(t)
			name := unique(t)
			all := make([]*agrenting.Client, 4)
			for i := range all {
				all[i] = w.Client(t, shared.open(t, name), w.Policy(strategy))
				require.NoError(t, fleettest.Call(t.Context(), all[i]))
			}
			l := fleettest.StartLoad(t.Context(), time.Millisecond, all...)
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
			l.Stop(t)
			assert.Empty(t, w.StaleKeys())
		})
	}
}
