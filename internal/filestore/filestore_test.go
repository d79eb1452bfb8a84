package filestore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/record"
)

func fileStore(t *testing.T, folder string) agrenting.Store {
	t.Helper()
	s, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	return s
}

// storeFolder is a folder that does not exist yet.
func storeFolder(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "agrenting", "keys")
}

func keyFile(folder string) string { return filepath.Join(folder, "key.record") }

func save(t *testing.T, s agrenting.Store, data string, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), "key", []byte(data), previous)
	require.NoError(t, err)
	return rev
}

func TestFileStoreConforms(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	storetest.Test(t, func(t *testing.T) agrenting.Store { t.Helper(); return fileStore(t, folder) },
		storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(folder, name+".record")))
		}),
		storetest.Gone(func(t *testing.T) agrenting.Store {
			t.Helper()
			folder := storeFolder(t)
			s := fileStore(t, folder)
			save(t, s, "x", "")
			require.NoError(t, os.RemoveAll(folder))
			return s
		}))
}

func TestSealedFileStoreConforms(t *testing.T) {
	t.Parallel()
	folder, key := storeFolder(t), agrenting.NewSealingKey()
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		s, err := agrenting.Sealed(fileStore(t, folder), "test", key)
		require.NoError(t, err)
		return s
	})
}

