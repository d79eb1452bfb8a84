package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// ErrNoLocks is returned if a file system does not support locks, like some network file
// systems.
var ErrNoLocks = errors.New("does not support locks")

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 5 * time.Millisecond

// Lock takes the lock of the file. It waits for another process that holds it, as long
// as ctx allows. The kernel releases the lock when the process dies. The lock file
// stays: unlinking it would give two holders. The error matches [ErrNoLocks] if the
// file system does not support locks, and [ErrUnsafe] if there is no regular file of the
// effective user in the lock's place, or others can replace it.
func (f *File) Lock(ctx context.Context) (unlock func(), err error) {
	if err := f.prepareFolder(); err != nil {
		return nil, err
	}
	if dir := filepath.Dir(f.lock); dir != filepath.Dir(f.path) {
		if err := f.prepare(dir); err != nil {
			return nil, err
		}
	}
	return acquire(ctx, newCheckedLock(f.lock))
}

// checkedLock is a kernel lock on a file that is checked like the others. No link is
// followed, and a pipe is not waited for.
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
			return nil, fmt.Errorf("the file system of %s %w: %w", filepath.Dir(l.Path()), ErrNoLocks, err)
		case err != nil && !errors.Is(err, syscall.EINTR):
			return nil, fmt.Errorf("the lock %s: %w", l.Path(), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lockPoll):
		}
	}
	return nil, fmt.Errorf("waiting for the lock %s: %w", l.Path(), context.Cause(ctx))
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
