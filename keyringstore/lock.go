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

// errUnsafe says that others could replace the lock.
var errUnsafe = errors.New("unsafe folder")

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 5 * time.Millisecond

// lockFile is a kernel lock on a file. The file and its folder are created if they
// are missing. The kernel releases the lock when the process dies. The file is not
// removed, because that would allow two holders.
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
		return nil, fmt.Errorf("%w: others may replace the lock in %q (mode %#o). Give the folder the mode 0700",
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
