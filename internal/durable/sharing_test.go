package durable

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFileInUseIsRetried(t *testing.T) {
	t.Parallel()
	busy, other := errors.New("busy"), errors.New("other")
	isBusy := func(err error) bool { return errors.Is(err, busy) }
	for name, tc := range map[string]struct {
		errs  []error // of the first attempts; the last one is repeated
		want  error
		takes time.Duration
	}{
		"free":          {[]error{nil}, nil, 0},
		"busy at first": {[]error{busy, busy, nil}, nil, 2 * sharingPause},
		"other error":   {[]error{busy, other, nil}, other, sharingPause},
		"always busy":   {[]error{busy}, busy, sharingPatience},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start, calls := time.Now(), 0
				err := whileInUse(isBusy, func() error {
					calls++
					return tc.errs[min(calls, len(tc.errs))-1]
				})
				require.ErrorIs(t, err, tc.want)
				assert.Equal(t, tc.takes, time.Since(start))
			})
		})
	}
}

// On Windows, a file that another process has open cannot simply be replaced, and
// one that is being replaced cannot simply be opened.
func TestConcurrentReadersAndWriter(t *testing.T) {
	t.Parallel()
	f := New(filepath.Join(t.TempDir(), "file"), 1<<10, nil)
	require.NoError(t, f.Write([]byte("0")))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if b, err := f.Read(); !assert.NoError(t, err) || !assert.Len(t, b, 1) {
					return
				}
			}
		})
	}
	var failure error
	for i := 0; i < 50 && failure == nil; i++ {
		failure = f.Write([]byte{byte('0' + i%10)})
	}
	close(stop)
	readers.Wait()
	require.NoError(t, failure)
}

func TestReplacedFileCanBeOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	require.NoError(t, os.WriteFile(from, []byte("new"), 0o600))
	require.NoError(t, os.WriteFile(to, []byte("old"), 0o600))
	open, err := openShared(to)
	require.NoError(t, err)
	require.NoError(t, replace(from, to))
	b := make([]byte, 3)
	_, err = open.Read(b)
	require.NoError(t, err)
	require.NoError(t, open.Close())
	assert.Equal(t, "old", string(b))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.Equal(t, "new", string(got))
}
