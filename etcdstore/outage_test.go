package etcdstore_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/etcdstore"
	"github.com/agrenting/agrenting-go/internal/sdktest/fleettest"
)

// fleet is clients on a cluster of three, under load.
type fleet struct {
	*fleettest.World

	c       *cluster
	clients []*agrenting.Client
	load    *fleettest.Load
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{World: fleettest.NewWorld(t), c: trio(t)}
	for range n {
		s := f.c.open(t, "fleet", etcdstore.WithTimeout(2*time.Second))
		client := f.Client(t, s, f.Policy(agrenting.Overlap), agrenting.WithSession())
		require.NoError(t, fleettest.Call(t.Context(), client))
		f.clients = append(f.clients, client)
	}
	f.load = fleettest.StartLoad(t.Context(), 5*time.Millisecond, f.clients...)
	return f
}

// rotate tries until it works.
func (f *fleet) rotate(t *testing.T, c *agrenting.Client) {
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

func TestFleetSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.rotate(t, f.clients[0])
	for range 2 {
		dead := f.c.leader()
		require.NotNil(t, dead)
		dead.kill()
		began := time.Now()
		f.rotate(t, f.clients[1])
		t.Logf("rotated %v after the leader was killed", time.Since(began).Round(time.Millisecond))
		require.NoError(t, f.c.start(dead))
	}
	f.rotate(t, f.clients[2])
	f.load.Stop(t)
	assert.Empty(t, f.StaleKeys())
	state, err := agrenting.LoadKeyState(t.Context(), f.c.open(t, "fleet"))
	require.NoError(t, err)
	assert.Equal(t, int64(state.Generation)-1, f.Server.Stats().KeysCreated, "no rotation was made twice")
}

func TestFleetSurvivesAMinority(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.c.others(f.c.leader())[0].kill()
	for _, c := range f.clients {
		_, err := c.Rotate(t.Context())
		require.NoError(t, err, "two of three are enough")
	}
	f.load.Stop(t)
	assert.Empty(t, f.StaleKeys())
}

func TestFleetSurvivesTheMajority(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	down := f.c.others(f.c.members[0])
	for _, m := range down {
		m.kill()
	}
	before := f.Server.Stats()
	began := time.Now()
	_, err := f.clients[0].Rotate(t.Context())
	var rerr *agrenting.RotationError
	require.ErrorAs(t, err, &rerr)
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	assert.Equal(t, agrenting.StagePrepare, rerr.Stage)
	assert.Less(t, time.Since(began), 8*time.Second)
	<-time.After(time.Second) // of requests
	after := f.Server.Stats()
	assert.Equal(t, before.KeysCreated, after.KeysCreated, "nothing was created that could not be kept")
	assert.Equal(t, before.KeysRevoked, after.KeysRevoked)
	assert.Equal(t, before.Authenticates, after.Authenticates, "the session in memory is valid")
	assert.Greater(t, after.Requests, before.Requests+20, "requests continue")
	var wg sync.WaitGroup
	for _, m := range down {
		wg.Go(func() { assert.NoError(t, f.c.start(m)) })
	}
	wg.Wait()
	f.rotate(t, f.clients[1])
	f.load.Stop(t)
	assert.Empty(t, f.StaleKeys())
}

func TestFleetSurvivesSilentMembers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	silent := f.c.leader()
	silent.proxy.Freeze() // for clients; the members reach each other
	began := time.Now()
	f.rotate(t, f.clients[0])
	t.Logf("rotated in %v while one member was silent", time.Since(began).Round(time.Millisecond))
	for _, m := range f.c.members {
		m.proxy.Freeze()
	}
	_, err := f.clients[0].Rotate(t.Context())
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	<-time.After(500 * time.Millisecond)
	for _, m := range f.c.members {
		m.proxy.Pass()
	}
	f.rotate(t, f.clients[0])
	f.load.Stop(t)
	assert.Empty(t, f.StaleKeys())
}
