package pgstore_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
)

// createTable creates another table that the writer may use.
func (s *server) createTable(t *testing.T, name string) {
	t.Helper()
	store, err := pgstore.New(s.pool(t), "schema", pgstore.WithPlaintext(), pgstore.WithTable(name))
	require.NoError(t, err)
	require.NoError(t, store.CreateSchema(t.Context()))
	s.execute(t, fmt.Sprintf("GRANT SELECT, INSERT, UPDATE ON %s TO %s", name, writer))
}

func TestSaveWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	s.createTable(t, "synchronous")
	// A deferred trigger runs at the commit.
	s.execute(t, `CREATE TABLE synchronous_used (value text);
		CREATE FUNCTION synchronous_used() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
			INSERT INTO synchronous_used VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER used AFTER INSERT OR UPDATE ON synchronous DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION synchronous_used()`)
	direct := s.pool(t)
	for _, tc := range []struct{ configured, used string }{
		{"off", "on"}, {"local", "on"}, {"on", "on"}, {"remote_write", "remote_write"}, {"remote_apply", "remote_apply"},
	} {
		store, err := pgstore.Open(s.url(s.addr(), writer)+"&synchronous_commit="+tc.configured, tc.configured,
			pgstore.WithPlaintext(), pgstore.WithTable("synchronous"))
		require.NoError(t, err)
		rev := save(t, store, "1", "")
		save(t, store, "2", rev)
		require.NoError(t, store.Close())
		rows, err := direct.Query(t.Context(), "DELETE FROM synchronous_used RETURNING value")
		require.NoError(t, err)
		var used []string
		for rows.Next() {
			var value string
			require.NoError(t, rows.Scan(&value))
			used = append(used, value)
		}
		require.NoError(t, rows.Err())
		assert.Equal(t, []string{tc.used, tc.used}, used, tc.configured)
	}
}

// A commit without its synchronous standby waits. If it is canceled, PostgreSQL commits it on
// the primary only.
func TestSaveFailsWithoutSynchronousStandby(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	open := func(name string) *pgstore.Store { return s.open(t, name, pgstore.WithTimeout(2*time.Second)) }
	updating, inserting := open("updating"), open("inserting")
	rev := save(t, updating, "1", "")
	direct := s.pool(t)
	reload := func(sql string) {
		for _, sql := range []string{sql, "SELECT pg_reload_conf()"} {
			_, err := direct.Exec(t.Context(), sql)
			require.NoError(t, err)
		}
	}
	reload("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
	s.awaitStandbys(t)

	_, err := updating.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, pgstore.ErrUnavailable)
	_, err = inserting.Save(t.Context(), key, []byte("2"), "")
	require.ErrorIs(t, err, pgstore.ErrUnavailable)

	reload("ALTER SYSTEM RESET synchronous_standby_names")
	for _, store := range []*pgstore.Store{updating, inserting} {
		data, rev := load(t, store)
		assert.Equal(t, "2", data, "the error hides a write")
		eventually(t, func() bool {
			_, err = store.Save(t.Context(), key, []byte("3"), rev)
			return err == nil
		}, "the standby is not required any more")
	}
}

// awaitStandbys waits until commits wait for a standby.
func (s *server) awaitStandbys(t *testing.T) {
	t.Helper()
	cfg, err := pgx.ParseConfig(s.url(s.addr(), adminUser) + "&application_name=probe")
	require.NoError(t, err)
	direct := s.pool(t)
	eventually(t, func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn, err := pgx.ConnectConfig(ctx, cfg)
		require.NoError(t, err)
		defer conn.Close(context.WithoutCancel(t.Context()))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS probe (); DROP TABLE probe")
		}()
		defer func() { cancel(); <-done }()
		for {
			select {
			case <-done:
				return false
			case <-time.After(10 * time.Millisecond):
			}
			var waits bool
			err := direct.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'probe' AND wait_event = 'SyncRep')").Scan(&waits)
			require.NoError(t, err)
			if waits {
				return true
			}
		}
	}, "commits wait for a standby")
}

// lossy is a connection that loses a response after the server has sent it.
type lossy struct {
	net.Conn

	lose *atomic.Int64
	then func()
}

