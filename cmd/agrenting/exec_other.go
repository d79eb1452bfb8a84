//go:build !unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// forwarded are the signals that a command gets from us. The console gives an
// interruption to the command itself.
var forwarded = []os.Signal{os.Interrupt}

func fromTerminal(os.Signal, bool) bool { return true }

func endingSignal(*os.ProcessState) int { return 0 }

// readerGone reports whether the reader of the output has gone.
func readerGone(err error) bool {
	const brokenPipe, noData = syscall.Errno(109), syscall.Errno(232)
	return errors.Is(err, brokenPipe) || errors.Is(err, noData)
}
