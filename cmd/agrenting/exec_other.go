//go:build !unix

package main

import "os"

// forwarded are the signals that a command gets from us. The console gives an
// interruption to the command itself.
var forwarded = []os.Signal{os.Interrupt}

func fromTerminal(os.Signal, bool) bool { return true }

func endingSignal(*os.ProcessState) int { return 0 }
