package rotation_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/chaos"
)

var (
	soakFor  = flag.Duration("soak", 5*time.Second, "how long the soak test runs")
	soakLog  = flag.String("soak.log", "", "a file for all that the soak's clients say")
	soakSeed = flag.Uint64("soak.seed", 0, "the seed of its faults; 0 draws one")
)

// soak is a set of clients of one key, each like a separate process, on a
// network and a store that fail.
type soak struct {
	t       *testing.T
	seed    uint64
	srv     *agrentingtest.Server
	proxy   *chaos.Proxy
	witness *witness
	secrets *secretSet
	output  *scanner
	agent   *agrentingtest.Agent
	owner   agrentingtest.Token
	path    string
	sealing agrenting.SealingKey
	clients []*agrenting.Client
	byHand  atomic.Pointer[agrenting.Credential] // what the environment names

	storeFaults atomic.Bool
	storeDown   atomic.Bool

	mu     sync.Mutex
	rng    *rand.Rand
	counts map[string]int // of everything worth a line
	wrong  []string       // what cannot be explained
	recent []string       // the latest events and deeds
	before []string       // those before the first failure that cannot be explained
}

// mixOfSoak harms about one exchange in ten.
var mixOfSoak = chaos.Mix{
	Latency: 0.03, Reset: 0.02, Silent: 0.01, Lost: 0.03, Slow: 0.02,
	Delay: 20 * time.Millisecond, Hang: 5 * time.Second,
}

// TestSoak runs workers on three clients that share a key: one with sessions
// that rotates by overlap, one with sessions that rotates in place, one that
// sends the key itself. All the while their connections suffer, the store fails,
// sessions are short and are revoked, the platform returns 503, and the key is
// rotated, and replaced manually. No call may fail that no fault explains, no key
// may be lost, and no secret may show.
//
//	go test -run TestSoak -soak=10m -timeout=15m -v .
func TestSoak(t *testing.T) {
	t.Parallel()
	length := *soakFor
	if testing.Short() {
		length = min(length, 2*time.Second)
	}
	s := newSoak(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var workers sync.WaitGroup
	for i := range 12 {
		workers.Go(func() { s.work(ctx, i, s.clients[i%len(s.clients)]) })
	}
	s.peace(false)
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; {
		s.mischief(ctx)
	}
	s.peace(true)
	s.settle(ctx)
	s.recover(ctx)
	stop()
	workers.Wait()
	s.assertOneLiveKey(t.Context())
	for _, c := range s.clients {
		require.NoError(t, c.Close())
	}
	s.proxy.Close()
	s.report(length)
	if len(s.wrong) > 0 {
		t.Errorf("failures that no fault explains:\n%s\nbefore the first one:\n%s",
			strings.Join(s.wrong, "\n"), strings.Join(s.before, "\n"))
	}
	assert.Empty(t, s.output.leaks(s.secrets), "secrets in logs, events, errors and status")
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	s := &soak{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{},
		srv: agrentingtest.NewServer(agrentingtest.WithoutRateLimits(), agrentingtest.WithSessionTTL(2500*time.Millisecond),
			agrentingtest.WithLogLimit(100)),
		secrets: &secretSet{all: map[string]bool{}}, output: &scanner{words: map[string]bool{}},
		path: filepath.Join(t.TempDir(), "keys", "key.json"), sealing: agrenting.NewSealingKey(),
	}
	t.Cleanup(s.srv.Close)
	if *soakLog != "" {
		file, err := os.Create(*soakLog)
		require.NoError(t, err)
		t.Cleanup(func() { _ = file.Close() })
		s.output.copy = file
	}
	user := s.srv.NewUser("owner")
	s.agent = s.srv.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"})
	s.owner = s.srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner"})
	s.secrets.add(s.owner.Secret)
	s.put(s.srv.NewKey(s.agent.ID))
	var err error
	s.proxy, err = chaos.New(strings.TrimPrefix(s.srv.URL, "http://"), seed)
	require.NoError(t, err)
	t.Cleanup(s.proxy.Close)
	base := &http.Transport{MaxIdleConnsPerHost: 32, ResponseHeaderTimeout: time.Second}
	t.Cleanup(base.CloseIdleConnections)
	s.witness = &witness{base: base, proxy: s.proxy, secrets: s.secrets}
	sessions, err := agrenting.FileStore(filepath.Join(t.TempDir(), "sessions"))
	require.NoError(t, err)
	first := *s.byHand.Load()
	s.add(agrenting.Overlap, agrenting.WithCredential(first), agrenting.WithSession(agrenting.SessionPolicy{Store: sessions}))
	s.add(agrenting.InPlace, agrenting.WithCredential(first), agrenting.WithSession(agrenting.SessionPolicy{Store: sessions}))
	s.add(agrenting.InPlace, agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(
		func(context.Context) (agrenting.Credential, error) { return *s.byHand.Load(), nil },
	)))
	return s
}

