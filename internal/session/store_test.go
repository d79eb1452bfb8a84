package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestClientsShareOneExchangePerExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
		store := sdktest.NewFailingStore()
		var wg sync.WaitGroup
		for range 10 {
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			wg.Go(func() {
				for range 600 {
					if err := w.Call(c); err != nil {
						t.Error(err)
					}
					sdktest.Advance(time.Second)
				}
			})
		}
		wg.Wait()
		assert.Zero(t, w.Unauthorized())
		assert.InDelta(t, 12.5, w.Exchanges(), 2, "one for each lifetime less its window, not ten")
	})
}

func TestRejectedSharedSessionIsReplacedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		store := sdktest.NewFailingStore()
		var clients []*agrenting.Client
		var adopted int
		var mu sync.Mutex
		for range 10 {
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}), agrenting.WithObserver(func(e agrenting.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Type == agrenting.EventRenewed && e.Reason == "adopted" {
					adopted++
				}
			}))
			clients = append(clients, c)
			require.NoError(t, w.Call(c))
		}
		w.Server.RevokeSessions()
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { assert.NoError(t, w.Call(c)) })
		}
		wg.Wait()
		synctest.Wait()
		assert.Equal(t, 2, w.Exchanges())
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, 18, adopted)
	})
}

func TestLockoutIsSharedThroughTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store := sdktest.NewFailingStore()
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, "300").Times(1))
		first, second := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store})), w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.ErrorIs(t, w.Call(first), agrenting.ErrLockedOut)
		err := w.Call(second)
		require.ErrorIs(t, err, agrenting.ErrLockedOut)
		l, ok := errors.AsType[*agrenting.LockoutError](err)
		require.True(t, ok)
		require.ErrorContains(t, l.Err, "another process was refused: ")
		assert.Equal(t, 5*time.Minute, time.Until(l.RetryAt).Round(time.Second))
		assert.Equal(t, 1, w.Exchanges(), "the second did not need to ask")
		sdktest.Advance(301 * time.Second)
		require.NoError(t, w.Call(second))
		require.NoError(t, w.Call(first))
		assert.Equal(t, 2, w.Exchanges())
	})
}

func TestExchangeFailuresAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		store := sdktest.NewFailingStore()
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			wg.Go(func() {
				for time.Since(began) < time.Minute {
					if err := w.Call(c); err == nil || errors.Is(err, agrenting.ErrUnauthorized) {
						t.Error("a request went through without a session, or the key counts as refused: ", err)
					}
					sdktest.Advance(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, w.Exchanges(), 10, "ten processes stay below the limit of the endpoint")
	})
}

func TestBrokenStoreDisablesOnlySharing(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"load", "save"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewSessionWorld(t)
			store := sdktest.NewFailingStore()
			store.Failing(op, errors.New("disk on fire"))
			events := make(chan agrenting.Event, 10)
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}), agrenting.WithObserver(func(e agrenting.Event) { events <- e }))
			require.NoError(t, w.Call(c))
			e := <-events
			assert.Equal(t, agrenting.EventStoreFailed, e.Type)
			assert.Equal(t, op, e.Reason)
			assert.WithinDuration(t, time.Now(), e.Time, time.Minute)
			require.ErrorContains(t, c.Status().StoreError, "disk on fire")

			store.Failing(op, nil)
			w.Server.RevokeSessions()
			require.NoError(t, w.Call(w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))))
			bought := w.Exchanges()
			require.NoError(t, w.Call(c))
			require.Equal(t, bought, w.Exchanges(), "it is shared again")
			require.NoError(t, c.Status().StoreError, "what works again is not reported any more")
		})
	}
}

func TestWorkingStoreIsNotReported(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	store := sdktest.NewFailingStore()
	for range 2 {
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}), agrenting.WithObserver(func(e agrenting.Event) {
			assert.NotEqual(t, agrenting.EventStoreFailed, e.Type)
		}))
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Status().StoreError)
	}
	assert.Equal(t, 1, w.Exchanges())
	assert.Zero(t, w.Server.Count(sdktest.RouteVerify), "a session that nothing is known against is not tried first")
}

