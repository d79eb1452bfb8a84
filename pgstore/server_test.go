package pgstore_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
)

func TestMain(m *testing.M) {
	if code, ok := fleettest.Worker(openFleet); ok {
		os.Exit(code)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if left := ours(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "a goroutine is left behind:\n"+left)
		return 1
	}
	return code
}

// ours returns a goroutine of the store that has not ended, "" for none.
func ours() (left string) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		_, after, found := strings.Cut(b.String(), "agrenting-go/pgstore.")
		if !found {
			return ""
		}
		left = after
	}
	return left
}

const (
	// adminUser owns the table; writer and reader have the least privileges.
	adminUser, writer, reader = "postgres", "writer", "reader"
	// password is the one of every user of the test servers.
	password = "hunter2secret"
	table    = pgstore.DefaultTable
)

// sealingKey is the one of all tests.
var sealingKey = agrenting.NewSealingKey()

// server is a PostgreSQL server with TLS, and a proxy in front of it.
type server struct {
	folder, bin string
	port        int
	roots       string // a file with the authority's certificate
	proxy       *fleettest.Proxy

	mu      sync.Mutex
	process *os.Process
	exited  chan struct{}
	log     bytes.Buffer
}

// postgresBin returns the folder of PostgreSQL's programs. It skips the test if
// PostgreSQL is not installed.
func postgresBin(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the tests start PostgreSQL on Linux only")
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed: apt-get install --no-install-recommends postgresql")
	}
	return filepath.Dir(found[len(found)-1])
}

// asPostgres runs a command as the user postgres if this is root, because the server
// refuses to run as root.
func asPostgres(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := postgresIDs()
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} // #nosec G115 -- IDs of the system
	return nil
}

