//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

// ignorePipe ignores SIGPIPE, so that a write returns an error if the reader has
// left. Once a program listens to that signal, it also gets it for sockets, which
// break here all the time.
func ignorePipe() { signal.Ignore(syscall.SIGPIPE) }
