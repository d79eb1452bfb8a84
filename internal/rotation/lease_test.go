package rotation_test

import (
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

// Its holder has died, and its clock was wrong.
func TestRotationBegunWithWrongClockIsResumed(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, ahead := range map[string]time.Duration{"a day": day, "a year": 365 * day, "250 years": 250 * 365 * day} {
		for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
			t.Run(name+", "+strategy.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					stage := agrenting.StageIssue
					if strategy == agrenting.InPlace {
						stage = agrenting.StagePrepare
					}
					far := sdktest.WallNow().Add(ahead)
					store := w.AgedStore(1, &record.Intent{
						Key: wire.NewUUID(), Strategy: strategy.String(), Stage: string(stage), From: agrenting.APIKey(w.Key.Secret).Fingerprint(), Generation: 2,
						Started: far,
					})
					c := w.Client(store, agrenting.RotationPolicy{})
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Hour)
					require.NoError(t, w.Call(c))
					assert.EqualValues(t, 2, w.OneLiveKey(store).Generation)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestALeaseForALongGraceIsRespected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		p := agrenting.RotationPolicy{Strategy: agrenting.Overlap, Grace: 3 * time.Hour, Every: -1}
		c, other := w.Client(store, p), w.Client(store, p)
		require.NoError(t, w.Call(c))
		require.NoError(t, w.Call(other))
		done := make(chan error, 1)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		sdktest.Advance(time.Minute)
		rot, err := other.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, rot.Adopted, "it awaits the one that is at work")
		require.NoError(t, <-done)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
		require.NoError(t, other.Close())
	})
}
