package durable

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scriptedLock is a lock whose calls return errors, one after the other. The last one
// is repeated.
type scriptedLock struct {
	tries, closes []error
	tried, closed int
}

var errHeld = errors.New("held by another process")

func (*scriptedLock) Path() string { return "/mnt/store/.locks/key.lock" }

func next(script []error, calls *int) error {
	*calls++
	if len(script) == 0 {
		return nil
	}
	return script[min(*calls, len(script))-1]
}

func (l *scriptedLock) TryLock() (bool, error) {
	err := next(l.tries, &l.tried)
	if errors.Is(err, errHeld) {
		return false, nil
	}
	return err == nil, err
}

func (l *scriptedLock) Close() error { return next(l.closes, &l.closed) }

func TestInterruptedLockCallsAreRepeated(t *testing.T) {
	t.Parallel()
	eintr := error(syscall.EINTR)
	for name, tc := range map[string]struct {
		tries, closes []error
		tried, closed int
	}{
		"none":             {nil, nil, 1, 1},
		"lock":             {[]error{eintr, nil}, nil, 2, 1},
		"lock, often":      {[]error{eintr, errHeld, eintr, eintr, nil}, nil, 5, 1},
		"unlock":           {nil, []error{eintr, nil}, 1, 2},
		"unlock, often":    {nil, []error{eintr, eintr, eintr, nil}, 1, 4},
		"unlock, then EIO": {nil, []error{eintr, syscall.EIO}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &scriptedLock{tries: tc.tries, closes: tc.closes}
				unlock, err := acquire(t.Context(), l)
				require.NoError(t, err)
				unlock()
				assert.Equal(t, tc.tried, l.tried)
				assert.Equal(t, tc.closed, l.closed)
			})
		})
	}
}

func TestInterruptedCloseAfterSyncIsNotAnError(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ err, want error }{
		{nil, nil},
		{&fs.PathError{Op: "close", Path: "x", Err: syscall.EINTR}, nil},
		{syscall.EIO, syscall.EIO},
	} {
		l := &scriptedLock{closes: []error{tc.err}}
		assert.Equal(t, tc.want, closeSynced(l))
		assert.Equal(t, 1, l.closed, "the descriptor may have been reused")
	}
}

func TestLockWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err   error
		limit time.Duration
		tries int
	}{
		"held":            {errHeld, 52 * time.Millisecond, 11},
		"interrupted":     {syscall.EINTR, 52 * time.Millisecond, 11},
		"context is over": {nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
				defer cancel()
				start, l := time.Now(), &scriptedLock{tries: []error{tc.err}}
				_, err := acquire(ctx, l)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "waiting for the lock /mnt/store/.locks/key.lock")
				assert.Equal(t, tc.limit, time.Since(start))
				assert.Equal(t, tc.tries, l.tried)
			})
		})
	}
}

func TestFileSystemWithoutLocksIsNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{syscall.ENOSYS, true},
		{syscall.ENOTSUP, true},
		{syscall.EOPNOTSUPP, true},
		{syscall.ENOLCK, true},
		{syscall.EINVAL, true},
		{&fs.PathError{Op: "Lock", Path: "x", Err: errors.ErrUnsupported}, true}, // of a system without flock
		{syscall.EIO, false},
		{syscall.EBADF, false},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EINVAL}, false},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, false},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			t.Parallel()
			l := &scriptedLock{tries: []error{tc.err}}
			_, err := acquire(t.Context(), l)
			require.ErrorIs(t, err, tc.err)
			assert.Equal(t, 1, l.tried)
			assert.Equal(t, tc.want, errors.Is(err, ErrNoLocks), err)
			if tc.want {
				assert.Contains(t, err.Error(), "the file system of /mnt/store/.locks does not support locks: ")
			}
		})
	}
}

// interruptedLock interrupts each call of a kernel lock once.
type interruptedLock struct {
	kernelLock
	tried, closed bool
}

func (l *interruptedLock) TryLock() (bool, error) {
	if !l.tried {
		l.tried = true
		return false, syscall.EINTR
	}
	return l.kernelLock.TryLock()
}

func (l *interruptedLock) Close() error {
	if !l.closed {
		l.closed = true
		return syscall.EINTR
	}
	return l.kernelLock.Close()
}

func TestInterruptedKernelLockIsTakenAndReleased(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		unlock, err := acquire(ctx, &interruptedLock{kernelLock: flock.New(path)})
		require.NoError(t, err)
		ok, err := flock.New(path).TryLock()
		require.NoError(t, err)
		assert.False(t, ok)
		unlock()
	}
}
