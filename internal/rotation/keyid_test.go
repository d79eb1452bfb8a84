package rotation_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// The store was filled manually with another key than the one that the
// environment names, and RotationPolicy.KeyID is about the latter.
func rotateWithAnothersID(t *testing.T, listFails bool, strategy agrenting.Strategy) {
	t.Helper()
	w := sdktest.NewRotationWorld(t)
	other := w.Server.NewKey(w.Agent.ID) // what the store has
	store := sdktest.StoreWith(agrenting.APIKey(other.Secret))
	if listFails {
		w.Server.Fault("GET /api/v1/agents/{id}/credentials", agrentingtest.Status(403, "").Always())
	}
	c := w.Client(store, agrenting.RotationPolicy{KeyID: w.Key.ID, Every: -1, Strategy: strategy, RetryEvery: time.Second})
	rot, err := c.Rotate(t.Context())
	t.Log(rot, err)
	require.NoError(t, c.Close())
	assert.True(t, w.Server.KeyAlive(w.Key.Secret), "the key of the environment, which was never the store's, now belongs to another user")
	if err == nil {
		assert.False(t, w.Server.KeyAlive(other.Secret), "the key that was replaced")
	}
}

func TestInitialKeyIDIsNotUsedForStoredKey(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{0, agrenting.Overlap} {
		t.Run("unlisted "+s.String(), func(t *testing.T) { t.Parallel(); rotateWithAnothersID(t, true, s) })
		t.Run("listed "+s.String(), func(t *testing.T) { t.Parallel(); rotateWithAnothersID(t, false, s) })
	}
}
