package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// ErrUnsafe says that a file or folder may be read or replaced by others. The
// text says what to do.
var ErrUnsafe = errors.New("unsafe file")

// Step names one operation of Write that a crash can come before. Their order
// is the order of execution.
type Step string

// The steps of a write.
const (
	StepCreate  Step = "create"
	StepWrite   Step = "write"
	StepSync    Step = "sync"
	StepRename  Step = "rename"
	StepSyncDir Step = "sync folder"
)

// File is one file, 0600 in a folder of 0700. Read may be called at any time,
// Write only while holding the lock.
type File struct {
	path string
	lock string
	max  int64
	// before, when set, is called before each step; an error stops the write
	// there. Tests crash there.
	before func(Step) error
}

// lockPoll is how often a lock that somebody else holds is tried.
const lockPoll = 5 * time.Millisecond

// New describes a file, whose lock is the file path + ".lock". It touches nothing.
// limit bounds the file's size in bytes.
func New(path string, limit int64, before func(Step) error) *File {
	if before == nil {
		before = func(Step) error { return nil }
	}
	return &File{path: path, lock: path + ".lock", max: limit, before: before}
}

// LockedBy returns the same file with its lock at another path.
func (f *File) LockedBy(path string) *File {
	g := *f
	g.lock = path
	return &g
}

// Path returns the file's path.
func (f *File) Path() string { return f.path }

// Read returns the content; a file that is not there is fs.ErrNotExist.
// Symbolic links, files that others can read, and folders in which others can
// replace them are refused with ErrUnsafe.
func (f *File) Read() (content []byte, err error) {
	err = whileInUse(inUse, func() (err error) {
		content, err = f.read()
		return err
	})
	return content, err
}

func (f *File) read() ([]byte, error) {
	info, err := os.Lstat(f.path)
	if err != nil {
		return nil, err
	}
	if err := CheckFolder(filepath.Dir(f.path)); err != nil {
		return nil, err
	}
	if err := f.checkFile(info); err != nil {
		return nil, err
	}
	file, err := openShared(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	opened, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, opened) {
		// Replaced by a rename in between, or by somebody else's link: the
		// permissions that count are those of what was opened.
		if err := f.checkFile(opened); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(file, f.max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > f.max {
		return nil, fmt.Errorf("%s has more than %d bytes", f.path, f.max)
	}
	return b, nil
}

func (f *File) checkFile(info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symbolic link, which others may redirect; put the file itself there", ErrUnsafe, f.path)
	case !mode.IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, f.path)
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s can be read or written by others (mode %#o); run: chmod 600 %s",
			ErrUnsafe, f.path, mode.Perm(), shellQuote(f.path))
	}
	return nil
}

// Write replaces the content: after it returns, the new content is on disk;
// after a crash at any moment, the old or the new content is there, whole.
func (f *File) Write(b []byte) (err error) {
	if int64(len(b)) > f.max {
		return fmt.Errorf("%d bytes are more than the %d that %s may have", len(b), f.max, f.path)
	}
	if err := f.prepareFolder(); err != nil {
		return err
	}
	if info, err := os.Lstat(f.path); err == nil {
		if err := f.checkFile(info); err != nil {
			return err
		}
	}
	f.sweep()
	if err := f.before(StepCreate); err != nil {
		return err
	}
	temp := f.tempPrefix() + rand.Text()
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // beside the caller's path, which is checked
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(temp)
		}
	}()
	if err := f.before(StepWrite); err != nil {
		return err
	}
	if _, err := file.Write(b); err != nil {
		return err
	}
	if err := f.before(StepSync); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := f.before(StepRename); err != nil {
		return err
	}
	if err := whileInUse(inUse, func() error { return replace(temp, f.path) }); err != nil {
		return err
	}
	return f.syncFolder()
}

func (f *File) syncFolder() error {
	// The rename has happened: from here on an error no longer means that the
	// old content is there.
	if err := f.before(StepSyncDir); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // only synced
	return dir.Sync()
}

// prepareFolder makes the folder, or refuses one in which others may replace
// the file.
func (f *File) prepareFolder() error { return prepare(filepath.Dir(f.path)) }

func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return CheckFolder(dir)
}

// CheckFolder refuses a folder in which others may replace files, by [ErrUnsafe].
func CheckFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%w: others may replace files in %s (mode %#o); run: chmod 700 %s",
			ErrUnsafe, dir, mode.Perm(), shellQuote(dir))
	}
	return nil
}

func (f *File) tempPrefix() string {
	dir, name := filepath.Split(f.path)
	return filepath.Join(dir, "."+name+".tmp-")
}

// sweep removes what crashed writers left. Only the holder of the lock writes,
// so nobody is using them.
func (f *File) sweep() {
	dir, prefix := filepath.Split(f.tempPrefix())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Lock takes the lock of the file, and waits for it as long as ctx allows. The kernel releases it when the process dies. The lock file
// stays: unlinking it would give two holders.
func (f *File) Lock(ctx context.Context) (unlock func(), err error) {
	if err := f.prepareFolder(); err != nil {
		return nil, err
	}
	if dir := filepath.Dir(f.lock); dir != filepath.Dir(f.path) {
		if err := prepare(dir); err != nil {
			return nil, err
		}
	}
	l := flock.New(f.lock, flock.SetPermissions(0o600))
	ok, err := l.TryLockContext(ctx, lockPoll)
	if err != nil {
		return nil, fmt.Errorf("the lock %s: %w", l.Path(), err)
	}
	if !ok {
		return nil, fmt.Errorf("the lock %s is held by another process", l.Path())
	}
	return func() { _ = l.Close() }, nil
}

// shellQuote makes a path safe to paste.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
