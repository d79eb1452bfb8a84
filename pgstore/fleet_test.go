package pgstore_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
)

// place is what a process of the fleet needs to open the store.
type place struct{ URL, Sealing string }

func openFleet(text string) (fleettest.Store, error) {
	var p place
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	sealing, err := agrenting.ParseSealingKey(p.Sealing)
	if err != nil {
		return nil, err
	}
	return pgstore.Open(p.URL, "fleet", pgstore.WithSealingKey(sealing), pgstore.WithListen())
}

// TestFleetOfProcesses has a fleet rotate its key, while processes and the server are
// killed and the network is cut. AGRENTING_FLEET=full makes it a fleet of 16.
func TestFleetOfProcesses(t *testing.T) { //nolint:paralleltest // it needs the machine for itself
	processes, rotations, adoption := 4, 12, time.Duration(0)
	if fleettest.Full() {
		processes, rotations, adoption = 16, 50, 50*time.Millisecond
	}
	s := sharedServer(t)
	text, err := json.Marshal(place{URL: s.url(s.proxy.Addr(), writer), Sealing: sealingKey.Reveal()})
	require.NoError(t, err)
	// Every state of a record is copied, in the order of the commits.
	s.execute(t, `CREATE TABLE history (n bigserial PRIMARY KEY, data bytea NOT NULL);
		CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
			INSERT INTO history (data) VALUES (NEW.data); RETURN NEW; END $$;
		CREATE TRIGGER remember AFTER INSERT OR UPDATE ON `+table+` FOR EACH ROW
			WHEN (NEW.name = 'fleet/key') EXECUTE FUNCTION remember()`)
	kills, cuts := 0, 0
	fleettest.Run(t, fleettest.Fleet{
		Place: string(text), Store: s.open(t, "fleet"), Processes: processes, Rotations: rotations, Adoption: adoption,
		Disturb: func(n int) {
			<-time.After(rand.N(40 * time.Millisecond))
			switch n % 10 {
			case 3:
				s.kill()
				require.NoError(t, s.start())
				kills++
			case 6:
				s.proxy.Refuse()
				<-time.After(300 * time.Millisecond)
				s.proxy.Pass()
				cuts++
			case 8:
				s.proxy.Freeze()
				<-time.After(300 * time.Millisecond)
				s.proxy.Pass()
				cuts++
			}
		},
		History: func() []agrenting.KeyState { return s.history(t) },
	})
	t.Logf("the server was killed %d times, and the network was cut %d times", kills, cuts)
}

// history returns every state of the fleet's key.
func (s *server) history(t *testing.T) (states []agrenting.KeyState) {
	t.Helper()
	rows, err := s.pool(t).Query(t.Context(), "SELECT data FROM history ORDER BY n")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var data []byte
		require.NoError(t, rows.Scan(&data))
		state, err := fleettest.SealedStateOf(t.Context(), data, table+"/fleet/", sealingKey)
		require.NoError(t, err)
		states = append(states, state)
	}
	require.NoError(t, rows.Err())
	return states
}
