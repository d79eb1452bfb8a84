package agrenting

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

var errDown = errors.New("connection refused")

// breakableStore is a store that can be out of reach.
type breakableStore struct {
	Store
	down  atomic.Bool
	loads atomic.Int64
	slow  atomic.Int64 // how long an answer is on its way, in ns
}

func (s *breakableStore) Load(ctx context.Context, name string) (Record, error) {
	s.loads.Add(1)
	if s.down.Load() {
		return Record{}, errDown
	}
	rec, err := s.Store.Load(ctx, name)
	advance(time.Duration(s.slow.Load()))
	return rec, err
}

func (s *breakableStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if s.down.Load() {
		return "", errDown
	}
	return s.Store.Save(ctx, name, data, prev)
}

// watchedStore is a breakableStore that tells of changes.
type watchedStore struct{ breakableStore }

func (s *watchedStore) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	return s.Store.(Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
}

func TestSessionsAreBoughtWithTheKeyInMemoryWhileTheStoresAreOutOfReach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionTTL(time.Minute))
		keys := &breakableStore{Store: MemoryStore()}
		sessions := newFailingStore()
		var mu sync.Mutex
		told := 0
		c := w.client(keys, RotationPolicy{Every: -1}, WithSession(SessionPolicy{Store: sessions}), WithObserver(func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Type == EventStoreFailed && errors.Is(e.Err, errDown) && e.Reason == "load" {
				told++
			}
		}))
		require.NoError(t, w.call(c))
		require.NoError(t, c.Status().StoreError)
		keys.down.Store(true)
		for _, op := range []string{"lock", "load", "save"} {
			sessions.failing(op, errors.New("no route to host"))
		}
		for range 600 {
			require.NoError(t, w.call(c))
			advance(time.Second)
		}
		w.srv.RevokeSessions()
		require.NoError(t, w.call(c))
		require.ErrorIs(t, c.Status().StoreError, errDown)
		_, err := c.Rotate(t.Context())
		require.ErrorIs(t, err, errDown, "nothing is rotated that could not be saved")
		keys.down.Store(false)
		for _, op := range []string{"lock", "load", "save"} {
			sessions.failing(op, nil)
		}
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.call(c))
		require.NoError(t, c.Status().StoreError)
		require.NoError(t, c.Close())
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 1, told, "an outage is reported once")
	})
}

// hungStore saves so many times, and then keeps the caller waiting.
type hungStore struct {
	Store
	spare atomic.Int64
}

func (s *hungStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if s.spare.Add(-1) < 0 {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestAStoreThatHangsWithTheNewKeyKeepsRequestsWaitingForTwoCallTimeoutsAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := &hungStore{Store: MemoryStore()}
		store.spare.Store(1)
		c := w.client(store, RotationPolicy{Strategy: InPlace, Every: -1, CallTimeout: 4 * time.Second})
		require.NoError(t, w.call(c))
		store.spare.Store(2) // the intent, and its lifeline
		done := make(chan error)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		var longest time.Duration
		for range 60 {
			began := time.Now()
			require.NoError(t, w.call(c))
			longest = max(longest, time.Since(began))
			advance(time.Second)
		}
		_, ok := errors.AsType[*RotationError](<-done)
		require.True(t, ok)
		assert.LessOrEqual(t, longest, 8*time.Second)
		assert.Greater(t, longest, time.Second, "the rotation was met")
		store.spare.Store(1 << 40)
		require.NoError(t, c.Close())
		w.oneLiveKey(store)
	})
}

func TestAStoreThatTellsOfChangesIsNotLookedAtAllTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		mem := MemoryStore()
		a := w.client(mem, RotationPolicy{Strategy: Overlap, Every: -1, Grace: 20 * time.Second})
		store := &watchedStore{breakableStore{Store: mem}}
		b := w.client(store, RotationPolicy{Strategy: Overlap, Every: -1})
		require.NoError(t, w.call(a))
		require.NoError(t, w.call(b))
		go func() { _, _ = a.Rotate(t.Context()) }()
		synctest.Wait()
		before := store.loads.Load()
		done := make(chan error)
		go func() { _, err := b.Rotate(t.Context()); done <- err }()
		for range 18 {
			require.NoError(t, w.call(b))
			advance(time.Second)
		}
		assert.LessOrEqual(t, store.loads.Load()-before, int64(60), "while another process rotates")
		require.NoError(t, <-done)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// deafStore keeps whoever looks at it waiting.
type deafStore struct {
	Store
	deaf atomic.Bool
}

func (s *deafStore) Load(ctx context.Context, name string) (Record, error) {
	if s.deaf.Load() {
		<-ctx.Done()
		return Record{}, context.Cause(ctx)
	}
	return s.Store.Load(ctx, name)
}

func TestAStoreThatHangsCostsNoSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionTTL(time.Hour))
		store := &deafStore{Store: MemoryStore()}
		c := w.client(store, RotationPolicy{Every: -1}, WithSession())
		require.NoError(t, w.call(c))
		store.deaf.Store(true)
		for range 3 * 60 {
			require.NoError(t, w.call(c))
			advance(time.Minute)
		}
		store.deaf.Store(false)
		require.NoError(t, c.Close())
	})
}

// slowToLoad is a store whose answers are a while on their way.
type slowToLoad struct {
	Store
	slow atomic.Int64
}

func (s *slowToLoad) Load(ctx context.Context, name string) (Record, error) {
	t := time.NewTimer(time.Duration(s.slow.Load()))
	defer t.Stop()
	select {
	case <-t.C:
		return s.Store.Load(ctx, name)
	case <-ctx.Done():
		return Record{}, context.Cause(ctx)
	}
}

func TestALookWithoutWhichNoRequestCanBeMadeMayTakeLongerThanACall(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{"keys": nil, "sessions": {WithSession()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const call = time.Second
				w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
				keys := MemoryStore()
				store := &slowToLoad{Store: keys}
				store.slow.Store(int64(3 * call))
				c := w.client(nil, RotationPolicy{Store: store, Every: -1, CallTimeout: call}, opts...)
				require.NoError(t, w.call(c), "the first one")

				store.slow.Store(0)
				_, err := w.client(keys, RotationPolicy{Every: -1, Strategy: InPlace}).Rotate(t.Context())
				require.NoError(t, err)
				store.slow.Store(int64(3 * call))
				require.NoError(t, w.call(c), "the one for the successor of a dead key")

				advance(time.Minute)
				store.slow.Store(int64(time.Hour))
				began := time.Now()
				w.srv.RevokeSessions()
				require.NoError(t, w.call(c))
				assert.LessOrEqual(t, time.Since(began), call, "any other ends after a call")
				require.NoError(t, c.Close())
			})
		})
	}
}
