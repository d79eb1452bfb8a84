package keyringstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gofrs/flock"

	"github.com/agrenting/agrenting-go"
)

// errUnsafe means that others could hold or replace the lock.
var errUnsafe = errors.New("unsafe lock")

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 5 * time.Millisecond

// lockFile is a kernel lock on a file. The file and its folder are created if they
// are missing. The kernel releases the lock when the process dies. The file is not
// removed, because that would allow two holders.
type lockFile string

// take waits for the lock as long as ctx allows.
func (l lockFile) take(ctx context.Context) (unlock func(), err error) {
	folder := filepath.Dir(string(l))
	if err := checkFolder(ctx, folder); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := checkFolder(ctx, folder); err != nil {
		return nil, err
	}
	return acquire(ctx, newCheckedLock(string(l)))
}

// checkFolder refuses a folder in which other users could replace the lock. The rules are
// those of [agrenting.FileStore] for its folder, which Load checks before it finds that
// the record is missing.
func checkFolder(ctx context.Context, folder string) error {
	s, err := agrenting.FileStore(folder)
	if err != nil {
		return err
	}
	if _, err = s.Load(ctx, "lock"); errors.Is(err, agrenting.ErrNoRecord) {
		return nil
	}
	return err
}

// checkFile refuses what is not a regular file, belongs to another user, or can be
// opened, and hence locked, by other users.
func checkFile(path string, info fs.FileInfo) error {
	mode, owner, euid := info.Mode(), ownerOf(info), os.Geteuid()
	switch {
	case !mode.IsRegular():
		return fmt.Errorf("%w: %q is not a regular file (%v). Remove it", errUnsafe, path, mode)
	case owner != euid:
		return fmt.Errorf("%w: %q belongs to user %d, and this process runs as user %d. Run: %schown %d %s",
			errUnsafe, path, owner, euid, map[bool]string{true: "sudo "}[euid > 0], euid, quote(path))
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		return fmt.Errorf("%w: %q can be locked by others (mode %#o). Run: chmod 600 %s", errUnsafe, path, mode.Perm(), quote(path))
	}
	return nil
}

// quote writes a path such that it can be pasted into a shell and shows no character that a
// terminal interprets.
func quote(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '\'' || c == '\\':
			b.WriteString(`\` + string(rune(c)))
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return "$'" + b.String() + "'"
}

// checkFileAt is [checkFile] for a file that may not exist.
func checkFileAt(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return checkFile(path, info)
}

// checkedLock is a kernel lock on a file that is checked. No link is followed, and a pipe
// is not waited for.
type checkedLock struct{ *flock.Flock }

func newCheckedLock(path string) checkedLock {
	return checkedLock{flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(lockFlags()))}
}

// TryLock reports false also if the file was replaced since it was opened. The next call
// opens the other one.
func (l checkedLock) TryLock() (bool, error) {
	if err := checkFileAt(l.Path()); err != nil {
		return false, err
	}
	if ok, err := l.Flock.TryLock(); !ok {
		return false, err
	}
	held, err := l.Stat()
	if err == nil {
		err = checkFile(l.Path(), held)
	}
	if err != nil {
		release(l)
		return false, err
	}
	if there, err := os.Lstat(l.Path()); err != nil || !os.SameFile(held, there) {
		release(l)
		return false, nil //nolint:nilerr // the next call finds out
	}
	return true, nil
}

// kernelLock is the part of [flock.Flock] that locks are taken with.
type kernelLock interface {
	Path() string
	// TryLock reports false if another process holds the lock.
	TryLock() (bool, error)
	Close() error
}

// acquire tries a lock until it gets it or ctx ends. A call that a signal interrupts is
// repeated.
func acquire(ctx context.Context, l kernelLock) (unlock func(), err error) {
	for ctx.Err() == nil {
		ok, err := l.TryLock()
		switch {
		case ok:
			return func() { release(l) }, nil
		case isUnsupported(err):
			return nil, fmt.Errorf("the file system of %q does not support locks: %w. Set a local folder with WithLockFolder",
				filepath.Dir(l.Path()), err)
		case err != nil && !errors.Is(err, syscall.EINTR):
			return nil, fmt.Errorf("the lock %q: %w", l.Path(), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lockPoll):
		}
	}
	return nil, fmt.Errorf("waiting for the lock %q: %w", l.Path(), context.Cause(ctx))
}

// release gives a lock back. If an interrupted call were not repeated, the file would
// stay open, and with it the lock.
func release(l kernelLock) {
	for errors.Is(l.Close(), syscall.EINTR) {
	}
}

// isUnsupported reports whether the error of a lock means that the file system does not
// support locks. An error of finding or opening the lock file has other causes.
func isUnsupported(err error) bool {
	if e, ok := errors.AsType[*fs.PathError](err); ok && (e.Op == "open" || e.Op == "lstat") {
		return false
	}
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.EINVAL)
}
