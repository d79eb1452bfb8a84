package rotation_test

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// unwatchedStore reports changes only when it is allowed to.
type unwatchedStore struct {
	agrenting.Store
	watches atomic.Int64
	refuses atomic.Bool
	panics  bool
}

func (s *unwatchedStore) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	s.watches.Add(1)
	if !s.refuses.Load() {
		return s.Store.(agrenting.Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
	}
	if s.panics {
		panic("no")
	}
	return func(yield func(agrenting.Record, error) bool) { yield(agrenting.Record{}, sdktest.ErrDown) }
}

func TestUnwatchableStoreIsNotWatchedAgain(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewRotationWorld(t)
			store := &unwatchedStore{Store: agrenting.MemoryStore(), panics: panics}
			store.refuses.Store(true)
			var told atomic.Int64
			c := w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}, agrenting.WithObserver(func(e agrenting.Event) {
				if e.Type == agrenting.EventStoreFailed && e.Reason == "watch" {
					told.Add(1)
				}
			}))
			require.NoError(t, w.Call(c))
			sdktest.Advance(24 * time.Hour)
			assert.EqualValues(t, 1, told.Load(), "the first of a row")
			assert.LessOrEqual(t, store.watches.Load(), int64(24*60+60))

			store.refuses.Store(false)
			sdktest.Advance(2 * time.Minute)
			_, err := w.Client(store.Store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}).Rotate(t.Context())
			require.NoError(t, err)
			synctest.Wait()
			rec, _, err := sdktest.LoadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.Equal(t, rec.Current.Credential.Fingerprint(), c.Status().Fingerprint, "it is watched again")
			require.NoError(t, c.Close())
		})
	}
}

// stubbornStore can be watched, and ignores its context.
type stubbornStore struct{ agrenting.Store }

func (stubbornStore) Watch(context.Context, string) iter.Seq2[agrenting.Record, error] {
	return func(func(agrenting.Record, error) bool) { sdktest.Advance(10 * time.Hour) }
}

func TestCloseReportsHungStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(stubbornStore{agrenting.MemoryStore()}, agrenting.RotationPolicy{Every: -1})
		require.NoError(t, w.Call(c))
		began := time.Now()
		require.ErrorContains(t, c.Close(), "the store ignored the end of its context")
		assert.Equal(t, 5*time.Second, time.Since(began))
		sdktest.Advance(11 * time.Hour)
	})
}
