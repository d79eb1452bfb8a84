//go:build unix

package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lateSignal is a context that is not canceled, and whose check is followed by a signal.
type lateSignal struct {
	context.Context

	after func()
}

func (c lateSignal) Err() error {
	defer c.after()
	return c.Context.Err()
}

func TestSignalJustBeforeTheCommandRunsReachesIt(t *testing.T) {
	t.Parallel()

	path, err := exec.LookPath("sleep")
	require.NoError(t, err)
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGUSR2)
	defer signal.Stop(seen)
	ctx := lateSignal{t.Context(), func() {
		if assert.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR2)) {
			<-seen
		}
	}}
	a := &app{ctx: ctx, stdout: &outlet{to: io.Discard}, streams: streams{in: strings.NewReader(""), err: io.Discard}}
	err = a.runCommand(path, []string{"sleep", "5"}, nil)
	assert.Equal(t, exitStatusError(128+int(syscall.SIGUSR2)), err)
}
