package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// asCommand is the first argument of a test binary that plays the command of a CommandSource.
const asCommand = "play-command"

var _ = playCommand()

// playCommand prints the content of a file, and counts in its folder how often it ran.
func playCommand() bool {
	if len(os.Args) < 3 || os.Args[1] != asCommand {
		return false
	}
	b, err := os.ReadFile(os.Args[2])
	if err != nil {
		fmt.Fprint(os.Stderr, "no secret: sk_live_Zq7Wm3Xp9Rt5Kv2Ln8Yd4")
		os.Exit(7)
	}
	if f, err := os.CreateTemp(filepath.Dir(os.Args[2]), "run"); err == nil {
		_ = f.Close()
	}
	if len(os.Args) > 3 { // it has read, and waits until the test closes the connection
		if conn, err := net.Dial("tcp", os.Args[3]); err == nil {
			_, _ = conn.Read(make([]byte, 1))
		}
	}
	_, _ = os.Stdout.Write(b)
	os.Exit(0)
	return true
}

// printer is a source whose command prints what a file has. An address has it wait in between.
func printer(tb testing.TB, more ...string) (src agrenting.CredentialSource, file string, runs func() int) {
	tb.Helper()
	exe, err := os.Executable()
	require.NoError(tb, err)
	dir := tb.TempDir()
	file = filepath.Join(dir, "output")
	return agrenting.CommandSource(exe, append([]string{asCommand, file}, more...)...), file, func() int {
		names, err := filepath.Glob(filepath.Join(dir, "run*"))
		require.NoError(tb, err)
		return len(names)
	}
}

func write(tb testing.TB, file, content string) {
	tb.Helper()
	require.NoError(tb, os.WriteFile(file, []byte(content), 0o600))
}

func TestCommandSource_deadKey_runsTheCommandAgain(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	first, second := srv.NewKey(agent.ID), srv.NewKey(agent.ID)
	src, file, runs := printer(t)
	write(t, file, first.Secret+"\n")
	c := sdktest.ClientOf(t, srv, agrenting.WithCredentialSource(src))
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() { assert.NoError(t, list(t, c)) })
	}
	callers.Wait()
	assert.Equal(t, 1, runs(), "all callers wait for one process")
	assert.Contains(t, c.Status().Source, "WithCredentialSource: CommandSource(")

	write(t, file, `{"kind":"api_key","secret":"`+second.Secret+`"}`)
	srv.RevokeKey(first.ID)
	require.NoError(t, list(t, c))
	assert.Equal(t, 2, runs())
	assert.Equal(t, agrenting.APIKey(second.Secret).Fingerprint(), c.Status().Fingerprint)
}

// asked is a context that reports that the source waits for it.
type asked struct {
	context.Context
	waits chan struct{}
}

func (a asked) Done() <-chan struct{} {
	select {
	case a.waits <- struct{}{}:
	default:
	}
	return a.Context.Done()
}

func TestCommandSource_rejectionDuringRun_runsAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	release := func() {
		if conn, err := l.Accept(); assert.NoError(t, err) {
			_ = conn.Close()
		}
	}
	command, file, runs := printer(t, l.Addr().String())
	src, ok := agrenting.Chain(agrenting.RefreshEvery(command, time.Minute)).(agrenting.Refresher)
	require.True(t, ok)
	write(t, file, "k1")
	go release()
	k1, err := src.Credential(t.Context())
	require.NoError(t, err)

	other := make(chan error, 1)
	go func() {
		_, err := src.Credential(t.Context())
		other <- err
	}()
	conn, err := l.Accept() // the program has read k1
	require.NoError(t, err)
	write(t, file, "k2")
	ctx, fresh := asked{t.Context(), make(chan struct{}, 1)}, make(chan string, 1)
	go func() {
		c, err := src.Refresh(ctx, k1)
		assert.NoError(t, err)
		fresh <- c.Reveal()
	}()
	<-ctx.waits
	go release()
	require.NoError(t, conn.Close())
	require.NoError(t, <-other)
	assert.Equal(t, "k2", <-fresh)
	assert.Equal(t, 3, runs())
}

func TestCommandSource_failure_reachesTheCaller(t *testing.T) {
	t.Parallel()
	src, _, _ := printer(t)
	c := sdktest.ClientOver(t, new(sdktest.Recorder), src, agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1}))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, 7, exit.ExitCode())
	require.ErrorContains(t, err, "exit status 7; it wrote: no secret: ")
	sdktest.AssertNoSecret(t, fmt.Sprintf("%v %+v %#v", err, err, err), "sk_live_Zq7Wm3Xp9Rt5Kv2Ln8Yd4")
	assert.NotContains(t, err.Error(), asCommand, "arguments may be secrets")
}

func TestCommandSource_prints_withoutArguments(t *testing.T) {
	t.Parallel()
	assert.Equal(t, `agrenting.CommandSource("vault")`, fmt.Sprint(agrenting.CommandSource("vault", "sk_live_1")))
}

func TestCommandSource_canceled_isReturnedAtOnce(t *testing.T) {
	t.Parallel()
	src, file, _ := printer(t)
	write(t, file, "k1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := src.Credential(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// list makes one call.
func list(t *testing.T, c *agrenting.Client) error {
	t.Helper()
	_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	return err
}
