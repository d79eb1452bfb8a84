//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

// ignorePipe leaves it to the writes to say that nobody reads any more. The signal
// comes for sockets too as soon as it is listened to, and those break all the time.
func ignorePipe() { signal.Ignore(syscall.SIGPIPE) }
