//go:build !unix

package main

import (
	"os"
	"syscall"
)

var endings = []os.Signal{os.Interrupt, syscall.SIGTERM}

func outliveReader() {}
