package agrenting_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestRotateDoesNotJoinScheduledCheck(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	held := make(chan struct{})
	store := &sdktest.HookedStore{Store: sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))}
	c := w.Client(store, agrenting.RotationPolicy{})
	require.NoError(t, w.Call(c))
	store.OnLoad(func() { <-held })
	looked := agrenting.ManagerOf(c).Check()
	store.OnLoad(nil)
	go close(held)
	res, err := c.Rotate(t.Context())
	require.NoError(t, err)
	require.NotNil(t, res)
	<-looked
	assert.Equal(t, uint64(2), w.OneLiveKey(store).Generation)
}

// slowStore takes its time to load.
type slowStore struct{ agrenting.Store }

func (s *slowStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	sdktest.Advance(20 * time.Millisecond)
	return s.Store.Load(ctx, name)
}

func TestRotateOnDemandRotatesKeyThatIsNotDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(&slowStore{Store: agrenting.MemoryStore()}, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: time.Hour})
		require.NoError(t, w.Call(c))
		agrenting.ManagerOf(c).Check()
		rot, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotNil(t, rot)
		assert.Equal(t, uint64(2), rot.Generation)
		require.NoError(t, c.Close())
	})
}

func TestRotationOfOtherProcessIsAdoptedDuringCheck(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"key": false, "session": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				mem := agrenting.MemoryStore()
				store := &sdktest.WatchedStore{BreakableStore: sdktest.BreakableStore{Store: mem}}
				var opts []agrenting.Option
				if sessions {
					opts = append(opts, agrenting.WithSession())
				}
				a := w.Client(mem, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: time.Hour}, opts...)
				b := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: time.Hour}, opts...)
				require.NoError(t, w.Call(a))
				require.NoError(t, w.Call(b))
				// b is notified of the rotation during its own store load, which
				// gets the record as it was before.
				store.Slow.Store(int64(100 * time.Millisecond))
				agrenting.ManagerOf(b).Check()
				synctest.Wait()
				_, err := a.Rotate(t.Context())
				require.NoError(t, err)
				sdktest.Advance(110 * time.Millisecond)
				store.Slow.Store(0)
				synctest.Wait()
				before := w.Server.Stats().Unauthorized
				require.NoError(t, w.Call(b))
				assert.Equal(t, before, w.Server.Stats().Unauthorized, "the old key is not used again")
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
			})
		})
	}
}

// A look that a request causes, and the watch of the store, may find the same new
// key at the same time.
func TestKeyAdoptedTwiceCausesOneExchange(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrenting.Option{"shared": {agrenting.WithSession(agrenting.SessionPolicy{Store: sdktest.NewFailingStore()})}, "its own": {agrenting.WithSession()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				policy := agrenting.RotationPolicy{Every: -1}
				owner, other := w.Client(store, policy), w.Client(store, policy, opts...)
				require.NoError(t, w.Call(owner))
				require.NoError(t, w.Call(other))
				for n := range 3 {
					_, err := owner.Rotate(t.Context())
					require.NoError(t, err)
					for range 2 { // besides the watch, which adopts it, too
						require.NoError(t, agrenting.Adopt(t.Context(), other, record.StoredKey{}))
					}
					synctest.Wait()
					require.NoError(t, w.Call(other))
					require.EqualValues(t, n+2, w.Server.Stats().SessionsIssued, "one for each key")
				}
				require.NoError(t, owner.Close())
				require.NoError(t, other.Close())
			})
		})
	}
}

// A store may report a record after this process has replaced it.
func TestLateReportedKeyIsNotAdopted(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewRotationWorld(t)
			store := agrenting.MemoryStore()
			c := w.Client(store, agrenting.RotationPolicy{Strategy: s, Every: -1})
			require.NoError(t, w.Call(c))
			late, _, err := sdktest.LoadRecord(t.Context(), store)
			require.NoError(t, err)
			_, err = c.Rotate(t.Context())
			require.NoError(t, err)
			require.NoError(t, agrenting.Adopt(t.Context(), c, late.Current))
			now, _, err := sdktest.LoadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.True(t, agrenting.Serves(c, now.Current.Credential))
			require.NoError(t, w.Call(c))
			assert.Zero(t, w.Server.Stats().Unauthorized)
			require.NoError(t, c.Close())
		})
	}
}

// The pauses after failures double, and a key may end within one.
func TestAttemptsAreMadeBeforeTheKeyEnds(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := &sdktest.BreakableStore{Store: agrenting.MemoryStore()}
				c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace}, agrenting.WithTransport(sdktest.Saying(w.Server.Transport(), sdktest.LivingFor(life))))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				rec, _, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				sdktest.Advance(time.Until(agrenting.ManagerOf(c).DueAt()) - time.Second)
				left := time.Until(rec.Current.Expires)
				store.Down.Store(true)
				sdktest.Advance(left * 2 / 3)
				assert.Equal(t, 1, w.Server.Count(sdktest.RouteRotate))
				store.Down.Store(false)
				sdktest.Advance(time.Until(rec.Current.Expires) - time.Second)
				assert.Equal(t, 2, w.Server.Count(sdktest.RouteRotate), "rotated before its end")
				require.NoError(t, c.Close())
			})
		})
	}
}