// runAsPostgres runs a command until it ends.
func runAsPostgres(name string, args ...string) error {
	cmd := exec.Command(name, args...) // #nosec G204 -- a command of the tests
	if err := asPostgres(cmd); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func postgresIDs() (uid, gid int, err error) {
	u, err := user.Lookup(adminUser)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// write writes a file that the server can read.
func (s *server) write(name, text string, mode os.FileMode) error {
	path := filepath.Join(s.folder, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return s.own(path)
}

func (s *server) own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := postgresIDs()
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// startServer makes a server in its own folder. Its proxy has a separate port.
func startServer(bin string) (s *server, err error) {
	s = &server{bin: bin}
	if s.folder, err = os.MkdirTemp("", "pgstore"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := errors.Join(s.own(s.folder), s.certify()); err != nil {
		return nil, err
	}
	empty.once.Do(func() { empty.server, empty.err = initialize(bin) })
	if empty.err != nil {
		return nil, empty.err
	}
	if err := runAsPostgres("cp", "-a", empty.server.data(), s.data()); err != nil {
		return nil, err
	}
	// A port that was free may be taken a moment later.
	for range 5 {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = s.start(); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.proxy, err = fleettest.NewProxy(s.addr())
	return s, err
}

// empty is a server that is not started. Each server copies its data, because initdb takes
// seconds.
var empty struct {
	once   sync.Once
	server *server
	err    error
}

// initialize returns a server with the data that initdb makes.
func initialize(bin string) (s *server, err error) {
	s = &server{bin: bin}
	if s.folder, err = os.MkdirTemp("", "pgstore"); err != nil {
		return nil, err
	}
	err = errors.Join(s.own(s.folder), s.write("password", password+"\n", 0o600))
	if err == nil {
		err = runAsPostgres(filepath.Join(bin, "initdb"), "--pgdata", s.data(), "--username", adminUser, "--auth", "scram-sha-256",
			"--pwfile", filepath.Join(s.folder, "password"), "--encoding", "UTF8", "--no-locale", "--no-sync")
	}
	return s, err
}

func (s *server) data() string { return filepath.Join(s.folder, "data") }

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func freePort() (int, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert,errcheck // it is one
}

// certify makes an authority, and a certificate for 127.0.0.1.
func (s *server) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	s.roots = filepath.Join(s.folder, "server.crt")
	return errors.Join(
		s.write("server.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644),
		s.write("server.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600))
}

// start starts the server, for the first time or after kill, and waits until it
// accepts connections.
func (s *server) start() error {
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port), "-h", "127.0.0.1", "-k", s.folder,
		"-c", "ssl=on", "-c", "ssl_cert_file="+s.roots, "-c", "ssl_key_file="+filepath.Join(s.folder, "server.key"),
		"-c", "max_connections=200", "-c", "shared_buffers=16MB",
		"-c", "fsync=off") // the servers are killed, but not the machine
	if err := asPostgres(cmd); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Reset()
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.process, s.exited = cmd.Process, exited
	for range 1000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		conn, err := pgx.Connect(ctx, s.url(s.addr(), adminUser))
		if err == nil {
			_ = conn.Close(ctx)
			cancel()
			return nil
		}
		cancel()
		select {
		case <-exited:
			return fmt.Errorf("the server has ended:\n%s", s.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("the server does not accept connections")
}

// kill ends the server with SIGKILL, and waits until its children have noticed.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Kill()
	<-s.exited
	s.process = nil
}

func (s *server) close() error {
	if s.proxy != nil {
		s.proxy.Close()
	}
	s.kill()
	var err error
	for range 100 { // children of the server may still write
		if err = os.RemoveAll(s.folder); err == nil {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	return err
}

// url returns a connection string that verifies the server.
func (s *server) url(addr, user string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=verify-full&sslrootcert=%s", user, password, addr, s.roots)
}

var shared struct {
	once   sync.Once
	server *server
	err    error
}

// sharedServer is the server of most tests, each with its own name of a store.
func sharedServer(t *testing.T) *server {
	t.Helper()
	bin := postgresBin(t)
	shared.once.Do(func() {
		if shared.server, shared.err = startServer(bin); shared.err == nil {
			shared.err = createSchema(shared.server)
		}
	})
	require.NoError(t, shared.err)
	return shared.server
}

func closeShared() error {
	var errs error
	for _, s := range []*server{shared.server, empty.server} {
		if s != nil {
			errs = errors.Join(errs, s.close())
		}
	}
	return errs
}

// newServer is a server for one test.
func newServer(t *testing.T) *server {
	t.Helper()
	s, err := startServer(postgresBin(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.close()) })
	require.NoError(t, createSchema(s))
	return s
}

func createSchema(s *server) error {
	store, err := pgstore.Open(s.url(s.addr(), adminUser), "schema", pgstore.WithPlaintext())
	if err != nil {
		return err
	}
	defer store.Close()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.url(s.addr(), adminUser))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := store.CreateSchema(ctx); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN PASSWORD '%[3]s'; CREATE ROLE %[2]s LOGIN PASSWORD '%[3]s';
		GRANT SELECT, INSERT, UPDATE ON %[4]s TO %[1]s; GRANT SELECT ON %[4]s TO %[2]s`, writer, reader, password, table))
	return err
}

// open opens a store with its own pool, through the proxy.
func (s *server) open(t *testing.T, name string, opts ...pgstore.Option) *pgstore.Store {
	t.Helper()
	return s.openAs(t, writer, name, opts...)
}

func (s *server) openAs(t *testing.T, user, name string, opts ...pgstore.Option) *pgstore.Store {
	t.Helper()
	store, err := pgstore.Open(s.url(s.proxy.Addr(), user), name, append([]pgstore.Option{pgstore.WithSealingKey(sealingKey)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// pool returns connections beside the stores, not through the proxy.
func (s *server) pool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	p, err := pgxpool.New(t.Context(), s.url(s.addr(), adminUser))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// execute runs SQL beside the stores.
func (s *server) execute(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := s.pool(t).Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// unique is the name of a test's store.
func unique(t *testing.T) string {
	t.Helper()
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/# ,", r) || r > 'z' {
			return '.'
		}
		return r
	}, t.Name())
}

// remove removes a file of the server.
func (s *server) remove(name string) error { return os.Remove(filepath.Join(s.folder, name)) }
