package agrenting_test

import (
	"os"
	"path/filepath"
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

// keptForever is a policy without a schedule.
var keptForever = agrenting.RotationPolicy{Every: -1}

// countedStores are stores that count loads.
var countedStores = map[string]func() (agrenting.Store, *atomic.Int64){
	"plain": func() (agrenting.Store, *atomic.Int64) {
		s := &sdktest.BreakableStore{Store: agrenting.MemoryStore()}
		return s, &s.Loads
	},
	"watched": func() (agrenting.Store, *atomic.Int64) {
		s := &sdktest.WatchedStore{BreakableStore: sdktest.BreakableStore{Store: agrenting.MemoryStore()}}
		return s, &s.Loads
	},
}

func TestIdleClientReadsStoreOnlyToRenew(t *testing.T) {
	t.Parallel()
	const perRenewal = 2 // the key and the session
	for name, newStore := range countedStores {
		for of, tc := range map[string]struct {
			life     time.Duration
			opts     []agrenting.Option
			renewals int64 // in an hour
		}{
			"key":           {time.Minute, nil, 0},
			"long session":  {24 * time.Hour, []agrenting.Option{agrenting.WithSession()}, 0},
			"short session": {50 * time.Minute, []agrenting.Option{agrenting.WithSession()}, 1},
		} {
			t.Run(name+", "+of, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(tc.life))
					store, loads := newStore()
					c := w.Client(store, keptForever, tc.opts...)
					for range 3 { // also after rechecks
						require.NoError(t, w.Call(c))
						sdktest.LetPass(31 * time.Second)
					}
					before, sessions := loads.Load(), w.Server.Stats().SessionsIssued
					sdktest.LetPass(time.Hour)
					assert.Equal(t, tc.renewals, w.Server.Stats().SessionsIssued-sessions)
					assert.Equal(t, tc.renewals*perRenewal, loads.Load()-before)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestBusyClientReadsStoreAtIntervals(t *testing.T) {
	t.Parallel()
	const minutes = 10
	for name, tc := range map[string]struct{ most, least int64 }{
		"plain":   {60 * minutes, 20 * minutes}, // one a second
		"watched": {2 * minutes, minutes},       // one in 30 s
	} {
		for of, opts := range map[string][]agrenting.Option{"key": nil, "session": {agrenting.WithSession()}} {
			t.Run(name+", "+of, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(24*time.Hour))
					store, loads := countedStores[name]()
					c := w.Client(store, keptForever, opts...)
					require.NoError(t, w.Call(c))
					synctest.Wait()
					before := loads.Load()
					for range 60 * minutes {
						sdktest.LetPass(time.Second)
						require.NoError(t, w.Call(c))
					}
					assert.LessOrEqual(t, loads.Load()-before, tc.most)
					assert.GreaterOrEqual(t, loads.Load()-before, tc.least)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestIdleClientAdoptsRotationOfOtherProcess(t *testing.T) {
	t.Parallel()
	for name, newStore := range countedStores {
		for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
			for of, opts := range map[string][]agrenting.Option{"key": nil, "session": {agrenting.WithSession()}} {
				t.Run(name+", "+strategy.String()+", "+of, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(24*time.Hour))
						store, _ := newStore()
						c := w.Client(store, keptForever, opts...)
						require.NoError(t, w.Call(c))
						other := w.Client(store, agrenting.RotationPolicy{Strategy: strategy, Every: -1})
						for range 2 {
							sdktest.LetPass(time.Hour)
							_, err := other.Rotate(t.Context())
							require.NoError(t, err)
							require.NoError(t, w.Call(c))
						}
						sdktest.LetPass(time.Hour)
						require.NoError(t, w.Call(c))
						w.OneLiveKey(store)
						require.NoError(t, c.Close())
						require.NoError(t, other.Close())
					})
				})
			}
		}
	}
}

func TestIdleClientLeavesKeyFileAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(24*time.Hour))
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
		c := w.Client(agrenting.WithCredentialSource(agrenting.FileSource(path)))
		require.NoError(t, w.Call(c))
		require.NoError(t, os.WriteFile(path, []byte(w.Server.NewKey(w.Agent.ID).Secret), 0o600))
		sdktest.LetPass(time.Hour)
		assert.Equal(t, 1, w.Exchanges(), "without traffic, the file is not read")
		require.NoError(t, w.Call(c))
		synctest.Wait()
		assert.Equal(t, 2, w.Exchanges())
	})
}

func TestIdleClientsMakeNoCalls(t *testing.T) {
	t.Parallel()
	clients := 5000
	if sdktest.RaceEnabled {
		clients = 200
	}
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(24*time.Hour))
		store := &sdktest.BreakableStore{Store: agrenting.MemoryStore()}
		for range clients {
			require.NoError(t, w.Call(w.Client(store, keptForever, agrenting.WithSession())))
		}
		sdktest.LetPass(time.Minute)
		before, calls := store.Loads.Load(), len(w.Server.Requests())
		sdktest.LetPass(20 * time.Second)
		assert.Zero(t, store.Loads.Load()-before)
		assert.Len(t, w.Server.Requests(), calls)
		assert.EqualValues(t, 1, w.Server.Stats().SessionsIssued)
	})
}
