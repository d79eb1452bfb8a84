package keyringstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestALockHasOneHolder(t *testing.T) {
	t.Parallel()
	l := lockFile(filepath.Join(t.TempDir(), "not", "there", "item.lock"))
	unlock, err := l.take(t.Context())
	require.NoError(t, err)

	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = l.take(brief)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	unlock()
	unlock, err = l.take(t.Context())
	require.NoError(t, err)
	unlock()
	assert.FileExists(t, string(l), "unlinking it would give two holders")
}

func TestUnsafeLockIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there modes say nothing")
	}
	folder := t.TempDir()
	l := lockFile(filepath.Join(folder, "item.lock"))
	require.NoError(t, os.Chmod(folder, 0o777))
	_, err := l.take(t.Context())
	require.ErrorContains(t, err, ". Run: chmod 700 ")
	require.NoError(t, os.Chmod(folder, 0o777|os.ModeSticky))
	unlock, err := l.take(t.Context())
	require.NoError(t, err)
	unlock()
}

// scriptedLock is a lock whose calls return errors, one after the other. The last one
// is repeated.
type scriptedLock struct {
	tries, closes []error
	tried, closed int
}

func (*scriptedLock) Path() string { return "/mnt/keyring/item.lock" }

func next(script []error, calls *int) error {
	*calls++
	if len(script) == 0 {
		return nil
	}
	return script[min(*calls, len(script))-1]
}

func (l *scriptedLock) TryLock() (bool, error) {
	err := next(l.tries, &l.tried)
	return err == nil, err
}

func (l *scriptedLock) Close() error { return next(l.closes, &l.closed) }

func TestInterruptedLockCallsAreRepeated(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*scriptedLock{
		"lock":   {tries: []error{syscall.EINTR, syscall.EINTR, nil}},
		"unlock": {closes: []error{syscall.EINTR, syscall.EINTR, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				unlock, err := acquire(t.Context(), l)
				require.NoError(t, err)
				unlock()
				assert.Equal(t, max(1, len(l.tries)), l.tried)
				assert.Equal(t, max(1, len(l.closes)), l.closed)
			})
		})
	}
}

func TestInterruptedLockEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 52*time.Millisecond)
		defer cancel()
		l := &scriptedLock{tries: []error{syscall.EINTR}}
		_, err := acquire(ctx, l)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 11, l.tried)
	})
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
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EINVAL}, false},
	} {
		_, err := acquire(t.Context(), &scriptedLock{tries: []error{tc.err}})
		require.ErrorIs(t, err, tc.err)
		if tc.want {
			require.ErrorContains(t, err, `the file system of "/mnt/keyring" does not support locks: `)
			require.ErrorContains(t, err, "WithLockFolder")
		} else {
			assert.NotContains(t, err.Error(), "support")
		}
	}
}
