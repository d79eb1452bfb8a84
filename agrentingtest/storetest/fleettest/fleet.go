package fleettest

import (
	"bufio"
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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// fullEnv selects the full fleet for stores that test a small one by default.
const fullEnv = "AGRENTING_FLEET"

// Full reports whether the full fleet test is wanted: AGRENTING_FLEET is "full".
func Full() bool { return os.Getenv(fullEnv) == "full" } //nolint:forbidigo // a switch of tests

// Fleet describes a fleet test.
type Fleet struct {
	// Place is passed to the function of [Worker] in each process. It has what is
	// needed to open the store, such as addresses and the sealing key.
	Place string
	// Store is a handle of the test's own process.
	Store agrenting.Store
	// Processes share the store, and rotate the key Rotations times.
	Processes, Rotations int
	// Disturb is called in the middle of each rotation, if it is set. It may kill the
	// store's server and start it again, or cut the network for a while. n counts from 0.
	Disturb func(n int)
	// History returns every state that the key record had, the oldest first.
	History func() []agrenting.KeyState
	// Adoption is the limit for the median time from before a save until another
	// process uses the key, such as 50 ms; 0 for none.
	Adoption time.Duration
}

// Run runs a fleet test. Processes under load rotate their key. Some are killed by
// SIGKILL, some of them in the middle of their rotation. No request may fail, one
// process at a time may rotate, and the end of a session may cost one exchange.
func Run(t *testing.T, f Fleet) {
	t.Helper()
	w := NewWorld(t, agrentingtest.WithSessionTTL(time.Hour))
	s := &supervisor{t: t, world: w, fleet: f, saving: map[string]int64{}, adopted: map[string][]int64{}}
	s.cfg = workerConfig{
		Place: f.Place, BaseURL: w.Server.URL, AgentID: w.Agent.ID, KeyID: w.Key.ID, Key: w.Key.Secret,
		Grace: 60 * time.Millisecond, Lease: time.Second, Call: 800 * time.Millisecond, Interval: 25 * time.Millisecond,
	}
	all := make([]*process, f.Processes)
	for i := range all {
		all[i] = s.start(i)
	}
	for _, p := range all {
		p.await(t, p.ready, "ready")
	}
	s.agree(all, nil)
	s.checkExchanges("one exchange for all", w.Server.Count(RouteAuth), exchangedAlone(all))

	gone := s.rotate(all)
	for _, p := range all {
		p.await(t, p.ready, "ready")
	}
	s.untilGeneration(uint64(f.Rotations)+1, all) // #nosec G115 -- a small number
	rotated := w.Server.Count(RouteAuth)

	s.expire(all)
	calls := s.stop(all)
	t.Logf("%d requests of the survivors; %d exchanges for %d rotations", calls, rotated, f.Rotations)
	s.checkFailures(append(gone, all...))
	s.checkHistory()
	s.checkAdoption()
}

// process is a worker of the fleet.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	ready   chan struct{}
	rotated chan string // the error of a rotation, "" for none
	done    chan struct{}

	mu     sync.Mutex
	last   report
	lines  []string // the latest ones
	has    string   // the fingerprint of the credential in use
	failed []string
	// A process that cannot use the store exchanges its key alone.
	without, alone bool
	exchangedAlone int
}

// supervisor starts workers and reads their reports.
type supervisor struct {
	t     *testing.T
	world *World
	fleet Fleet
	cfg   workerConfig

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
	p.cmd = exec.CommandContext(s.t.Context(), exe)
	p.cmd.Env = append(os.Environ(), workerEnv+"="+string(b))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(s.t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, p.cmd.Start())
	go s.read(p, out)
	s.t.Cleanup(func() { p.kill(); <-p.done })
	return p
}

// read handles the reports of a process until it ends.
func (s *supervisor) read(p *process, out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // the process was killed in the middle of a line
		}
		p.note(r, lines.Text())
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

func (p *process) note(r report, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = r
	p.lines = append(p.lines[max(0, len(p.lines)-20):], line)
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
}

func (p *process) kill() { _ = p.cmd.Process.Kill() } // SIGKILL

func (p *process) send(command string) { _, _ = io.WriteString(p.in, command+"\n") }

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

// mustRotate waits for the rotation that the process was asked for. One that
// fails, as while the server is gone, is repeated.
func (p *process) mustRotate(t *testing.T) {
	t.Helper()
	for range 10 {
		select {
		case text := <-p.rotated:
			if text == "" {
				return
			}
			t.Logf("repeated: %s", text)
			p.send("rotate")
		case <-time.After(30 * time.Second):
			t.Fatal("a rotation has not ended")
		}
	}
	t.Fatal("no rotation")
}

