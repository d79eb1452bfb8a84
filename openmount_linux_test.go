package agrenting

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// openMount is a mounted folder that others may write to, like an emptyDir of Kubernetes.
func openMount(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=0777"); err != nil {
		t.Skip("cannot mount: ", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(folder, syscall.MNT_DETACH)) })
	return folder
}
