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

// Step names an operation of Write before which a crash may occur. The constants are in
// the order of execution.
type Step string

// The steps of a write.
const (
	StepCreate  Step = "create"
	StepWrite   Step = "write"
	StepSync    Step = "sync"
	StepRename  Step = "rename"
	StepSyncDir Step = "sync folder"
)

// File is one file with mode 0600 in a folder with mode 0700. Read may be called at any
// time, Write only while the caller holds the lock.
type File struct {
	path string
	lock string
	max  int64
	// before, if set, is called before each step. An error stops the write at that step.
	// Tests simulate crashes with it.
	before func(Step) error
	warn   func(text string) // may be nil
}

// New describes a file. Its lock is the file path + ".lock". New does not access the
// file system. limit bounds the file's size in bytes.
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

// Warning returns the same file. warn is called about what is accepted but could be
// safer.
func (f *File) Warning(warn func(text string)) *File {
	g := *f
	g.warn = warn
	return &g
}

// Path returns the file's path.
func (f *File) Path() string { return f.path }

// Read returns the content. The error matches [fs.ErrNotExist] if the file does not
// exist. It matches [ErrUnsafe] if the file is not regular, belongs to another user, or
// can be opened or replaced by other users; see [CheckFolder].
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
	if err := checkOpen(file); err != nil { // the file may have been replaced since the check
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

// Write replaces the content. When it returns, the new content is on disk. After a crash
// at any moment, the file has either the old or the new content, complete.
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

// closeSynced closes a file that has been synced. If a signal interrupts the close, the
// file is closed all the same.
func closeSynced(file io.Closer) error {
	if err := file.Close(); !errors.Is(err, syscall.EINTR) {
		return err
	}
	return nil
}

func (f *File) syncFolder() error {
	// The rename has happened. After this point, an error does not mean that the old
	// content is still there.
	if err := f.before(StepSyncDir); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced on Windows
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // only synced
	return dir.Sync()
}

// checkOpen is [checkFile] for an open file. A file that was just created is checked,
// too: some file systems give all files to one user, or let other users read them.
func checkOpen(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return checkFile(file.Name(), info)
}

// prepareFolder creates the folder, or returns an error if other users may replace files
// in it.
func (f *File) prepareFolder() error { return f.prepare(filepath.Dir(f.path)) }

// prepare creates nothing below a folder that it refuses.
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

// sweep removes temporary files of writers that have crashed. Only the holder of the
// lock writes, so no process uses them.
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
