package rotation_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	routeListKeys = "GET /api/v1/agents/{id}/credentials"
)

func TestFailedRotationIsRetriedUnderTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := &sdktest.FaultyStore{Store: agrenting.MemoryStore()}
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap})
		require.NoError(t, w.Call(c))
		store.Refuse.Store(true)
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		sdktest.Advance(100 * 24 * time.Hour) // due, and without effect
		store.Refuse.Store(false)
		for range 7 * 3600 / 20 { // each call loads the record, for more than the longest pause
			sdktest.Advance(20 * time.Second)
			require.NoError(t, w.Call(c))
		}
		assert.Equal(t, uint64(2), w.OneLiveKey(store).Generation)
		require.NoError(t, c.Close())
	})
}

func TestAPanickingStoreCostsTheRotationAlone(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := &sdktest.HookedStore{Store: agrenting.MemoryStore()}
				c := w.Client(store, agrenting.RotationPolicy{Strategy: s})
				require.NoError(t, w.Call(c))
				n := 0
				for ; ; n++ {
					var saves atomic.Int64 // a background save may overlap the release of the lease
					store.OnSave(func() {
						if saves.Add(1) > int64(n) {
							panic("disk on fire")
						}
					})
					_, err := c.Rotate(t.Context())
					store.OnSave(nil)
					require.NoError(t, w.Call(c), "the gate is open")
					if err == nil {
						break // it needs no more saves than n
					}
					require.ErrorContains(t, err, "disk on fire")
				}
				assert.GreaterOrEqual(t, n, 3)
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestAPendingCallIsNotGivenUp(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: s})
				require.NoError(t, w.Call(c))
				pending := agrentingtest.Status(http.StatusConflict, "IDEMPOTENCY_PENDING").Times(sdktest.AskAttempts)
				w.Server.Fault(sdktest.RouteRotate, pending)
				w.Server.Fault(sdktest.RouteCreateKey, pending)
				_, err := c.Rotate(t.Context())
				require.Error(t, err)
				rec, _, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				require.NotNil(t, rec.Intent, "its idempotency key is still needed")
				res, err := c.Rotate(t.Context())
				require.NoError(t, err)
				assert.True(t, res.Recovered)
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestARotationLeavesKeysOfOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
		store := agrenting.MemoryStore()
		var others []agrentingtest.Key
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))},
			agrenting.WithTransport(sdktest.Between(w.Server.Transport(), func(req *http.Request) *http.Response {
				// Another program creates keys while the response gets lost, at
				// the same moment and later.
				if strings.HasSuffix(req.URL.Path, "/rotate-key") {
					others = append(others, w.Server.NewKey(w.Agent.ID))
					if len(others) < 3 {
						sdktest.Advance(time.Minute)
					}
				}
				return nil
			})))
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter())
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, others)
		for n, k := range others {
			assert.True(t, w.Server.KeyAlive(k.Secret), "the key %d of another program", n)
		}
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
	})
}

func TestRotationEndsWithoutKeyList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))})
		require.NoError(t, w.Call(c))
		w.Server.Fault(routeListKeys, agrentingtest.Status(http.StatusNotFound, "").Always())
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter())
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, agrenting.StageForget, e.Stage)
		assert.Contains(t, e.State, "in use")
		assert.Contains(t, e.Advice, "dashboard")
		rec, _, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		assert.Nil(t, rec.Intent)
		assert.True(t, w.Server.KeyAlive(rec.Current.Credential.Reveal()))
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
	})
}

func TestWrongKeyIDIsCorrectedByHint(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	store := agrenting.MemoryStore()
	c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: "00000000-0000-4000-8000-000000000000"})
	_, err := c.Rotate(t.Context())
	require.NoError(t, err)
	w.OneLiveKey(store)
	assert.False(t, w.Server.KeyAlive(w.Key.Secret))
}

func TestOldKeyIsKeptUntilSessionsAreReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1}, agrenting.WithSession())
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, agrenting.StageRevoke, e.Stage)
		assert.True(t, w.Server.KeyAlive(w.Key.Secret), "its session is in use")
		require.NoError(t, w.Call(c))
		w.Server.ClearFaults()
		sdktest.Advance(time.Hour) // it continues by itself
		require.NoError(t, w.Call(c))
		w.OneLiveKey(store)
		assert.Equal(t, uint64(2), w.OneLiveKey(store).Generation)
		require.NoError(t, c.Close())
	})
}

