package agrenting

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// heldBy puts the intent of somebody else into a store that holds the key.
func (w *rotationWorld) heldBy(owner string, lease time.Duration) (store KeyStore, until time.Time) {
	w.t.Helper()
	store, until = MemoryStore(APIKey(w.key.Secret)), time.Now().Add(lease)
	rec, rev, err := store.Load(w.t.Context())
	require.NoError(w.t, err)
	rec.Current.ID, rec.Current.AgentID = w.key.ID, w.agent.ID
	rec.Intent = &Intent{
		Key: newUUID(), Strategy: Overlap, Stage: StageIssue, From: rec.Current.Credential.Fingerprint(), Generation: 2,
		Owner: owner, Lease: until, Started: time.Now(),
	}
	_, err = store.Save(w.t.Context(), rec, rev)
	require.NoError(w.t, err)
	return store, until
}

func TestCloseDoesNotWaitForTheRotationOfAnotherProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store, _ := w.heldBy("another", time.Minute)
		c := w.client(store, RotationPolicy{Every: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Rotate(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		require.NoError(t, c.Close())
		assert.Zero(t, time.Since(began))
		rec, _, err := store.Load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "another", rec.Intent.Owner, "it is not taken over on the way out")
	})
}

func TestAnEventTellsWhomARotationWaitsForAndHowLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store, until := w.heldBy("another", 40*time.Second)
		var mu sync.Mutex
		var waits []Event
		c := w.client(store, RotationPolicy{Every: -1}, WithObserver(func(e Event) {
			if e.Type == EventRotating && e.Reason == "waiting" {
				mu.Lock()
				waits = append(waits, e)
				mu.Unlock()
			}
		}))
		began := time.Now()
		res, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.False(t, res.Adopted)
		assert.GreaterOrEqual(t, time.Since(began), 40*time.Second)
		require.NoError(t, c.Close())
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, waits, 1, "once, not at every look at the store")
		assert.WithinDuration(t, until, waits[0].RetryAt, 0)
		w.oneLiveKey(store)
	})
}

// leaseWitness notes how far away leases were that it was given to save.
type leaseWitness struct {
	KeyStore
	farthest time.Duration
}

func (s *leaseWitness) Save(ctx context.Context, rec KeyRecord, prev Revision) (Revision, error) {
	if rec.Intent != nil {
		s.farthest = max(s.farthest, time.Until(rec.Intent.Lease))
	}
	return s.KeyStore.Save(ctx, rec, prev)
}

// TestALeaseIsNeverFarAway looks at every record that rotations save: when one
// dies, others wait for the end of its lease.
func TestALeaseIsNeverFarAway(t *testing.T) {
	t.Parallel()
	const documented = 38 * time.Second // docs/rotation.md, for the default policy
	broken := map[string]func(*http.Request) bool{
		"nothing":                  func(*http.Request) bool { return false },
		"no key can be revoked":    func(r *http.Request) bool { return r.Method == http.MethodDelete },
		"answers with keys vanish": func(r *http.Request) bool { return r.Method == http.MethodPost },
		"rotated keys vanish":      func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/rotate-key") },
		"keys cannot be listed":    func(r *http.Request) bool { return r.URL.Query().Has("limit") },
	}
	for name, vanishes := range broken {
		for _, s := range []Strategy{Overlap, InPlace} {
			t.Run(name+"/"+s.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					platform := w.srv.Transport()
					base := tripFunc(func(r *http.Request) (*http.Response, error) {
						if err := sleep(r.Context(), 3*time.Second); err != nil {
							return nil, err
						}
						resp, err := platform.RoundTrip(r)
						if err == nil && vanishes(r) {
							_ = resp.Body.Close()
							return reply(http.StatusBadGateway, "{}"), nil
						}
						return resp, err
					})
					store := &leaseWitness{KeyStore: MemoryStore(APIKey(w.key.Secret))}
					p := RotationPolicy{Strategy: s, Every: -1, KeyID: w.key.ID, Owner: Static(UserToken(w.owner.Secret))}
					c := w.client(store, p, WithTransport(base))
					require.NoError(t, w.call(c))
					_, err := c.Rotate(t.Context())
					t.Log(store.farthest, err)
					require.NoError(t, c.Close())
					assert.NotZero(t, store.farthest)
					assert.LessOrEqual(t, store.farthest, documented)
				})
			})
		}
	}
}
