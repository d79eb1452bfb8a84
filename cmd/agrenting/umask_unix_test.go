//go:build unix

package main

import "syscall"

// Stores refuse folders that the group may write to, as t.TempDir creates them under other
// values.
func init() { syscall.Umask(0o022) } //nolint:gochecknoinits // before any test
