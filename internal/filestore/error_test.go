package filestore

import (
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/record"
)

func TestErrorOfAWriteNamesItsCause(t *testing.T) {
	t.Parallel()
	noLocks := fmt.Errorf("the file system of /mnt/keys %w: %w", durable.ErrNoLocks, syscall.ENOLCK)
	for name, tc := range map[string]struct {
		err      error
		readOnly bool
		want     string
	}{
		"no locks": {noLocks, false, "agrenting: store: the file system of /mnt/keys does not support locks: " +
			"no locks available. Use a local folder, or a Store such as etcdstore"},
		"no permission":  {fs.ErrPermission, true, "agrenting: the store is read-only: permission denied"},
		"read-only disk": {syscall.EROFS, true, "agrenting: the store is read-only: read-only file system"},
		"disk full":      {syscall.ENOSPC, false, "agrenting: store: no space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := writeError(tc.err)
			require.ErrorIs(t, err, tc.err)
			if tc.readOnly {
				require.ErrorIs(t, err, record.ErrReadOnly)
			} else {
				require.NotErrorIs(t, err, record.ErrReadOnly)
			}
			assert.Equal(t, tc.want, fmt.Sprint(err))
		})
	}
}
