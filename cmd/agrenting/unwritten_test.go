//go:build unix

package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// TestClosedPipeShowsOnlyImportantMessages checks that a reader such as head ends a command
// silently, unless a secret is lost.
func TestClosedPipeShowsOnlyImportantMessages(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(agent.ID)
	unread := func(args ...string) (stderr string, err error) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close())
		defer w.Close()
		cmd := exec.CommandContext(t.Context(), "agrenting", args...)
		cmd.Env = []string{
			"AGRENTING_URL=" + srv.URL, "AGRENTING_API_KEY=" + key.Secret, "AGRENTING_AGENT_ID=" + agent.ID,
			"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		}
		var errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = w, &errs
		err = cmd.Run()
		return errs.String(), err
	}

	text, err := unread("agents", "list")
	e, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, err)
	assert.Equal(t, int(syscall.SIGPIPE), endingSignal(e.ProcessState), text)
	assert.Empty(t, text)

	text, err = unread("keys", "create", "--show")
	e, ok = errors.AsType[*exec.ExitError](err)
	require.True(t, ok, err)
	assert.Equal(t, codeFailure, e.ExitCode(), text)
	assert.Contains(t, text, "was created, but its secret is lost: standard output could not be written: broken pipe; revoke it with")
}

// TestClosedPipeDoesNotEndServices checks that a lost line of the log does not end a service.
func TestClosedPipeDoesNotEndServices(t *testing.T) {
	t.Parallel()

	for name, args := range map[string][]string{
		"proxy":   {"--session", "--log", "text", "--ready-file", "up"},
		"sandbox": {"--env-file", "up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world, dir := newRotating(t), t.TempDir()
			r, w, err := os.Pipe()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), "agrenting", append([]string{name}, args...)...)
			cmd.Env, cmd.Dir = world.environment(), dir
			cmd.Stdout, cmd.Stderr = w, w
			require.NoError(t, cmd.Start())
			require.NoError(t, w.Close())
			up := filepath.Join(dir, "up")
			appears(t, up)
			require.NoError(t, r.Close())
			for range 2 {
				if name == "sandbox" { // it writes when it ends
					break
				}
				at, err := os.ReadFile(up)
				require.NoError(t, err)
				resp, err := http.Get(strings.TrimSpace(string(at)) + "/api/v1/agents") //nolint:forbidigo // loopback
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, http.StatusOK, resp.StatusCode)
			}
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, cmd.Wait())
			assert.NoFileExists(t, up)
			if name == "proxy" {
				assert.Equal(t, 1, world.srv.Count("DELETE /api/v1/auth/logout"))
			}
		})
	}
}

// full is a writer that fails with a given error.
type full struct{ err error }

func (f full) Write([]byte) (int, error) { return 0, f.err }

// TestClosedPipeIsNotAnErrorWithIgnoredSignals covers services that were started with
// SIGPIPE ignored.
func TestClosedPipeIsNotAnErrorWithIgnoredSignals(t *testing.T) {
	t.Parallel()

	for err, want := range map[error]int{syscall.EPIPE: codeOK, syscall.EIO: codeFailure} {
		var errs strings.Builder
		code := run(t.Context(), []string{"version"}, streams{
			in: strings.NewReader(""), out: full{&os.PathError{Op: "write", Path: "/dev/stdout", Err: err}}, err: &errs,
			lookup: func(string) (string, bool) { return "", false }, environ: func() []string { return nil },
		})
		assert.Equal(t, want, code, err)
		if want == codeOK {
			assert.Empty(t, errs.String())
		} else {
			assert.Equal(t, "agrenting: standard output could not be written: input/output error\n", errs.String())
		}
	}
}
