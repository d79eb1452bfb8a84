package rotation_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Every load of the store sets the timer, also one that ends in a refusal.
func TestKeyOfOtherEnvironmentIsNotRotated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		byHand bool
		intent *record.Intent
	}{
		"by the timer":                 {},
		"on demand":                    {byHand: true},
		"what another one has begun":   {intent: &record.Intent{Key: wire.NewUUID(), Strategy: agrenting.InPlace.String(), Stage: string(agrenting.StageIssue), Generation: 2}},
		"what another one has created": {byHand: true, intent: &record.Intent{Key: wire.NewUUID(), Strategy: agrenting.Overlap.String(), Stage: string(agrenting.StageForget), Generation: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
					agrenting.WithEnvironment(agrenting.Sandbox), agrenting.WithStore(w.AgedStore(100, tc.intent)), agrenting.WithRotation(agrenting.RotationPolicy{}))
				require.NoError(t, err)
				require.ErrorIs(t, w.Call(c), agrenting.ErrEnvironmentMismatch)
				if tc.byHand {
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, agrenting.ErrEnvironmentMismatch)
					e, ok := errors.AsType[*agrenting.RotationError](err)
					require.True(t, ok, "%v", err)
					assert.Equal(t, agrenting.StagePrepare, e.Stage)
				}
				sdktest.Advance(time.Hour)
				assert.Empty(t, w.Server.Requests(), "a production key in the sandbox is sent nowhere")
				assert.True(t, w.Server.KeyAlive(w.Key.Secret))
				require.NoError(t, c.Close())
			})
		})
	}
}
