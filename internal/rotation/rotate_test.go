package rotation_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestRotationReplacesAndRevokesKey(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		strategy agrenting.Strategy
		owner    bool
		broken   bool
		want     agrenting.Strategy
	}{
		"overlap by the key itself": {strategy: agrenting.Overlap, want: agrenting.Overlap},
		"overlap by the owner":      {strategy: agrenting.Overlap, owner: true, want: agrenting.Overlap},
		"in place":                  {strategy: agrenting.InPlace, want: agrenting.InPlace},
		"in place with an owner":    {strategy: agrenting.InPlace, owner: true, want: agrenting.InPlace},
		"chosen":                    {want: agrenting.Overlap},
		"in place, odd response":    {strategy: agrenting.InPlace, broken: true, want: agrenting.InPlace},
	} {
		for _, session := range []bool{false, true} {
			full := name
			if session {
				full += ", with sessions"
			}
			t.Run(full, func(t *testing.T) {
				t.Parallel()
				var opts []agrentingtest.Option
				if tc.broken {
					opts = append(opts, agrentingtest.WithUnexpectedKeyFields())
				}
				w := sdktest.NewRotationWorld(t, opts...)
				store := agrenting.MemoryStore()
				p := agrenting.RotationPolicy{Strategy: tc.strategy}
				if tc.owner {
					p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
				}
				var copts []agrenting.Option
				if session {
					copts = append(copts, agrenting.WithSession())
				}
				c := w.Client(store, p, copts...)
				require.NoError(t, w.Call(c))
				for n := range 3 {
					rot, err := c.Rotate(t.Context())
					require.NoError(t, err)
					assert.Equal(t, tc.want, rot.Strategy)
					assert.Equal(t, uint64(n+2), rot.Generation)
					require.NoError(t, w.Call(c))
					rec := w.OneLiveKey(store)
					assert.Equal(t, rec.Current.Credential.Fingerprint(), rot.To)
					assert.NotEqual(t, rot.From, rot.To)
				}
				assert.False(t, w.Server.KeyAlive(w.Key.Secret))
			})
		}
	}
}

func TestRotationsUnderLoadFailNoRequest(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, session := range []bool{false, true} {
			name := s.String()
			var opts []agrentingtest.Option
			var copts []agrenting.Option
			if session {
				name += " with sessions that die with their key"
				opts = append(opts, agrentingtest.WithSessionsEndingWithKey())
				copts = append(copts, agrenting.WithSession())
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := sdktest.NewRotationWorld(t, opts...)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: s}, copts...)
				require.NoError(t, w.Call(c))
				stop := w.Load(c, 8)
				for range 20 {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
				}
				calls, failed := stop()
				assert.Zero(t, failed)
				assert.Positive(t, calls)
				w.OneLiveKey(store)
				assert.Equal(t, 20, int(w.Server.Stats().KeysRevoked))
			})
		}
	}
}

func TestDueKeyIsRotatedAutomatically(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{})
		require.NoError(t, w.Call(c))
		sdktest.Advance(80 * 24 * time.Hour)
		require.NoError(t, w.Call(c))
		require.True(t, w.Server.KeyAlive(w.Key.Secret), "too early")
		sdktest.Advance(11 * 24 * time.Hour)
		synctest.Wait()
		assert.False(t, w.Server.KeyAlive(w.Key.Secret))
		assert.Equal(t, uint64(2), w.OneLiveKey(store).Generation)
		sdktest.Advance(300 * 24 * time.Hour)
		synctest.Wait()
		assert.InDelta(t, 5, w.OneLiveKey(store).Generation, 1)
		require.NoError(t, c.Close())
	})
}

func TestLostInPlaceResponseIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, owner := range map[string]bool{"by a session": false, "by the owner": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewRotationWorld(t)
			store := agrenting.MemoryStore()
			p := agrenting.RotationPolicy{Strategy: agrenting.InPlace}
			if owner {
				p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
			}
			c := w.Client(store, p)
			require.NoError(t, w.Call(c))
			w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter().Times(2))
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			require.NoError(t, w.Call(c))
			w.OneLiveKey(store)
			assert.Equal(t, 1, int(w.Server.Stats().Rotations), "it was rotated once")
		})
	}
}

