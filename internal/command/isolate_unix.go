//go:build unix

package command

import (
	"os/exec"
	"syscall"
)

// isolate puts the program into its own process group, and makes the end of its context end
// the whole group. A shell script would not end the processes that it has started.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