// add adds a client, like a separate process.
func (s *soak) add(strategy agrenting.Strategy, opts ...agrenting.Option) {
	s.t.Helper()
	file, err := agrenting.FileStore(s.path)
	require.NoError(s.t, err)
	sealed, err := agrenting.Sealed(file, "soak", s.sealing)
	require.NoError(s.t, err)
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL("http://" + s.proxy.Addr()),
		agrenting.WithTransport(s.witness), agrenting.WithTimeout(30 * time.Second),
		agrenting.WithStore(&flakyStore{Store: sealed, soak: s}),
		agrenting.WithRotation(agrenting.RotationPolicy{
			Strategy: strategy, Every: -1, AgentID: s.agent.ID,
			Owner: agrenting.Static(agrenting.UserToken(s.owner.Secret)),
			Grace: 50 * time.Millisecond, CallTimeout: time.Second, Lease: time.Second,
			RetryEvery: 10 * time.Millisecond, MaxAttempts: 50,
		}),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: attemptsOfSoak, BaseDelay: 5 * time.Millisecond}),
		agrenting.WithLogger(slog.New(slog.NewTextHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		agrenting.WithObserver(s.observe),
	}, opts...)...)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	s.clients = append(s.clients, c)
}

// put is what an operator does with a new key.
func (s *soak) put(k agrentingtest.Key) {
	s.secrets.add(k.Secret)
	c := agrenting.APIKey(k.Secret)
	s.byHand.Store(&c)
}

func (s *soak) observe(e agrenting.Event) {
	_, _ = fmt.Fprintf(s.output, "%+v %v\n", e, e.Err)
	name := "event: " + string(e.Type)
	if e.Type == agrenting.EventRenewed || e.Type == agrenting.EventRotated {
		name += ", " + e.Reason
	}
	s.count(name)
	s.remember("%s, %s %s, was %s: %v", name, e.Kind, e.Fingerprint, e.Previous, e.Err)
}

// remember keeps what has happened lately, to explain a failure.
func (s *soak) remember(format string, args ...any) {
	const most = 40
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = append(s.recent, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	s.recent = s.recent[max(0, len(s.recent)-most):]
}

func (s *soak) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
}

