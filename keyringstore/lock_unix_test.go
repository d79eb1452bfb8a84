//go:build unix

package keyringstore

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUnsafeLocksAreRefused(t *testing.T) {
	t.Parallel()
	const otherUser = 12345
	chown := func(t *testing.T, path string) {
		t.Helper()
		if os.Geteuid() != 0 {
			t.Skip("only root can give files away")
		}
		require.NoError(t, os.Lchown(path, otherUser, otherUser))
	}
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, lock string)
		want  string
		fixed bool // by the command in the error
	}{
		"nothing":             {func(*testing.T, string) {}, "", false},
		"of another user":     {chown, "belongs to user 12345", true},
		"folder of another":   {func(t *testing.T, l string) { t.Helper(); chown(t, filepath.Dir(l)) }, "belongs to user 12345", true},
		"above: another user": {func(t *testing.T, l string) { t.Helper(); chown(t, filepath.Dir(filepath.Dir(l))) }, "belongs to user 12345", true},
		"open to others":      {func(t *testing.T, l string) { t.Helper(); require.NoError(t, os.Chmod(l, 0o604)) }, "(mode 0604)", true},
		"above: open to others": {func(t *testing.T, l string) {
			t.Helper()
			require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(l)), 0o777))
		}, "(mode 0777)", true},
		"link": {func(t *testing.T, l string) {
			t.Helper()
			require.NoError(t, os.Rename(l, l+"2"))
			require.NoError(t, os.Symlink(l+"2", l))
		}, "not a regular file", false},
		"dangling link": {func(t *testing.T, l string) {
			t.Helper()
			require.NoError(t, os.Remove(l))
			require.NoError(t, os.Symlink(l+"2", l))
		}, "not a regular file", false},
		"folder is a link": {func(t *testing.T, l string) {
			t.Helper()
			dir := filepath.Dir(l)
			require.NoError(t, os.Rename(dir, dir+"2"))
			require.NoError(t, os.Symlink(dir+"2", dir))
		}, "is a symbolic link", false},
		"pipe": {func(t *testing.T, l string) {
			t.Helper()
			require.NoError(t, os.Remove(l))
			require.NoError(t, syscall.Mkfifo(l, 0o600))
		}, "not a regular file", false},
		"directory": {func(t *testing.T, l string) {
			t.Helper()
			require.NoError(t, os.Remove(l))
			require.NoError(t, os.Mkdir(l, 0o700))
		}, "not a regular file", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(t.TempDir(), "my programs'", "locks")
			require.NoError(t, os.MkdirAll(folder, 0o700))
			lock := filepath.Join(folder, "item.lock")
			require.NoError(t, os.WriteFile(lock, nil, 0o600))
			tc.spoil(t, lock)
			unlock, err := lockFile(lock).take(t.Context())
			if tc.want == "" {
				require.NoError(t, err)
				unlock()
				return
			}
			require.ErrorContains(t, err, tc.want)
			if !tc.fixed {
				return
			}
			_, command, found := strings.Cut(err.Error(), ". Run: ")
			require.True(t, found, err)
			out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
			require.NoError(t, err, "%s: %s", command, out)
			unlock, err = lockFile(lock).take(t.Context())
			require.NoError(t, err, command)
			unlock()
		})
	}
}

func TestLockIsOpenedWithoutFollowingOrWaiting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	require.NoError(t, os.Symlink(filepath.Join(dir, "target"), link))
	_, err := flock.New(link, flock.SetFlag(lockFlags())).TryLock()
	require.Error(t, err)
	assert.NoFileExists(t, filepath.Join(dir, "target"))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	l := flock.New(pipe, flock.SetFlag(lockFlags()))
	_, err = l.TryLock()
	if runtime.GOOS == "linux" { // elsewhere, pipes cannot be locked
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
}

func TestLockOfAReplacedFileIsNotHeld(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "item.lock")
	l := newCheckedLock(path)
	opened, err := l.Flock.TryLock()
	require.NoError(t, err)
	require.True(t, opened)
	require.NoError(t, os.WriteFile(path+"2", nil, 0o600))
	require.NoError(t, os.Rename(path+"2", path))
	ok, err := l.TryLock()
	require.NoError(t, err)
	assert.False(t, ok)
	ok, err = l.TryLock()
	require.NoError(t, err)
	assert.True(t, ok)
	require.NoError(t, l.Close())
}
