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
	"runtime"
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
		err := w.call(second)
		require.ErrorIs(t, err, ErrLockedOut)
		l, ok := errors.AsType[*LockoutError](err)
		require.True(t, ok)
		require.ErrorContains(t, l.Err, "another process was told so: ")
		assert.Equal(t, 5*time.Minute, time.Until(l.RetryAt).Round(time.Second))
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
					if err := w.call(c); err == nil || errors.Is(err, ErrUnauthorized) {
						t.Error("a request went through without a session, or the key counts as refused: ", err)
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
			assert.WithinDuration(t, time.Now(), e.Time, time.Minute)
			if op == "load" {
				require.NoError(t, c.Status().StoreError, "what could not be read has been replaced")
			} else {
				require.ErrorContains(t, c.Status().StoreError, "disk on fire")
			}

			store.failing(op, nil)
			w.srv.RevokeSessions()
			require.NoError(t, w.call(w.client(WithSessionStore(store))))
			bought := w.bought()
			require.NoError(t, w.call(c))
			require.Equal(t, bought, w.bought(), "it is shared again")
			require.NoError(t, c.Status().StoreError, "what is mended is not reported any more")
		})
	}
}

func TestAStoreThatWorksIsNotReported(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	store := newMapSessionStore()
	for range 2 {
		c := w.client(WithSessionStore(store), WithObserver(func(e Event) {
			assert.NotEqual(t, EventStoreFailed, e.Type)
		}))
		require.NoError(t, w.call(c))
		require.NoError(t, c.Status().StoreError)
	}
	assert.Equal(t, 1, w.bought())
	assert.Zero(t, w.srv.Count("GET /api/v1/hirings/pending"), "a session that nothing is known against is not tried first")
}

// lockingStore calls lock for each lock.
type lockingStore struct {
	*mapSessionStore
	lock func(ctx context.Context) (func(), error)
}

func (s lockingStore) LockSession(ctx context.Context, _ string) (func(), error) { return s.lock(ctx) }

func TestALockThatCannotBeHadCostsSharingAndNothingElse(t *testing.T) {
	t.Parallel()
	for want, lock := range map[string]func(context.Context) (func(), error){
		"panicked":                     func(context.Context) (func(), error) { panic("boom") },
		"store panicked":               func(context.Context) (func(), error) { runtime.Goexit(); return nil, nil },
		"lock that cannot be unlocked": func(context.Context) (func(), error) { return nil, nil },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			w := newSessionWorld(t)
			c := w.client(WithSessionStore(lockingStore{newMapSessionStore(), lock}))
			require.NoError(t, w.call(c))
			require.ErrorContains(t, c.Status().StoreError, want)
		})
	}
}

func TestTheContextOfALockEndsWithIt(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	var end <-chan struct{}
	held := false
	c := w.client(WithSessionStore(lockingStore{newMapSessionStore(), func(ctx context.Context) (func(), error) {
		end, held = ctx.Done(), true
		return func() { assert.False(t, isClosed(end)); held = false }, nil
	}}))
	require.NoError(t, w.call(c))
	assert.False(t, held)
	assert.True(t, isClosed(end))
}

// Who finds a session while it waits for the lock goes on without it, and leaves
// no lock behind.
func TestALockThatComesTooLateIsUnlocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		store := newMapSessionStore()
		other := w.client(WithSessionStore(store))
		locks := 0
		c := w.client(WithSessionStore(lockingStore{store, func(ctx context.Context) (func(), error) {
			_, err := other.Credential(ctx)
			<-ctx.Done()
			locks++ // it does not heed its context
			return func() { locks-- }, err
		}}))
		require.NoError(t, w.call(c))
		assert.Equal(t, 1, w.bought())
		assert.Zero(t, locks)
	})
}

func TestASessionOfTheStoreIsAdoptedAsLongAsItLives(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts   []agrentingtest.Option
		pause  time.Duration
		bought int
	}{
		"alive":                  {pause: 50 * time.Second, bought: 1},
		"expired":                {pause: 61 * time.Second, bought: 2},
		"alive, clock ahead":     {[]agrentingtest.Option{agrentingtest.WithClockSkew(time.Hour)}, 50 * time.Second, 1},
		"expired, clock ahead":   {[]agrentingtest.Option{agrentingtest.WithClockSkew(time.Hour)}, 61 * time.Second, 2},
		"alive, clock behind":    {[]agrentingtest.Option{agrentingtest.WithClockSkew(-time.Hour)}, 50 * time.Second, 1},
		"expired, clock behind":  {[]agrentingtest.Option{agrentingtest.WithClockSkew(-time.Hour)}, 61 * time.Second, 2},
		"expiry that is no date": {[]agrentingtest.Option{agrentingtest.WithSessionShape(agrentingtest.ShapeBadExpiry)}, 50 * time.Second, 1},
		"expiry in the past":     {[]agrentingtest.Option{agrentingtest.WithSessionShape(agrentingtest.ShapePastExpiry)}, 50 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t, append(c.opts, agrentingtest.WithSessionTTL(time.Minute))...)
				shared, store := WithSessionPolicy(SessionPolicy{Window: -1}), WithSessionStore(newMapSessionStore())
				first := w.client(shared, store)
				require.NoError(t, w.call(first))
				advance(c.pause)
				second := w.client(shared, store)
				require.NoError(t, w.call(second))
				assert.Equal(t, c.bought, w.bought())
				assert.Zero(t, w.unauthorized())
				assert.InDelta(t, first.Status().ClockSkew.Seconds(), second.Status().ClockSkew.Seconds(), 2)
				if c.bought == 1 {
					assert.WithinDuration(t, first.Status().Expires, second.Status().Expires, 2*time.Second)
				}
			})
		})
	}
}

