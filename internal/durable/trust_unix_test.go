//go:build unix

package durable

import (
	"io/fs"
	"net"
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

const otherUser = 12345

// place is a file with its lock in a separate folder, as the file store has it.
type place struct {
	t                                     *testing.T
	top, above, folder, file, locks, lock string
}

func newPlace(t *testing.T) place {
	t.Helper()
	top := t.TempDir()
	require.NoError(t, os.Chmod(top, 0o755))
	above := filepath.Join(top, "a b'c")
	folder := filepath.Join(above, "store")
	locks := filepath.Join(folder, ".locks")
	require.NoError(t, os.MkdirAll(locks, 0o700))
	p := place{t, top, above, folder, filepath.Join(folder, "key"), locks, filepath.Join(locks, "key.lock")}
	p.write(p.file)
	p.write(p.lock)
	return p
}

func (p place) File() *File { return New(p.file, 1<<10, nil).LockedBy(p.lock) }

func (p place) write(path string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(path, []byte("content"), 0o600))
}

func (p place) chown(path string) {
	p.t.Helper()
	if os.Geteuid() != 0 {
		p.t.Skip("only root can give files away")
	}
	require.NoError(p.t, os.Lchown(path, otherUser, otherUser))
}

func (p place) chmod(path string, mode fs.FileMode) {
	p.t.Helper()
	require.NoError(p.t, os.Chmod(path, mode))
}

// link puts a symbolic link in the place of path, which it moves to where.
func (p place) link(path, where string) {
	p.t.Helper()
	require.NoError(p.t, os.Rename(path, where))
	require.NoError(p.t, os.Symlink(where, path))
}

func (p place) remove(path string) { p.t.Helper(); require.NoError(p.t, os.RemoveAll(path)) }

// try returns the errors of all operations: reading, writing, and locking.
func (p place) try() map[string]error {
	p.t.Helper()
	_, rerr := p.File().Read()
	unlock, lerr := p.File().Lock(p.t.Context())
	if lerr == nil {
		unlock()
	}
	return map[string]error{"read": rerr, "lock": lerr, "write": p.File().Write([]byte("new"))}
}

func TestUnsafePlacesAreRefused(t *testing.T) {
	t.Parallel()
	const all = "read write lock"
	for name, tc := range map[string]struct {
		spoil func(p place)
		ops   string // that are refused
		want  string
		fixed bool // by the command in the error
	}{
		"nothing":                 {func(place) {}, "", "", false},
		"file of another user":    {func(p place) { p.chown(p.file) }, "read write", "belongs to user 12345", true},
		"folder of another user":  {func(p place) { p.chown(p.folder) }, all, "belongs to user 12345", true},
		"above: another user":     {func(p place) { p.chown(p.above) }, all, "belongs to user 12345", true},
		"locks of another user":   {func(p place) { p.chown(p.locks) }, "lock", "belongs to user 12345", true},
		"lock of another user":    {func(p place) { p.chown(p.lock) }, "lock", "belongs to user 12345", true},
		"above: open to others":   {func(p place) { p.chmod(p.above, 0o757) }, all, "(mode 0757)", true},
		"above: open to a group":  {func(p place) { p.chmod(p.above, 0o775) }, all, "(mode 0775)", true},
		"above: sticky":           {func(p place) { p.chmod(p.above, 0o777|fs.ModeSticky) }, "", "", false},
		"folder open to a group":  {func(p place) { p.chmod(p.folder, 0o770) }, all, "(mode 0770)", true},
		"folder sticky":           {func(p place) { p.chmod(p.folder, 0o777|fs.ModeSticky) }, "", "", false},
		"locks open to others":    {func(p place) { p.chmod(p.locks, 0o777) }, "lock", "(mode 0777)", true},
		"lock open to others":     {func(p place) { p.chmod(p.lock, 0o644) }, "lock", "(mode 0644)", true},
		"file is a link":          {func(p place) { p.link(p.file, p.file+"2") }, "read write", "is a symbolic link", false},
		"folder is a link":        {func(p place) { p.link(p.folder, p.folder+"2") }, all, "Use the folder itself", false},
		"locks are a link":        {func(p place) { p.link(p.locks, p.locks+"2") }, "lock", "is a symbolic link", false},
		"lock is a link":          {func(p place) { p.link(p.lock, p.lock+"2") }, "lock", "is a symbolic link", false},
		"lock is a dangling link": {func(p place) { p.link(p.lock, p.lock+"2"); p.remove(p.lock + "2") }, "lock", "is a symbolic link", false},
		"above: link":             {func(p place) { p.link(p.above, p.above+"2") }, "", "", false},
		"above: relative links": {func(p place) {
			p.link(p.above, p.above+"2")
			p.remove(p.above)
			require.NoError(p.t, os.Symlink("./l/../l", p.above))
			require.NoError(p.t, os.Symlink("../"+filepath.Base(p.top)+"/a b'c2", filepath.Join(p.top, "l")))
		}, "", "", false},
		"above: link of another user": {func(p place) { p.link(p.above, p.above+"2"); p.chown(p.above) }, all, "who can redirect it", true},
		"above: link into an open folder": {func(p place) {
			open := filepath.Join(p.top, "open")
			require.NoError(p.t, os.Mkdir(open, 0o700))
			p.link(p.above, filepath.Join(open, "x"))
			p.chmod(open, 0o777)
		}, all, "open (mode 0777)", true},
		"above: link in an open folder": {func(p place) { p.link(p.above, p.above+"2"); p.chmod(p.top, 0o777) }, all, "(mode 0777)", true},
		"above: links in a circle": {func(p place) {
			p.link(p.above, p.above+"2")
			p.remove(p.above)
			require.NoError(p.t, os.Symlink("a b'c", p.above))
		}, all, "too many levels", false},
		"above: file": {func(p place) { p.remove(p.above); p.write(p.above) }, all, "not a directory", false},
		"file is a pipe": {func(p place) {
			p.remove(p.file)
			require.NoError(p.t, syscall.Mkfifo(p.file, 0o600))
		}, "read write", "a named pipe", false},
		"lock is a pipe": {func(p place) {
			p.remove(p.lock)
			require.NoError(p.t, syscall.Mkfifo(p.lock, 0o600))
		}, "lock", "a named pipe", false},
		"lock is a folder": {func(p place) {
			p.remove(p.lock)
			require.NoError(p.t, os.Mkdir(p.lock, 0o700))
		}, "lock", "a folder", false},
		"lock is a socket": {func(p place) {
			p.remove(p.lock)
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			require.NoError(p.t, err)
			p.t.Cleanup(func() { _ = syscall.Close(fd) })
			short := filepath.Join(socketFolder(p.t), "s")
			require.NoError(p.t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: short}))
			require.NoError(p.t, os.Rename(short, p.lock))
		}, "lock", "a socket", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			tc.spoil(p)
			var last error
			for op, err := range p.try() {
				if !strings.Contains(tc.ops, op) {
					require.NoError(t, err, op)
					continue
				}
				require.Error(t, err, op)
				require.ErrorContains(t, err, tc.want, op)
				if !strings.Contains(tc.want, "too many") && !strings.Contains(tc.want, "not a directory") {
					require.ErrorIs(t, err, ErrUnsafe, op)
				}
				last = err
			}
			if !tc.fixed {
				return
			}
			_, command, found := strings.Cut(last.Error(), ". Run: ")
			require.True(t, found, last)
			out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
			require.NoError(t, err, "%s: %s", command, out)
			for op, err := range p.try() {
				require.NoError(t, err, "%s after %s", op, command)
			}
		})
	}
}

