package pgstore_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
)

// never is an interval of polling that no test reaches.
const never = time.Hour

// watched watches the record until the test ends. It starts again after errors, as
// clients do.
func watched(t *testing.T, s *pgstore.Store) <-chan string {
	t.Helper()
	seen := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for rec, err := range s.Watch(ctx, key) {
				switch {
				case err == nil:
					seen <- string(rec.Data)
				case errors.Is(err, agrenting.ErrNoRecord):
					seen <- ""
				}
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return seen
}

// await reads from seen until data comes. Before it, smaller data may come.
func await(t *testing.T, seen <-chan string, data string) {
	t.Helper()
	for end := time.After(30 * time.Second); ; {
		select {
		case got := <-seen:
			require.LessOrEqual(t, strings.Compare(got, data), 0, "%s after %s", got, data)
			if got == data {
				return
			}
		case <-end:
			t.Fatalf("the record %q was not seen", data)
		}
	}
}

// listeners returns the process IDs of the server for connections of an application
// that listen.
func (s *server) listeners(t *testing.T, application string) (pids []int) {
	t.Helper()
	rows, err := s.pool(t).Query(t.Context(),
		"SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND application_name = $1", application)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var pid int
		require.NoError(t, rows.Scan(&pid))
		pids = append(pids, pid)
	}
	require.NoError(t, rows.Err())
	return pids
}

// awaitListener waits until one connection listens that is not the one before.
func (s *server) awaitListener(t *testing.T, application string, before int) int {
	t.Helper()
	for range 1000 {
		pids := s.listeners(t, application)
		require.LessOrEqual(t, len(pids), 2, "more than the new one and the one that ends")
		if len(pids) == 1 && pids[0] != before {
			return pids[0]
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the store does not listen")
	return 0
}

// openNamed opens a store whose connections have the store's name.
func (s *server) openNamed(t *testing.T, addr string, opts ...pgstore.Option) *pgstore.Store {
	t.Helper()
	store, err := pgstore.Open(s.url(addr, writer)+"&application_name="+unique(t), unique(t),
		append([]pgstore.Option{pgstore.WithSealingKey(sealingKey)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

func TestWatchIsNotifiedOnOneConnection(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	store := s.openNamed(t, s.addr(), pgstore.WithListen(), pgstore.WithPollInterval(never))
	assert.Empty(t, s.listeners(t, unique(t)), "nothing is watched yet")
	all := make([]<-chan string, 10)
	for i := range all {
		all[i] = watched(t, store)
		await(t, all[i], "")
	}
	s.awaitListener(t, unique(t), 0)
	other := s.open(t, unique(t))
	var rev agrenting.Revision
	for n := range 5 {
		rev = save(t, other, strconv.Itoa(n), rev)
		for _, seen := range all {
			await(t, seen, strconv.Itoa(n))
		}
	}
	assert.Len(t, s.listeners(t, unique(t)), 1)
	require.NoError(t, store.Close())
	for range 1000 {
		if len(s.listeners(t, unique(t))) == 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("the connection continues after Close")
}

// A pool may have its own handler, which then gets the notifications.
func TestWatchIsNotifiedDespiteHandlerOfPool(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	cfg, err := pgxpool.ParseConfig(s.url(s.addr(), writer) + "&application_name=" + unique(t))
	require.NoError(t, err)
	var handled atomic.Int64
	cfg.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { handled.Add(1) }
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	store, err := pgstore.New(pool, unique(t), pgstore.WithSealingKey(sealingKey), pgstore.WithListen(), pgstore.WithPollInterval(never))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	seen := watched(t, store)
	await(t, seen, "")
	s.awaitListener(t, unique(t), 0)
	other := s.open(t, unique(t))
	var rev agrenting.Revision
	for n := range 3 {
		rev = save(t, other, strconv.Itoa(n), rev)
		await(t, seen, strconv.Itoa(n))
	}
	assert.GreaterOrEqual(t, handled.Load(), int64(3))
}

func TestWatchSeesWhatChangedWithoutListener(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	seen := watched(t, s.openNamed(t, s.addr(), pgstore.WithListen(), pgstore.WithPollInterval(never)))
	await(t, seen, "")
	other, admin := s.open(t, unique(t)), s.pool(t)
	pid := 0
	var rev agrenting.Revision
	for n := range 10 {
		pid = s.awaitListener(t, unique(t), pid)
		_, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid)
		require.NoError(t, err)
		<-time.After(time.Duration(n) * 5 * time.Millisecond) // before or after it listens again
		rev = save(t, other, strconv.Itoa(n), rev)
		await(t, seen, strconv.Itoa(n))
	}
}

func TestWatchSurvivesKilledServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	seen := watched(t, s.open(t, "killed", pgstore.WithListen(), pgstore.WithPollInterval(never)))
	other := s.open(t, "killed")
	rev := save(t, other, "0", "")
	for n := range 3 {
		await(t, seen, strconv.Itoa(n))
		s.kill()
		require.NoError(t, s.start())
		rev = save(t, other, strconv.Itoa(n+1), rev)
	}
	await(t, seen, "3")
}

func TestSilentListenerIsReplaced(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	proxy, err := fleettest.NewProxy(s.addr())
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	store := s.openNamed(t, proxy.Addr(), pgstore.WithListen(),
		pgstore.WithPollInterval(100*time.Millisecond), pgstore.WithTimeout(time.Second))
	seen := watched(t, store)
	await(t, seen, "")
	pid := s.awaitListener(t, unique(t), 0)
	proxy.Freeze()
	<-time.After(3 * time.Second) // a ping each second, and a second to respond
	proxy.Pass()
	s.awaitListener(t, unique(t), pid)
}

func TestWatchPollsByDefault(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	seen := watched(t, s.openNamed(t, s.addr(), pgstore.WithPollInterval(20*time.Millisecond)))
	await(t, seen, "")
	other := s.open(t, unique(t))
	rev := save(t, other, "1", "")
	await(t, seen, "1")
	save(t, other, "2", rev)
	await(t, seen, "2")
	s.execute(t, "DELETE FROM "+table+" WHERE name = $1", unique(t)+"/key")
	got := <-seen
	assert.Empty(t, got, "a deletion")
	assert.Empty(t, s.listeners(t, unique(t)))
}
