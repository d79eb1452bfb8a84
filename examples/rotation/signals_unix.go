//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endings are the signals that end the example in good order; a reader that has
// gone is one of them.
var endings = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}

// outliveReader is for what is to be done after the end: the Ctrl-C that ended
// this may have ended who reads it, and there is a folder to remove.
func outliveReader() { signal.Ignore(syscall.SIGPIPE) }