func (c *lossy) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.lose.Load() > 0 && strings.Contains(string(b[:n]), "SELECT 1\x00") && c.lose.Add(-1) >= 0 {
		if c.then != nil {
			c.then()
		}
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestSaveRecognizesItsOwnRow(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	var lose atomic.Int64
	var then func()
	cfg, err := pgxpool.ParseConfig(s.url(s.addr(), writer))
	require.NoError(t, err)
	cfg.ConnConfig.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &lossy{Conn: conn, lose: &lose, then: func() {
			if then != nil {
				then()
			}
		}}, nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	store, err := pgstore.New(pool, unique(t), pgstore.WithSealingKey(sealingKey))
	require.NoError(t, err)
	other := s.open(t, unique(t))
	var rev agrenting.Revision
	for range 3 {
		lose.Store(1)
		rev = save(t, store, "the same data", rev)
		_, now := load(t, other)
		assert.Equal(t, rev, now)
		require.LessOrEqual(t, lose.Load(), int64(0), "a response was lost")
	}
	// Another writer replaces the row before the outcome is known. It has the same
	// data, and is not mistaken for it.
	var theirs agrenting.Revision
	then = func() {
		_, now := load(t, other)
		theirs = save(t, other, "the same data", now)
	}
	lose.Store(1)
	_, err = store.Save(t.Context(), key, []byte("the same data"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	_, now := load(t, other)
	assert.Equal(t, theirs, now)
}

func TestCanceledSaveLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	id := unique(t)
	store, err := pgstore.Open(s.url(s.addr(), writer)+"&pool_max_conns=1&application_name=canceled", id, pgstore.WithSealingKey(sealingKey))
	require.NoError(t, err)
	defer store.Close()
	rev := save(t, store, "1", "")
	direct := s.pool(t)
	tx, err := direct.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT 1 FROM "+table+" WHERE name = $1 FOR UPDATE", id+"/"+key)
	require.NoError(t, err)

	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = store.Save(brief, key, []byte("2"), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), 2*time.Second)
	assert.Eventually(t, func() bool { // the statement does not keep waiting in the server
		var n int
		err := direct.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'canceled' AND state = 'active'").Scan(&n)
		return err == nil && n == 0
	}, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, tx.Rollback(t.Context()))
	data, now := load(t, store)
	assert.Equal(t, "1", data)
	save(t, store, "3", now)
}

func TestErrorsNameTheRemedy(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	for name, tc := range map[string]struct {
		user, table string
		err         error
		want        string
	}{
		"missing table":  {writer, "missing", nil, "CreateSchema"},
		"missing schema": {writer, "missing.records", nil, "CreateSchema"},
		"no privilege":   {reader, table, agrenting.ErrReadOnlyStore, "needs SELECT, INSERT and UPDATE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := s.openAs(t, tc.user, unique(t), pgstore.WithTable(tc.table))
			_, err := store.Save(t.Context(), key, []byte("1"), "")
			require.ErrorContains(t, err, tc.want)
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err)
			}
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			require.NotErrorIs(t, err, pgstore.ErrUnavailable, "it does not try until the timeout")
		})
	}
}

func TestSchemaIsCreatedOnDemand(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	s.execute(t, "CREATE SCHEMA app")
	store, err := pgstore.New(s.pool(t), "schema", pgstore.WithPlaintext(), pgstore.WithTable("app.records"))
	require.NoError(t, err)
	_, err = store.Save(t.Context(), key, []byte("1"), "")
	require.Error(t, err)
	// Another process creates it at the same time.
	direct := s.pool(t)
	tx, err := direct.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), store.Schema())
	require.NoError(t, err)
	created := make(chan error, 1)
	go func() { created <- store.CreateSchema(t.Context()) }()
	require.Eventually(t, func() bool {
		var waiting bool
		err := direct.QueryRow(t.Context(),
			`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE TABLE%')`).Scan(&waiting)
		return err == nil && waiting
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-created)
	save(t, store, "1", "")
	require.NoError(t, store.CreateSchema(t.Context()), "it keeps the records")
	data, _ := load(t, store)
	assert.Equal(t, "1", data)
	assert.Contains(t, store.Schema(), `CREATE TABLE IF NOT EXISTS "app"."records"`)
	s.execute(t, store.Schema())
}

