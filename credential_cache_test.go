package agrenting

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/gate"
)

func TestWhoWaitsAtAGateLearnsOfTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate.Gate)
		g.Shut()
		k := newFixedCache("fixed", &preparedCredential{cred: APIKey("k1"), gate: g})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		left := make(chan error, 1)
		go func() { _, err := k.enter(ctx); left <- err }()
		synctest.Wait()
		require.NoError(t, k.close())
		g.Pass()
		require.ErrorIs(t, <-left, ErrClosed)
	})
}

func TestTheSameSecretOfAnotherKindIsAnotherCredential(t *testing.T) {
	t.Parallel()
	key, token := &preparedCredential{cred: APIKey(testKey)}, &preparedCredential{cred: UserToken(testKey)}
	assert.True(t, sameCredential(key, &preparedCredential{cred: APIKey(testKey)}))
	assert.False(t, sameCredential(key, token))
}
