package agrenting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// mapSessionStore is a store in memory that can be made to fail.
type mapSessionStore struct {
	mu      sync.Mutex
	records map[string][]byte
	locks   map[string]chan struct{}
	fail    map[string]error // by operation
}

func newMapSessionStore() *mapSessionStore {
	return &mapSessionStore{records: map[string][]byte{}, locks: map[string]chan struct{}{}, fail: map[string]error{}}
}

func (s *mapSessionStore) failing(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[op] = err
}

func (s *mapSessionStore) LockSession(ctx context.Context, id string) (func(), error) {
	s.mu.Lock()
	if err := s.fail["lock"]; err != nil {
		s.mu.Unlock()
		return nil, err
	}
	l, ok := s.locks[id]
	if !ok {
		l = make(chan struct{}, 1)
		s.locks[id] = l
	}
	s.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *mapSessionStore) LoadSession(_ context.Context, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[id], s.fail["load"]
}

func (s *mapSessionStore) SaveSession(_ context.Context, id string, sealed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail["save"]; err != nil {
		return err
	}
	s.records[id] = sealed
	return nil
}

func TestClientsWithAStoreShareOneExchangePerExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		w.srv.Fault(routeAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
		store := newMapSessionStore()
		var wg sync.WaitGroup
		for range 10 {
			c := w.client(WithSessionStore(store))
			wg.Go(func() {
				for range 600 {
					if err := w.call(c); err != nil {
						t.Error(err)
					}
					advance(time.Second)
				}
			})
		}
		wg.Wait()
		assert.Zero(t, w.unauthorized())
		assert.InDelta(t, 12.5, w.bought(), 2, "one for each lifetime less its window, not ten")
	})
}

func TestRejectedSharedSessionIsReplacedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		store := newMapSessionStore()
		var clients []*Client
		var adopted int
		var mu sync.Mutex
		for range 10 {
			c := w.client(WithSessionStore(store), WithObserver(func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Type == EventRenewed && e.Reason == "adopted" {
					adopted++
				}
			}))
			clients = append(clients, c)
			require.NoError(t, w.call(c))
		}
		w.srv.RevokeSessions()
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { assert.NoError(t, w.call(c)) })
		}
		wg.Wait()
		synctest.Wait()
		assert.Equal(t, 2, w.bought())
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 18, adopted)
	})
}

func TestLockoutIsSharedThroughTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		store := newMapSessionStore()
		w.srv.Fault(routeAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, "300").Times(1))
		first, second := w.client(WithSessionStore(store)), w.client(WithSessionStore(store))
		require.ErrorIs(t, w.call(first), ErrLockedOut)
		require.ErrorIs(t, w.call(second), ErrLockedOut)
		assert.Equal(t, 1, w.bought(), "the second did not need to ask")
		advance(301 * time.Second)
		require.NoError(t, w.call(second))
		require.NoError(t, w.call(first))
		assert.Equal(t, 2, w.bought())
	})
}

func TestFailuresOfTheExchangeAreSharedThroughTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		store := newMapSessionStore()
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			c := w.client(WithSessionStore(store))
			wg.Go(func() {
				for time.Since(began) < time.Minute {
					if w.call(c) == nil {
						t.Error("a request went through without a session")
					}
					advance(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, w.bought(), 10, "ten processes stay below the limit of the endpoint")
	})
}

func TestBrokenStoreCostsSharingAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"lock", "load", "save"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			w := newSessionWorld(t)
			store := newMapSessionStore()
			store.failing(op, errors.New("disk on fire"))
			events := make(chan Event, 10)
			c := w.client(WithSessionStore(store), WithObserver(func(e Event) { events <- e }))
			require.NoError(t, w.call(c))
			e := <-events
			assert.Equal(t, EventStoreFailed, e.Type)
			assert.Equal(t, op, e.Reason)
		})
	}
}

