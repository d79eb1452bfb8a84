//go:build unix

package command

import (
	"os/exec"
	"syscall"
)

// isolate puts the program into its own process group, and has its context end the group: a
// shell script does not end what it has started.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
