package rotation_test

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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestCloseDoesNotWaitForOtherProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store, _ := w.HeldBy("another", time.Minute)
		c := w.Client(store, agrenting.RotationPolicy{Every: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Rotate(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		require.NoError(t, c.Close())
		assert.Zero(t, time.Since(began))
		state, err := agrenting.LoadKeyState(t.Context(), store)
		require.NoError(t, err)
		assert.Equal(t, "another", state.Unfinished.Holder, "it is not taken over on the way out")
	})
}

func TestWaitingEventNamesHolderAndTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store, until := w.HeldBy("another", 40*time.Second)
		var mu sync.Mutex
		var waits []agrenting.Event
		c := w.Client(store, agrenting.RotationPolicy{Every: -1}, agrenting.WithObserver(func(e agrenting.Event) {
			if e.Type == agrenting.EventRotating && e.Reason == "waiting" {
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
		require.Len(t, waits, 1, "once, not at every load of the store")
		assert.WithinDuration(t, until, waits[0].RetryAt, 0)
		w.OneLiveKey(store)
	})
}

// leaseWitness notes how far away leases were that it was given to save.
type leaseWitness struct {
	agrenting.Store
	farthest time.Duration
}

func (s *leaseWitness) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if e, ok := sdktest.RecordIn(name, data); ok {
		s.farthest = max(s.farthest, e.Lease.Duration)
	}
	return s.Store.Save(ctx, name, data, prev)
}

// TestALeaseIsNeverFarAway looks at every record that rotations save: when one
// dies, others wait for the end of its lease.
func TestALeaseIsNeverFarAway(t *testing.T) {
	t.Parallel()
	const documented = 20 * time.Second // docs/rotation.md, for the default policy
	broken := map[string]func(*http.Request) bool{
		"nothing":                    func(*http.Request) bool { return false },
		"no key can be revoked":      func(r *http.Request) bool { return r.Method == http.MethodDelete },
		"responses with keys vanish": func(r *http.Request) bool { return r.Method == http.MethodPost },
		"rotated keys vanish":        func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/rotate-key") },
		"keys cannot be listed":      func(r *http.Request) bool { return r.URL.Query().Has("limit") },
	}
	for name, vanishes := range broken {
		for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
			t.Run(name+"/"+s.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					platform := w.Server.Transport()
					base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
						if err := renew.Sleep(r.Context(), 3*time.Second); err != nil {
							return nil, err
						}
						resp, err := platform.RoundTrip(r)
						if err == nil && vanishes(r) {
							_ = resp.Body.Close()
							return sdktest.Reply(http.StatusBadGateway, "{}"), nil
						}
						return resp, err
					})
					store := &leaseWitness{Store: sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))}
					p := agrenting.RotationPolicy{Strategy: s, Every: -1, KeyID: w.Key.ID, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))}
					c := w.Client(store, p, agrenting.WithTransport(base))
					require.NoError(t, w.Call(c))
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

// A slow platform: the lease runs out while the id of a key is looked for, and
// another process finishes the rotation. Who has lost the lease is to adopt what
// it has done, and to report no failure.
func TestLostLeaseIsNotRevocationFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		platform := w.Server.Transport()
		slow := false
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodDelete {
				slow = true
			}
			if slow {
				if err := renew.Sleep(r.Context(), 7500*time.Millisecond); err != nil {
					return nil, err
				}
			}
			return platform.RoundTrip(r)
		})
		p := agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: "not-its-id", Every: -1, Grace: 9 * time.Second, DrainTimeout: 10 * time.Second}
		c := w.Client(store, p, agrenting.WithTransport(base))
		other := w.Client(store, p)
		require.NoError(t, w.Call(c))
		done := make(chan error, 1)
		go func() {
			sdktest.Advance(2 * time.Second)
			_, err := other.Rotate(t.Context())
			done <- err
		}()
		rot, err := c.Rotate(t.Context())
		t.Log(rot, err)
		assert.NoError(t, err)
		require.NoError(t, <-done)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
		require.NoError(t, other.Close())
	})
}

// A request that was on the wire for longer than the drain, when its key died in
// a rotation of this very process. Close comes while the rotation, which Close
// waits for, is about to bring the successor.
func TestRequestsAreServedWhileCloseWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		platform := w.Server.Transport()
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/rotate-key"):
				resp, err := platform.RoundTrip(r) // the old key is dead from here on
				_ = renew.Sleep(r.Context(), 4*time.Second)
				return resp, err
			case r.URL.Path == "/api/v1/tasks" && r.Header.Get("X-Api-Key") == w.Key.Secret && r.URL.RawQuery == "slow=1":
				_ = renew.Sleep(r.Context(), 3*time.Second) // on its way
			}
			return platform.RoundTrip(r)
		})
		var mu sync.Mutex
		var events []agrenting.Event
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1, DrainTimeout: time.Second}, agrenting.WithTransport(base),
			agrenting.WithObserver(func(e agrenting.Event) { mu.Lock(); events = append(events, e); mu.Unlock() }))
		require.NoError(t, w.Call(c))
		began, ended := time.Now(), time.Time{}
		got := make(chan error, 1)
		go func() {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks?slow=1", nil, nil)
			ended = time.Now()
			got <- err
		}()
		synctest.Wait()
		go func() { _, _ = c.Rotate(t.Context()) }()
		sdktest.Advance(3500 * time.Millisecond) // it has its 401, and waits for the successor
		require.NoError(t, c.Close())
		require.NoError(t, <-got, "what was under way before Close is served")
		assert.GreaterOrEqual(t, ended.Sub(began), 5*time.Second, "not before the rotation has brought the next key")
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			assert.NotEqual(t, agrenting.EventRenewalFailed, e.Type, e.Err)
		}
	})
}

// The platform replaces a key in place, and then its authenticate endpoint is slow.
// Requests continue with the old session, unless that has died with its key.
func TestSlowExchangeAfterRotationFailsNoRequest(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts  []agrentingtest.Option
		delay time.Duration
		most  time.Duration // that a request waits
	}{
		"sessions outlive the key":   {nil, time.Hour, 3 * time.Second},
		"sessions die with the key":  {[]agrentingtest.Option{agrentingtest.WithSessionsEndingWithKey()}, 5 * time.Second, 6 * time.Second},
		"a fast exchange, same time": {nil, time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, tc.opts...)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}, agrenting.WithSession())
				require.NoError(t, w.Call(c))
				w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(tc.delay).Always())
				done := make(chan error)
				go func() { _, err := c.Rotate(t.Context()); done <- err }()
				var slowest time.Duration
				for range 60 {
					began := time.Now()
					require.NoError(t, sdktest.CallOnce(t, c, w.Agent.ID))
					slowest = max(slowest, time.Since(began))
					sdktest.Advance(100 * time.Millisecond)
				}
				require.NoError(t, <-done)
				assert.LessOrEqual(t, slowest, tc.most)
				w.OneLiveKey(store)
				w.Server.ClearFaults()
				require.NoError(t, c.Close())
			})
		})
	}
}
