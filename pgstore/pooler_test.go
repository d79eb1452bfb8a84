package pgstore_test

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/pgstore"
)

// startPooler starts a PgBouncer that pools transactions, and returns its address.
func (s *server) startPooler(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		t.Skip("PgBouncer is not installed: apt-get install --no-install-recommends pgbouncer")
	}
	port, err := freePort()
	require.NoError(t, err)
	require.NoError(t, s.write("users.txt", fmt.Sprintf("%q %q\n", writer, password), 0o600))
	require.NoError(t, s.write("pgbouncer.ini", fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 4
server_tls_sslmode = require
`, s.port, port, filepath.Join(s.folder, "users.txt")), 0o600))
	cmd := exec.Command(bin, "-q", filepath.Join(s.folder, "pgbouncer.ini"))
	require.NoError(t, asPostgres(cmd))
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func TestTransactionPooler(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	addr := s.startPooler(t)
	url := fmt.Sprintf("postgres://%s:%s@%s/postgres?application_name=pooled", writer, password, addr)
	open := func(t *testing.T) agrenting.Store {
		t.Helper()
		store, err := pgstore.Open(url, "pooled", pgstore.WithSealingKey(sealingKey), pgstore.WithListen(),
			pgstore.WithPollInterval(50*time.Millisecond))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })
		return store
	}
	_, err := open(t).Load(t.Context(), key) // which waits until the pooler is ready
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
	direct := s.pool(t)
	storetest.Test(t, open, storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
		t.Helper()
		_, err := direct.Exec(t.Context(), "DELETE FROM "+table+" WHERE name = $1", "pooled/"+name)
		require.NoError(t, err)
	}))
	var n int
	require.NoError(t, direct.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").Scan(&n))
	assert.Zero(t, n, "no connection of the pooler listens")
}
