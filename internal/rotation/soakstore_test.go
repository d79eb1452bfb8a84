package rotation_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// TestSoakImperfectStoreAndPlatform runs clients of one key in virtual time, while their
// store loses records and fails, their clocks are wrong, and the platform responds with
// stray refusals, pages, and nothing. No request may fail, and one key may be live at the
// end. A round takes five minutes, and each seed makes other faults.
//
//	go test -run TestSoakImperfectStoreAndPlatform -soak=10m -timeout=15m -v .
func TestSoakImperfectStoreAndPlatform(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	rounds := 3
	if sample.Fewer || testing.Short() {
		rounds = 1
	}
	began := time.Now()
	counts := map[string]int{}
	n := 0
	for ; n < rounds || time.Since(began) < *soakFor-5*time.Second; n++ {
		seed := *soakSeed + uint64(n)
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { soakRound(t, dir, seed, counts) })
		if t.Failed() {
			return
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "\n%9d  %s", counts[name], name)
	}
	t.Logf("%d rounds in %v:%s", n, time.Since(began).Round(time.Second), b.String())
}

// storeSoak is a set of clients of one key, each like a separate process.
type storeSoak struct {
	*testing.T
	w      *sdktest.RotationWorld
	random *rand.Rand
	folder string
	counts map[string]int

	stores  []*soakStore
	clients []*atomic.Pointer[agrenting.Client]
	backups [][]byte
	failed  atomic.Int64
	calls   atomic.Int64

	mu     sync.Mutex
	recent []string // the latest events and faults

	turn                       chan struct{} // has room for the one that rotates
	rotations, failedRotations atomic.Int64
}

// soakStore is a store as one client sees it.
type soakStore struct {
	agrenting.Store
	clock wallClock
	fails atomic.Int64 // how many operations in a row fail
	late  atomic.Bool  // with effect
}

func (s *soakStore) failing() bool {
	return s.fails.Load() > 0 && s.fails.Add(-1) >= 0
}

func (s *soakStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if s.failing() {
		return agrenting.Record{}, errStoreIO
	}
	rec, err := s.Store.Load(ctx, name)
	rec.Data = shifted(rec.Data, -time.Duration(s.clock.ahead.Load()))
	return rec, err
}

func (s *soakStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	fails := s.failing()
	if fails && !s.late.Load() {
		return "", errStoreIO
	}
	rev, err := s.Store.Save(ctx, name, shifted(data, time.Duration(s.clock.ahead.Load())), previous)
	if fails {
		return "", errStoreIO
	}
	return rev, err
}

// soakClients says how the clients of a round differ.
var soakClients = []struct {
	strategy agrenting.Strategy
	session  bool
}{{agrenting.Overlap, true}, {agrenting.InPlace, true}, {agrenting.InPlace, false}}

const (
	roundLength = 5 * time.Minute
	// workersPerClient make a request each soakPace.
	workersPerClient = 2
	soakPace         = 700 * time.Millisecond
)

// soakRound is one round.
func soakRound(t *testing.T, dir string, seed uint64, counts map[string]int) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("with -soak.seed=%d", seed)
		}
	}()
	s := &storeSoak{
		T: t, random: rand.New(rand.NewPCG(seed, 0)), folder: filepath.Join(dir, "keys"), counts: counts, turn: make(chan struct{}, 1),
		w: sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(40*time.Second), agrentingtest.WithSeed(seed), agrentingtest.WithLogLimit(100),
			agrentingtest.WithNodes(agrentingtest.Nodes{Count: 10, Lagging: 1, KeyLag: 3 * time.Second, SessionLag: 3 * time.Second})),
	}
	for n := range soakClients {
		s.stores = append(s.stores, &soakStore{Store: fileStore(t, s.folder)})
		s.clients = append(s.clients, new(atomic.Pointer[agrenting.Client]))
		s.open(n)
		require.NoError(t, s.w.Call(s.clients[n].Load()))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var workers sync.WaitGroup
	for n := range soakClients {
		for range workersPerClient {
			workers.Go(func() { s.work(ctx, n) })
		}
	}
	workers.Go(func() { s.rotateAgainAndAgain(ctx, rand.New(rand.NewPCG(seed, 1))) })
	var before usage
	for began, next := time.Now(), time.Duration(0); time.Since(began) < roundLength; next = time.Duration(s.random.IntN(3000)) * time.Millisecond {
		pause(ctx, next)
		s.backUp()
		s.mischief(ctx)
		if before.goroutines == 0 && time.Since(began) > roundLength/4 {
			s.turn <- struct{}{}
			before = s.rest(ctx)
			<-s.turn
		}
	}
	s.turn <- struct{}{}
	after := s.rest(ctx)
	stop() // before another rotation begins
	<-s.turn
	workers.Wait()
	assert.Zero(t, s.failed.Load(), "of %d requests have failed", s.calls.Load())
	s.counts["requests"] += int(s.calls.Load())
	s.counts["rotations"] += int(s.rotations.Load())
	s.counts["rotations that failed"] += int(s.failedRotations.Load())
	assert.LessOrEqual(t, after.goroutines, before.goroutines+20, "goroutines: those of some more connections, and no more")
	assert.LessOrEqual(t, after.heap, before.heap+8<<20, "bytes of memory")
	s.assertFiles()
	for n := range soakClients {
		require.NoError(t, s.clients[n].Load().Close())
	}
	s.w.OneLiveKey(fileStore(t, s.folder))
}

