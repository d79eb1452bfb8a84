package pgstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/pgstore"
)

func TestOpenRequiresVerifiedConnections(t *testing.T) {
	t.Parallel()
	const user = "postgres://u:hunter2secret@"
	for name, tc := range map[string]struct{ url, want string }{
		"verified":                   {user + "db.example.com/app?sslmode=verify-full", ""},
		"verified hosts":             {user + "a.example.com,b.example.com/app?sslmode=verify-full", ""},
		"verified, keywords":         {"host=db.example.com user=u password=hunter2secret sslmode=verify-full", ""},
		"loopback":                   {user + "127.0.0.1/app", ""},
		"loopback of IPv6":           {user + "[::1]/app?sslmode=disable", ""},
		"localhost":                  {user + "localhost/app?sslmode=disable", ""},
		"socket":                     {"host=/run/postgresql user=u password=hunter2secret", ""},
		"default":                    {user + "db.example.com/app", "would not verify"},
		"disabled":                   {user + "db.example.com/app?sslmode=disable", "may be unencrypted"},
		"allowed":                    {user + "db.example.com/app?sslmode=allow", "may be unencrypted"},
		"preferred":                  {user + "db.example.com/app?sslmode=prefer", "would not verify"},
		"required":                   {user + "db.example.com/app?sslmode=require", "would not verify"},
		"name not verified":          {user + "db.example.com/app?sslmode=verify-ca", "would not verify"},
		"second host":                {user + "127.0.0.1,db.example.com/app", `host "db.example.com"`},
		"keywords":                   {"host=db.example.com user=u password=hunter2secret sslmode=require", "would not verify"},
		"long s":                     {user + "localho\u017ft/app?sslmode=disable", "may be unencrypted"},
		"host that starts like one":  {user + "127.0.0.1.example.com/app?sslmode=disable", "may be unencrypted"},
		"host that ends like one":    {user + "not-localhost/app?sslmode=disable", "may be unencrypted"},
		"address of every interface": {user + "0.0.0.0/app?sslmode=disable", "may be unencrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := pgstore.Open(tc.url, "x", pgstore.WithPlaintext())
			if tc.want == "" {
				require.NoError(t, err)
				require.NoError(t, store.Close())
				return
			}
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "WithInsecureConnection")
			assert.NotContains(t, err.Error(), "hunter2")
			store, err = pgstore.Open(tc.url, "x", pgstore.WithPlaintext(), pgstore.WithInsecureConnection())
			require.NoError(t, err)
			require.NoError(t, store.Close())
		})
	}
}

func TestOpenRefusesAnotherServersCertificate(t *testing.T) {
	t.Parallel()
	s, other := sharedServer(t), &server{folder: t.TempDir()}
	require.NoError(t, other.certify())
	store, err := pgstore.Open("postgres://writer:"+password+"@"+s.addr()+"/postgres?sslmode=verify-full&sslrootcert="+other.roots,
		"x", pgstore.WithPlaintext(), pgstore.WithTimeout(time.Minute))
	require.NoError(t, err)
	defer store.Close()
	began := time.Now()
	_, err = store.Load(t.Context(), key)
	require.ErrorContains(t, err, "certificate")
	assert.Less(t, time.Since(began), 20*time.Second, "another attempt would not help")
}