func TestStoreRefusingNewKeyDoesNotLoseIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := &sdktest.FaultyStore{Store: agrenting.MemoryStore()}
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace})
		require.NoError(t, w.Call(c))
		store.Refuse.Store(true)
		store.Spare.Store(2) // the intent, and its lifeline
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, agrenting.Stage("persist"), e.Stage)
		cred, ok := e.NewCredential()
		require.True(t, ok)
		assert.True(t, w.Server.KeyAlive(cred.Reveal()))
		require.NoError(t, w.Call(c), "the process continues with it")
		store.Refuse.Store(false)
		sdktest.Advance(2 * time.Minute)
		w.OneLiveKey(store)
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
	})
}

func TestResponseWithUnknownKeyNameIsKept(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithRotateKeyField("brand_new_name"))
	store := agrenting.MemoryStore()
	c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace})
	require.NoError(t, w.Call(c))
	_, err := c.Rotate(t.Context())
	e, ok := errors.AsType[*agrenting.RotationError](err)
	require.True(t, ok, "%v", err)
	_, after, found := strings.Cut(string(e.RawResponse()), `"brand_new_name":"`)
	require.True(t, found)
	hidden, _, _ := strings.Cut(after, `"`)
	assert.True(t, w.Server.KeyAlive(hidden))
	assert.NotContains(t, err.Error(), hidden)
}

func TestProcessesAdoptEachOthersRotations(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	var clients []*agrenting.Client
	for range 4 {
		store, err := agrenting.FileStore(path)
		require.NoError(t, err)
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Grace: -1})
		require.NoError(t, w.Call(c))
		clients = append(clients, c)
	}
	for i, c := range clients {
		_, err := c.Rotate(t.Context())
		require.NoError(t, err, "rotation %d", i)
		for _, other := range clients {
			require.NoError(t, w.Call(other))
		}
	}
	store, err := agrenting.FileStore(path)
	require.NoError(t, err)
	rec := w.OneLiveKey(store)
	assert.Equal(t, uint64(5), rec.Generation)
	assert.Len(t, rec.Ancestors, 4)
}

func TestConcurrentRotationsRunOneAtATime(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewRotationWorld(t)
			path := filepath.Join(t.TempDir(), "keys", "key.json")
			var wg sync.WaitGroup
			var made, adopted atomic.Int64
			for range 8 {
				store, err := agrenting.FileStore(path)
				require.NoError(t, err)
				c := w.Client(store, agrenting.RotationPolicy{Strategy: s, Grace: -1})
				wg.Go(func() {
					rot, err := c.Rotate(t.Context())
					if !assert.NoError(t, err) {
						return
					}
					if rot.Adopted {
						adopted.Add(1)
					} else {
						made.Add(1)
					}
					assert.NoError(t, w.Call(c))
				})
			}
			wg.Wait()
			assert.Equal(t, int64(8), made.Load()+adopted.Load())
			store, err := agrenting.FileStore(path)
			require.NoError(t, err)
			rec := w.OneLiveKey(store)
			assert.Equal(t, uint64(made.Load())+1, rec.Generation)
		})
	}
}

func TestInitialKeyIsIgnoredAfterRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace})
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())

		again := w.Client(store, agrenting.RotationPolicy{}) // the environment still names the first key
		require.NoError(t, w.Call(again))
		require.NoError(t, again.Close())

		rec, _, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		w.Server.RevokeKey(rec.Current.ID) // an operator revoked it
		w.Key = w.Server.NewKey(w.Agent.ID)
		byHand := w.Client(store, agrenting.RotationPolicy{})
		require.NoError(t, w.Call(byHand))
		rec = w.OneLiveKey(store)
		assert.Equal(t, w.Key.Secret, rec.Current.Credential.Reveal())
		assert.Equal(t, uint64(3), rec.Generation)
		require.NoError(t, byHand.Close())
	})
}

func TestRotationNeedsWritableStore(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	plain, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)))
	require.NoError(t, err)
	_, err = plain.Rotate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
	require.ErrorContains(t, err, "FileStore")

	c := w.Client(sdktest.Refusing(sdktest.StoreWith(agrenting.APIKey(w.Key.Secret)), agrenting.ErrReadOnlyStore), agrenting.RotationPolicy{})
	require.NoError(t, w.Call(c))
	_, err = c.Rotate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrReadOnlyStore)
	assert.True(t, w.Server.KeyAlive(w.Key.Secret), "nothing was done")

	_, err = agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithRotation(agrenting.RotationPolicy{}))
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}