// socketFolder has a path that fits into the address of a socket.
func socketFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // that of a test has a long path
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestNoFolderIsCreatedBelowUnsafeFolder(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.remove(p.above)
	p.chmod(p.top, 0o777)
	for op, err := range p.try() {
		require.ErrorIs(t, err, ErrUnsafe, op)
	}
	assert.NoDirExists(t, p.above)
}

func TestOpenRefusesLinksAndPipes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.link(p.file, p.file+"2")
	_, err := openShared(p.file)
	require.Error(t, err)
	_, err = flock.New(p.file, flock.SetFlag(lockFlags())).TryLock()
	require.Error(t, err)
	p.remove(p.file)
	require.NoError(t, syscall.Mkfifo(p.file, 0o600))
	file, err := openShared(p.file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	l := flock.New(p.file, flock.SetFlag(lockFlags()))
	_, err = l.TryLock()
	if runtime.GOOS == "linux" { // elsewhere, pipes cannot be locked
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
}

// swapped is what another process puts into the lock's place after it was opened.
func TestLockOfAReplacedFileIsNotHeld(t *testing.T) {
	t.Parallel()
	for name, swap := range map[string]func(p place){
		"another file": func(p place) { p.write(p.lock + "2"); require.NoError(p.t, os.Rename(p.lock+"2", p.lock)) },
		"no file":      func(p place) { p.remove(p.lock) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			l := newCheckedLock(p.lock)
			opened, err := l.Flock.TryLock()
			require.NoError(t, err)
			require.True(t, opened)
			swap(p)
			ok, err := l.TryLock()
			require.NoError(t, err)
			assert.False(t, ok)
			unlock, err := p.File().Lock(t.Context())
			require.NoError(t, err)
			other, err := flock.New(p.lock).TryLock()
			require.NoError(t, err)
			assert.False(t, other, "the file that is there is locked")
			unlock()
		})
	}
}

func TestCreatedFileIsCheckedBeforeWrite(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	f := New(p.file, 1<<10, nil)
	require.NoError(t, f.Write([]byte("new")))
	file, err := os.OpenFile(p.file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, checkOpen(file))
	p.chmod(p.file, 0o644)
	require.ErrorIs(t, checkOpen(file), ErrUnsafe)
}

func TestSocketInPlaceOfTheFileIsRefused(t *testing.T) {
	t.Parallel()
	dir := socketFolder(t)
	path := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	defer l.Close()
	_, err = New(path, 1<<10, nil).Read()
	require.ErrorIs(t, err, ErrUnsafe)
	require.ErrorContains(t, err, "a socket")
}
