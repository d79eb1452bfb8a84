//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// forwarded are the signals that a command gets from us.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
}

// fromTerminal reports whether the command has had the signal already: a
// terminal sends these to the whole group.
func fromTerminal(s os.Signal, terminal bool) bool {
	return terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH)
}

// endingSignal is the signal that ended a process, 0 for none.
func endingSignal(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return int(w.Signal())
	}
	return 0
}

// readerGone reports whether the reader of the output has gone.
func readerGone(err error) bool { return errors.Is(err, syscall.EPIPE) }
