package agrenting

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestARotationByHandIsNotServedByALookThatFindsNothingDue(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	held := make(chan struct{})
	store := &hookedStore{Store: storeWith(APIKey(w.key.Secret))}
	c := w.client(store, RotationPolicy{})
	require.NoError(t, w.call(c))
	store.onLoad(func() { <-held })
	looked := c.core.stored.manager.Check()
	store.onLoad(nil)
	go close(held)
	res, err := c.Rotate(t.Context())
	require.NoError(t, err)
	require.NotNil(t, res)
	<-looked
	assert.Equal(t, uint64(2), w.oneLiveKey(store).Generation)
}

// slowStore takes its time to load.
type slowStore struct{ Store }

func (s *slowStore) Load(ctx context.Context, name string) (Record, error) {
	advance(20 * time.Millisecond)
	return s.Store.Load(ctx, name)
}

func TestRotateByHandRotatesThoughALookOfItsOwnFindsNothingDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(&slowStore{Store: MemoryStore()}, RotationPolicy{Strategy: InPlace, Every: time.Hour})
		require.NoError(t, w.call(c))
		c.core.stored.manager.Check()
		rot, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotNil(t, rot)
		assert.Equal(t, uint64(2), rot.Generation)
		require.NoError(t, c.Close())
	})
}

func TestARotationElsewhereIsTakenUpThoughThisProcessWasLookingAtTheTime(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"key": false, "session": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				mem := MemoryStore()
				store := &watchedStore{breakableStore{Store: mem}}
				var opts []Option
				if sessions {
					opts = append(opts, WithSession())
				}
				a := w.client(mem, RotationPolicy{Strategy: InPlace, Every: time.Hour}, opts...)
				b := w.client(store, RotationPolicy{Strategy: InPlace, Every: time.Hour}, opts...)
				require.NoError(t, w.call(a))
				require.NoError(t, w.call(b))
				// b is told of the rotation while a look of its own is under way, which
				// gets the record as it was before.
				store.slow.Store(int64(100 * time.Millisecond))
				b.core.stored.manager.Check()
				synctest.Wait()
				_, err := a.Rotate(t.Context())
				require.NoError(t, err)
				advance(110 * time.Millisecond)
				store.slow.Store(0)
				synctest.Wait()
				before := w.srv.Stats().Unauthorized
				require.NoError(t, w.call(b))
				assert.Equal(t, before, w.srv.Stats().Unauthorized, "the old key is not used again")
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
			})
		})
	}
}

// A look that a request causes, and the watch of the store, may find the same new
// key at the same time.
func TestAKeyThatIsTakenUpTwiceBuysOneSession(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{"shared": {WithSession(SessionPolicy{Store: newFailingStore()})}, "its own": {WithSession()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				store := MemoryStore()
				policy := RotationPolicy{Every: -1}
				owner, other := w.client(store, policy), w.client(store, policy, opts...)
				require.NoError(t, w.call(owner))
				require.NoError(t, w.call(other))
				for n := range 3 {
					_, err := owner.Rotate(t.Context())
					require.NoError(t, err)
					for range 2 { // besides the watch, which adopts it, too
						require.NoError(t, other.core.stored.Adopt(t.Context(), record.StoredKey{}, renew.Adopted))
					}
					synctest.Wait()
					require.NoError(t, w.call(other))
					require.EqualValues(t, n+2, w.srv.Stats().SessionsIssued, "one for each key")
				}
				require.NoError(t, owner.Close())
				require.NoError(t, other.Close())
			})
		})
	}
}

// A store may report a record after this process has replaced it.
func TestAKeyThatIsReportedLateIsNotAdopted(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := newRotationWorld(t)
			store := MemoryStore()
			c := w.client(store, RotationPolicy{Strategy: s, Every: -1})
			require.NoError(t, w.call(c))
			late, _, err := loadRecord(t.Context(), store)
			require.NoError(t, err)
			_, err = c.Rotate(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.core.stored.Adopt(t.Context(), late.Current, renew.Adopted))
			now, _, err := loadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.True(t, c.core.stored.Serves(now.Current.Credential))
			require.NoError(t, w.call(c))
			assert.Zero(t, w.srv.Stats().Unauthorized)
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
				w := newRotationWorld(t)
				store := &breakableStore{Store: MemoryStore()}
				c := w.client(store, RotationPolicy{Strategy: InPlace}, WithTransport(saying(w.srv.Transport(), livingFor(life))))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				rec, _, err := loadRecord(t.Context(), store)
				require.NoError(t, err)
				advance(time.Until(c.core.stored.manager.DueAt()) - time.Second)
				left := time.Until(rec.Current.Expires)
				store.down.Store(true)
				advance(left * 2 / 3)
				assert.Equal(t, 1, w.srv.Count(routeRotate))
				store.down.Store(false)
				advance(time.Until(rec.Current.Expires) - time.Second)
				assert.Equal(t, 2, w.srv.Count(routeRotate), "rotated before its end")
				require.NoError(t, c.Close())
			})
		})
	}
}