// draw is a number below n.
func (s *soak) draw(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

func (s *soak) storeFails(share float64) bool {
	if !s.storeFaults.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.storeDown.Load() || s.rng.Float64() < share {
		s.counts["fault: store"]++
		return true
	}
	return false
}

// peace turns the faults off, or on.
func (s *soak) peace(on bool) {
	if on {
		s.proxy.Set(chaos.Mix{})
		s.srv.ClearFaults()
	} else {
		s.proxy.Set(mixOfSoak)
	}
	s.storeDown.Store(false)
	s.storeFaults.Store(!on)
}

// work calls the platform until ctx is done.
func (s *soak) work(ctx context.Context, worker int, c *agrenting.Client) {
	for n := worker; ctx.Err() == nil; n++ {
		method, path, in := http.MethodGet, "/api/v1/tasks?limit=1", any(nil)
		switch n % 7 {
		case 0: // repeatable by its idempotency key
			method, path = http.MethodPost, "/api/v1/tasks"
			in = map[string]string{"agent_id": s.agent.ID, "task_type": "test"}
		case 3: // not repeatable
			method, path = http.MethodPatch, "/api/v1/agents/"+s.agent.ID
			in = map[string]any{"agent": map[string]string{"description": fmt.Sprint("number ", n)}}
		}
		j := &journey{began: time.Now()}
		_, err := c.Do(context.WithValue(context.WithoutCancel(ctx), journeyKey{}, j), method, path, in, nil)
		s.count("requests")
		if err != nil {
			s.failed(err, j, method)
		}
		if r, ok := errors.AsType[*agrenting.RenewalError](err); ok {
			pause(ctx, time.Until(r.RetryAt)) // as callers should
		}
		pause(ctx, 2*time.Millisecond)
	}
}

func (s *soak) failed(err error, j *journey, method string) {
	_, _ = fmt.Fprintf(s.output, "%v\n%+v\n", err, err)
	why := s.witness.explain(err, j, method != http.MethodPatch)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts["failed calls"]++
	if why != "" {
		s.counts["failed: "+why]++
		return
	}
	if len(s.wrong) == 0 {
		s.before = append(slices.Clone(s.recent), time.Now().Format("05.000 ")+"the failure")
	}
	if len(s.wrong) < 20 {
		s.wrong = append(s.wrong, fmt.Sprintf("%s after %v and %d attempts, the last one from %s: %v",
			method, time.Since(j.began).Round(time.Millisecond), j.attempts, j.addr, err))
	}
}

// mischief does one thing after another to the clients.
func (s *soak) mischief(ctx context.Context) {
	n := s.draw(20)
	s.remember("mischief %d begins", n)
	defer s.remember("mischief %d is over", n)
	switch {
	case n < 9:
		s.rotate(ctx, s.draw(len(s.clients)))
		s.recover(ctx)
	case n < 12:
		// One at a time: a call is replayed once, so a session must not end
		// together with the one that has just taken its place.
		s.count("sessions revoked")
		s.srv.RevokeSession(s.witness.session())
		s.recover(ctx)
	case n < 14:
		s.count("fault: 503")
		s.srv.Fault("*", agrentingtest.Status(http.StatusServiceUnavailable, "").Times(1+s.draw(8)))
	case n < 16:
		s.storeDown.Store(true)
		pause(ctx, time.Duration(s.draw(300))*time.Millisecond)
		s.storeDown.Store(false)
	case n < 18:
		s.proxy.Cut()
	case n == 18:
		s.replaceByHand(ctx)
	}
	for _, c := range s.clients {
		_, _ = fmt.Fprintf(s.output, "%+v %v\n", c.Status(), c)
	}
	pause(ctx, time.Duration(s.draw(100))*time.Millisecond)
}

func (s *soak) rotate(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	rot, err := s.clients[i].Rotate(ctx)
	s.remember("client %d has rotated: %v", i, err)
	if err != nil {
		_, _ = fmt.Fprintf(s.output, "%v\n%+v\n", err, err)
		stage := "elsewhere"
		if e, ok := errors.AsType[*agrenting.RotationError](err); ok {
			stage = string(e.Stage)
		}
		s.count("rotations that stopped at " + stage)
		return
	}
	if rot == nil { // it joined work that began by itself and found nothing to do
		s.count("rotations without a result")
		return
	}
	_, _ = fmt.Fprintf(s.output, "%+v\n", *rot)
	name := "rotations, " + rot.Strategy.String()
	switch {
	case rot.Adopted:
		name = "rotations adopted"
	case rot.Recovered:
		name += ", of another's or an earlier attempt"
	}
	s.count(name)
}

// replaceByHand does what an operator does when a key has leaked: makes another
// one, puts it where the processes find it, and revokes the old one. It is done
// in peace, since a key that cannot be tried is not adopted.
func (s *soak) replaceByHand(ctx context.Context) {
	s.peace(true)
	defer s.peace(false)
	rec := s.settle(ctx)
	s.recover(ctx)
	s.put(s.srv.NewKey(s.agent.ID))
	for _, k := range s.srv.LiveKeys(s.agent.ID) {
		if strings.HasSuffix(rec.Credential.Reveal(), k.Hint) {
			s.witness.revoked()
			s.srv.RevokeKey(k.ID)
		}
	}
	s.count("keys replaced manually")
	want := s.byHand.Load().Fingerprint()
	assert.Eventually(s.t, func() bool {
		_, _ = s.clients[2].Do(ctx, http.MethodGet, "/api/v1/tasks?limit=1", nil, nil)
		return s.load(ctx).Credential.Fingerprint() == want
	}, 10*time.Second, 5*time.Millisecond, "the manually stored key is not adopted")
}

// recover waits until each client has got over the end of its credential.
func (s *soak) recover(ctx context.Context) {
	for _, c := range s.clients {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); pause(ctx, 20*time.Millisecond) {
			if _, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks?limit=1", nil, nil); err == nil {
				break
			}
		}
	}
	pause(ctx, 2*mixOfSoak.Delay)
}

