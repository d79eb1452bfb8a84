package etcdstore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// process is a worker of the fleet.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	ready   chan struct{}
	rotated chan string // what became of a rotation: the error, "" for none
	done    chan struct{}

	mu     sync.Mutex
	killed bool
	last   report
	told   []string // the latest lines
	has    string   // the fingerprint of the credential in use
	failed []string
	// A process that cannot use the store exchanges its key alone.
	without, alone bool
	exchangedAlone int
}

// supervisor starts workers and reads their reports.
type supervisor struct {
	t   *testing.T
	cfg workerConfig

	mu      sync.Mutex
	saving  map[string]int64   // when a key was about to be saved
	adopted map[string][]int64 // and when others had it
}

func (s *supervisor) start(i int) *process {
	s.t.Helper()
	cfg := s.cfg
	cfg.Strategy = agrenting.Overlap
	if i%4 == 3 {
		cfg.Strategy = agrenting.InPlace
	}
	cfg.Sessions = i%2 == 1
	b, err := json.Marshal(cfg)
	require.NoError(s.t, err)
	exe, err := os.Executable()
	require.NoError(s.t, err)
	p := &process{ready: make(chan struct{}), rotated: make(chan string, 10), done: make(chan struct{})}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(b))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(s.t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, p.cmd.Start())
	go s.hear(p, out)
	s.t.Cleanup(func() { p.kill(); <-p.done })
	return p
}

func (s *supervisor) hear(p *process, out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // the process was killed in the middle of a line
		}
		p.mu.Lock()
		p.last = r
		p.told = append(p.told[max(0, len(p.told)-20):], lines.Text())
		switch r.Kind {
		case "failed":
			p.failed = append(p.failed, r.Text)
		case "alone":
			p.without = true
		case "adopted", "renewed":
			p.has, p.alone, p.without = r.Fingerprint, p.without && r.Kind == "renewed", false
			if p.alone {
				p.exchangedAlone++
			}
		}
		p.mu.Unlock()
		s.mu.Lock()
		switch r.Kind {
		case "ready":
			close(p.ready)
		case "saving":
			if _, ok := s.saving[r.Fingerprint]; !ok {
				s.saving[r.Fingerprint] = r.At
			}
		case "adopted":
			s.adopted[r.Fingerprint] = append(s.adopted[r.Fingerprint], r.At)
		case "rotated":
			p.rotated <- ""
		case "rotation failed":
			p.rotated <- r.Text
		}
		s.mu.Unlock()
	}
	_ = p.cmd.Wait()
}

func (p *process) kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // SIGKILL
}

func (p *process) tell(what string) { _, _ = io.WriteString(p.in, what+"\n") }

func (p *process) await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("a worker was not %s in time: %v", what, p.failed)
	}
}

// mustRotate waits for the rotation that the worker was told to make. One that
// fails, as on a machine too busy for its time limits, is repeated.
func (p *process) mustRotate(t *testing.T) {
	t.Helper()
	for range 10 {
		select {
		case text := <-p.rotated:
			if text == "" {
				return
			}
			t.Logf("repeated: %s", text)
			p.tell("rotate")
		case <-time.After(30 * time.Second):
			t.Fatal("a rotation has not ended")
		}
	}
	t.Fatal("no rotation")
}