// open starts a client, as another process would.
func (s *storeSoak) open(n int) {
	s.Helper()
	opts := []agrenting.Option{
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 6}),
		agrenting.WithObserver(func(e agrenting.Event) {
			s.remember("client %d: %s, %s, %s: %v", n, e.Type, e.Reason, e.Fingerprint, e.Err)
		}),
	}
	if soakClients[n].session {
		opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 1000}))
	}
	s.clients[n].Store(s.w.Client(s.stores[n], agrenting.RotationPolicy{
		Strategy: soakClients[n].strategy, Every: -1, RetryEvery: 5 * time.Second, Owner: agrenting.Static(agrenting.UserToken(s.w.Owner.Secret)),
	}, opts...))
}

// work makes requests that can be repeated.
func (s *storeSoak) work(ctx context.Context, n int) {
	for i := n; ctx.Err() == nil; i++ {
		method, in := http.MethodGet, any(nil)
		if i%5 == 0 {
			method, in = http.MethodPost, map[string]string{"agent_id": s.w.Agent.ID, "task_type": "test"}
		}
		s.calls.Add(1)
		_, err := s.clients[n].Load().Do(context.WithoutCancel(ctx), method, "/api/v1/tasks", in, nil)
		if err != nil && s.failed.Add(1) <= 3 {
			s.remember("the failure")
			s.Errorf("client %d: %v\nbefore:\n%s", n, err, s.remembered())
		}
		pause(ctx, soakPace)
	}
}

// remember keeps what has happened lately, to explain a failure.
func (s *storeSoak) remember(format string, args ...any) {
	const most = 40
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = append(s.recent[max(0, len(s.recent)+1-most):], time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (s *storeSoak) remembered() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.recent, "\n")
}

func (s *storeSoak) path() string { return filepath.Join(s.folder, "key.record") }

// backUp keeps copies of earlier records.
func (s *storeSoak) backUp() {
	content, err := os.ReadFile(s.path())
	if err == nil && len(content) > 0 && (len(s.backups) == 0 || !bytes.Equal(content, s.backups[len(s.backups)-1])) {
		s.backups = append(s.backups[max(0, len(s.backups)-10):], content)
	}
}

// keyRoutes are the routes that rotations use.
var keyRoutes = []string{
	sdktest.RouteCreateKey, sdktest.RouteRotate, "GET /api/v1/agents/{id}/credentials", "DELETE /api/v1/agents/{id}/credentials/{id}",
}

// keyFaults are what goes wrong with calls of these routes.
var keyFaults = map[string]agrentingtest.Fault{
	"401":              agrentingtest.Status(http.StatusUnauthorized, ""),
	"401 after it":     agrentingtest.Status(http.StatusUnauthorized, "").AfterServing(),
	"403 page":         agrentingtest.Page(http.StatusForbidden),
	"403 page after":   agrentingtest.Page(http.StatusForbidden).AfterServing(),
	"502 page after":   agrentingtest.Page(http.StatusBadGateway).AfterServing(),
	"empty 200 after":  agrentingtest.Empty(http.StatusOK).AfterServing(),
	"empty 200":        agrentingtest.Empty(http.StatusOK),
	"truncated":        agrentingtest.MalformedJSON(),
	"lost before":      agrentingtest.DropBefore(),
	"lost after":       agrentingtest.DropAfter(),
	"reset":            agrentingtest.ResetMidBody(10),
	"error of handler": agrentingtest.HandlerError(http.StatusInternalServerError, ""),
}

func draw[T any](random *rand.Rand, all []T) T { return all[random.IntN(len(all))] }

