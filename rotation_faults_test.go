package agrenting

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const (
	routeCreateKey = "POST /api/v1/agents/{id}/credentials"
	routeListKeys  = "GET /api/v1/agents/{id}/credentials"
)

// between is a base that may answer in place of the platform: nil lets the
// request through.
func between(base http.RoundTripper, answer func(*http.Request) *http.Response) http.RoundTripper {
	return tripFunc(func(req *http.Request) (*http.Response, error) {
		if resp := answer(req); resp != nil {
			swallow(req)
			return resp, nil
		}
		return base.RoundTrip(req)
	})
}

// hookedStore calls a function before each operation.
type hookedStore struct {
	Store
	load, save atomic.Pointer[func()]
}

func (s *hookedStore) onLoad(f func()) { s.load.Store(hookOf(f)) }
func (s *hookedStore) onSave(f func()) { s.save.Store(hookOf(f)) }

func hookOf(f func()) *func() {
	if f == nil {
		return nil
	}
	return &f
}

func (s *hookedStore) Load(ctx context.Context, name string) (Record, error) {
	if f := s.load.Load(); f != nil {
		(*f)()
	}
	return s.Store.Load(ctx, name)
}

func (s *hookedStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if f := s.save.Load(); f != nil {
		(*f)()
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestARotationIsTriedAgainByItselfHoweverMuchTrafficThereIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := &faultyStore{Store: MemoryStore()}
		c := w.client(store, RotationPolicy{Strategy: Overlap})
		require.NoError(t, w.call(c))
		store.refuse.Store(true)
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		advance(100 * 24 * time.Hour) // due, and in vain
		store.refuse.Store(false)
		for range 7 * 3600 / 2 { // each call looks at the store, for more than the longest pause
			advance(2 * time.Second)
			require.NoError(t, w.call(c))
		}
		assert.Equal(t, uint64(2), w.oneLiveKey(store).Generation)
		require.NoError(t, c.Close())
	})
}

func TestAPanickingStoreCostsTheRotationAlone(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				store := &hookedStore{Store: MemoryStore()}
				c := w.client(store, RotationPolicy{Strategy: s})
				require.NoError(t, w.call(c))
				n := 0
				for ; ; n++ {
					var saves atomic.Int64 // a background save may overlap the release of the lease
					store.onSave(func() {
						if saves.Add(1) > int64(n) {
							panic("disk on fire")
						}
					})
					_, err := c.Rotate(t.Context())
					store.onSave(nil)
					require.NoError(t, w.call(c), "the gate is open")
					if err == nil {
						break // it needs no more saves than n
					}
					require.ErrorContains(t, err, "disk on fire")
				}
				assert.GreaterOrEqual(t, n, 3)
				w.oneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestAPendingCallIsNotGivenUp(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				store := MemoryStore()
				c := w.client(store, RotationPolicy{Strategy: s})
				require.NoError(t, w.call(c))
				pending := agrentingtest.Status(http.StatusConflict, "IDEMPOTENCY_PENDING").Times(askAttempts)
				w.srv.Fault(routeRotate, pending)
				w.srv.Fault(routeCreateKey, pending)
				_, err := c.Rotate(t.Context())
				require.Error(t, err)
				rec, _, err := loadRecord(t.Context(), store)
				require.NoError(t, err)
				require.NotNil(t, rec.Intent, "its idempotency key is still needed")
				res, err := c.Rotate(t.Context())
				require.NoError(t, err)
				assert.True(t, res.Recovered)
				w.oneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestARotationLeavesKeysOfOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
		store := MemoryStore()
		var others []agrentingtest.Key
		c := w.client(store, RotationPolicy{Strategy: InPlace, Owner: Static(UserToken(w.owner.Secret))},
			WithTransport(between(w.srv.Transport(), func(req *http.Request) *http.Response {
				// Somebody makes keys of his own while the answer gets lost, at
				// the same moment and later.
				if strings.HasSuffix(req.URL.Path, "/rotate-key") {
					others = append(others, w.srv.NewKey(w.agent.ID))
					if len(others) < 3 {
						advance(time.Minute)
					}
				}
				return nil
			})))
		require.NoError(t, w.call(c))
		w.srv.Fault(routeRotate, agrentingtest.DropAfter())
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, others)
		for n, k := range others {
			assert.True(t, w.srv.KeyAlive(k.Secret), "the key %d of somebody else", n)
		}
		require.NoError(t, w.call(c))
		require.NoError(t, c.Close())
	})
}

func TestAnOwnerWithoutAListStillEndsTheRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: InPlace, Owner: Static(UserToken(w.owner.Secret))})
		require.NoError(t, w.call(c))
		w.srv.Fault(routeListKeys, agrentingtest.Status(http.StatusNotFound, "").Always())
		w.srv.Fault(routeRotate, agrentingtest.DropAfter())
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, StageForget, e.Stage)
		assert.Contains(t, e.State, "in use")
		assert.Contains(t, e.Advice, "dashboard")
		rec, _, err := loadRecord(t.Context(), store)
		require.NoError(t, err)
		assert.Nil(t, rec.Intent)
		assert.True(t, w.srv.KeyAlive(rec.Current.Credential.Reveal()))
		require.NoError(t, w.call(c))
		require.NoError(t, c.Close())
	})
}

