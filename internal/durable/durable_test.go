package durable_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/durable"
)

var steps = []durable.Step{
	durable.StepCreate, durable.StepWrite, durable.StepSync, durable.StepRename, durable.StepSyncDir,
}

func newFile(t *testing.T, before func(durable.Step) error) *durable.File {
	t.Helper()
	return durable.New(filepath.Join(t.TempDir(), "folder", "file"), 1<<10, before)
}

func TestReadReturnsWrittenData(t *testing.T) {
	t.Parallel()
	f := newFile(t, nil)
	_, err := f.Read()
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, content := range []string{"one", "", "two"} {
		require.NoError(t, f.Write([]byte(content)))
		b, err := f.Read()
		require.NoError(t, err)
		assert.Equal(t, content, string(b))
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // there, the folder's access list decides
	}
	f := newFile(t, nil)
	require.NoError(t, f.Write([]byte("x")))
	info, err := os.Stat(f.Path())
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(f.Path()))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
}

func TestWriteErrorLeavesOldOrNewContent(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, at := range steps {
		t.Run(string(at), func(t *testing.T) {
			t.Parallel()
			armed := false
			f := newFile(t, func(s durable.Step) error {
				if armed && s == at {
					return boom
				}
				return nil
			})
			require.NoError(t, f.Write([]byte("old")))
			armed = true
			require.ErrorIs(t, f.Write([]byte("new")), boom)
			b, err := f.Read()
			require.NoError(t, err)
			want := "old"
			if at == durable.StepSyncDir {
				want = "new"
			}
			assert.Equal(t, want, string(b))
			entries, err := os.ReadDir(filepath.Dir(f.Path()))
			require.NoError(t, err)
			assert.Len(t, entries, 1)
		})
	}
}

func TestEveryWriteTakesAllStepsInOrder(t *testing.T) {
	t.Parallel()
	var seen []durable.Step
	f := newFile(t, func(s durable.Step) error { seen = append(seen, s); return nil })
	require.NoError(t, f.Write([]byte("x")))
	assert.Equal(t, steps, seen)
}

func TestTemporaryFilesOfCrashedWritersAreRemoved(t *testing.T) {
	t.Parallel()
	f := newFile(t, nil)
	require.NoError(t, f.Write([]byte("x")))
	dir := filepath.Dir(f.Path())
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".file.tmp-ABC"), []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".other.tmp-ABC"), []byte("not ours"), 0o600))
	require.NoError(t, f.Write([]byte("y")))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.ElementsMatch(t, []string{"file", ".other.tmp-ABC"}, names)
}

func TestUnsafeFileErrorHasFixingCommand(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such permissions
	}
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"group can read":  {func(t *testing.T, p string) { t.Helper(); require.NoError(t, os.Chmod(p, 0o640)) }, "chmod 600"},
		"others can read": {func(t *testing.T, p string) { t.Helper(); require.NoError(t, os.Chmod(p, 0o604)) }, "chmod 600"},
		"symbolic link": {func(t *testing.T, p string) {
			t.Helper()
			require.NoError(t, os.Rename(p, p+".real"))
			require.NoError(t, os.Symlink(p+".real", p))
		}, "symbolic link"},
		"folder": {func(t *testing.T, p string) {
			t.Helper()
			require.NoError(t, os.Remove(p))
			require.NoError(t, os.Mkdir(p, 0o700))
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFile(t, nil)
			require.NoError(t, f.Write([]byte("secret")))
			tc.spoil(t, f.Path())
			_, err := f.Read()
			require.ErrorIs(t, err, durable.ErrUnsafe)
			require.ErrorContains(t, err, tc.want)
			require.ErrorIs(t, f.Write([]byte("x")), durable.ErrUnsafe)
		})
	}
}

func TestFolderWritableByOthersIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such permissions
	}
	f := newFile(t, nil)
	require.NoError(t, f.Write([]byte("x")))
	require.NoError(t, os.Chmod(filepath.Dir(f.Path()), 0o770))
	err := f.Write([]byte("y"))
	require.ErrorIs(t, err, durable.ErrUnsafe)
	_, err = f.Read()
	require.ErrorIs(t, err, durable.ErrUnsafe)
	require.ErrorContains(t, err, "chmod 700")
	_, err = f.Lock(t.Context())
	require.ErrorIs(t, err, durable.ErrUnsafe)
}

func TestSizeIsBoundedBothWays(t *testing.T) {
	t.Parallel()
	f := newFile(t, nil)
	require.Error(t, f.Write(make([]byte, 1<<10+1)))
	require.NoError(t, f.Write(make([]byte, 1<<10)))
	file, err := os.OpenFile(f.Path(), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("x")
	require.NoError(t, err)
	require.NoError(t, file.Close())
	_, err = f.Read()
	require.ErrorContains(t, err, "more than")
}

func TestLockIsExclusiveAndItsWaitCancellable(t *testing.T) {
	t.Parallel()
	f := newFile(t, nil)
	unlock, err := f.Lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = f.Lock(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	unlock()
	unlock, err = f.Lock(t.Context())
	require.NoError(t, err)
	unlock()
}

func TestPathsInAdviceAreSafeToPaste(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such permissions
	}
	f := durable.New(filepath.Join(t.TempDir(), "a; rm -rf ~ 'x'"), 10, nil)
	require.NoError(t, f.Write(nil))
	require.NoError(t, os.Chmod(f.Path(), 0o644))
	_, err := f.Read()
	require.ErrorIs(t, err, durable.ErrUnsafe)
	assert.True(t, strings.HasSuffix(err.Error(), `'\''x'\'''`), err)
}