// mischief does one thing to the clients.
func (s *storeSoak) mischief(ctx context.Context) {
	n := s.random.IntN(len(s.clients))
	var what string
	does := func() {}
	end := func() {}
	switch s.random.IntN(14) {
	case 0:
		what, does = "record deleted", func() { _ = os.Remove(s.path()) } // it may be gone already
	case 1:
		what, does = "record set back", func() { s.replace(draw(s.random, s.backups)) }
	case 2:
		content := draw(s.random, s.backups)
		what, does = "record cut", func() { s.replace(content[:s.random.IntN(len(content))]) }
	case 3:
		unmounted := s.folder + " is unmounted"
		what = "folder gone"
		does = func() { require.NoError(s, os.Rename(s.folder, unmounted)) }
		end = func() {
			if os.Rename(unmounted, s.folder) != nil { // a client has created it again
				require.NoError(s, os.RemoveAll(unmounted))
			}
		}
	case 4, 5:
		what, does = "I/O errors", func() {
			s.stores[n].late.Store(s.random.IntN(2) == 0)
			s.stores[n].fails.Store(int64(2 + s.random.IntN(3)))
		}
	case 6:
		day := int64(24 * time.Hour)
		what, does = "clock set", func() { s.stores[n].clock.ahead.Store(draw(s.random, []int64{0, day, -day})) }
	case 7:
		what, does = "stray 401s", func() {
			s.w.Server.Fault("!/api/v1/auth/*", agrentingtest.Status(http.StatusUnauthorized, "").Share(0.05))
		}
		end = s.w.Server.ClearFaults
	case 8:
		what, does = "outage of authenticate", func() {
			s.w.Server.Fault("/api/v1/auth/authenticate", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		}
		end = s.w.Server.ClearFaults
	case 9, 10, 11:
		name := draw(s.random, slices.Sorted(maps.Keys(keyFaults)))
		what, does = "key calls: "+name, func() {
			s.w.Server.Fault(draw(s.random, keyRoutes), keyFaults[name].Times(1+s.random.IntN(3)))
		}
		end = s.w.Server.ClearFaults
	case 12:
		what, does = "sessions revoked", s.w.Server.RevokeSessions
	default:
		what = "nothing"
	}
	s.counts["fault: "+what]++
	loses := strings.HasPrefix(what, "record") || what == "folder gone"
	if loses { // when all clients have seen the newest record; see TestLedger_anyOneFault for the other moments
		s.turn <- struct{}{}
		pause(ctx, 2500*time.Millisecond)
	}
	s.remember("%s, client %d", what, n)
	does()
	pause(ctx, time.Duration(s.random.IntN(4000))*time.Millisecond)
	end()
	if loses {
		pause(ctx, 2500*time.Millisecond) // until it is written back
		<-s.turn
	}
	s.remember("end of %s", what)
}

// replace overwrites the file of the record, if its folder is there.
func (s *storeSoak) replace(content []byte) { _ = os.WriteFile(s.path(), content, 0o600) }

// rotateAgainAndAgain has one client after another rotate, while faults strike.
func (s *storeSoak) rotateAgainAndAgain(ctx context.Context, random *rand.Rand) {
	for {
		s.turn <- struct{}{}
		if ctx.Err() != nil {
			<-s.turn
			return
		}
		within, cancel := context.WithTimeout(ctx, 20*time.Second)
		n := random.IntN(len(s.clients))
		s.remember("client %d rotates", n)
		_, err := s.clients[n].Load().Rotate(within)
		s.remember("client %d has rotated: %v", n, err)
		cancel()
		if err != nil {
			s.failedRotations.Add(1)
		} else {
			s.rotations.Add(1)
		}
		<-s.turn
		pause(ctx, time.Duration(random.IntN(5000))*time.Millisecond)
	}
}

// usage is what a client must not use more and more of.
type usage struct {
	goroutines int
	heap       uint64
}

// rest ends the faults, has unfinished work finished, and returns what is used then.
func (s *storeSoak) rest(ctx context.Context) usage {
	s.Helper()
	s.w.Server.ClearFaults()
	for _, store := range s.stores {
		store.fails.Store(0)
	}
	pause(ctx, 3*time.Minute)
	rotated := func() bool {
		n := s.random.IntN(len(s.clients))
		_, err := s.clients[n].Load().Rotate(ctx)
		s.remember("client %d has rotated at rest: %v", n, err)
		return err == nil
	}
	for n := 0; !rotated(); n++ {
		if n == 5 {
			s.Errorf("no client can rotate:\n%s", s.remembered())
			break
		}
		pause(ctx, time.Minute)
	}
	pause(ctx, time.Minute)
	s.w.OneLiveKey(fileStore(s.T, s.folder)) //nolint:contextcheck // it has that of the test
	for n, c := range s.clients {
		require.NoError(s, c.Load().Status().StoreError, "client %d", n)
	}
	runtime.GC()
	runtime.GC() // for what finalizers have kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{goroutines: goroutinesOfBubble(), heap: m.HeapAlloc}
}

// bubble is how a stack trace names the bubble of a goroutine.
var bubble = regexp.MustCompile(`synctest bubble \d+\]`)

// goroutinesOfBubble counts the goroutines of the caller's bubble: other tests run at the
// same time.
func goroutinesOfBubble() int {
	own := make([]byte, 1<<10)
	name := bubble.Find(own[:runtime.Stack(own, false)])
	all := make([]byte, 4<<20)
	return bytes.Count(all[:runtime.Stack(all, true)], name)
}

// fileOfStore is a file that a store may leave behind.
var fileOfStore = regexp.MustCompile(`^(key|session\.[0-9a-f]{16})\.(record|lock)$`)

// assertFiles asserts that no temporary files are left.
func (s *storeSoak) assertFiles() {
	s.Helper()
	require.NoError(s, filepath.WalkDir(s.folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			assert.Regexp(s, fileOfStore, entry.Name())
		}
		return err
	}))
}
