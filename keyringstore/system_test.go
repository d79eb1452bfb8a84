package keyringstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

const (
	workerVar  = "KEYRING_TEST_WORKER" // what|account|folder
	realVar    = "AGRENTING_TEST_KEYRING"
	busVar     = "DBUS_SESSION_BUS_ADDRESS"
	service    = "agrenting-go test"
	increments = 10
)

// init comes before the tests and their flags.
func init() { //nolint:gochecknoinits // a re-executed binary is a worker, not a test
	spec, ok := os.LookupEnv(workerVar)
	if !ok {
		return
	}
	what, rest, _ := strings.Cut(spec, "|")
	account, folder, _ := strings.Cut(rest, "|")
	if err := work(what, account, folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// work is what a re-executed test binary does instead of testing: what it
// changes of the process stays there.
func work(what, account, folder string) error {
	s, err := New(service, account, WithLockFolder(folder))
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch what {
	case "mock":
		keyring.MockInit()
		rev, err := s.Save(ctx, someRecord(3, 0), "")
		if err != nil {
			return err
		}
		rec, at, err := s.Load(ctx)
		if err == nil && (rec.Generation != 3 || at != rev) {
			err = errors.New("what was saved was not loaded")
		}
		return errors.Join(err, s.Remove(ctx))
	case "load":
		_, _, err := s.Load(ctx)
		if errors.Is(err, ErrUnavailable) {
			fmt.Println("UNAVAILABLE", err) //nolint:forbidigo // it is the answer
			return nil
		}
		return fmt.Errorf("not unavailable: %w", err)
	case "count":
		for done := 0; done < increments; {
			rec, rev, err := s.Load(ctx)
			if err != nil {
				return err
			}
			rec.Generation++
			switch _, err = s.Save(ctx, rec, rev); {
			case err == nil:
				done++
			case !errors.Is(err, agrenting.ErrConflictingWrite):
				return err
			}
		}
		return nil
	default:
		return errors.New("unknown work")
	}
}

func worker(t *testing.T, what, account, folder string, env ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(append(os.Environ(), env...), workerVar+"="+what+"|"+account+"|"+folder)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestStoreUsesTheSystemsKeyring(t *testing.T) {
	t.Parallel()
	out, err := worker(t, "mock", "agent-1", t.TempDir())
	require.NoError(t, err, out)
}

func TestWithoutASecretServiceNothingIsKept(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("a system with a keyring of its own")
		return
	}
	folder := t.TempDir()
	out, err := worker(t, "load", "agent-1", folder, busVar+"=unix:path="+folder+"/no-such-bus")
	require.NoError(t, err, out)
	assert.Contains(t, out, "UNAVAILABLE")
	assert.Contains(t, out, busVar)
	assert.Contains(t, out, "agrenting.FileStore")
}

// realAccount is an account of the keyring of this session, "" if the session
// has none or it must not be touched.
func realAccount(t *testing.T) string {
	t.Helper()
	if os.Getenv(realVar) != "1" || os.Getenv(busVar) == "" {
		t.Logf("nothing was tested: it takes %s=1 and a %s; testdata/with-secret-service.sh has both", realVar, busVar)
		return ""
	}
	return "test " + rand.Text()
}

func TestRealSecretServiceConforms(t *testing.T) {
	t.Parallel()
	if realAccount(t) == "" {
		return
	}
	for name, limit := range map[string]int{"one item": freeItem, "divided": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
				t.Helper()
				account, folder := realAccount(t), t.TempDir()
				open := func() *Store {
					s, err := New(service, account, WithLockFolder(folder))
					require.NoError(t, err)
					s.limit = limit
					return s
				}
				t.Cleanup(func() { assert.NoError(t, open().Remove(context.WithoutCancel(t.Context()))) })
				return func() agrenting.KeyStore { return open() }
			})
		})
	}
}

func TestRealSecretServiceIsSharedByProcesses(t *testing.T) {
	t.Parallel()
	account := realAccount(t)
	if account == "" {
		return
	}
	const processes = 4
	folder := t.TempDir()
	s, err := New(service, account, WithLockFolder(folder))
	require.NoError(t, err)
	save(t, s, someRecord(0, 0), "")
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			out, err := worker(t, "count", account, folder)
			assert.NoError(t, err, out)
		})
	}
	wg.Wait()
	rec, _, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, processes*increments, rec.Generation)
	require.NoError(t, s.Remove(t.Context()))
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
}
