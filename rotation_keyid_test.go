package agrenting

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The store was filled by hand with another key than the one that the
// environment names, and RotationPolicy.KeyID is about the latter.
func rotateWithAnothersID(t *testing.T, listFails bool, strategy Strategy) {
	t.Helper()
	w := newRotationWorld(t)
	other := w.srv.NewKey(w.agent.ID) // what the store has
	store := storeWith(APIKey(other.Secret))
	if listFails {
		w.srv.Fault("GET /api/v1/agents/{id}/credentials", agrentingtest.Status(403, "").Always())
	}
	c := w.client(store, RotationPolicy{KeyID: w.key.ID, Every: -1, Strategy: strategy, RetryEvery: time.Second})
	rot, err := c.Rotate(t.Context())
	t.Log(rot, err)
	require.NoError(t, c.Close())
	assert.True(t, w.srv.KeyAlive(w.key.Secret), "the key of the environment, which was never the store's, is somebody else's by now")
	if err == nil {
		assert.False(t, w.srv.KeyAlive(other.Secret), "the key that was replaced")
	}
}

func TestTheKeyIDOfTheSeedIsNotThatOfAnotherKeyInTheStore(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{0, Overlap} {
		t.Run("unlisted "+s.String(), func(t *testing.T) { t.Parallel(); rotateWithAnothersID(t, true, s) })
		t.Run("listed "+s.String(), func(t *testing.T) { t.Parallel(); rotateWithAnothersID(t, false, s) })
	}
}
