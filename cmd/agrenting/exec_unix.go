//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
)

// forwarded are the signals that are passed on to the command.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
}

// fromTerminal reports whether the command already got the signal: a terminal sends these
// signals to the whole process group.
func fromTerminal(s os.Signal, terminal bool) bool {
	return terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH)
}

// endingSignal returns the signal that ended a process, or 0.
func endingSignal(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return int(w.Signal())
	}
	return 0
}

// readerGone reports whether the reader of the output has gone.
func readerGone(err error) bool { return errors.Is(err, syscall.EPIPE) }

// diskFull reports whether a file could not be written because the disk is full.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// readOnlyDisk reports whether a disk cannot be written at all.
func readOnlyDisk(err error) bool { return errors.Is(err, syscall.EROFS) }

// endings are the signals that end a command in an orderly way: an interruption, and
// the end of the terminal, unless nohup disabled that.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// privateFile reports whether only the user of this process may have written a file.
func privateFile(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o077 == 0
}
