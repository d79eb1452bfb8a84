package rotation_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// defaultMaxAttempts is what MaxAttempts of a RotationPolicy is by default.
const defaultMaxAttempts = 5

const routeRevokeKey = "DELETE /api/v1/agents/*"

func TestPermanentlyRefusedRevocationKeepsRotationOpen(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 405} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewRotationWorld(t)
			store := agrenting.MemoryStore()
			var mu sync.Mutex
			var told []string
			c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID}, agrenting.WithObserver(func(e agrenting.Event) {
				if e.Type == agrenting.EventRotationFailed {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, e.Err.Error())
				}
			}))
			require.NoError(t, w.Call(c))
			w.Server.Fault(routeRevokeKey, agrentingtest.Status(status, "").Always())
			for range 400 {
				sdktest.Advance(24 * time.Hour)
				require.NoError(t, w.Call(c))
			}
			rec, _, err := sdktest.LoadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.EqualValues(t, 5, rec.Generation)
			assert.Nil(t, rec.Intent)
			require.NoError(t, c.Close())
			mu.Lock()
			defer mu.Unlock()
			assert.LessOrEqual(t, len(told), 4*(defaultMaxAttempts+1))
			named := 0
			for _, text := range told {
				if strings.Contains(text, "Revoke it in the dashboard") && strings.Contains(text, w.Key.ID) {
					named++
				}
			}
			assert.Equal(t, 1, named, "it is told once which key is left: %q", told)
		})
	}
}

func TestTemporarilyRefusedRevocationIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap})
		require.NoError(t, w.Call(c))
		w.Server.Fault(routeRevokeKey, agrentingtest.Status(403, "").Times(defaultMaxAttempts))
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		sdktest.Advance(2 * time.Hour)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestResumedRotationWaitsGraceOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		p := agrenting.RotationPolicy{Strategy: agrenting.Overlap, Grace: time.Hour}
		c := w.Client(store, p)
		require.NoError(t, w.Call(c))
		go func(c *agrenting.Client) { _, _ = c.Rotate(t.Context()) }(c)
		for n := range 5 {
			sdktest.Advance(20 * time.Minute)
			if n == 1 {
				assert.True(t, w.Server.KeyAlive(w.Key.Secret), "after two thirds of it")
			}
			require.NoError(t, c.Close())
			c = w.Client(store, p)
			require.NoError(t, w.Call(c))
		}
		sdktest.Advance(time.Minute)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// For how long the key was in use before says nothing about the grace.
func TestLongUsedKeyHasFullGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Strategy: agrenting.Overlap, Grace: time.Hour, Every: -1})
		for range 3 * 24 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(time.Hour)
		}
		require.NoError(t, w.Call(c))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Rotate(t.Context())
			assert.NoError(t, err)
		})
		sdktest.Advance(time.Hour - time.Second)
		assert.True(t, w.Server.KeyAlive(w.Key.Secret), "its grace is not over")
		wg.Wait()
		assert.False(t, w.Server.KeyAlive(w.Key.Secret))
		require.NoError(t, c.Close())
	})
}

func TestGraceOfFirstHolderApplies(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{time.Minute, time.Hour, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewRotationWorld(t)
			store := agrenting.MemoryStore()
			first := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Grace: grace, Every: -1})
			other, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithStore(store))
			require.NoError(t, err)
			require.NoError(t, w.Call(first))
			require.NoError(t, w.Call(other))
			go func() { _, _ = first.Rotate(t.Context()) }()
			sdktest.Advance(10 * time.Second)
			require.NoError(t, first.Close())
			began := time.Now()
			for time.Since(began) < grace-30*time.Second {
				require.NoError(t, w.Call(other))
				sdktest.Advance(5 * time.Second)
			}
			assert.True(t, w.Server.KeyAlive(w.Key.Secret), "its grace is not over")
			sdktest.Advance(2 * time.Minute)
			require.NoError(t, w.Call(other))
			w.OneLiveKey(store)
			require.NoError(t, other.Close())
		})
	}
}

// The end of the grace is in the record, and a clock may have been wrong.
func TestGraceInFarFutureIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		next := w.Server.NewKey(w.Agent.ID)
		store := agrenting.MemoryStore()
		far := sdktest.WallNow().AddDate(10, 0, 0)
		rec := record.Key{
			Agent: w.Agent.ID, Generation: 2,
			Current:  record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(next.Secret)), ID: next.ID, Created: sdktest.WallNow()},
			Previous: record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(w.Key.Secret)), ID: w.Key.ID, Created: sdktest.WallNow()},
			Intent: &record.Intent{
				Key: wire.NewUUID(), Strategy: agrenting.Overlap.String(), Stage: string(agrenting.StageRevoke), Generation: 2, Started: far, GraceEnd: far.Add(time.Minute),
			},
		}
		_, err := sdktest.SaveRecord(t.Context(), store, rec, "")
		require.NoError(t, err)
		c := w.Client(store, agrenting.RotationPolicy{})
		require.NoError(t, w.Call(c))
		sdktest.Advance(2 * time.Minute)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}
