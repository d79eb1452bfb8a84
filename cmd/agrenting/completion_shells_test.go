//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shellSession is an interactive shell at a pseudo-terminal.
type shellSession struct {
	t      *testing.T
	tty    *os.File
	output chan []byte
	seen   bytes.Buffer
}

// startShell starts a shell without its configuration in a folder with the files "afile" and
// "a:file" and the folders "afolder" and "a:folder". .ci/run makes sure that all shells exist.
func startShell(t *testing.T, name string, args ...string) *shellSession {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s; .ci/run shells installs it", name)
	}
	dir := t.TempDir()
	for _, prefix := range []string{"a", "a:"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, prefix+"file"), nil, 0o600))
		require.NoError(t, os.Mkdir(filepath.Join(dir, prefix+"folder"), 0o700))
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=dumb", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	require.NoError(t, err)
	s := &shellSession{t: t, tty: tty, output: make(chan []byte, 1024)}
	go func() {
		defer close(s.output)
		for {
			b := make([]byte, 4096)
			n, err := tty.Read(b)
			s.output <- b[:n]
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = tty.Close()
	})
	return s
}

// typed types and waits until all of want have appeared since.
func (s *shellSession) typed(text string, want ...string) string {
	s.t.Helper()
	s.seen.Reset()
	_, err := s.tty.WriteString(text)
	require.NoError(s.t, err)
	timeout := time.After(30 * time.Second)
	for _, w := range want {
		for !strings.Contains(s.seen.String(), w) {
			select {
			case b, ok := <-s.output:
				require.True(s.t, ok, "the shell has ended: %q", s.seen.String())
				s.seen.Write(b)
			case <-timeout:
				s.t.Fatalf("after %q, %q does not appear: %q", text, w, s.seen.String())
			}
		}
	}
	return s.seen.String()
}

// ready runs commands and waits for the prompt after them.
func (s *shellSession) ready(commands string) {
	s.t.Helper()
	s.typed(commands+"; PS1='go''> '\n", "go> ")
}

const eraseLine = "\x15" // Ctrl-U

func TestCompletionInBash(t *testing.T) {
	t.Parallel()

	s := startShell(t, "bash", "--norc", "--noprofile", "-i")
	s.ready("source <(agrenting completion bash); bind 'set bell-style none'; bind 'set enable-bracketed-paste off'")
	s.typed("agrenting keys ro\t", "rotate ")
	s.typed("--strategy=o\t", "=overlap ")
	s.typed("--key-file=afi\t", "afile ")
	s.typed("--store afo\t", "afolder")
	s.typed(eraseLine, "")
	text := s.typed("agrenting keys \t\t", "create ", "Create a key for an agent", "rotate ", "go> ")
	assert.NotContains(t, text, "afile")
	s.typed(eraseLine, "")
	s.typed("agrenting exec agrent\t", "agrenting ")
	s.typed(eraseLine, "")
	s.typed("agrenting request --url=http://h:80 DEL\t", "DELETE ")
	s.typed(eraseLine, "")
	s.typed("agrenting exec --url http://h:80 --key-f\t", "--key-file ")
	s.typed("a:fi\t", "a:file ")
	s.typed("--store=a:fo\t", "=a:folder")
	s.typed(eraseLine, "")
	s.typed("agrenting proxy --listen=:80 --log=js\t", "=json ")
}

func TestCompletionInZsh(t *testing.T) {
	t.Parallel()

	const file = `mkdir fns; agrenting completion zsh > fns/_agrenting; fpath=($PWD/fns $fpath); autoload -Uz compinit; compinit -u -D`
	for name, setup := range map[string]string{
		"fpath":            file,
		"without compinit": `source <(agrenting completion zsh)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startShell(t, "zsh", "-f", "-i")
			s.ready("unsetopt beep zle_bracketed_paste; unset zle_bracketed_paste; " + setup)
			s.typed("agrenting keys ro\t", "rotate ") // the first Tab
			s.typed("--strategy=o\t", "=overlap ")
			s.typed("--key-file=afi\t", "=afile ")
			s.typed("--store afo\t", "afolder")
			s.typed(eraseLine, "")
			text := s.typed("agrenting keys \t", "create ", "-- Create a key for an agent", "rotate ", "-- Replace")
			assert.NotContains(t, text, "afile")
		})
	}
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()

	path, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("there is no fish; .ci/run shells installs it")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "afile"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "afolder"), 0o700))
	for line, want := range map[string]string{
		"agrenting keys ": "create\tCreate a key for an agent\nlist\tList the keys of an agent\n" +
			"revoke\tRevoke a key of an agent immediately\nrotate\tReplace the key in use\n",
		"agrenting keys revoke ":             "",
		"agrenting keys rotate --strategy=o": "--strategy=overlap\n",
		"agrenting keys rotate --strategy o": "overlap\n",
		"agrenting whoami --key-file afi":    "afile\n",
		"agrenting whoami --key-file=afi":    "--key-file=afile\n",
		"agrenting doctor --off":             "--offline\tCheck only the configuration, without calls to the platform\n",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), path, "--no-config", "-c", `agrenting completion fish | source; complete -C "`+line+`"`)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=dumb", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
			out, err := cmd.Output()
			require.NoError(t, err)
			assert.Equal(t, want, string(out))
		})
	}
}
