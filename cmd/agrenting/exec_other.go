//go:build !unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// forwarded returns the signals that are caught while the command runs.
func forwarded() []os.Signal { return []os.Signal{os.Interrupt} }

// fromTerminal returns true: the console sends an interruption to the command itself.
func fromTerminal(os.Signal) bool { return true }

func endingSignal(*os.ProcessState) int { return 0 }

// readerGone reports whether the reader of the output has gone.
func readerGone(err error) bool {
	const brokenPipe, noData = syscall.Errno(109), syscall.Errno(232)
	return errors.Is(err, brokenPipe) || errors.Is(err, noData)
}

// diskFull reports whether a file could not be written because the disk is full.
func diskFull(err error) bool {
	const handleDiskFull, diskFull = syscall.Errno(39), syscall.Errno(112)
	return errors.Is(err, handleDiskFull) || errors.Is(err, diskFull)
}

// readOnlyDisk reports whether a disk cannot be written at all.
func readOnlyDisk(err error) bool {
	const writeProtect = syscall.Errno(19)
	return errors.Is(err, writeProtect)
}

// privateFile returns true: the access list of the folder controls who can write the file.
func privateFile(fs.FileInfo) bool { return true }
