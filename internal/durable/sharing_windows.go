package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const (
	errSharingViolation = syscall.Errno(32)
	errDeletePending    = syscall.Errno(303)
)

// inUse reports whether an error may be due to another process having the file
// open. Windows returns "access denied" for a rename that would replace an open
// file, so an operation that is really forbidden is also tried again.
func inUse(err error) bool {
	return errors.Is(err, syscall.ERROR_ACCESS_DENIED) || errors.Is(err, errSharingViolation) ||
		errors.Is(err, errDeletePending)
}

// openShared opens a file for reading so that it can be replaced while it is
// open. os.Open does not allow that; the files of an os.Root do.
func openShared(path string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read
	file, err := root.Open(filepath.Base(path))
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return nil, &os.PathError{Op: "open", Path: path, Err: e.Err}
	}
	return file, err
}

// replace renames a file within its folder. Unlike os.Rename, the rename of an
// os.Root succeeds while the replaced file is open, except on old file systems.
func replace(from, to string) error {
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing was written to the folder itself
	err = root.Rename(filepath.Base(from), filepath.Base(to))
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: e.Err}
	}
	return err
}