func TestValidSessionOfStoreIsAdopted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts   []agrentingtest.Option
		pause  time.Duration
		bought int
	}{
		"alive":                 {pause: 50 * time.Second, bought: 1},
		"expired":               {pause: 61 * time.Second, bought: 2},
		"alive, clock ahead":    {[]agrentingtest.Option{agrentingtest.WithClockSkew(time.Hour)}, 50 * time.Second, 1},
		"expired, clock ahead":  {[]agrentingtest.Option{agrentingtest.WithClockSkew(time.Hour)}, 61 * time.Second, 2},
		"alive, clock behind":   {[]agrentingtest.Option{agrentingtest.WithClockSkew(-time.Hour)}, 50 * time.Second, 1},
		"expired, clock behind": {[]agrentingtest.Option{agrentingtest.WithClockSkew(-time.Hour)}, 61 * time.Second, 2},
		"expiry without a date": {[]agrentingtest.Option{agrentingtest.WithSessionShape(agrentingtest.ShapeBadExpiry)}, 50 * time.Second, 1},
		"expiry in the past":    {[]agrentingtest.Option{agrentingtest.WithSessionShape(agrentingtest.ShapePastExpiry)}, 50 * time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, append(c.opts, agrentingtest.WithSessionTTL(time.Minute))...)
				shared := agrenting.WithSession(agrenting.SessionPolicy{Window: -1, Store: sdktest.NewFailingStore()})
				first := w.Client(shared)
				require.NoError(t, w.Call(first))
				sdktest.Advance(c.pause)
				second := w.Client(shared)
				require.NoError(t, w.Call(second))
				assert.Equal(t, c.bought, w.Exchanges())
				assert.Zero(t, w.Unauthorized())
				assert.InDelta(t, first.Status().ClockSkew.Seconds(), second.Status().ClockSkew.Seconds(), 2)
				if c.bought == 1 {
					assert.WithinDuration(t, first.Status().Expires, second.Status().Expires, 2*time.Second)
				}
			})
		})
	}
}

func TestTooLongPauseIsIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for pause, bought := range map[time.Duration]int{29 * time.Minute: 0, 30 * time.Minute: 1} {
			w := sdktest.NewSessionWorld(t)
			store := sdktest.NewFailingStore()
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			until := time.Now().Add(pause)
			_, err := sdktest.SessionSlot(c, store, agrenting.APIKey(w.Key.Secret)).Save(t.Context(),
				record.Entry[record.Session]{Body: record.Session{NotBefore: until, Failures: 1, Reason: "busy"}})
			require.NoError(t, err)
			err = w.Call(c)
			assert.Equal(t, bought, w.Exchanges())
			if bought == 1 {
				require.NoError(t, err)
				continue
			}
			f, ok := errors.AsType[*agrenting.RenewalError](err)
			require.True(t, ok, "%v", err)
			assert.WithinDuration(t, until, f.RetryAt, 0)
			require.ErrorContains(t, err, "busy")
		}
	})
}

func TestStoredSessionsNeedTheKey(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	store, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
	require.NoError(t, w.Call(c))
	cred, err := c.Credential(t.Context())
	require.NoError(t, err)

	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the record and the folder of locks")
	b, err := os.ReadFile(filepath.Join(folder, entries[1].Name()))
	require.NoError(t, err)
	for _, s := range []string{cred.Reveal(), w.Key.Secret} {
		assert.NotContains(t, string(b), s)
	}
}

func TestDamagedSessionRecordIsReplaced(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"garbage": "garbage", "an empty body": "agrenting-record 2 X\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewSessionWorld(t)
			folder := t.TempDir()
			require.NoError(t, os.Chmod(folder, 0o700))
			store, err := agrenting.FileStore(folder)
			require.NoError(t, err)
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			path := filepath.Join(folder, sdktest.SessionSlot(c, store, agrenting.APIKey(w.Key.Secret)).Name()+".record")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			require.NoError(t, w.Call(c))
			require.NoError(t, w.Call(w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))))
			assert.Equal(t, 1, w.Exchanges())
		})
	}
}

func TestSessionRecordOfOtherVersionIsKept(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	store := sdktest.NewFailingStore()
	c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
	name := sdktest.SessionSlot(c, store, agrenting.APIKey(w.Key.Secret)).Name()
	const newer = `{"version":3,"kind":"session","body":{}}`
	_, err := store.Save(t.Context(), name, []byte(newer), "")
	require.NoError(t, err)
	require.NoError(t, w.Call(c))
	require.ErrorIs(t, c.Status().StoreError, agrenting.ErrInvalidRecord)
	rec, err := store.Load(t.Context(), name)
	require.NoError(t, err)
	assert.Equal(t, newer, string(rec.Data)) //nolint:testifylint // byte for byte
}

// With WithStore, sessions of all keys of a lineage are in one record.
func TestSessionsFollowTheKeyThroughItsRotations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithoutRateLimits())
		store := &namesStore{Store: agrenting.MemoryStore()}
		policy := agrenting.RotationPolicy{Every: -1, Grace: -1}
		a, b := w.Client(store, policy, agrenting.WithSession()), w.Client(store, policy, agrenting.WithSession())
		require.NoError(t, w.Call(a))
		require.NoError(t, w.Call(b))
		require.EqualValues(t, 1, w.Server.Stats().Authenticates)
		for n := range 3 {
			_, err := a.Rotate(t.Context())
			require.NoError(t, err)
			synctest.Wait()
			require.NoError(t, w.Call(a))
			require.NoError(t, w.Call(b))
			assert.EqualValues(t, 2+n, w.Server.Stats().Authenticates, "one exchange for each key")
		}
		names := 0
		store.saved.Range(func(name, _ any) bool {
			if name != record.KeyName {
				names++
			}
			return true
		})
		assert.Equal(t, 1, names)
	})
}

