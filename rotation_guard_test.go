package agrenting

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// agedStore holds the world's key, so many days old.
func (w *rotationWorld) agedStore(days int, in *record.Intent) Store {
	w.t.Helper()
	store := MemoryStore()
	_, err := saveRecord(w.t.Context(), store, record.Key{Agent: w.agent.ID, Generation: 1, Intent: in, Current: record.StoredKey{
		Credential: secretCredential(APIKey(w.key.Secret)), Created: wallNow().AddDate(0, 0, -days), ID: w.key.ID,
	}}, "")
	require.NoError(w.t, err)
	return store
}

// The timer is set by every look at the store, also by one that ends in a refusal.
func TestAKeyOfTheOtherEnvironmentIsNotRotated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		byHand bool
		intent *record.Intent
	}{
		"by the timer":                 {},
		"by hand":                      {byHand: true},
		"what another one has begun":   {intent: &record.Intent{Key: wire.NewUUID(), Strategy: InPlace.String(), Stage: string(StageIssue), Generation: 2}},
		"what another one has created": {byHand: true, intent: &record.Intent{Key: wire.NewUUID(), Strategy: Overlap.String(), Stage: string(StageForget), Generation: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				c, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
					WithEnvironment(Sandbox), WithStore(w.agedStore(100, tc.intent)), WithRotation(RotationPolicy{}))
				require.NoError(t, err)
				require.ErrorIs(t, w.call(c), ErrEnvironmentMismatch)
				if tc.byHand {
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, ErrEnvironmentMismatch)
					e, ok := errors.AsType[*RotationError](err)
					require.True(t, ok, "%v", err)
					assert.Equal(t, StagePrepare, e.Stage)
				}
				advance(time.Hour)
				assert.Empty(t, w.srv.Requests(), "a production key in the sandbox is sent nowhere")
				assert.True(t, w.srv.KeyAlive(w.key.Secret))
				require.NoError(t, c.Close())
			})
		})
	}
}
