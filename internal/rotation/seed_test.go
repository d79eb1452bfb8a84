package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

var errDiskFull = errors.New("no space left on device")

func TestEmptyStoreRefusingInitialKeyFailsNoRequest(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"read-only": agrenting.ErrReadOnlyStore, "full": errDiskFull} {
		for _, session := range []bool{false, true} {
			if session {
				name += ", with sessions"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					store := sdktest.Refusing(agrenting.MemoryStore(), refusal)
					var told atomic.Int64
					opts := []agrenting.Option{agrenting.WithObserver(func(e agrenting.Event) {
						if e.Type == agrenting.EventStoreFailed {
							told.Add(1)
						}
					})}
					if session {
						opts = append(opts, agrenting.WithSession())
					}
					c := w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}, opts...)
					for range 600 {
						require.NoError(t, w.Call(c))
						sdktest.Advance(time.Second)
					}
					assert.Positive(t, told.Load())
					assert.LessOrEqual(t, told.Load(), int64(30), "it is not told at every look")
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, refusal, "nothing is rotated that could not be saved")
					require.NoError(t, c.Close(), "the seed is where it was")

					c = w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}, opts...)
					require.NoError(t, w.Call(c))
					store.Err.Store(new(error))
					sdktest.Advance(2 * time.Minute)
					require.NoError(t, w.Call(c))
					synctest.Wait() // for the look that the call has caused
					rec := w.OneLiveKey(store)
					assert.Equal(t, w.Key.Secret, rec.Current.Credential.Reveal(), "it is saved when it can be")
					_, err = c.Rotate(t.Context())
					require.NoError(t, err)
					require.NoError(t, w.Call(c))
					w.OneLiveKey(store)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

// A database may report a conflict that is not about the record.
func TestEmptyStoreReportingConflictFailsNoRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := sdktest.Refusing(agrenting.MemoryStore(), agrenting.ErrConflictingWrite)
		var told atomic.Int64
		c := w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}, agrenting.WithObserver(func(e agrenting.Event) {
			if e.Type == agrenting.EventStoreFailed {
				told.Add(1)
			}
		}))
		for range 60 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(time.Second)
		}
		assert.EqualValues(t, 1, told.Load())
		require.ErrorIs(t, c.Status().StoreError, agrenting.ErrConflictingWrite)
		store.Err.Store(new(error))
		sdktest.Advance(2 * time.Minute)
		assert.Equal(t, w.Key.Secret, w.OneLiveKey(store).Current.Credential.Reveal(), "it is saved when it can be")
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Status().StoreError)
		require.NoError(t, c.Close())
	})
}

// tellingStore is a store that cannot be written and reports changes.
type tellingStore struct{ *sdktest.RefusingStore }

func (s tellingStore) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.Store.(agrenting.Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
}

// The key has died, and an operator has provided the next one. A body that can
// be sent only once would otherwise find the dead key again after each load of
// the store.
func TestDeadKeyInReadOnlyStoreIsNotReused(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		for _, session := range []bool{false, true} {
			t.Run(fmt.Sprintf("watched %v, sessions %v", watched, session), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					w.Server.SetSessionTTL(time.Minute)
					inner := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
					var store agrenting.Store = sdktest.Refusing(inner, agrenting.ErrReadOnlyStore)
					if watched {
						store = tellingStore{sdktest.Refusing(inner, agrenting.ErrReadOnlyStore)}
					}
					set, seed := sdktest.ChangingKey(w.Server.NewKey(w.Agent.ID).Secret)
					opts := []agrenting.Option{seed}
					if session {
						opts = append(opts, agrenting.WithSession())
					}
					c := w.Client(store, agrenting.RotationPolicy{Every: -1}, opts...)
					require.NoError(t, w.Call(c))
					once := func() error {
						body := struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + w.Agent.ID + `","task_type":"test"}`)}
						_, err := c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", body, nil, agrenting.CallHeader("Content-Type", "application/json"))
						return err
					}
					goesOn := func(why string) {
						w.Server.RevokeSessions()
						require.NoError(t, w.Call(c), why)
						w.Server.ResetLog()
						for range 300 {
							require.NoError(t, once(), why)
							sdktest.Advance(time.Second)
						}
						for _, r := range w.Server.Requests() {
							assert.NotEqual(t, http.StatusUnauthorized, r.Status, why)
						}
					}
					w.Server.RevokeKey(w.Key.ID)
					goesOn("the seed does in its place")
					second := w.Server.NewKey(w.Agent.ID)
					for _, k := range w.Server.LiveKeys(w.Agent.ID) {
						if k.ID != second.ID {
							w.Server.RevokeKey(k.ID)
						}
					}
					set(second.Secret)
					goesOn("and the next seed after it")
					third := w.Server.NewKey(w.Agent.ID)
					_, rev, err := sdktest.LoadRecord(t.Context(), inner)
					require.NoError(t, err)
					_, err = sdktest.SaveRecord(t.Context(), inner, record.Key{Generation: 1, Current: record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(third.Secret)), Created: sdktest.WallNow()}}, rev)
					require.NoError(t, err)
					sdktest.Advance(2 * time.Minute)
					require.NoError(t, w.Call(c))
					w.Server.RevokeKey(second.ID)
					goesOn("who provides the key has replaced it")
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestEmptyStoreErrorListsSources(t *testing.T) {
	t.Parallel()
	for _, session := range []bool{false, true} {
		w := sdktest.NewRotationWorld(t)
		opts := []agrenting.Option{agrenting.WithLookupEnv(func(string) (string, bool) { return "", false }), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithStore(agrenting.MemoryStore())}
		if session {
			opts = append(opts, agrenting.WithSession())
		}
		c, err := agrenting.New(opts...)
		require.NoError(t, err)
		err = w.Call(c)
		require.ErrorIs(t, err, agrenting.ErrNoCredential)
		require.ErrorContains(t, err, "store is empty")
		e, ok := errors.AsType[*agrenting.NoCredentialError](err)
		require.True(t, ok, "%v", err)
		assert.NotEmpty(t, e.Tried)
		require.NoError(t, c.Close())
	}
}

// The doc comment of RotationPolicy.AgentID says so.
func TestInPlaceRotationStoresAgent(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	store := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithStore(store))
	require.NoError(t, err)
	for _, want := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		rot, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, rot.Strategy)
		w.OneLiveKey(store)
	}
	require.NoError(t, c.Close())
}
