package pgstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
)

func TestRequestsContinueWithoutServer(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct{ begin, end func(s *server) error }{
		"killed": {func(s *server) error { s.kill(); return nil }, (*server).start},
		"silent": {func(s *server) error { s.proxy.Freeze(); return nil }, func(s *server) error { s.proxy.Pass(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, w := newServer(t), fleettest.NewWorld(t)
			clients := make([]*agrenting.Client, 3)
			for i := range clients {
				store := s.open(t, name, pgstore.WithListen(), pgstore.WithTimeout(2*time.Second))
				clients[i] = w.Client(t, store, w.Policy(agrenting.Overlap), agrenting.WithSession())
				require.NoError(t, fleettest.Call(t.Context(), clients[i]))
			}
			load := fleettest.StartLoad(t.Context(), 5*time.Millisecond, clients...)
			mustRotate(t, clients[0])

			require.NoError(t, outage.begin(s))
			before := w.Server.Stats()
			_, err := clients[0].Rotate(t.Context())
			rotation, ok := errors.AsType[*agrenting.RotationError](err)
			require.True(t, ok, "%v", err)
			require.ErrorIs(t, err, pgstore.ErrUnavailable)
			assert.Equal(t, agrenting.StagePrepare, rotation.Stage)
			<-time.After(time.Second) // of requests
			after := w.Server.Stats()
			assert.Equal(t, before.KeysCreated, after.KeysCreated, "nothing was created that could not be kept")
			assert.Equal(t, before.KeysRevoked, after.KeysRevoked)
			assert.Equal(t, before.Authenticates, after.Authenticates, "the session in memory is valid")
			assert.Greater(t, after.Requests, before.Requests+20, "requests continue")

			require.NoError(t, outage.end(s))
			mustRotate(t, clients[1])
			load.Stop(t)
			assert.Empty(t, w.StaleKeys())
		})
	}
}

// mustRotate rotates until it succeeds.
func mustRotate(t *testing.T, c *agrenting.Client) {
	t.Helper()
	var err error
	for range 60 {
		if _, err = c.Rotate(t.Context()); err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatalf("no rotation: %v", err)
}

func TestClosedStoreFailsAtOnce(t *testing.T) {
	t.Parallel()
	store := sharedServer(t).open(t, "closed")
	require.NoError(t, store.Close())
	began := time.Now()
	_, err := store.Load(t.Context(), key)
	require.Error(t, err)
	assert.Less(t, time.Since(began), time.Second)
}
