package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// readyFile is there while a command serves, for scripts that wait for it.
type readyFile struct {
	flag, path string // path "" is none
	ours       func(text string) bool
	text       string
	own        fs.FileInfo
	gone       sync.Once
}

// newReadyFile looks whether the file may be written: what is there already must
// be what a killed run has left behind. ours knows the text of such files.
// Nothing is changed yet.
func newReadyFile(flag, path string, ours func(text string) bool) (*readyFile, error) {
	r := &readyFile{flag: flag, path: path, ours: ours}
	_, err := r.outdated()
	return r, err
}

// maxReadyFile is more than a ready file has.
const maxReadyFile = 4 << 10

// outdated reports whether a killed run has left the file behind. Any other file
// is an error.
func (r *readyFile) outdated() (bool, error) {
	if r.path == "" {
		return false, nil
	}
	info, err := os.Lstat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, failure("", "cannot look at %s: %v", r.path, cause(err))
	case !info.Mode().IsRegular():
		return false, usage("choose another name", "%s: %s exists and is not a regular file", r.flag, r.path)
	}
	f, err := os.Open(r.path)
	if err != nil {
		return false, failure("remove it, or choose another name", "%s: %s is there and cannot be read: %v", r.flag, r.path, cause(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReadyFile))
	if err != nil {
		return false, failure("remove it, or choose another name", "%s: %s is there and cannot be read: %v", r.flag, r.path, cause(err))
	}
	if !r.ours(string(text)) {
		return false, usage("choose another name, or remove the file if it is not needed",
			"%s: %s is there, and was not written by this command; it is left as it is", r.flag, r.path)
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
		return failure("remove it, or choose another name", "%s: %s is there from before and cannot be removed: %v", r.flag, r.path, cause(err))
	}
	return nil
}

// write says that the command serves. It replaces a file that was created in the
// meantime only if another run wrote it.
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
	r.own, _ = os.Lstat(r.path) // without, it is left
	return nil
}

// remove says that the command no longer serves. It leaves a file that was replaced or
// changed in the meantime.
func (r *readyFile) remove() {
	r.gone.Do(func() {
		if r.own != nil && r.untouched() {
			_ = os.Remove(r.path) // the next run reports what prevents it
		}
	})
}

// untouched reports whether the file is the one that was written. The number of
// a file that is gone is soon another's, which may say the same; and a clock that
// ticks coarsely tells no change at once.
func (r *readyFile) untouched() bool {
	now, err := os.Lstat(r.path)
	if err != nil || !os.SameFile(r.own, now) || !r.own.ModTime().Equal(now.ModTime()) {
		return false
	}
	text, err := os.ReadFile(r.path)
	return err == nil && string(text) == r.text
}
