package rotation_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

const fleetMemberVar = "AGRENTING_TEST_FLEET_MEMBER"

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary works, and tests nothing
	spec, ok := os.LookupEnv(fleetMemberVar)
	if !ok {
		return
	}
	if err := fleetMember(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fleetSpec is what a member of a fleet is told.
type fleetSpec struct {
	URL, Key, Agent, File string
	Strategy              agrenting.Strategy
	Grace                 time.Duration
	// OneShot sends bodies that cannot be had again.
	OneShot bool
}

// fleetSaid is what a member answers: to "rotate", or at its end.
type fleetSaid struct {
	Adopted       bool
	Error         string
	Calls, Failed int64
	Replayed      int64
}

// fleetMember is the whole life of a member: it works, and rotates when it is
// told to.
func fleetMember(text string) error {
	var spec fleetSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	store, err := agrenting.FileStore(spec.File)
	if err != nil {
		return err
	}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(spec.URL), agrenting.WithCredential(agrenting.APIKey(spec.Key)), agrenting.WithStore(store),
		agrenting.WithRotation(agrenting.RotationPolicy{Strategy: spec.Strategy, AgentID: spec.Agent, Every: -1, Grace: spec.Grace}))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var calls, failed, replayed atomic.Int64
	var failure atomic.Pointer[string]
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				r, err := spec.call(context.WithoutCancel(ctx), c, n)
				calls.Add(1)
				if err != nil {
					text := err.Error()
					failure.Store(&text)
					failed.Add(1)
				} else if r.Attempts > 1 {
					replayed.Add(1)
				}
				_ = renew.Sleep(ctx, 10*time.Millisecond)
			}
		})
	}
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan() && lines.Text() == "rotate"; {
		var answer fleetSaid
		res, err := c.Rotate(ctx)
		if err != nil {
			answer.Error = err.Error()
		} else {
			answer.Adopted = res.Adopted
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	stop()
	wg.Wait()
	said := fleetSaid{Calls: calls.Load(), Failed: failed.Load(), Replayed: replayed.Load()}
	if text := failure.Load(); text != nil {
		said.Error = *text
	}
	return errors.Join(out.Encode(&said), c.Close())
}

// call makes the n-th request.
func (s fleetSpec) call(ctx context.Context, c *agrenting.Client, n int) (*agrenting.Response, error) {
	method, in := http.MethodGet, any(nil)
	if n%3 == 0 {
		body := `{"agent_id":"` + s.Agent + `","task_type":"test"}`
		method, in = http.MethodPost, json.RawMessage(body)
		if s.OneShot {
			in = struct{ io.Reader }{strings.NewReader(body)}
		}
	}
	return c.Do(ctx, method, "/api/v1/tasks", in, nil, agrenting.CallHeader("Content-Type", "application/json"))
}

// member is a process of the fleet as the test sees it.
type member struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr strings.Builder
	mu     sync.Mutex // one order at a time
}

func (s fleetSpec) start(t *testing.T) *member {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	m := &member{cmd: exec.CommandContext(t.Context(), exe, "-test.run=^$")}
	m.cmd.Env = append(os.Environ(), fleetMemberVar+"="+string(text))
	m.cmd.Stderr = &m.stderr
	m.in, err = m.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := m.cmd.StdoutPipe()
	require.NoError(t, err)
	m.out = json.NewDecoder(out)
	require.NoError(t, m.cmd.Start())
	return m
}

func (m *member) tell(order string) (said fleetSaid, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := fmt.Fprintln(m.in, order); err != nil {
		return said, err
	}
	err = m.out.Decode(&said)
	return said, err
}