func TestAWrongKeyIDIsPutRightByTheHint(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	store := MemoryStore()
	c := w.client(store, RotationPolicy{Strategy: Overlap, KeyID: "00000000-0000-4000-8000-000000000000"})
	_, err := c.Rotate(t.Context())
	require.NoError(t, err)
	w.oneLiveKey(store)
	assert.False(t, w.srv.KeyAlive(w.key.Secret))
}

func TestTheOldKeyLivesUntilSessionsHaveChangedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: Overlap, Every: -1}, WithSession())
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, StageRevoke, e.Stage)
		assert.True(t, w.srv.KeyAlive(w.key.Secret), "its session is in use")
		require.NoError(t, w.call(c))
		w.srv.ClearFaults()
		advance(time.Hour) // it goes on by itself
		require.NoError(t, w.call(c))
		w.oneLiveKey(store)
		assert.Equal(t, uint64(2), w.oneLiveKey(store).Generation)
		require.NoError(t, c.Close())
	})
}

func TestWhileANewKeySpreadsTheOneBeforeStillDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		var spread atomic.Bool
		c := w.client(store, RotationPolicy{Strategy: Overlap, Every: -1, Grace: 30 * time.Second},
			WithTransport(between(w.srv.Transport(), func(req *http.Request) *http.Response {
				// One part of the platform does not know the new key yet.
				if req.URL.Path == "/api/v1/tasks" && secretOf(req.Header) != w.key.Secret && !spread.Load() {
					return reply(http.StatusUnauthorized, revokedBody)
				}
				return nil
			})))
		require.NoError(t, w.call(c))
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		for range 20 {
			advance(time.Second)
			require.NoError(t, w.call(c))
		}
		spread.Store(true)
		require.NoError(t, <-done)
		require.NoError(t, w.call(c))
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestAKeyPutThereByHandIsKeptWhenTheStoreRefusesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := &faultyStore{Store: storeWith(APIKey(w.key.Secret))}
		w.srv.RevokeKey(w.key.ID)
		w.key = w.srv.NewKey(w.agent.ID)
		c := w.client(store, RotationPolicy{Every: -1})
		store.refuse.Store(true)
		for range 10 {
			require.NoError(t, w.call(c))
			advance(2 * time.Second)
		}
		assert.LessOrEqual(t, w.srv.Stats().Unauthorized, int64(1), "the dead key is not tried over and over")
		store.refuse.Store(false)
		advance(2 * time.Minute)
		assert.Equal(t, w.key.Secret, w.oneLiveKey(store).Current.Credential.Reveal())
		require.NoError(t, c.Close())
	})
}

func TestUnheldRotationIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := storeWith(APIKey(w.key.Secret))
		rec, rev, err := loadRecord(t.Context(), store)
		require.NoError(t, err)
		rec.Intent = &record.Intent{
			Key: wire.NewUUID(), Strategy: InPlace.String(), Stage: string(StagePrepare), From: rec.Current.Credential.Fingerprint(), Generation: 2,
			Started: time.Now(),
		}
		_, err = saveRecord(t.Context(), store, rec, rev)
		require.NoError(t, err)
		c := w.client(store, RotationPolicy{Every: -1})
		res, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, res.Recovered)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// TestARotationMayMeetTheEnd closes the client at every moment of a rotation.
func TestARotationMayMeetTheEnd(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			for moment := range 30 {
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					base := &fixedDelays{srv: w.srv, rotate: time.Minute, verify: time.Second, others: 7 * time.Second}
					store := MemoryStore()
					p := RotationPolicy{Strategy: s, Every: -1, CallTimeout: 2 * time.Minute}
					c := w.client(store, p, WithTransport(base))
					require.NoError(t, w.call(c))
					done := make(chan error, 1)
					go func() {
						_, err := c.Rotate(t.Context())
						done <- err
					}()
					advance(time.Duration(moment) * 3 * time.Second)
					require.NoError(t, c.Close())
					synctest.Wait()
					assert.Len(t, done, 1, "Rotate has returned")
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, ErrClosed)
					next := w.client(store, RotationPolicy{Strategy: s, Every: -1})
					require.NoError(t, w.call(next))
					_, err = next.Rotate(t.Context())
					require.NoError(t, err)
					w.oneLiveKey(store)
					require.NoError(t, next.Close())
				})
			}
		})
	}
}

func TestFindingTheKeyOfAnotherProcessCostsNoCall(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	store := storeWith(APIKey(w.key.Secret))
	a, b := w.client(store, RotationPolicy{Strategy: InPlace}), w.client(&hookedStore{Store: store}, RotationPolicy{Strategy: InPlace})
	require.NoError(t, w.call(a))
	require.NoError(t, w.call(b))
	_, err := a.Rotate(t.Context())
	require.NoError(t, err)
	before := w.srv.Stats()
	require.NoError(t, w.call(b))
	assert.LessOrEqual(t, w.srv.Stats().Requests-before.Requests, int64(2), "the refused request and its replay, no other call")
}
