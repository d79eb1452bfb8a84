package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

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
	warn   func(text string) // may be nil
}

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

// Warning returns the same file, with warn called about what is accepted and could be
// safer.
func (f *File) Warning(warn func(text string)) *File {
	g := *f
	g.warn = warn
	return &g
}

// Path returns the file's path.
func (f *File) Path() string { return f.path }

// Read returns the content. The error matches [fs.ErrNotExist] if there is no file, and
// [ErrUnsafe] if the file is not regular, belongs to another user, or can be opened by
// other users, and if they can replace it, see [CheckFolder].
func (f *File) Read() (content []byte, err error) {
	err = whileInUse(inUse, func() (err error) {
		content, err = f.read()
		return err
	})
	return content, err
}

func (f *File) read() ([]byte, error) {
	if err := CheckFolder(filepath.Dir(f.path), f.warn); err != nil {
		return nil, err
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return nil, err
	}
	if err := checkFile(f.path, info); err != nil {
		return nil, err
	}
	file, err := openShared(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()                      //nolint:errcheck // only read
	if err := checkOpen(file); err != nil { // it may have been replaced since
		return nil, err
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

// Write replaces the content: after it returns, the new content is on disk;
// after a crash at any moment, the old or the new content is there, whole.
func (f *File) Write(b []byte) (err error) {
	if int64(len(b)) > f.max {
		return fmt.Errorf("%d bytes are more than the %d that %s may have", len(b), f.max, f.path)
	}
	if err := f.prepareFolder(); err != nil {
		return err
	}
	if err := checkFileAt(f.path); err != nil {
		return err
	}
	f.sweep()
	if err := f.before(StepCreate); err != nil {
		return err
	}
	temp := f.tempPrefix() + rand.Text()
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // #nosec G304 -- beside the caller's path, which is checked
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(temp)
		}
	}()
	if err := checkOpen(file); err != nil {
		return err
	}
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
	if err := closeSynced(file); err != nil {
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

// closeSynced closes a file that has been synced. A close that a signal interrupts has
// closed it.
func closeSynced(file io.Closer) error {
	if err := file.Close(); !errors.Is(err, syscall.EINTR) {
		return err
	}
	return nil
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

// checkOpen is [checkFile] for what was opened. Also a file that was just created is
// checked: some file systems give all files to one user, or let others read them.
func checkOpen(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return checkFile(file.Name(), info)
}

// prepareFolder creates the folder, or refuses one in which others may replace the file.
func (f *File) prepareFolder() error { return f.prepare(filepath.Dir(f.path)) }

// prepare creates nothing below a folder that is refused.
func (f *File) prepare(dir string) error {
	err := CheckFolder(dir, f.warn)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return CheckFolder(dir, f.warn)
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
