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

// ErrNoLocks is returned if a file system does not support locks, as is the case for
// some network file systems.
var ErrNoLocks = errors.New("does not support locks")

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 5 * time.Millisecond

// Lock takes the lock of the file. If another process holds the lock, Lock waits for it
// until ctx ends. The kernel releases the lock when the process dies. The lock file is
// not removed, because then two processes could hold a lock. The error matches
// [ErrNoLocks] if the file system does not support locks. It matches [ErrUnsafe] if the
// lock file is not a regular file of the effective user, or if other users can replace
// it.
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

// checkedLock is a kernel lock on a file that is checked like the others. It does not
// follow a link and does not wait for a pipe.
type checkedLock struct{ *flock.Flock }

func newCheckedLock(path string) checkedLock {
	return checkedLock{flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(lockFlags()))}
}

// TryLock also returns false if the file was replaced since it was opened. The next call
// opens the new file.
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
		return false, nil //nolint:nilerr // the next call finds the cause
	}
	return true, nil
}

// kernelLock is the part of [flock.Flock] that this package uses.
type kernelLock interface {
	Path() string
	// TryLock reports false if another process holds the lock.
	TryLock() (bool, error)
	Close() error
}

// acquire tries a lock until it gets it or ctx ends. It repeats a call that a signal has
// interrupted.
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

// release releases a lock. It repeats an interrupted call. Otherwise, the file would
// stay open and locked.
func release(l kernelLock) {
	for errors.Is(l.Close(), syscall.EINTR) {
	}
}

// isUnsupported reports whether the error of a lock means that the file system does not
// support locks. An error from finding or opening the lock file has other causes.
func isUnsupported(err error) bool {
	if e, ok := errors.AsType[*fs.PathError](err); ok && (e.Op == "open" || e.Op == "lstat") {
		return false
	}
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.EINVAL)
}
