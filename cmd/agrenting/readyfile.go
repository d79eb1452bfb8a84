package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// readyFile is a file that exists while a command serves, for scripts that wait for it.
type readyFile struct {
	flag, path string // path "" is none
	ours       func(text string) bool
	text       string
	own        fs.FileInfo
	gone       sync.Once
}

// newReadyFile checks whether the file may be written: an existing file must be one that a killed
// run left. ours reports whether a text is that of such a file. newReadyFile changes nothing.
func newReadyFile(flag, path string, ours func(text string) bool) (*readyFile, error) {
	r := &readyFile{flag: flag, path: path, ours: ours}
	_, err := r.outdated()
	return r, err
}

// maxReadyFile is larger than any ready file, in bytes.
const maxReadyFile = 4 << 10

// outdated reports whether a killed run left the file. Any other file is an error.
func (r *readyFile) outdated() (bool, error) {
	if r.path == "" {
		return false, nil
	}
	info, err := os.Lstat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, failure("", "cannot check %s: %v", r.path, cause(err))
	case !info.Mode().IsRegular():
		return false, usage("choose another name", "%s: %s exists and is not a regular file", r.flag, r.path)
	}
	f, err := os.Open(r.path)
	if err != nil {
		return false, failure("remove it, or choose another name", "%s: %s exists and cannot be read: %v", r.flag, r.path, cause(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReadyFile))
	if err != nil {
		return false, failure("remove it, or choose another name", "%s: %s exists and cannot be read: %v", r.flag, r.path, cause(err))
	}
	if !r.ours(string(text)) {
		return false, usage("choose another name, or remove the file if it is not needed",
			"%s: %s exists, and was not written by this command; it was not changed", r.flag, r.path)
	}
	return true, nil
}

// clear removes the file of a killed run, so that a process that waits for the file does
// not find it. It is called before the command listens, after the flags were checked.
func (r *readyFile) clear() error {
	stale, err := r.outdated()
	if err != nil || !stale {
		return err
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failure("remove it, or choose another name", "%s: %s is left from an earlier run and cannot be removed: %v", r.flag, r.path, cause(err))
	}
	return nil
}

// write creates the file to show that the command serves. It replaces a file that was created in
// the meantime only if another run wrote it.
func (r *readyFile) write(text string) error {
	if r.path == "" {
		return nil
	}
	if err := r.clear(); err != nil {
		return err
	}
	if err := writeFile(r.path, text); err != nil {
		return err
	}
	r.text = text + "\n"
	r.own, _ = os.Lstat(r.path) // on an error, the file is not removed at the end
	return nil
}

// remove removes the file to show that the command no longer serves. It keeps a file that was
// replaced or changed in the meantime.
func (r *readyFile) remove() {
	r.gone.Do(func() {
		if r.own != nil && r.untouched() {
			_ = os.Remove(r.path) // the next run reports what prevents it
		}
	})
}

// untouched reports whether the file is the one that was written. The identity alone is not
// enough, because a new file may get the inode number of a removed file. The time is not enough
// either, because coarse clocks do not show quick changes.
func (r *readyFile) untouched() bool {
	now, err := os.Lstat(r.path)
	if err != nil || !os.SameFile(r.own, now) || !r.own.ModTime().Equal(now.ModTime()) {
		return false
	}
	text, err := os.ReadFile(r.path)
	return err == nil && string(text) == r.text
}
