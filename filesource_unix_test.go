//go:build unix

package agrenting

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFileSourceDoesNotWaitForTheWriterOfAPipe(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))

	src := newFileSource(path, 0)
	_, err := src.Credential(t.Context())
	require.ErrorIs(t, err, ErrNoCredential)
	require.ErrorContains(t, err, "is a named pipe")

	_, err = src.Refresh(t.Context(), APIKey("k"))
	require.ErrorContains(t, err, "is a named pipe")
}
