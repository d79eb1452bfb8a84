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
)

const routeRevokeKey = "DELETE /api/v1/agents/*"

func TestARevocationThatIsRefusedForGoodDoesNotEndRotation(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 405} {
		synctest.Test(t, func(t *testing.T) {
			w := newRotationWorld(t)
			store := MemoryStore(Credential{})
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
			rec, _, err := store.Load(t.Context())
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
		store := MemoryStore(Credential{})
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