func TestPreviousKeyIsUsedWhileNewKeySpreads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		var spread atomic.Bool
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1, Grace: 30 * time.Second},
			agrenting.WithTransport(sdktest.Between(w.Server.Transport(), func(req *http.Request) *http.Response {
				// One part of the platform does not know the new key yet.
				if req.URL.Path == "/api/v1/tasks" && sdktest.SecretOf(req.Header) != w.Key.Secret && !spread.Load() {
					return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
				}
				return nil
			})))
		require.NoError(t, w.Call(c))
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		for range 20 {
			sdktest.Advance(time.Second)
			require.NoError(t, w.Call(c))
		}
		spread.Store(true)
		require.NoError(t, <-done)
		require.NoError(t, w.Call(c))
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestProvidedKeyIsKeptIfStoreRefusesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := &sdktest.FaultyStore{Store: sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))}
		w.Server.RevokeKey(w.Key.ID)
		w.Key = w.Server.NewKey(w.Agent.ID)
		c := w.Client(store, agrenting.RotationPolicy{Every: -1})
		store.Refuse.Store(true)
		for range 10 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(2 * time.Second)
		}
		assert.LessOrEqual(t, w.Server.Stats().Unauthorized, int64(3+1+3+3), "one check whose it is, one request, one inquiry, and one check before it is replaced")
		store.Refuse.Store(false)
		sdktest.Advance(2 * time.Minute)
		assert.Equal(t, w.Key.Secret, w.OneLiveKey(store).Current.Credential.Reveal())
		require.NoError(t, c.Close())
	})
}

func TestUnheldRotationIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
		rec, rev, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		rec.Intent = &record.Intent{
			Key: wire.NewUUID(), Strategy: agrenting.InPlace.String(), Stage: string(agrenting.StagePrepare), From: rec.Current.Credential.Fingerprint(), Generation: 2,
			Started: time.Now(),
		}
		_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
		require.NoError(t, err)
		c := w.Client(store, agrenting.RotationPolicy{Every: -1})
		res, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, res.Recovered)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// TestARotationMayMeetTheEnd closes the client at every moment of a rotation.
func TestARotationMayMeetTheEnd(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			for moment := range 30 {
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					base := &fixedDelays{srv: w.Server, rotate: time.Minute, verify: time.Second, others: 7 * time.Second}
					store := agrenting.MemoryStore()
					p := agrenting.RotationPolicy{Strategy: s, Every: -1, CallTimeout: 2 * time.Minute}
					c := w.Client(store, p, agrenting.WithTransport(base))
					require.NoError(t, w.Call(c))
					done := make(chan error, 1)
					go func() {
						_, err := c.Rotate(t.Context())
						done <- err
					}()
					sdktest.Advance(time.Duration(moment) * 3 * time.Second)
					require.NoError(t, c.Close())
					synctest.Wait()
					assert.Len(t, done, 1, "Rotate has returned")
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, agrenting.ErrClosed)
					next := w.Client(store, agrenting.RotationPolicy{Strategy: s, Every: -1})
					require.NoError(t, w.Call(next))
					_, err = next.Rotate(t.Context())
					require.NoError(t, err)
					w.OneLiveKey(store)
					require.NoError(t, next.Close())
				})
			}
		})
	}
}

func TestKeyOfOtherProcessIsFoundAfterOneInquiry(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	store := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
	a, b := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace}), w.Client(&sdktest.HookedStore{Store: store}, agrenting.RotationPolicy{Strategy: agrenting.InPlace})
	require.NoError(t, w.Call(a))
	require.NoError(t, w.Call(b))
	_, err := a.Rotate(t.Context())
	require.NoError(t, err)
	before := w.Server.Stats()
	require.NoError(t, w.Call(b))
	assert.LessOrEqual(t, w.Server.Stats().Requests-before.Requests, int64(2+3+1), "the refused request, its replay, one inquiry, and one trial of the new key")
}
