package rotation_test

import (
	"context"
	"errors"
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

func TestExchangeUsesKeyInMemoryDuringStoreOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(time.Minute))
		keys := &sdktest.BreakableStore{Store: agrenting.MemoryStore()}
		sessions := sdktest.NewFailingStore()
		var mu sync.Mutex
		told := 0
		c := w.Client(keys, agrenting.RotationPolicy{Every: -1}, agrenting.WithSession(agrenting.SessionPolicy{Store: sessions}), agrenting.WithObserver(func(e agrenting.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Type == agrenting.EventStoreFailed && errors.Is(e.Err, sdktest.ErrDown) && e.Reason == "load" {
				told++
			}
		}))
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Status().StoreError)
		keys.Down.Store(true)
		for _, op := range []string{"load", "save"} {
			sessions.Failing(op, errors.New("no route to host"))
		}
		for range 600 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(time.Second)
		}
		w.Server.RevokeSessions()
		require.NoError(t, w.Call(c))
		require.ErrorIs(t, c.Status().StoreError, sdktest.ErrDown)
		_, err := c.Rotate(t.Context())
		require.ErrorIs(t, err, sdktest.ErrDown, "nothing is rotated that could not be saved")
		keys.Down.Store(false)
		for _, op := range []string{"load", "save"} {
			sessions.Failing(op, nil)
		}
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Status().StoreError)
		require.NoError(t, c.Close())
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 1, told, "an outage is reported once")
	})
}

// hungStore saves so many times, and then keeps the caller waiting.
type hungStore struct {
	agrenting.Store
	spare atomic.Int64
}

func (s *hungStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if s.spare.Add(-1) < 0 {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestHungSaveBlocksRequestsForTwoCallTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := &hungStore{Store: agrenting.MemoryStore()}
		store.spare.Store(1)
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1, CallTimeout: 4 * time.Second})
		require.NoError(t, w.Call(c))
		store.spare.Store(2) // the intent, and its lifeline
		done := make(chan error)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		var longest time.Duration
		for range 60 {
			began := time.Now()
			require.NoError(t, w.Call(c))
			longest = max(longest, time.Since(began))
			sdktest.Advance(time.Second)
		}
		_, ok := errors.AsType[*agrenting.RotationError](<-done)
		require.True(t, ok)
		assert.LessOrEqual(t, longest, 8*time.Second)
		assert.Greater(t, longest, time.Second, "the rotation was met")
		store.spare.Store(1 << 40)
		require.NoError(t, c.Close())
		w.OneLiveKey(store)
	})
}

func TestWatchedStoreIsRarelyPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		mem := agrenting.MemoryStore()
		a := w.Client(mem, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1, Grace: 20 * time.Second})
		store := &sdktest.WatchedStore{BreakableStore: sdktest.BreakableStore{Store: mem}}
		b := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1})
		require.NoError(t, w.Call(a))
		require.NoError(t, w.Call(b))
		go func() { _, _ = a.Rotate(t.Context()) }()
		synctest.Wait()
		before := store.Loads.Load()
		done := make(chan error)
		go func() { _, err := b.Rotate(t.Context()); done <- err }()
		for range 18 {
			require.NoError(t, w.Call(b))
			sdktest.Advance(time.Second)
		}
		assert.LessOrEqual(t, store.Loads.Load()-before, int64(60), "while another process rotates")
		require.NoError(t, <-done)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// deafStore makes every caller of Load wait.
type deafStore struct {
	agrenting.Store
	deaf atomic.Bool
}

func (s *deafStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if s.deaf.Load() {
		<-ctx.Done()
		return agrenting.Record{}, context.Cause(ctx)
	}
	return s.Store.Load(ctx, name)
}

func TestHungStoreKeepsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(time.Hour))
		store := &deafStore{Store: agrenting.MemoryStore()}
		c := w.Client(store, agrenting.RotationPolicy{Every: -1}, agrenting.WithSession())
		require.NoError(t, w.Call(c))
		store.deaf.Store(true)
		for range 3 * 60 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(time.Minute)
		}
		store.deaf.Store(false)
		require.NoError(t, c.Close())
	})
}

// slowToLoad is a store whose answers are a while on their way.
type slowToLoad struct {
	agrenting.Store
	slow atomic.Int64
}

func (s *slowToLoad) Load(ctx context.Context, name string) (agrenting.Record, error) {
	t := time.NewTimer(time.Duration(s.slow.Load()))
	defer t.Stop()
	select {
	case <-t.C:
		return s.Store.Load(ctx, name)
	case <-ctx.Done():
		return agrenting.Record{}, context.Cause(ctx)
	}
}

func TestRequiredStoreLoadMayExceedCallTimeout(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrenting.Option{"keys": nil, "sessions": {agrenting.WithSession()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const call = time.Second
				w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
				keys := agrenting.MemoryStore()
				store := &slowToLoad{Store: keys}
				store.slow.Store(int64(3 * call))
				c := w.Client(nil, agrenting.RotationPolicy{Store: store, Every: -1, CallTimeout: call}, opts...)
				require.NoError(t, w.Call(c), "the first one")

				store.slow.Store(0)
				_, err := w.Client(keys, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}).Rotate(t.Context())
				require.NoError(t, err)
				store.slow.Store(int64(3 * call))
				require.NoError(t, w.Call(c), "the one for the successor of a dead key")

				sdktest.Advance(time.Minute)
				store.slow.Store(int64(time.Hour))
				began := time.Now()
				w.Server.RevokeSessions()
				require.NoError(t, w.Call(c))
				const asking = 300 * time.Millisecond // whether the session is dead
				assert.LessOrEqual(t, time.Since(began), call+asking, "any other ends after a call")
				require.NoError(t, c.Close())
			})
		})
	}
}