// rotate makes the rotations, and returns the processes that were killed.
func (s *supervisor) rotate(all []*process) (gone []*process) {
	s.t.Helper()
	replace := func(i int) {
		gone = append(gone, all[i])
		all[i].kill()
		all[i] = s.start(i)
	}
	holders, bystanders := 0, 0
	began := time.Now()
	for n := range s.fleet.Rotations {
		i := rand.IntN(len(all))
		p := all[i]
		p.await(s.t, p.ready, "ready")
		p.send("rotate")
		if s.fleet.Disturb != nil {
			s.fleet.Disturb(n)
		}
		switch {
		case n%25 == 5: // the holder dies in the middle
			<-time.After(time.Duration(rand.IntN(60)) * time.Millisecond)
			replace(i)
			holders++
			j := (i + 1) % len(all) // the next one resumes the rotation
			all[j].await(s.t, all[j].ready, "ready")
			all[j].send("rotate")
			p = all[j]
		case n%12 == 11: // another process dies
			replace((i + 1 + rand.IntN(len(all)-1)) % len(all))
			bystanders++
		}
		p.mustRotate(s.t)
	}
	s.t.Logf("%d rotations in %v; killed were %d holders and %d others", s.fleet.Rotations,
		time.Since(began).Round(time.Millisecond), holders, bystanders)
	return gone
}

// untilGeneration rotates until the generation is reached. Two processes that
// were asked for a rotation at the same time may have made one.
func (s *supervisor) untilGeneration(want uint64, all []*process) {
	s.t.Helper()
	for n := 0; ; n++ {
		state, err := agrenting.LoadKeyState(s.t.Context(), s.fleet.Store)
		require.NoError(s.t, err)
		if state.Generation >= want && state.Unfinished == nil {
			return
		}
		p := all[n%len(all)]
		p.send("rotate")
		p.mustRotate(s.t)
	}
}

// expire ends sessions, and counts the exchanges.
func (s *supervisor) expire(all []*process) {
	s.t.Helper()
	const ends = 4
	srv := s.world.Server
	dead := s.agree(all, nil)
	for range ends {
		before, alone := srv.Count(RouteAuth), exchangedAlone(all)
		srv.RevokeSessions()
		dead = s.agree(all, dead)
		s.checkExchanges("one exchange for each end of a session", srv.Count(RouteAuth)-before, exchangedAlone(all)-alone)
	}
}

// checkExchanges requires one exchange for all, and one for each process that could
// not use the store.
func (s *supervisor) checkExchanges(what string, exchanged, alone int) {
	s.t.Helper()
	assert.True(s.t, 1 <= exchanged && exchanged <= 1+alone, "%s: %d, and %d by processes without the store", what, exchanged, alone)
	s.t.Logf("%s: %d, and %d by processes without the store", what, exchanged, alone)
}

func exchangedAlone(all []*process) (n int) {
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
func (s *supervisor) agree(all []*process, before map[string]bool) map[string]bool {
	s.t.Helper()
	const checks = 15
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
		if n := s.world.Server.Count(RouteAuth); !maps.Equal(have, last) || n != exchanged {
			last, exchanged, same = have, n, 0
		}
		same++
		if !old && !have[""] && len(shared) < 2 && same >= checks {
			return have
		}
	}
	for i, p := range all {
		p.mu.Lock()
		s.t.Logf("worker %d has %s; its last reports:\n%s", i, p.has, strings.Join(p.lines, "\n"))
		p.mu.Unlock()
	}
	s.t.Fatal("the workers do not share a session")
	return nil
}

func (s *supervisor) stop(all []*process) (calls int64) {
	s.t.Helper()
	for _, p := range all {
		p.send("stop")
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

// checkHistory checks every state that the record had.
func (s *supervisor) checkHistory() {
	s.t.Helper()
	rotations := map[uint64]map[time.Time]bool{} // when they started, by generation
	var last agrenting.KeyState
	for _, state := range s.fleet.History() {
		require.True(s.t, state.Generation == last.Generation || state.Generation == last.Generation+1,
			"generation %d after %d", state.Generation, last.Generation)
		if u := state.Unfinished; u != nil && u.Stage == agrenting.StageIssue {
			if rotations[state.Generation] == nil {
				rotations[state.Generation] = map[time.Time]bool{}
			}
			rotations[state.Generation][u.Started] = true
		}
		last = state
	}
	assert.Nil(s.t, last.Unfinished)
	for g, started := range rotations {
		assert.Len(s.t, started, 1, "one rotation replaced generation %d", g)
	}
	srv := s.world.Server
	assert.Greater(s.t, last.Generation, uint64(s.fleet.Rotations)) // #nosec G115 -- a small number
	assert.Empty(s.t, s.world.StaleKeys(), "no key is left over")
	assert.Equal(s.t, int64(last.Generation)-1, srv.Stats().KeysCreated, "one key for each generation") // #nosec G115 -- a small number
	unauthorized := 0
	for _, r := range srv.Requests() {
		if r.Status == http.StatusUnauthorized {
			unauthorized++
		}
	}
	s.t.Logf("%d generations; %d of %d requests on the wire got a 401, and were sent again",
		last.Generation, unauthorized, srv.Stats().Requests)
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
	m := Median(took)
	s.t.Logf("adoption, from before the save to the use by another process: median %v, 99 of 100 within %v, worst %v; %d adoptions",
		m, took[len(took)*99/100], slices.Max(took), len(took))
	if s.fleet.Adoption > 0 {
		assert.Less(s.t, m, s.fleet.Adoption, "the median of adoption")
	}
}
