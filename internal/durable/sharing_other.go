//go:build !windows

package durable

import "os"

// inUse reports false: on these systems, files can be replaced while they are open.
func inUse(error) bool { return false }

func openShared(path string) (*os.File, error) { return os.OpenFile(path, openFlags, 0) } // #nosec G304 -- the caller checks the path

func replace(from, to string) error { return os.Rename(from, to) }
