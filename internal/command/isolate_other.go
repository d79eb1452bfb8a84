//go:build !unix

package command

import "os/exec"

// isolate does nothing. The context ends the program, but not the processes that
// it has started.
func isolate(*exec.Cmd) {}