func TestFileStoreTakesAFolder(t *testing.T) {
	t.Parallel()
	_, err := agrenting.FileStore("")
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	file := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"version":1}`), 0o600))
	_, err = agrenting.FileStore(file)
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	require.ErrorContains(t, err, "older build")
}

func TestFileStoreCreatesNothingBeforeUse(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
	assert.NoDirExists(t, filepath.Dir(folder))
	assert.Contains(t, fmt.Sprint(s), folder)
}

func TestFileStoreIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // there, the folder's access list decides
	}
	folder := storeFolder(t)
	save(t, fileStore(t, folder), "x", "")
	for name, want := range map[string]fs.FileMode{
		keyFile(folder): 0o600, folder: 0o700 | fs.ModeDir,
		filepath.Join(folder, ".locks"): 0o700 | fs.ModeDir, filepath.Join(folder, ".locks", "key.lock"): 0o600,
	} {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode(), name)
	}
}

func TestFileStoreRefusesFilesOpenToOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such permissions
	}
	chmod := func(of func(string) string, mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, folder string) { t.Helper(); require.NoError(t, os.Chmod(of(folder), mode)) }
	}
	chownTo := func(of func(string) string) func(*testing.T, string) {
		return func(t *testing.T, folder string) {
			t.Helper()
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			require.NoError(t, os.Chown(of(folder), 12345, 12345))
		}
	}
	itself := func(folder string) string { return folder }
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, folder string)
		want  string
	}{
		"group may read":  {chmod(keyFile, 0o640), "chmod 600 "},
		"others may read": {chmod(keyFile, 0o604), "chmod 600 "},
		"symbolic link": {func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.Rename(keyFile(folder), keyFile(folder)+".real"))
			require.NoError(t, os.Symlink(keyFile(folder)+".real", keyFile(folder)))
		}, "symbolic link"},
		"folder that others may write": {chmod(itself, 0o770), "chmod 700 "},
		"folder above":                 {chmod(filepath.Dir, 0o777), "chmod go-w "},
		"folder is a link": {func(t *testing.T, folder string) {
			t.Helper()
			require.NoError(t, os.Rename(folder, folder+".real"))
			require.NoError(t, os.Symlink(folder+".real", folder))
		}, "Use the folder itself"},
		"file of another user":    {chownTo(keyFile), "chown 0 "},
		"folder of another user":  {chownTo(itself), "chown 0 "},
		"folder above of another": {chownTo(filepath.Dir), "chown 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := storeFolder(t)
			s := fileStore(t, folder)
			rev := save(t, s, "x", "")
			before, err := os.ReadFile(keyFile(folder))
			require.NoError(t, err)
			tc.spoil(t, folder)
			_, err = s.Load(t.Context(), "key")
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrNoRecord, "or the initial key would replace it")
			_, err = s.Save(t.Context(), "key", []byte("y"), rev)
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
			after, err := os.ReadFile(keyFile(folder))
			require.NoError(t, err)
			assert.Equal(t, string(before), string(after))
		})
	}
}

func TestFileStoreLeavesUnusableFilesIntact(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, content, want string }{
		"another version":  {"key.record", "agrenting-record 3 XYZ\n{}", "another version"},
		"garbage":          {"key.record", "garbage", "damaged"},
		"empty":            {"key.record", "", "damaged"},
		"an older build's": {"key.json", `{"version":1,"current":{"kind":"api key","secret":"sk_old_0123456789"}}`, "older build"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := storeFolder(t)
			require.NoError(t, os.MkdirAll(folder, 0o700))
			path := filepath.Join(folder, tc.file)
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o600))
			_, err := fileStore(t, folder).Load(t.Context(), "key")
			require.ErrorIs(t, err, agrenting.ErrInvalidRecord)
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			assert.NotContains(t, err.Error(), "sk_old")
			_, err = fileStore(t, folder).Save(t.Context(), "key", []byte("x"), "")
			require.Error(t, err)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, tc.content, string(b))
		})
	}
}

// TestTruncatedFileCanBeReplaced cuts a file after each of its bytes: the record is damaged,
// also if the first line is incomplete, and not of another version.
func TestTruncatedFileCanBeReplaced(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	save(t, s, "{}", "")
	content, err := os.ReadFile(keyFile(folder))
	require.NoError(t, err)
	line := bytes.IndexByte(content, '\n')
	for n := range line {
		require.NoError(t, os.WriteFile(keyFile(folder), content[:n], 0o600))
		rec, err := s.Load(t.Context(), "key")
		require.ErrorIs(t, err, record.ErrInvalid, "cut after %d bytes", n)
		require.NotErrorIs(t, err, record.ErrOtherVersion, "cut after %d bytes", n)
		save(t, s, "{}", rec.Revision)
	}
}

func TestOtherVersionIsToldFromDamage(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	save(t, s, "{}", "")
	require.NoError(t, os.WriteFile(keyFile(folder), []byte("agrenting-record 3 XYZ\n{}"), 0o600))
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrOtherVersion)
}

func TestEditedFileHasNewRevision(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	rev := save(t, s, "one", "")
	b, err := os.ReadFile(keyFile(folder))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(keyFile(folder), []byte(strings.Replace(string(b), "one", "two", 1)), 0o600))
	_, err = s.Save(t.Context(), "key", []byte("three"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	rec, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	assert.Equal(t, "two", string(rec.Data))
}

func TestDeletedFolderIsNotAnEmptyStore(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	rev := save(t, s, "one", "")
	require.NoError(t, os.Remove(keyFile(folder)))
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNoRecord, "the file alone is missing")
	_, err = s.Save(t.Context(), "key", []byte("two"), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	require.NoError(t, os.RemoveAll(folder))
	_, err = s.Load(t.Context(), "key")
	require.Error(t, err)
	require.NotErrorIs(t, err, agrenting.ErrNoRecord)
	require.ErrorContains(t, err, "gone")
	_, err = fileStore(t, folder).Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNoRecord, "a program that starts cannot know")
}

func TestReservedWindowsFileNames(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	for _, name := range []string{"aux", "com1.key", "nul"} {
		_, err := s.Save(t.Context(), name, []byte(name), "")
		require.NoError(t, err)
		assert.FileExists(t, filepath.Join(folder, "_"+name+".record"))
	}
	for _, name := range []string{"../key", "a/b", "", "Key"} {
		_, err := s.Save(t.Context(), name, nil, "")
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, name)
		_, err = s.Load(t.Context(), name)
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, name)
	}
}

const (
	storeWorkerVar = "STORE_TEST_WORKER" // what|folder
	increments     = 50
)

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary is a worker, not a test
	spec, ok := os.LookupEnv(storeWorkerVar)
	if !ok {
		return
	}
	what, folder, _ := strings.Cut(spec, "|")
	work := map[string]func(string) error{"count": countInStore, "hold": holdLock}[what]
	if work == nil {
		fmt.Fprintln(os.Stderr, "unknown work")
		os.Exit(2)
	}
	if err := work(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// countInStore waits for a line, so that all processes start together, and adds
// one to the record again and again.
func countInStore(folder string) error {
	s, err := agrenting.FileStore(folder)
	if err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	ctx := context.Background()
	for done := 0; done < increments; {
		rec, err := s.Load(ctx, "key")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(rec.Data))
		if err != nil {
			return err
		}
		switch _, err = s.Save(ctx, "key", []byte(strconv.Itoa(n+1)), rec.Revision); {
		case err == nil:
			done++
		case !errors.Is(err, agrenting.ErrConflictingWrite):
			return err
		}
	}
	return nil
}

// holdLock prints a line when it has the lock of the record, and keeps it until
// it is killed.
func holdLock(folder string) error {
	f := durable.New(keyFile(folder), 1<<10, nil).LockedBy(filepath.Join(folder, ".locks", "key.lock"))
	unlock, err := f.Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Fprintln(os.Stdout, "locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// storeWorker is this test binary at work as another process.
func storeWorker(t *testing.T, what, folder string) (cmd *exec.Cmd, stdin io.WriteCloser, stdout io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd = exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), storeWorkerVar+"="+what+"|"+folder)
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
	folder := storeFolder(t)
	s := fileStore(t, folder)
	save(t, s, "0", "")
	var cmds []*exec.Cmd
	var starts []io.WriteCloser
	for range processes {
		cmd, stdin, _ := storeWorker(t, "count", folder)
		cmds, starts = append(cmds, cmd), append(starts, stdin)
	}
	for _, stdin := range starts {
		_, err := fmt.Fprintln(stdin)
		require.NoError(t, err)
	}
	for _, cmd := range cmds {
		require.NoError(t, cmd.Wait())
	}
	rec, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(processes*increments), string(rec.Data))
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	t.Parallel()
	folder := storeFolder(t)
	s := fileStore(t, folder)
	rev := save(t, s, "one", "")
	cmd, stdin, stdout := storeWorker(t, "hold", folder)
	defer stdin.Close()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)

	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.Save(brief, "key", []byte("two"), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it is locked")
	require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
	_, err = s.Load(t.Context(), "key")
	require.NoError(t, err, "loading needs no lock")

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	began := time.Now()
	save(t, s, "two", rev)
	assert.Less(t, time.Since(began), 5*time.Second)
}
