package etcdstore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// place is what a process of the fleet needs to open the store.
type place struct {
	Endpoints []string
	Sealing   string
}

func openFleet(text string) (fleettest.Store, error) {
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	sealing, err := agrenting.ParseSealingKey(p.Sealing)
	if err != nil {
		return nil, err
	}
	return etcdstore.Open(etcdstore.Config{Endpoints: p.Endpoints, Name: "fleet"}, etcdstore.WithSealingKey(sealing))
}

// TestFleetOfProcesses has a fleet rotate its key, while some of its processes are killed.
// With the race detector, the fleet is small unless AGRENTING_FLEET is "full".
func TestFleetOfProcesses(t *testing.T) { //nolint:paralleltest // it needs the machine for itself
	processes, rotations := 16, 100
	if raceEnabled && !fleettest.Full() {
		processes, rotations = 4, 12
	}
	c := trio(t)
	text, err := json.Marshal(place{Endpoints: c.endpoints(), Sealing: sealingKey.Reveal()})
	require.NoError(t, err)
	fleettest.Run(t, fleettest.Fleet{
		Place: string(text), Store: c.open(t, "fleet"), Processes: processes, Rotations: rotations,
		History: func() []agrenting.KeyState { return c.history(t) },
	})
}

// history returns every state of the fleet's key.
func (c *cluster) history(t *testing.T) (states []agrenting.KeyState) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	raw := c.direct(t)
	now, err := raw.Get(ctx, "/agrenting/fleet/key")
	require.NoError(t, err)
	require.Len(t, now.Kvs, 1)
	for resp := range raw.Watch(ctx, "/agrenting/fleet/key", clientv3.WithRev(1)) {
		require.NoError(t, resp.Err())
		done := false
		for _, e := range resp.Events {
			_, data, ok := bytes.Cut(e.Kv.Value, []byte("\n"))
			require.True(t, ok)
			state, err := fleettest.SealedStateOf(ctx, data, "/agrenting/fleet/", sealingKey)
			require.NoError(t, err)
			states = append(states, state)
			done = done || e.Kv.ModRevision == now.Kvs[0].ModRevision
		}
		if done {
			break
		}
	}
	return states
}