// TestAFleetOfProcesses has 16 processes under load rotate their key 100 times.
// Some are killed by SIGKILL, some of them in the middle of their rotation.
func TestAFleetOfProcesses(t *testing.T) { //nolint:paralleltest // it wants the machine for itself
	if testing.Short() {
		t.Skip("16 processes")
	}
	const workers, rotations = 16, fleetRotations
	w := newWorld(t, agrentingtest.WithSessionTTL(time.Hour))
	c := trio(t)
	s := &supervisor{t: t, saving: map[string]int64{}, adopted: map[string][]int64{}}
	s.cfg = workerConfig{
		Endpoints: c.endpoints(), Sealing: sealingKey.Reveal(), BaseURL: w.srv.URL,
		AgentID: w.agent.ID, KeyID: w.key.ID, Key: w.key.Secret,
		Grace: 60 * time.Millisecond, Lease: time.Second, Call: 800 * time.Millisecond, Timeout: 5 * time.Second,
	}
	all := make([]*process, workers)
	for i := range all {
		all[i] = s.start(i)
	}
	for _, p := range all {
		p.await(t, p.ready, "ready")
	}
	s.agree(w, all, nil)
	s.checkExchanges("one exchange for all", w.srv.Count(routeAuth), s.exchangedAlone(all))

	var gone []*process
	replace := func(i int) {
		gone = append(gone, all[i])
		all[i].kill()
		all[i] = s.start(i)
	}
	holders, bystanders := 0, 0
	began := time.Now()
	for n := range rotations {
		i := rand.IntN(workers)
		p := all[i]
		p.await(t, p.ready, "ready")
		p.tell("rotate")
		switch {
		case n%25 == 5: // the holder dies in the middle
			<-time.After(time.Duration(rand.IntN(60)) * time.Millisecond)
			replace(i)
			holders++
			j := (i + 1) % workers // the next one resumes the rotation
			all[j].await(t, all[j].ready, "ready")
			all[j].tell("rotate")
			p = all[j]
		case n%12 == 11: // another process dies
			replace((i + 1 + rand.IntN(workers-1)) % workers)
			bystanders++
		}
		p.mustRotate(t)
	}
	t.Logf("%d rotations in %v; killed were %d holders and %d others", rotations,
		time.Since(began).Round(time.Millisecond), holders, bystanders)
	for _, p := range all {
		p.await(t, p.ready, "ready")
	}
	s.untilGeneration(c, rotations+1, all)
	rotated := w.srv.Count(routeAuth)

	s.expiries(w, all)
	calls := s.stop(all)
	t.Logf("%d requests of the survivors; %d exchanges for %d rotations", calls, rotated, rotations)
	s.checkFailures(append(gone, all...))
	s.checkHistory(c, w)
	s.checkAdoption()
}

// untilGeneration rotates until the generation is reached. Two processes that
// asked for a rotation at the same time may have made one.
func (s *supervisor) untilGeneration(c *cluster, want uint64, all []*process) {
	s.t.Helper()
	store := c.open(s.t, "fleet")
	for n := 0; ; n++ {
		state, err := agrenting.LoadKeyState(s.t.Context(), store)
		require.NoError(s.t, err)
		if state.Generation >= want && state.Unfinished == nil {
			return
		}
		p := all[n%len(all)]
		p.tell("rotate")
		p.mustRotate(s.t)
	}
}

// expiries ends sessions, and counts the exchanges.
func (s *supervisor) expiries(w *world, all []*process) {
	s.t.Helper()
	const ends = 4
	dead := s.agree(w, all, nil)
	for range ends {
		before, alone := w.srv.Count(routeAuth), s.exchangedAlone(all)
		w.srv.RevokeSessions()
		dead = s.agree(w, all, dead)
		s.checkExchanges("one exchange for each end of a session", w.srv.Count(routeAuth)-before, s.exchangedAlone(all)-alone)
	}
}

// checkExchanges requires one exchange for all, and one for each process that could
// not use the store.
func (s *supervisor) checkExchanges(what string, exchanged, alone int) {
	s.t.Helper()
	assert.True(s.t, 1 <= exchanged && exchanged <= 1+alone, "%s: %d, and %d by processes without the store", what, exchanged, alone)
}

func (s *supervisor) exchangedAlone(all []*process) (n int) {
	for _, p := range all {
		p.mu.Lock()
		n += p.exchangedAlone
		p.mu.Unlock()
	}
	return n
}

// agree waits until all workers with sessions have another one than before, and
// all that could use the store have the same one. This must last for a while,
// because reports arrive late.
func (s *supervisor) agree(w *world, all []*process, before map[string]bool) map[string]bool {
	s.t.Helper()
	const looks = 15
	last, exchanged, same := map[string]bool{}, 0, 0
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		have, shared, old := map[string]bool{}, map[string]bool{}, false
		for i, p := range all {
			if i%2 == 0 {
				continue
			}
			p.mu.Lock()
			have[p.has] = true
			old = old || before[p.has]
			if !p.alone {
				shared[p.has] = true
			}
			p.mu.Unlock()
		}
		if n := w.srv.Count(routeAuth); !maps.Equal(have, last) || n != exchanged {
			last, exchanged, same = have, n, 0
		}
		same++
		if !old && !have[""] && len(shared) < 2 && same >= looks {
			return have
		}
	}
	for i, p := range all {
		p.mu.Lock()
		s.t.Logf("worker %d has %s; the last that it told:\n%s", i, p.has, strings.Join(p.told, "\n"))
		p.mu.Unlock()
	}
	s.t.Fatal("the workers do not share a session")
	return nil
}