func TestStandbyIsNotRead(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	own := s.open(t, "standby", pgstore.WithTimeout(2*time.Second))
	pool, err := pgxpool.New(t.Context(), s.url(s.proxy.Addr(), writer))
	require.NoError(t, err)
	defer pool.Close()
	given, err := pgstore.New(pool, "standby", pgstore.WithSealingKey(sealingKey), pgstore.WithTimeout(2*time.Second))
	require.NoError(t, err)
	rev := save(t, own, "1", "")
	load(t, given)

	s.kill()
	require.NoError(t, s.write("data/standby.signal", "", 0o600))
	require.NoError(t, s.start())
	_, err = own.Load(t.Context(), key)
	require.ErrorIs(t, err, pgstore.ErrUnavailable)
	_, err = given.Load(t.Context(), key)
	require.ErrorIs(t, err, pgstore.ErrUnavailable)
	require.ErrorContains(t, err, "standby")
	_, err = given.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, pgstore.ErrUnavailable, "a failover ends")
	require.NotErrorIs(t, err, agrenting.ErrReadOnlyStore)
	require.ErrorContains(t, err, "standby")
	assert.Eventually(t, func() bool { return pool.Stat().TotalConns() == 0 }, 10*time.Second, 10*time.Millisecond,
		"connections to a standby are closed, because a host may have another server now")

	s.kill()
	require.NoError(t, s.remove("data/standby.signal"))
	require.NoError(t, s.start())
	for _, store := range []agrenting.Store{own, given} {
		data, now := load(t, store)
		assert.Equal(t, "1", data)
		assert.Equal(t, rev, now)
	}
}

func TestSilentServerIsAnErrorInBoundedTime(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	proxy, err := fleettest.NewProxy(s.addr())
	require.NoError(t, err)
	defer proxy.Close()
	for name, cut := range map[string]func(){"refused": proxy.Refuse, "silent": proxy.Freeze} {
		proxy.Pass()
		store, err := pgstore.Open(s.url(proxy.Addr(), writer), "silent", pgstore.WithSealingKey(sealingKey), pgstore.WithTimeout(time.Second))
		require.NoError(t, err)
		_, err = store.Load(t.Context(), key)
		require.ErrorIs(t, err, agrenting.ErrNoRecord)
		cut()
		for what, op := range map[string]func(ctx context.Context) error{
			"load": func(ctx context.Context) error { _, err := store.Load(ctx, key); return err },
			"save": func(ctx context.Context) error { _, err := store.Save(ctx, key, nil, ""); return err },
			"watch": func(ctx context.Context) (err error) {
				n := 0
				for _, err = range store.Watch(ctx, key) {
					n++
				}
				assert.LessOrEqual(t, n, 1)
				return err
			},
		} {
			began := time.Now()
			require.ErrorIs(t, op(t.Context()), pgstore.ErrUnavailable, "%s: %s", name, what)
			assert.Less(t, time.Since(began), 4*time.Second, "%s: %s", name, what)
			brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			began = time.Now()
			_ = op(brief)
			cancel()
			assert.Less(t, time.Since(began), 500*time.Millisecond, "%s: %s: the deadline of the caller comes first", name, what)
		}
		proxy.Pass()
		require.NoError(t, store.Close())
	}
}

func TestRecordsAreSealedForTheirPlace(t *testing.T) {
	t.Parallel()
	const secret = "agr_test_sealedsealedsealed"
	s := sharedServer(t)
	s.createTable(t, "elsewhere")
	direct := s.pool(t)
	save(t, s.open(t, "place-a"), secret, "")
	var data string
	require.NoError(t, direct.QueryRow(t.Context(), "SELECT encode(data, 'escape') FROM "+table+" WHERE name = 'place-a/key'").Scan(&data))
	assert.NotContains(t, data, secret)
	for to, row := range map[string]string{table: "place-b/key", "elsewhere": "place-a/key"} {
		s.execute(t, "INSERT INTO "+to+" SELECT $1, data, revision, now() FROM "+table+" WHERE name = 'place-a/key'", row)
		_, err := s.open(t, strings.TrimSuffix(row, "/key"), pgstore.WithTable(to)).Load(t.Context(), key)
		require.ErrorIs(t, err, agrenting.ErrSealed, row)
	}
	plain, err := pgstore.New(direct, "place-c", pgstore.WithPlaintext())
	require.NoError(t, err)
	save(t, plain, secret, "")
	_, err = s.open(t, "place-c").Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
}

func TestOversizedRowIsNotRead(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	s.execute(t, "INSERT INTO "+table+" VALUES ('oversized/key', convert_to(repeat('x', 5000000), 'UTF8'), 1, now())")
	store, err := pgstore.Open(s.url(s.addr(), writer), "oversized", pgstore.WithPlaintext(), pgstore.WithTimeout(time.Second))
	require.NoError(t, err)
	defer store.Close()
	_, err = store.Load(t.Context(), key)
	require.ErrorContains(t, err, "body length")
	require.NotErrorIs(t, err, agrenting.ErrNoRecord)
}