// settle has what is unfinished finished, by a rotation if need be.
func (s *soak) settle(ctx context.Context) agrenting.KeyState {
	s.t.Helper()
	var rec agrenting.KeyState
	assert.Eventually(s.t, func() bool {
		if rec = s.load(ctx); !rec.Credential.IsZero() && rec.Unfinished == nil && len(s.srv.LiveKeys(s.agent.ID)) == 1 {
			return true
		}
		s.rotate(ctx, s.draw(len(s.clients)))
		return false
	}, 30*time.Second, 5*time.Millisecond, "a rotation does not come to its end")
	return rec
}

// load reads the store past its faults.
func (s *soak) load(ctx context.Context) agrenting.KeyState {
	file, err := agrenting.FileStore(s.path)
	if err != nil {
		return agrenting.KeyState{}
	}
	sealed, err := agrenting.Sealed(file, "soak", s.sealing)
	if err != nil {
		return agrenting.KeyState{}
	}
	rec, err := agrenting.LoadKeyState(ctx, sealed)
	if err != nil && !errors.Is(err, agrenting.ErrNoRecord) {
		s.t.Errorf("the store cannot be read: %v", err)
	}
	return rec
}

func (s *soak) assertOneLiveKey(ctx context.Context) {
	s.t.Helper()
	rec := s.load(ctx)
	assert.Len(s.t, s.srv.LiveKeys(s.agent.ID), 1, "exactly one key is live")
	assert.True(s.t, !rec.Credential.IsZero() && s.srv.KeyAlive(rec.Credential.Reveal()), "and it is the store's")
	for _, c := range s.clients {
		// A pause after a failure of before may have to end first.
		assert.Eventually(s.t, func() bool {
			_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks?limit=1", nil, nil)
			return err == nil
		}, 10*time.Second, 5*time.Millisecond, "a client cannot use it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts["generation of the key"] = int(rec.Generation)
}

func (s *soak) report(length time.Duration) {
	for kind, n := range s.proxy.Counts() {
		s.counts["fault: "+string(kind)] = n
	}
	stats := s.srv.Stats()
	s.counts["sessions issued"], s.counts["returns 401"] = int(stats.SessionsIssued), int(stats.Unauthorized)
	s.counts["keys revoked"], s.counts["replays by idempotency key"] = int(stats.KeysRevoked), int(stats.IdempotentReplays)
	s.counts["bytes of output searched for secrets"], s.counts["secrets searched for"] = s.output.bytes, len(s.secrets.all)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.counts)) {
		fmt.Fprintf(&b, "%9d  %s\n", s.counts[name], name)
	}
	s.t.Logf("%v with seed %d:\n%s%9d  failures unexplained", length, s.seed, b.String(), len(s.wrong))
}

// pause waits, cancellably.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
