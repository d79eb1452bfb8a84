//go:build unix

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program runs this example in a separate process, which ends with the test. Its
// temporary files are in folder.
func program(t *testing.T, folder string, stdout *os.File) (*exec.Cmd, *bytes.Buffer, <-chan struct{}) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd, errs := exec.CommandContext(t.Context(), self), &bytes.Buffer{}
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+folder)
	cmd.Stderr = errs
	if stdout != nil {
		cmd.Stdout = stdout
	}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its state is looked at
	}()
	return cmd, errs, ended
}

// TestAnInterruptWhileEtcdStartsIsPrompt: a member that is not ready would look
// for one that it can hand over to, until its requests time out.
func TestAnInterruptWhileEtcdStartsIsPrompt(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cmd, errs, ended := program(t, folder, nil)
	require.Eventually(t, func() bool {
		logs, _ := filepath.Glob(filepath.Join(folder, "fleet*", "*", "*", "member", "wal"))
		return len(logs) == 3
	}, 20*time.Second, 5*time.Millisecond, "the members do not start")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the program continues")
	}
	assert.Equal(t, 130, cmd.ProcessState.ExitCode())
	assert.Equal(t, "fleet: interrupted\n", errs.String())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestASecondInterruptEndsItAtOnce blocks the cleanup: the output of the program
// is not read.
func TestASecondInterruptEndsItAtOnce(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	cmd, _, ended := program(t, t.TempDir(), w)
	_, err = bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	go func() { _, _ = w.Write(make([]byte, 1<<20)) }() // more than any pipe holds; ends with r
	pause(t.Context(), 200*time.Millisecond)

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	select {
	case <-ended:
		t.Fatalf("the first interrupt has ended it without its sum: %v", cmd.ProcessState)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the second interrupt was swallowed")
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	assert.True(t, status.Signaled() && status.Signal() == syscall.SIGINT, cmd.ProcessState)
}

func TestItCleansUpWhenItsReaderIsGone(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd, errs, ended := program(t, folder, w)
	require.NoError(t, w.Close())
	_, err = bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, r.Close())
	<-ended
	assert.Equal(t, 130, cmd.ProcessState.ExitCode(), cmd.ProcessState)
	assert.Equal(t, "fleet: interrupted\n", errs.String())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// The program runs to its end without an interrupt, with its own signals.
func TestTheProgramRunsToItsEnd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	cmd, errs, ended := program(t, folder, out)
	select {
	case <-ended:
	case <-time.After(90 * time.Second):
		t.Fatal("it does not end")
	}
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.Zero(t, cmd.ProcessState.ExitCode(), "%s\n%s", errs, text)
}