// namesStore notes the names of the records that are saved in a watched store.
type namesStore struct {
	agrenting.Store

	saved sync.Map
}

func (s *namesStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	s.saved.Store(name, true)
	return s.Store.Save(ctx, name, data, previous)
}

func (s *namesStore) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.Store.(agrenting.Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
}

// A holder that was killed costs 3 s, and then one process exchanges for all.
func TestKilledHolderOfAnExchangeCostsThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		store := agrenting.MemoryStore()
		var clients []*agrenting.Client
		for range 20 {
			clients = append(clients, w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store})))
		}
		slot := sdktest.SessionSlot(clients[0], store, agrenting.APIKey(w.Key.Secret))
		_, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{}, record.Terms{Holder: "killed", Duration: 3 * time.Second})
		require.NoError(t, err)
		began := time.Now()
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { assert.NoError(t, w.Call(c)) })
		}
		wg.Wait()
		assert.InDelta(t, 3, time.Since(began).Seconds(), 0.3)
		assert.Equal(t, 1, w.Exchanges())
	})
}

// lockedStore is a store that a stopped process keeps locked, so that saves fail.
type lockedStore struct{ agrenting.Store }

func (lockedStore) Save(ctx context.Context, _ string, _ []byte, _ agrenting.Revision) (agrenting.Revision, error) {
	<-ctx.Done()
	return "", context.Cause(ctx)
}

// A holder that was stopped in the middle of a write keeps the store locked. It
// costs its lease and the time limit of one write.
func TestLockedStoreDelaysExchangeByFourSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store := agrenting.MemoryStore()
		slot := sdktest.SessionSlot(w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store})), store, agrenting.APIKey(w.Key.Secret))
		_, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{}, record.Terms{Holder: "stopped", Duration: 3 * time.Second})
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, w.Call(w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: lockedStore{store}}))))
		assert.InDelta(t, 4, time.Since(began).Seconds(), 0.3)
		assert.Equal(t, 1, w.Exchanges())
	})
}

// busyStore makes one write at a time, and each takes long.
type busyStore struct {
	agrenting.Store
	turn chan struct{}
}

func (s busyStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	sdktest.Advance(800 * time.Millisecond)
	return s.Store.Save(ctx, name, data, previous)
}

// laggingStore refuses each write, as if another process had been faster, and never
// shows that process's record.
type laggingStore struct {
	agrenting.Store
	saves *atomic.Int64
}

func (s laggingStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	s.saves.Add(1)
	return "", agrenting.ErrConflictingWrite
}

func TestConflictsWithoutAChangeArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store := laggingStore{agrenting.MemoryStore(), new(atomic.Int64)}
		require.NoError(t, w.Call(w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))))
		assert.Equal(t, 1, w.Exchanges())
		assert.Less(t, store.saves.Load(), int64(1000), "10 s of pauses of 50 ms in the middle")
	})
}

// A write that waits behind those of other processes for longer than a write may
// take is repeated: the store is not stuck.
func TestBusyStoreKeepsSessionShared(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{5, 50} {
		t.Run(strconv.Itoa(processes), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				store := busyStore{agrenting.MemoryStore(), make(chan struct{}, 1)}
				var wg sync.WaitGroup
				for range processes {
					c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
					wg.Go(func() { assert.NoError(t, w.Call(c)) })
				}
				wg.Wait()
				assert.Equal(t, 1, w.Exchanges())
			})
		})
	}
}

// deadStore is a store with writes that fail at once, with an error of its network.
type deadStore struct {
	agrenting.Store
	saves *atomic.Int64
}

func (s deadStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	s.saves.Add(1)
	return "", fmt.Errorf("dial: %w", context.DeadlineExceeded)
}

func TestFailedStoreIsNotTreatedAsBusy(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	store := deadStore{agrenting.MemoryStore(), new(atomic.Int64)}
	c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
	require.NoError(t, w.Call(c))
	assert.EqualValues(t, 1, store.saves.Load())
	assert.Equal(t, 1, w.Exchanges())
	require.ErrorIs(t, c.Status().StoreError, context.DeadlineExceeded)
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
	store, err := agrenting.FileStore(folder)
	if err != nil {
		return err
	}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(url), agrenting.WithCredential(agrenting.APIKey(key)), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
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

func TestFiftyProcessesStartedTogetherMakeOneExchange(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	defer srv.Close()
	srv.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(50*time.Millisecond).Always())
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "w"}).ID)
	folder := filepath.Join(t.TempDir(), "sessions")
	exe, err := os.Executable()
	require.NoError(t, err)

	type worker struct {
		cmd   *exec.Cmd
		start io.WriteCloser
		out   strings.Builder
	}
	workers := make([]*worker, 50)
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
	assert.Equal(t, 1, srv.Count(sdktest.RouteAuthenticate))
	assert.Equal(t, len(workers)*workerCalls, srv.Count("GET /api/v1/agents"))
}