func TestAPauseThatIsTooLongIsAWrongClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for pause, bought := range map[time.Duration]int{maxSharedPause - time.Minute: 0, maxSharedPause: 1} {
			w := newSessionWorld(t)
			store := newMapSessionStore()
			c := w.client(WithSessionStore(store))
			shared := newSharedSessions(store, c.transport.origins[0], APIKey(w.key.Secret))
			until := time.Now().Add(pause)
			require.NoError(t, shared.save(t.Context(), sharedSession{NotBefore: until, Failures: 1, Reason: "busy"}))
			err := w.call(c)
			assert.Equal(t, bought, w.bought())
			if bought == 1 {
				require.NoError(t, err)
				continue
			}
			f, ok := errors.AsType[*RenewalError](err)
			require.True(t, ok, "%v", err)
			assert.WithinDuration(t, until, f.RetryAt, 0)
			require.ErrorContains(t, err, "busy")
		}
	})
}

func TestOnlyTheRefusalOfAKeyIsSharedAsOne(t *testing.T) {
	t.Parallel()
	for err, refused := range map[error]bool{ErrServer: false, ErrUnauthorized: true} {
		var rec sharedSession
		rec.fail(err)
		shared := rec.pauseError()
		assert.Equal(t, refused, errors.Is(shared, ErrUnauthorized), "%v", err)
		require.NotErrorIs(t, shared, ErrForbidden)
		require.NotErrorIs(t, shared, ErrLockedOut)
	}
}

func TestAPolicyIsKeptWhereverTheStoreIsSet(t *testing.T) {
	t.Parallel()
	policy, store := WithSessionPolicy(SessionPolicy{Timeout: time.Hour, Window: 0.5}), WithSessionStore(newMapSessionStore())
	for _, opts := range [][]Option{{policy, store}, {store, policy}} {
		c, err := New(append(opts, WithoutEnvironment(), WithCredential(APIKey(testKey)))...)
		require.NoError(t, err)
		assert.Equal(t, time.Hour, c.core.cfg.session.Timeout)
		assert.NotNil(t, c.core.cfg.sessionStore)
		require.NoError(t, c.Close())
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
	guess := newSharedSessions(store, c.transport.origins[0], APIKey("another-key-0123456789"))
	guess.sealer.info = own.sealer.info
	_, err = guess.sealer.open(sealed)
	require.ErrorIs(t, err, errUnsealable, "the key is in the seal, not in its name alone")
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
	for _, id := range []string{"", "../../etc/passwd", "0f/1", "0F"} {
		_, err = store.LoadSession(t.Context(), id)
		require.ErrorIs(t, err, ErrInvalidOption, id)
		_, err = store.LockSession(t.Context(), id)
		require.ErrorIs(t, err, ErrInvalidOption, id)
		require.ErrorIs(t, store.SaveSession(t.Context(), id, []byte("x")), ErrInvalidOption, id)
	}
}

func TestAFileSessionStoreSaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "sessions")
	store, err := FileSessionStore(folder)
	require.NoError(t, err)
	sealed, err := store.LoadSession(t.Context(), "0a")
	require.NoError(t, err)
	require.Nil(t, sealed)
	require.NoError(t, os.MkdirAll(filepath.Join(folder, "0a.session", "x"), 0o700))
	require.NoError(t, os.Chmod(folder, 0o700))
	_, err = store.LoadSession(t.Context(), "0a")
	require.Error(t, err)
	require.Error(t, store.SaveSession(t.Context(), "0a", []byte("x")))
}

func TestARecordOfAnotherVersionCountsAsNone(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	store := newMapSessionStore()
	c := w.client(WithSessionStore(store))
	own := newSharedSessions(store, c.transport.origins[0], APIKey(w.key.Secret))
	for _, plain := range []string{`{"version":2,"token":"token-0123456789"}`, `{"version":1,"token":7}`, `1`} {
		sealed, err := own.sealer.seal([]byte(plain))
		require.NoError(t, err)
		require.NoError(t, store.SaveSession(t.Context(), own.id, sealed))
		rec, err := own.load(t.Context())
		require.ErrorIs(t, err, errUnsealable)
		assert.Zero(t, rec)
	}
	require.NoError(t, w.call(c))
	assert.Equal(t, 1, w.bought())
	assert.Zero(t, w.unauthorized())
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