func (s *supervisor) stop(all []*process) (calls int64) {
	s.t.Helper()
	for _, p := range all {
		p.tell("stop")
	}
	for _, p := range all {
		p.await(s.t, p.done, "stopped")
		p.mu.Lock()
		assert.Equal(s.t, "done", p.last.Kind)
		calls += p.last.Calls
		p.mu.Unlock()
	}
	return calls
}

func (s *supervisor) checkFailures(all []*process) {
	s.t.Helper()
	for _, p := range all {
		p.mu.Lock()
		assert.Empty(s.t, p.failed, "requests failed")
		p.mu.Unlock()
	}
}

// unsealed decodes a value of the key record.
func unsealed(t *testing.T, value []byte) agrenting.KeyState {
	t.Helper()
	_, data, ok := bytes.Cut(value, []byte("\n"))
	require.True(t, ok)
	m := agrenting.MemoryStore()
	_, err := m.Save(t.Context(), key, data, "")
	require.NoError(t, err)
	sealed, err := agrenting.Sealed(m, "/agrenting/fleet/", sealingKey)
	require.NoError(t, err)
	state, err := agrenting.LoadKeyState(t.Context(), sealed)
	require.NoError(t, err)
	return state
}

// checkHistory reads every state that the record ever had.
func (s *supervisor) checkHistory(c *cluster, w *world) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	raw := c.direct(s.t)
	now, err := raw.Get(ctx, "/agrenting/fleet/key")
	require.NoError(s.t, err)
	require.Len(s.t, now.Kvs, 1)
	rotations := map[uint64]map[time.Time]bool{} // when they started, by generation
	var last agrenting.KeyState
	done := false
	for resp := range raw.Watch(ctx, "/agrenting/fleet/key", clientv3.WithRev(1)) {
		require.NoError(s.t, resp.Err())
		for _, e := range resp.Events {
			state := unsealed(s.t, e.Kv.Value)
			require.True(s.t, state.Generation == last.Generation || state.Generation == last.Generation+1,
				"generation %d after %d", state.Generation, last.Generation)
			if u := state.Unfinished; u != nil && u.Stage == agrenting.StageIssue {
				if rotations[state.Generation] == nil {
					rotations[state.Generation] = map[time.Time]bool{}
				}
				rotations[state.Generation][u.Started] = true
			}
			last = state
			done = done || e.Kv.ModRevision == now.Kvs[0].ModRevision
		}
		if done {
			break
		}
	}
	assert.Nil(s.t, last.Unfinished)
	for g, started := range rotations {
		assert.Len(s.t, started, 1, "one rotation replaced generation %d", g)
	}
	assert.Greater(s.t, last.Generation, uint64(fleetRotations))
	assert.Empty(s.t, staleKeys(w), "no key is left over")
	assert.Equal(s.t, int64(last.Generation)-1, w.srv.Stats().KeysCreated, "one key for each generation")
	unauthorized := 0
	for _, r := range w.srv.Requests() {
		if r.Status == http.StatusUnauthorized {
			unauthorized++
		}
	}
	s.t.Logf("%d generations; %d of %d requests on the wire got a 401, and were sent again",
		last.Generation, unauthorized, w.srv.Stats().Requests)
}

func (s *supervisor) checkAdoption() {
	s.t.Helper()
	var took []time.Duration
	for fp, at := range s.saving {
		for _, a := range s.adopted[fp] {
			took = append(took, time.Duration(a-at))
		}
	}
	require.NotEmpty(s.t, took)
	m := median(took)
	s.t.Logf("adoption, from before the save to the use by another process: median %v, 99 of 100 within %v, worst %v; %d adoptions",
		m, took[len(took)*99/100], slices.Max(took), len(took))
}