// TestFleetRotatesKeyWithoutFailedRequests has eight processes under
// load share one key, and any of them rotate it, several at the same time.
//
// The members of a fleet do not know each other's gates. After an in-place
// rotation, or one that leaves the others no grace, what they have on the wire
// is answered by a 401, and is sent again with the key that they find in the
// store. A body that can be read only once cannot be sent again after the
// platform has begun to read it, so the load has none there. It has them in an
// overlap with the grace that the others need to look into the store.
func TestFleetRotatesKeyWithoutFailedRequests(t *testing.T) { //nolint:tparallel // each fleet has the processors for itself
	t.Parallel()
	for _, tc := range []struct { //nolint:paralleltest // one after the other, see above
		name      string
		spec      fleetSpec
		rotations int
	}{
		{"overlap", fleetSpec{Strategy: agrenting.Overlap, Grace: -1}, 100},
		{"in place", fleetSpec{Strategy: agrenting.InPlace}, 100},
		{"overlap, bodies that exist once", fleetSpec{Strategy: agrenting.Overlap, Grace: 2 * time.Second, OneShot: true}, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const size = 8
			srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(100),
				agrentingtest.WithMaxKeys(2)) // a rotation beside another would be refused
			t.Cleanup(srv.Close)
			agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "worker"})
			spec := tc.spec
			spec.URL, spec.Agent, spec.Key = srv.URL, agent.ID, srv.NewKey(agent.ID).Secret
			spec.File = filepath.Join(t.TempDir(), "keys", "key.json")
			fleet := make([]*member, size)
			for i := range fleet {
				fleet[i] = spec.start(t)
			}
			rotations := tc.rotations
			if sample.Fewer {
				rotations = min(rotations, 20)
			}
			made, adopted := order(t, fleet, rotations)

			var total fleetSaid
			for _, m := range fleet {
				said, err := m.tell("stop")
				require.NoError(t, err, m.stderr.String())
				require.NoError(t, m.in.Close())
				require.NoError(t, m.cmd.Wait(), m.stderr.String())
				assert.Zero(t, said.Failed, said.Error)
				total.Calls += said.Calls
				total.Replayed += said.Replayed
			}
			t.Logf("%d rotations made, %d adopted; %d requests, %d of them sent again", made, adopted, total.Calls, total.Replayed)

			store, err := agrenting.FileStore(spec.File)
			require.NoError(t, err)
			rec, _, err := sdktest.LoadRecord(t.Context(), store)
			require.NoError(t, err)
			assert.Nil(t, rec.Intent)
			assert.Equal(t, uint64(made)+1, rec.Generation, "each rotation is one that a member made")
			assert.Len(t, srv.LiveKeys(agent.ID), 1)
			assert.True(t, srv.KeyAlive(rec.Current.Credential.Reveal()))
			stats := srv.Stats()
			assert.Equal(t, made, stats.KeysRevoked, "each old key was revoked once")
			assert.Equal(t, made, stats.KeysCreated)
			// The process that rotates verifies the new key. Each of the others asks
			// once about the old one, at most, finds the new one in the store, and
			// tries that one if Verify has accepted no key yet.
			verified := int64(srv.Count(sdktest.RouteVerify))
			assert.GreaterOrEqual(t, verified, made)
			assert.LessOrEqual(t, verified, made*(1+3*(size-1))+3*size)
			assert.LessOrEqual(t, stats.Authenticates, made, "one lifeline a rotation")
		})
	}
}

// order has members rotate until there were enough rotations, up to three at
// the same time.
func order(t *testing.T, fleet []*member, rotations int) (made, adopted int64) {
	t.Helper()
	var m, a atomic.Int64
	for m.Load()+a.Load() < int64(rotations) {
		var wg sync.WaitGroup
		for _, i := range rand.Perm(len(fleet))[:1+rand.IntN(3)] {
			wg.Go(func() {
				said, err := fleet[i].tell("rotate")
				switch {
				case err != nil || said.Error != "":
					t.Error(err, said.Error)
				case said.Adopted:
					a.Add(1)
				default:
					m.Add(1)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			break
		}
		<-time.After(50 * time.Millisecond) // refused requests are sent again in that time
	}
	return m.Load(), a.Load()
}
