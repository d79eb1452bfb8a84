package keyringstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
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
		rev, err := s.Save(ctx, key, someData(3), "")
		if err != nil {
			return err
		}
		rec, err := s.Load(ctx, key)
		if err == nil && (!bytes.Equal(rec.Data, someData(3)) || rec.Revision != rev) {
			err = errors.New("the record is not what was saved")
		}
		return errors.Join(err, s.Remove(ctx))
	case "load":
		_, err := s.Load(ctx, key)
		if errors.Is(err, ErrUnavailable) {
			fmt.Println("UNAVAILABLE", err) //nolint:forbidigo // it is the result
			return nil
		}
		return fmt.Errorf("not unavailable: %w", err)
	case "count":
		for done := 0; done < increments; {
			rec, err := s.Load(ctx, key)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(rec.Data))
			if err != nil {
				return err
			}
			switch _, err = s.Save(ctx, key, []byte(strconv.Itoa(n+1)), rec.Revision); {
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

func TestMissingSecretServiceIsAnError(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("a system with its own keyring")
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
	for name, limit := range map[string]int{"one item": freeItem, "divided": boundedItem} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account, folder := realAccount(t), t.TempDir()
			var mu sync.Mutex
			var names []string
			open := func(t *testing.T) *Store {
				t.Helper()
				s, err := New(service, account, WithLockFolder(folder))
				require.NoError(t, err)
				s.limit = limit
				return s
			}
			t.Cleanup(func() { assert.NoError(t, open(t).Remove(context.WithoutCancel(t.Context()), names...)) })
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return storetest.Faulty(open(t), func(op storetest.Operation) storetest.Fault {
					mu.Lock()
					defer mu.Unlock()
					if !slices.Contains(names, op.Name) {
						names = append(names, op.Name)
					}
					return storetest.Fault{}
				})
			}, storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
				t.Helper()
				require.NoError(t, open(t).Remove(t.Context(), name))
			}))
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
	save(t, s, []byte("0"), "")
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			out, err := worker(t, "count", account, folder)
			assert.NoError(t, err, out)
		})
	}
	wg.Wait()
	rec, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(processes*increments), string(rec.Data))
	require.NoError(t, s.Remove(t.Context()))
	_, err = s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
}
