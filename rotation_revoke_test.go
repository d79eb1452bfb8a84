package agrenting

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const routeRevokeKey = "DELETE /api/v1/agents/*"

func TestARevocationThatIsRefusedForGoodDoesNotEndRotation(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 405} {
		synctest.Test(t, func(t *testing.T) {
			w := newRotationWorld(t)
			store := MemoryStore()
			var mu sync.Mutex
			var told []string
			c := w.client(store, RotationPolicy{Strategy: Overlap, KeyID: w.key.ID}, WithObserver(func(e Event) {
				if e.Type == EventRotationFailed {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, e.Err.Error())
				}
			}))
			require.NoError(t, w.call(c))
			w.srv.Fault(routeRevokeKey, agrentingtest.Status(status, "").Always())
			for range 400 {
				advance(24 * time.Hour)
				require.NoError(t, w.call(c))
			}
			rec, _, err := loadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.EqualValues(t, 5, rec.Generation)
			assert.Nil(t, rec.Intent)
			require.NoError(t, c.Close())
			mu.Lock()
			defer mu.Unlock()
			assert.LessOrEqual(t, len(told), 4*(defaultMaxAttempts+1))
			named := 0
			for _, text := range told {
				if strings.Contains(text, "revoke it in the dashboard") && strings.Contains(text, w.key.ID) {
					named++
				}
			}
			assert.Equal(t, 1, named, "it is told once which key is left: %q", told)
		})
	}
}

func TestARevocationThatIsRefusedForAWhileIsMadeAfterAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: Overlap})
		require.NoError(t, w.call(c))
		w.srv.Fault(routeRevokeKey, agrentingtest.Status(403, "").Times(defaultMaxAttempts))
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		advance(2 * time.Hour)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestTheGraceIsServedOnceHoweverOftenARotationIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		p := RotationPolicy{Strategy: Overlap, Grace: time.Hour}
		c := w.client(store, p)
		require.NoError(t, w.call(c))
		go func(c *Client) { _, _ = c.Rotate(t.Context()) }(c)
		for n := range 5 {
			advance(20 * time.Minute)
			if n == 1 {
				assert.True(t, w.srv.KeyAlive(w.key.Secret), "after two thirds of it")
			}
			require.NoError(t, c.Close())
			c = w.client(store, p)
			require.NoError(t, w.call(c))
		}
		advance(time.Minute)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// For how long the key was in use before says nothing about the grace.
func TestAKeyThatWasLongInUseHasItsWholeGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(MemoryStore(), RotationPolicy{Strategy: Overlap, Grace: time.Hour, Every: -1})
		for range 3 * 24 {
			require.NoError(t, w.call(c))
			advance(time.Hour)
		}
		require.NoError(t, w.call(c))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Rotate(t.Context())
			assert.NoError(t, err)
		})
		advance(time.Hour - time.Second)
		assert.True(t, w.srv.KeyAlive(w.key.Secret), "its grace is not over")
		wg.Wait()
		assert.False(t, w.srv.KeyAlive(w.key.Secret))
		require.NoError(t, c.Close())
	})
}

func TestTheGraceIsThatOfWhoeverBeganTheRotation(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{time.Minute, time.Hour, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newRotationWorld(t)
			store := MemoryStore()
			first := w.client(store, RotationPolicy{Strategy: Overlap, Grace: grace, Every: -1})
			other, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithStore(store))
			require.NoError(t, err)
			require.NoError(t, w.call(first))
			require.NoError(t, w.call(other))
			go func() { _, _ = first.Rotate(t.Context()) }()
			advance(10 * time.Second)
			require.NoError(t, first.Close())
			began := time.Now()
			for time.Since(began) < grace-30*time.Second {
				require.NoError(t, w.call(other))
				advance(5 * time.Second)
			}
			assert.True(t, w.srv.KeyAlive(w.key.Secret), "its grace is not over")
			advance(2 * time.Minute)
			require.NoError(t, w.call(other))
			w.oneLiveKey(store)
			require.NoError(t, other.Close())
		})
	}
}

// The end of the grace is in the record, and a clock may have been wrong.
func TestAGraceThatEndsInTheFarFutureIsCutShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		next := w.srv.NewKey(w.agent.ID)
		store := MemoryStore()
		far := wallNow().AddDate(10, 0, 0)
		rec := record.Key{
			Agent: w.agent.ID, Generation: 2,
			Current:  record.StoredKey{Credential: secretCredential(APIKey(next.Secret)), ID: next.ID, Created: wallNow()},
			Previous: record.StoredKey{Credential: secretCredential(APIKey(w.key.Secret)), ID: w.key.ID, Created: wallNow()},
			Intent: &record.Intent{
				Key: wire.NewUUID(), Strategy: Overlap.String(), Stage: string(StageRevoke), Generation: 2, Started: far, GraceEnd: far.Add(time.Minute),
			},
		}
		_, err := saveRecord(t.Context(), store, rec, "")
		require.NoError(t, err)
		c := w.client(store, RotationPolicy{})
		require.NoError(t, w.call(c))
		advance(2 * time.Minute)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}
