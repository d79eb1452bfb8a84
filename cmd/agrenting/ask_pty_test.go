//go:build unix

package main

import (
	"context"
	"io"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestCredentialPrompt(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	const prompt = "Credential (not shown): "
	for name, c := range map[string]struct {
		env    []string
		args   []string
		answer string
		code   int
		want   string
	}{
		"flag":     {nil, []string{"whoami", "--key-file", "-"}, key.Secret + "\n", codeOK, "standard input"},
		"return":   {nil, []string{"whoami", "--key-file", "-"}, key.Secret + "\r", codeOK, "standard input"},
		"variable": {[]string{"AGRENTING_KEY_FILE=-"}, []string{"whoami"}, key.Secret + "\n", codeOK, "standard input"},
		"wrong":    {nil, []string{"whoami", "--key-file", "-"}, "wrong-key-0011223344\n", codeRefused, "revoked"},
		"nothing":  {nil, []string{"whoami", "--key-file", "-"}, "\n", codeCredential, "standard input is empty"},
		"end":      {nil, []string{"whoami", "--key-file", "-"}, "\x04", codeCredential, "standard input is empty"},
		"Ctrl-C":   {nil, []string{"whoami", "--key-file", "-"}, "half\x03", codeInterrupted, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := terminal(t, srv, "key-of-the-environment", append(c.env, "NO_COLOR=1"), prompt, c.answer, c.args...)
			assert.Equal(t, c.code, code, out)
			assert.Contains(t, out, c.want)
			for _, secret := range []string{key.Secret, "wrong-key", "half"} {
				assert.NotContains(t, out, secret)
			}
		})
	}
}

func TestCtrlCEndsReadOfBody(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	for _, args := range [][]string{{"--input", "-"}, {"-F", "x=@-"}} {
		out, code := terminal(t, srv, "made-up-key", nil, "reading the body", "\x03", append([]string{"request", "POST", "/api/v1/x"}, args...)...)
		assert.Equal(t, codeInterrupted, code, out)
	}
	assert.Empty(t, srv.Requests())
}

// Opening a pipe without a writer blocks.
func TestCanceledRunEndsRead(t *testing.T) {
	t.Parallel()

	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	for name, read := range map[string]func(a *app) error{
		"named pipe":     func(a *app) error { _, err := a.read(pipe); return err },
		"standard input": func(a *app) error { _, err := a.read("-"); return err },
		"credential":     func(a *app) error { _, err := a.credentialFromInput(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			a := &app{ctx: ctx, streams: streams{in: r, lookup: func(string) (string, bool) { return "", false }}}
			done := make(chan error, 1)
			go func() { done <- read(a) }()
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
		})
	}
}
