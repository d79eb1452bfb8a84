package keyringstore

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
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

func TestALockThatOthersCouldReplaceIsRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there modes say nothing")
	}
	folder := t.TempDir()
	l := lockFile(filepath.Join(folder, "item.lock"))
	require.NoError(t, os.Chmod(folder, 0o777))
	_, err := l.take(t.Context())
	require.ErrorIs(t, err, errUnsafe)
	require.NoError(t, os.Chmod(folder, 0o777|os.ModeSticky))
	unlock, err := l.take(t.Context())
	require.NoError(t, err)
	unlock()
}
