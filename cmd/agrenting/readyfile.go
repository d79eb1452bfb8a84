package main

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// readyFile is there while a command serves, for scripts that wait for it.
type readyFile struct {
	path string // "" is none
	text string
	own  fs.FileInfo
	gone sync.Once
}

// newReadyFile takes the place of the file: whoever waits for it must not find
// the one that a killed run has left behind.
func newReadyFile(flag, path string) (*readyFile, error) {
	r := &readyFile{path: path}
	if path == "" {
		return r, nil
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return nil, failure("", "cannot look at %s: %v", path, cause(err))
	case !info.Mode().IsRegular():
		return nil, usage("choose another name", "%s: %s is there and is no regular file", flag, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure("remove it, or choose another name", "%s: %s is there from before and cannot be removed: %v", flag, path, cause(err))
	}
	return r, nil
}

// write says that the command serves.
func (r *readyFile) write(text string) error {
	if r.path == "" {
		return nil
	}
	if err := writeFile(r.path, text); err != nil {
		return err
	}
	r.text = text + "\n"
	r.own, _ = os.Lstat(r.path) // without, it is left
	return nil
}

// remove says that the command serves no longer. A file that somebody else has
// put there or changed meanwhile is left.
func (r *readyFile) remove() {
	r.gone.Do(func() {
		if r.own != nil && r.untouched() {
			_ = os.Remove(r.path) // the next run tells what is in its way
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
