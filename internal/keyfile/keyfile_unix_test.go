//go:build unix

package keyfile

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestFileDoesNotWaitForPipeWriter(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))

	src := New(path, 0)
	_, err := src.Credential(t.Context())
	require.ErrorIs(t, err, secret.ErrNoCredential)
	require.ErrorContains(t, err, "is a named pipe")

	_, err = src.Refresh(t.Context(), credential(secret.KindAPIKey, "k"))
	require.ErrorContains(t, err, "is a named pipe")
}
