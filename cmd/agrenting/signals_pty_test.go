//go:build unix

package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func (r *rotating) environment() []string {
	return []string{
		"AGRENTING_URL=" + r.srv.URL, "AGRENTING_API_KEY=" + r.key.Secret, "AGRENTING_AGENT_ID=" + r.agent.ID,
		"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
}

// appears waits for a file.
func appears(t *testing.T, path string) {
	t.Helper()
	require.Eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, 20*time.Second, 5*time.Millisecond)
}

func TestHangupEndsTheSessionOfExec(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.CommandContext(t.Context(), "agrenting", "exec", "--", "sh", "-c", `: > "$0"; exec sleep 60`, ready)
	cmd.Env = r.environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	appears(t, ready)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.Error(t, cmd.Wait())
	assert.Equal(t, 128+int(syscall.SIGHUP), cmd.ProcessState.ExitCode(), out.String())
	assert.Equal(t, 1, r.srv.Count("DELETE /api/v1/auth/logout"), out.String())
}

// Under nohup, neither the program nor its command ends.
func TestIgnoredHangupStaysIgnoredInExec(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.CommandContext(t.Context(), "sh", "-c",
		`trap '' HUP; exec agrenting exec -- sh -c 'kill -HUP $$; : > "$0"; exec sleep 60' "$0"`, ready)
	cmd.Env = r.environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	appears(t, ready)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	assert.Equal(t, 128+int(syscall.SIGTERM), cmd.ProcessState.ExitCode(), out.String())
}

// A terminal that closes often causes two hangups.
func TestSecondHangupDoesNotCutProxy(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		first, second syscall.Signal
		code          int
	}{
		"two hangups":            {syscall.SIGHUP, syscall.SIGHUP, codeOK},
		"hangup after interrupt": {syscall.SIGINT, syscall.SIGHUP, codeOK},
		"interrupt after hangup": {syscall.SIGHUP, syscall.SIGINT, -1}, // it ends at once
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, dir := newRotating(t), t.TempDir()
			arrived, held := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			t.Cleanup(release)
			r.srv.Handle("GET /slow", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				close(arrived)
				<-held
			}))
			cmd := exec.CommandContext(t.Context(), "agrenting", "proxy", "--session", "--ready-file", "ready", "--admin", "unix:admin")
			cmd.Env, cmd.Dir = r.environment(), dir
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			require.NoError(t, cmd.Start())
			ready, admin := filepath.Join(dir, "ready"), filepath.Join(dir, "admin")
			appears(t, ready)
			at, err := os.ReadFile(ready)
			require.NoError(t, err)
			answered := make(chan error, 1)
			go func() {
				resp, err := http.Get(strings.TrimSpace(string(at)) + "/slow") //nolint:forbidigo // loopback
				if err == nil {
					err = resp.Body.Close()
				}
				answered <- err
			}()
			<-arrived
			require.NoError(t, cmd.Process.Signal(c.first))
			require.Eventually(t, func() bool { _, err := os.Stat(ready); return err != nil }, 20*time.Second, 5*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(c.second))
			if c.code == codeOK {
				release()
			}
			_ = cmd.Wait()
			assert.Equal(t, c.code, cmd.ProcessState.ExitCode(), out.String())
			if c.code == codeOK {
				require.NoError(t, <-answered)
				assert.Equal(t, 1, r.srv.Count("DELETE /api/v1/auth/logout"), out.String())
				assert.NoFileExists(t, admin)
			}
		})
	}
}

// The signal comes before the command runs.
func TestHangupDuringExchangePreventsExec(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/authenticate", agrentingtest.Delay(time.Minute))
	ran := filepath.Join(t.TempDir(), "ran")
	cmd := exec.CommandContext(t.Context(), "agrenting", "exec", "--", "touch", ran)
	cmd.Env = r.environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return r.srv.Count("POST /api/v1/auth/authenticate") == 1 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.Error(t, cmd.Wait())
	assert.Equal(t, codeInterrupted, cmd.ProcessState.ExitCode(), out.String())
	assert.NoFileExists(t, ran)
}

func TestHangupEndsTheSandboxInOrder(t *testing.T) {
	t.Parallel()

	env := filepath.Join(t.TempDir(), "env")
	cmd := exec.CommandContext(t.Context(), "agrenting", "sandbox", "--env-file", env)
	cmd.Env = []string{"GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	require.NoError(t, cmd.Start())
	appears(t, env)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cmd.Wait())
	assert.NoFileExists(t, env)
}

// A killed command leaves the files that the next run needs.
func TestKilledCreationIsRepeatedByTheSameCommand(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		sig  os.Signal
		code int
	}{
		"kill": {syscall.SIGKILL, -1}, "hangup": {syscall.SIGHUP, codeInterrupted}, "interrupt": {os.Interrupt, codeInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t)
			// The first attempt has created a key. The second is in progress.
			r.srv.Fault("POST /api/v1/agents/{id}/credentials", agrentingtest.DropAfter(), agrentingtest.Delay(time.Minute))
			key := filepath.Join(folder(t), "key")
			args := []string{"keys", "create", "--name", "robot", "--out", key}
			cmd := exec.CommandContext(t.Context(), "agrenting", args...)
			cmd.Env = r.environment()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool { return r.srv.Count("POST /api/v1/agents/{id}/credentials") == 2 }, 20*time.Second, 5*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(c.sig))
			require.Error(t, cmd.Wait())
			assert.Equal(t, c.code, cmd.ProcessState.ExitCode(), out.String())
			if c.code == codeInterrupted {
				assert.Contains(t, out.String(), "interrupted; it is not known whether the key was created; repeat the same command within 23 h")
			}
			assert.Len(t, r.srv.LiveKeys(r.agent.ID), 2)

			text, code := terminal(t, r.srv, r.key.Secret, []string{"AGRENTING_AGENT_ID=" + r.agent.ID}, "", "", args...)
			assert.Equal(t, codeOK, code, text)
			assert.Len(t, r.srv.LiveKeys(r.agent.ID), 2, "no second key")
			secret, err := os.ReadFile(key)
			require.NoError(t, err)
			assert.True(t, r.srv.KeyAlive(strings.TrimSpace(string(secret))))
			assert.NoFileExists(t, key+pendingSuffix)
		})
	}
}