// slow is a server whose connections take a while to be made. It returns its address.
func slow(t *testing.T, target string, d time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				<-time.After(d)
				up, err := new(net.Dialer).Dial("tcp", target)
				if err != nil {
					return
				}
				defer up.Close()
				wg.Go(func() { _, _ = io.Copy(up, conn); _ = up.Close() })
				_, _ = io.Copy(conn, up)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestSlowConnectionIsMade(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	const timeout = 2 * time.Second // an attempt has a quarter of it
	store, err := pgstore.Open(s.url(slow(t, s.addr(), timeout/3), writer), unique(t),
		pgstore.WithSealingKey(sealingKey), pgstore.WithTimeout(timeout))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	for range 3 {
		if _, err = store.Load(t.Context(), key); !errors.Is(err, pgstore.ErrUnavailable) {
			break
		}
	}
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
}

func TestMalformedConnectionStringsAreHidden(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u:hunter2@h:port/app", "postgres://u:hunter2/x@h:5432/app", "postgres://u:sec:hunter2@h:x/app",
		"postgres://u:hunter2%zz@h/app", "postgres://u:hunter2@h/app?sslmode=nonsense", "host=h password=hunter2 nonsense",
		"host=h password='hunter2", "hunter2", "u:hunter2@h/app", "postgres://[u:hunter2@h/app", "host=h port=hunter2",
		"postgres://u@h/app?sslmode=verify-full&sslrootcert=/nonexistent&password=hunter2",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := pgstore.Open(text, "x", pgstore.WithPlaintext())
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			assertHidden(t, err)
		})
	}
}

// assertHidden checks every way to print a value.
func assertHidden(t *testing.T, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{v, []any{v}, struct{ V any }{v}} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "hunter2", verb)
			assert.NotContains(t, fmt.Sprintf(verb, v), fmt.Sprintf("%x", "hunter2"), verb)
		}
	}
	b, err := json.Marshal(v)
	require.NoError(t, err)
	assert.NotContains(t, string(b), "hunter2")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
	assert.NotContains(t, log.String(), "hunter2")
}

func TestPasswordIsNotPrinted(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	free, err := freePort()
	require.NoError(t, err)
	for name, url := range map[string]string{
		"wrong password": "postgres://writer:hunter2wrong@" + s.addr() + "/postgres?sslmode=require",
		"no database":    s.url(s.addr(), writer) + "&dbname=missing",
		"no server":      fmt.Sprintf("postgres://writer:%s@127.0.0.1:%d/postgres", password, free),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := pgstore.Open(url, "x", pgstore.WithSealingKey(sealingKey), pgstore.WithTimeout(500*time.Millisecond))
			require.NoError(t, err)
			defer store.Close()
			_, err = store.Load(t.Context(), key)
			require.Error(t, err)
			assertHidden(t, err)
			assertHidden(t, store)
			assertHidden(t, *store)
			_, has := errors.AsType[*pgconn.ConnectError](err)
			assert.False(t, has, "the error gives access to the configuration")
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	const url = "postgres://u@127.0.0.1/app"
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	seal := pgstore.WithSealingKey(sealingKey)
	for name, tc := range map[string]struct {
		store string
		opts  []pgstore.Option
	}{
		"no name":              {"", []pgstore.Option{seal}},
		"slash in name":        {"a/b", []pgstore.Option{seal}},
		"no sealing key":       {"x", nil},
		"empty sealing key":    {"x", []pgstore.Option{pgstore.WithSealingKey(agrenting.SealingKey{})}},
		"sealed and plain":     {"x", []pgstore.Option{seal, pgstore.WithPlaintext()}},
		"no timeout":           {"x", []pgstore.Option{seal, pgstore.WithTimeout(0)}},
		"no interval":          {"x", []pgstore.Option{seal, pgstore.WithPollInterval(0)}},
		"no table":             {"x", []pgstore.Option{seal, pgstore.WithTable("")}},
		"quote in table":       {"x", []pgstore.Option{seal, pgstore.WithTable(`a"b`)}},
		"two dots in table":    {"x", []pgstore.Option{seal, pgstore.WithTable("a.b.c")}},
		"upper case in table":  {"x", []pgstore.Option{seal, pgstore.WithTable("Records")}},
		"line break in table":  {"x", []pgstore.Option{seal, pgstore.WithTable("a\n")}},
		"name is a line break": {"x\n", []pgstore.Option{seal}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pgstore.New(pool, tc.store, tc.opts...)
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
			_, err = pgstore.Open(url, tc.store, tc.opts...)
			require.ErrorIs(t, err, agrenting.ErrInvalidOption)
		})
	}
	_, err = pgstore.New(nil, "x", seal)
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}