func TestStoredSessionsAreOfNoUseWithoutTheKey(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	store, err := FileSessionStore(folder)
	require.NoError(t, err)
	c := w.client(WithSessionStore(store))
	require.NoError(t, w.call(c))
	cred, err := c.Credential(t.Context())
	require.NoError(t, err)

	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the record and its lock")
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		b, err := os.ReadFile(filepath.Join(folder, e.Name()))
		require.NoError(t, err)
		for _, s := range []string{cred.Reveal(), w.key.Secret, w.srv.URL, w.agent.ID} {
			assert.NotContains(t, string(b)+e.Name(), s)
		}
	}
	id := sessionID(c.transport.origins[0], APIKey(w.key.Secret))
	sealed, err := store.LoadSession(t.Context(), id)
	require.NoError(t, err)
	own := newSharedSessions(store, c.transport.origins[0], APIKey(w.key.Secret))
	plain, err := own.sealer.open(sealed)
	require.NoError(t, err)
	assert.Contains(t, string(plain), cred.Reveal())

	other := newSharedSessions(store, c.transport.origins[0], APIKey("another-key-0123456789"))
	assert.NotEqual(t, id, other.id, "another key has a record of its own")
	_, err = other.sealer.open(sealed)
	require.ErrorIs(t, err, errUnsealable)
	elsewhere := newSharedSessions(store, origin{"https", "elsewhere.test"}, APIKey(w.key.Secret))
	assert.NotEqual(t, id, elsewhere.id, "another origin too")
	_, err = elsewhere.sealer.open(sealed)
	require.ErrorIs(t, err, errUnsealable)
	for i := range sealed {
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 1
		_, err := own.sealer.open(bad)
		require.ErrorIs(t, err, errUnsealable, "byte %d", i)
	}
}

func TestDamagedRecordIsReplaced(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	folder := t.TempDir()
	require.NoError(t, os.Chmod(folder, 0o700))
	store, err := FileSessionStore(folder)
	require.NoError(t, err)
	key := APIKey(w.key.Secret)
	c := w.client(WithSessionStore(store))
	path := filepath.Join(folder, sessionID(c.transport.origins[0], key)+".session")
	require.NoError(t, os.WriteFile(path, []byte("garbage"), 0o600))
	require.NoError(t, w.call(c))
	require.NoError(t, w.call(w.client(WithSessionStore(store))))
	assert.Equal(t, 1, w.bought())
}

func TestFileSessionStoreRefusesBadFolders(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, folder := range []string{"", file} {
		_, err := FileSessionStore(folder)
		require.ErrorIs(t, err, ErrInvalidOption)
	}
	store, err := FileSessionStore(t.TempDir())
	require.NoError(t, err)
	_, err = store.LoadSession(t.Context(), "../../etc/passwd")
	require.ErrorIs(t, err, ErrInvalidOption)
}

const (
	sharedWorkerVar = "AGRENTING_TEST_SHARED_WORKER"
	workerCalls     = 5
)

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary is a worker, not a test
	spec, ok := os.LookupEnv(sharedWorkerVar)
	if !ok {
		return
	}
	if err := sharedSessionWorker(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sharedSessionWorker is what a re-executed test binary does instead of
// testing: it waits for a line, so that all start together, and calls the
// platform through a shared session.
func sharedSessionWorker(spec string) error {
	url, rest, _ := strings.Cut(spec, "|")
	key, folder, _ := strings.Cut(rest, "|")
	store, err := FileSessionStore(folder)
	if err != nil {
		return err
	}
	c, err := New(WithoutEnvironment(), WithBaseURL(url), WithCredential(APIKey(key)), WithSessionStore(store))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for range workerCalls {
		if _, err := c.Do(context.Background(), http.MethodGet, "/api/v1/agents", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestTenProcessesStartedTogetherMakeOneExchange(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	srv.Fault(routeAuthenticate, agrentingtest.Delay(50*time.Millisecond).Always())
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "w"}).ID)
	folder := filepath.Join(t.TempDir(), "sessions")
	exe, err := os.Executable()
	require.NoError(t, err)

	type worker struct {
		cmd   *exec.Cmd
		start io.WriteCloser
		out   strings.Builder
	}
	workers := make([]*worker, 10)
	for i := range workers {
		w := &worker{cmd: exec.CommandContext(t.Context(), exe, "-test.run=^$")}
		w.cmd.Env = append(os.Environ(), sharedWorkerVar+"="+srv.URL+"|"+key.Secret+"|"+folder)
		w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.out
		w.start, err = w.cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, w.cmd.Start())
		workers[i] = w
	}
	for _, w := range workers {
		_, err := fmt.Fprintln(w.start)
		require.NoError(t, err)
	}
	for _, w := range workers {
		require.NoError(t, w.cmd.Wait(), w.out.String())
	}
	assert.Equal(t, 1, srv.Count(routeAuthenticate))
	assert.Equal(t, len(workers)*workerCalls, srv.Count("GET /api/v1/agents"))
}
