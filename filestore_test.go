package agrenting_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/internal/durable"
)

// fileStore opens a store, by default in a folder that does not exist yet.
func fileStore(t *testing.T, path string) agrenting.KeyStore {
	t.Helper()
	s, err := agrenting.FileStore(path)
	require.NoError(t, err)
	return s
}

func storePath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "agrenting", "key.json")
}

// keyRecord is a record with a key that occurs nowhere else.
func keyRecord(generation uint64, secret string) agrenting.KeyRecord {
	return agrenting.KeyRecord{
		Generation: generation,
		Current:    agrenting.StoredKey{Credential: agrenting.APIKey(secret), ID: "key-1", Created: time.Now()},
	}
}

func TestFileStoreConforms(t *testing.T) {
	t.Parallel()
	storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
		t.Helper()
		path := storePath(t)
		return func() agrenting.KeyStore { return fileStore(t, path) }
	})
}

func TestFileSessionStoreConforms(t *testing.T) {
	t.Parallel()
	storetest.TestSharedSessionStore(t, func(t *testing.T) func() agrenting.SessionStore {
		t.Helper()
		folder := filepath.Join(t.TempDir(), "sessions")
		return func() agrenting.SessionStore {
			s, err := agrenting.FileSessionStore(folder)
			require.NoError(t, err)
			return s
		}
	})
}

func TestFileStoreWantsAPath(t *testing.T) {
	t.Parallel()
	_, err := agrenting.FileStore("")
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}

func TestFileStoreDoesNothingUntilItIsUsed(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	s := fileStore(t, path)
	assert.NoDirExists(t, filepath.Dir(path))
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
	assert.NoDirExists(t, filepath.Dir(path))
	assert.Contains(t, fmt.Sprint(s), path)
}

func TestFileStoreIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // there, the folder's access list decides
	}
	path := storePath(t)
	_, err := fileStore(t, path).Save(t.Context(), keyRecord(1, "sk_file_0123456789"), "")
	require.NoError(t, err)
	for name, want := range map[string]fs.FileMode{
		path: 0o600, path + ".lock": 0o600, filepath.Dir(path): 0o700 | fs.ModeDir,
	} {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode(), name)
	}
}

func TestFileStoreRefusesWhatOthersCanTouch(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such permissions
	}
	for name, tc := range map[string]struct {
		spoil    func(t *testing.T, path string)
		want     string
		loadable bool
	}{
		"group may read": {
			spoil: func(t *testing.T, path string) { t.Helper(); require.NoError(t, os.Chmod(path, 0o640)) },
			want:  "chmod 600 ",
		},
		"others may read": {
			spoil: func(t *testing.T, path string) { t.Helper(); require.NoError(t, os.Chmod(path, 0o604)) },
			want:  "chmod 600 ",
		},
		"symbolic link": {
			spoil: func(t *testing.T, path string) {
				t.Helper()
				require.NoError(t, os.Rename(path, path+".real"))
				require.NoError(t, os.Symlink(path+".real", path))
			},
			want: "symbolic link",
		},
		"folder that others may write": {
			spoil: func(t *testing.T, path string) {
				t.Helper()
				require.NoError(t, os.Chmod(filepath.Dir(path), 0o770))
			},
			want: "chmod 700 ", loadable: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := storePath(t)
			s := fileStore(t, path)
			rev, err := s.Save(t.Context(), keyRecord(1, "sk_file_0123456789"), "")
			require.NoError(t, err)
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			tc.spoil(t, path)
			_, _, err = s.Load(t.Context())
			if !tc.loadable {
				require.ErrorContains(t, err, tc.want)
				require.NotErrorIs(t, err, agrenting.ErrNoCredential, "or a seed would be planted over it")
			}
			_, err = s.Save(t.Context(), keyRecord(2, "sk_file_9876543210"), rev)
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, string(before), string(after))
		})
	}
}

func TestFileStoreLeavesAloneWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	whole, err := keyRecord(1, "sk_file_0123456789").Encode()
	require.NoError(t, err)
	for name, content := range map[string]string{
		"empty":           "",
		"garbage":         "\x00\x01garbage",
		"truncated":       string(whole[:len(whole)/2]),
		"a newer version": strings.Replace(string(whole), `"version": 1`, `"version": 7`, 1),
		"no key":          `{"version": 1, "generation": 1, "current": null}`,
		"a key alone":     "sk_file_0123456789\n",
		"too large":       string(whole) + strings.Repeat(" ", 300<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := storePath(t)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			s := fileStore(t, path)
			_, rev, err := s.Load(t.Context())
			require.ErrorContains(t, err, path)
			assert.NotContains(t, err.Error(), "sk_file_0123456789")
			require.NotErrorIs(t, err, agrenting.ErrNoCredential, "or a seed would be planted over it")
			_, err = s.Save(t.Context(), keyRecord(2, "sk_file_9876543210"), rev)
			require.Error(t, err)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, content, string(after))
		})
	}
}

