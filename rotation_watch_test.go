package agrenting

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unwatchedStore tells of changes only when it is let.
type unwatchedStore struct {
	Store
	watches atomic.Int64
	refuses atomic.Bool
	panics  bool
}

func (s *unwatchedStore) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	s.watches.Add(1)
	if !s.refuses.Load() {
		return s.Store.(Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
	}
	if s.panics {
		panic("no")
	}
	return func(yield func(Record, error) bool) { yield(Record{}, errDown) }
}

func TestAStoreThatCannotBeWatchedIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newRotationWorld(t)
			store := &unwatchedStore{Store: MemoryStore(), panics: panics}
			store.refuses.Store(true)
			var told atomic.Int64
			c := w.client(store, RotationPolicy{Every: -1, Strategy: InPlace}, WithObserver(func(e Event) {
				if e.Type == EventStoreFailed && e.Reason == "watch" {
					told.Add(1)
				}
			}))
			require.NoError(t, w.call(c))
			advance(24 * time.Hour)
			assert.EqualValues(t, 1, told.Load(), "the first of a row")
			assert.LessOrEqual(t, store.watches.Load(), int64(24*60+60))

			store.refuses.Store(false)
			advance(2 * time.Minute)
			_, err := w.client(store.Store, RotationPolicy{Strategy: InPlace, Every: -1}).Rotate(t.Context())
			require.NoError(t, err)
			synctest.Wait()
			rec, _, err := loadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.Equal(t, rec.Current.Credential.Fingerprint(), c.Status().Fingerprint, "it is watched again")
			require.NoError(t, c.Close())
		})
	}
}

// stubbornStore lets itself be watched, and heeds no context.
type stubbornStore struct{ Store }

func (stubbornStore) Watch(context.Context, string) iter.Seq2[Record, error] {
	return func(func(Record, error) bool) { advance(10 * time.Hour) }
}

func TestCloseSaysThatAStoreIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(stubbornStore{MemoryStore()}, RotationPolicy{Every: -1})
		require.NoError(t, w.call(c))
		began := time.Now()
		require.ErrorContains(t, c.Close(), "the store ignored the end of its context")
		assert.Equal(t, 5*time.Second, time.Since(began))
		advance(11 * time.Hour)
	})
}
