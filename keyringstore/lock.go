package keyringstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// errUnsafe says that others could put another lock in the place of ours.
var errUnsafe = errors.New("unsafe folder")

// lockPoll is how often a lock that somebody else holds is tried.
const lockPoll = 5 * time.Millisecond

// lockFile is a lock of the kernel on a file, which is made when it is missing,
// as is its folder. The kernel releases it when the process dies. The file
// stays: unlinking it would give two holders.
type lockFile string

// take waits for the lock as long as ctx allows.
func (l lockFile) take(ctx context.Context) (unlock func(), err error) {
	folder := filepath.Dir(string(l))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(folder)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return nil, fmt.Errorf("%w: others may replace the lock in %q (mode %#o); give the folder the mode 0700",
			errUnsafe, folder, mode.Perm())
	}
	held := flock.New(string(l), flock.SetPermissions(0o600))
	ok, err := held.TryLockContext(ctx, lockPoll)
	if err != nil {
		return nil, fmt.Errorf("the lock %q: %w", held.Path(), err)
	}
	if !ok {
		return nil, fmt.Errorf("the lock %q is held by another process", held.Path())
	}
	return func() { _ = held.Close() }, nil
}
