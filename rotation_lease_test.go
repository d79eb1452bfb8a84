package agrenting

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Its holder has died, and its clock was wrong.
func TestRotationBegunUnderAWrongClockIsTakenOver(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, ahead := range map[string]time.Duration{"a day": day, "a year": 365 * day, "250 years": 250 * 365 * day} {
		for _, strategy := range []Strategy{InPlace, Overlap} {
			t.Run(name+", "+strategy.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					stage := StageIssue
					if strategy == InPlace {
						stage = StagePrepare
					}
					far := wallNow().Add(ahead)
					store := w.agedStore(1, &record.Intent{
						Key: wire.NewUUID(), Strategy: strategy.String(), Stage: string(stage), From: APIKey(w.key.Secret).Fingerprint(), Generation: 2,
						Started: far,
					})
					c := w.client(store, RotationPolicy{})
					require.NoError(t, w.call(c))
					advance(time.Hour)
					require.NoError(t, w.call(c))
					assert.EqualValues(t, 2, w.oneLiveKey(store).Generation)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestALeaseForALongGraceIsRespected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		p := RotationPolicy{Strategy: Overlap, Grace: 3 * time.Hour, Every: -1}
		c, other := w.client(store, p), w.client(store, p)
		require.NoError(t, w.call(c))
		require.NoError(t, w.call(other))
		done := make(chan error, 1)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		advance(time.Minute)
		rot, err := other.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, rot.Adopted, "it awaits the one that is at work")
		require.NoError(t, <-done)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
		require.NoError(t, other.Close())
	})
}