func TestFileStoreReadsRecordsWithoutAWriteMark(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	b, err := keyRecord(5, "sk_file_0123456789").Encode()
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, b, 0o600))
	s := fileStore(t, path)
	rec, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 5, rec.Generation)
	next, err := s.Save(t.Context(), rec, rev)
	require.NoError(t, err)
	assert.NotEqual(t, rev, next)
}

func TestEditByHandIsAChange(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	s := fileStore(t, path)
	rev, err := s.Save(t.Context(), keyRecord(1, "sk_file_0123456789"), "")
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(b), "sk_file_0", "sk_file_X", 1)), 0o600))
	_, err = s.Save(t.Context(), keyRecord(2, "sk_file_9876543210"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	rec, _, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "sk_file_X123456789", rec.Current.Credential.Reveal())
}

func TestRemovedFileIsAConflict(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	s := fileStore(t, path)
	rev, err := s.Save(t.Context(), keyRecord(1, "sk_file_0123456789"), "")
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	_, err = s.Save(t.Context(), keyRecord(2, "sk_file_9876543210"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	assert.NoFileExists(t, path)
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
}

const (
	storeWorkerVar = "STORE_TEST_WORKER" // what|path
	increments     = 50
)

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary is a worker, not a test
	spec, ok := os.LookupEnv(storeWorkerVar)
	if !ok {
		return
	}
	what, path, _ := strings.Cut(spec, "|")
	work := map[string]func(string) error{"count": countInStore, "hold": holdLock}[what]
	if work == nil {
		fmt.Fprintln(os.Stderr, "unknown work")
		os.Exit(2)
	}
	if err := work(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// countInStore waits for a line, so that all processes start together, and
// adds one to the generation again and again.
func countInStore(path string) error {
	s, err := agrenting.FileStore(path)
	if err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	ctx := context.Background()
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
}

// holdLock says when it has the store's lock, and keeps it until it is killed.
func holdLock(path string) error {
	unlock, err := durable.New(path, 1<<10, nil).Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Fprintln(os.Stdout, "locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// storeWorker is this test binary at work as another process.
func storeWorker(t *testing.T, what, path string) (cmd *exec.Cmd, stdin io.WriteCloser, stdout io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd = exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), storeWorkerVar+"="+what+"|"+path)
	cmd.Stderr = os.Stderr
	stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err = cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, stdin, stdout
}

func TestProcessesLoseNoUpdate(t *testing.T) {
	t.Parallel()
	const processes = 8
	path := storePath(t)
	s := fileStore(t, path)
	_, err := s.Save(t.Context(), keyRecord(0, "sk_file_0123456789"), "")
	require.NoError(t, err)
	var cmds []*exec.Cmd
	var starts []io.WriteCloser
	for range processes {
		cmd, stdin, _ := storeWorker(t, "count", path)
		cmds, starts = append(cmds, cmd), append(starts, stdin)
	}
	for _, stdin := range starts {
		_, err := fmt.Fprintln(stdin)
		require.NoError(t, err)
	}
	for _, cmd := range cmds {
		require.NoError(t, cmd.Wait())
	}
	rec, _, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, processes*increments, rec.Generation)
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	t.Parallel()
	path := storePath(t)
	s := fileStore(t, path)
	rec := keyRecord(1, "sk_file_0123456789")
	rev, err := s.Save(t.Context(), rec, "")
	require.NoError(t, err)
	cmd, stdin, stdout := storeWorker(t, "hold", path)
	defer stdin.Close()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)

	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.Save(brief, keyRecord(2, "sk_file_9876543210"), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it is locked")
	require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
	_, _, err = s.Load(t.Context())
	require.NoError(t, err, "reading needs no lock")

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	began := time.Now()
	_, err = s.Save(t.Context(), keyRecord(2, "sk_file_9876543210"), rev)
	require.NoError(t, err)
	assert.Less(t, time.Since(began), 5*time.Second)
}
