//go:build unix

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is this example in a separate process, which ends with the test. Its
// temporary files are in folder.
func program(t *testing.T, folder string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+folder)
	return cmd
}

// TestInterruptDuringCrashEndsPromptly interrupts while no process has a
// live key, and the lease on the rotation has seconds left.
func TestInterruptDuringCrashEndsPromptly(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cmd := program(t, folder, "-duration", "1s")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	var lines []string
	var interrupted time.Time
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
		// This line comes when the scene has been on for a while.
		if interrupted.IsZero() && strings.Contains(s.Text(), " failed  in place: the process is killed") {
			interrupted = time.Now()
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	_ = cmd.Wait() // its state is looked at
	text := strings.Join(lines, "\n")
	require.False(t, interrupted.IsZero(), text)
	assert.Less(t, time.Since(interrupted), 4*time.Second)
	assert.Equal(t, 130, cmd.ProcessState.ExitCode())
	assert.Equal(t, "rotation: interrupted\n", errs.String())
	assert.Regexp(t, `(?m)^in place: the process is killed.* ms, interrupted$`, text)
	assert.Contains(t, text, " 0 failed\n")
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestASecondInterruptEndsItAtOnce blocks the cleanup: the output of the program
// is not read.
func TestASecondInterruptEndsItAtOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.NoError(t, w.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = w.Write(make([]byte, 1<<20)) // more than any pipe holds
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	cmd := program(t, folder)
	cmd.Stdout = w
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its state is looked at
	}()

	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(folder)
		return err == nil && len(entries) > 0
	}, 10*time.Second, 5*time.Millisecond, "it has not begun")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	select {
	case <-ended:
		t.Fatalf("the first interrupt has ended it without its summary: %v", cmd.ProcessState)
	case <-time.After(500 * time.Millisecond):
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
	cmd := program(t, folder, "-duration", "1s")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, out.Close())
	_ = cmd.Wait() // its state is looked at
	assert.Equal(t, 130, cmd.ProcessState.ExitCode(), cmd.ProcessState)
	assert.Equal(t, "rotation: interrupted\n", errs.String())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}
