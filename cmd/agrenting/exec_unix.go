//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded returns the signals that are passed on to the command. A signal that is ignored,
// such as SIGHUP under nohup, is left out, so that the command ignores it too. SIGINT and
// SIGTERM are always passed on, because this program catches them.
func forwarded() []os.Signal {
	return slices.DeleteFunc([]os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
	}, signal.Ignored)
}

// fromTerminal reports whether the command already got the signal: a terminal sends these
// signals to all processes in its foreground process group.
func fromTerminal(s os.Signal) bool {
	return (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) && inForeground()
}

// inForeground reports whether this process and its command are in the foreground process group
// of their terminal. Standard input may be a file all the same.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false // there is no terminal
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	own, oerr := unix.Getpgid(0)
	return err == nil && oerr == nil && group == own
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

// privateFile reports whether only the user of this process may have written a file.
func privateFile(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && info.Mode().Perm()&0o077 == 0
}
