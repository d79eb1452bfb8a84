//go:build unix

package sdktest

import "syscall"

// Stores refuse folders that the group may write to. With other values,
// [testing.T.TempDir] creates such folders.
func init() { syscall.Umask(0o022) } //nolint:gochecknoinits // before any test
