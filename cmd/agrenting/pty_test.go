//go:build unix

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// terminal runs the program in a pseudo-terminal. It types the answer once the prompt
// appears.
func terminal(t *testing.T, srv *agrentingtest.Server, key string, env []string, prompt, answer string, args ...string) (output string, code int) {
	t.Helper()
	var turns []turn
	if prompt != "" {
		turns = []turn{{prompt: prompt, answer: answer}}
	}
	return converse(t, srv, key, env, turns, args...)
}

// A turn types the answer and then calls a function, which may be nil, once the prompt is there.
type turn struct {
	prompt, answer string
	then           func()
}

// converse is terminal with several turns, which are taken in their order.
func converse(t *testing.T, srv *agrentingtest.Server, key string, env []string, turns []turn, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "agrenting", args...)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TERM=xterm", "AGRENTING_URL=" + srv.URL, "AGRENTING_API_KEY=" + key, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}, env...)
	return interact(t, cmd, turns)
}

// interact runs a command in a pseudo-terminal.
func interact(t *testing.T, cmd *exec.Cmd, turns []turn) (output string, code int) {
	t.Helper()
	f, err := pty.Start(cmd)
	require.NoError(t, err)
	defer f.Close()
	out := make(chan string, 1)
	var seen bytes.Buffer
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			seen.Write(b[:n])
			for len(turns) > 0 && strings.Contains(seen.String(), turns[0].prompt) {
				_, _ = f.WriteString(turns[0].answer)
				if turns[0].then != nil {
					turns[0].then()
				}
				turns = turns[1:]
			}
			if err != nil { // EIO on Linux when the other side has gone
				out <- seen.String()
				return
			}
		}
	}()
	err = cmd.Wait()
	select {
	case output = <-out:
	case <-time.After(20 * time.Second):
		t.Fatal("the terminal does not end")
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return output, e.ExitCode()
	}
	require.NoError(t, err)
	return output, 0
}

// progress matches the progress of a slow call, which is erased at its end.
var progress = regexp.MustCompile("\r\x1b\\[K(?:[^\r\n]* … \\d+ s(?:\x1b\\[0m)?)?")

// withoutProgress is the output as it remains: on a slow machine every call may show progress.
func withoutProgress(output string) string { return progress.ReplaceAllString(output, "") }

func TestWithoutProgress(t *testing.T) {
	t.Parallel()

	const drawn = "\r\x1b[K\x1b[2mreading … 0 s\x1b[0m\r\x1b[K\x1b[2mreading … 1 s\x1b[0m\r\x1b[K"
	assert.Equal(t, "a\r\nb\x1b[1mc\x1b[0m 3 s\r\n", withoutProgress("a\r\n"+drawn+"b\x1b[1mc\x1b[0m 3 s\r\n"))
	assert.Equal(t, "name\r\n", withoutProgress("\r\x1b[Kreading … 0 s\r\x1b[Kname\r\n"))
}

func TestOnATerminal(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key, spare := srv.NewKey(agent.ID), srv.NewKey(agent.ID)
	revoke := []string{"keys", "revoke", spare.ID, "--of", agent.ID}
	const prompt = "[y/N]"

	out, code := terminal(t, srv, key.Secret, nil, prompt, "n\n", revoke...)
	assert.Equal(t, codeFailure, code, out)
	assert.Contains(t, out, "Revoke the key ("+spare.ID)
	assert.NotContains(t, out, "itself uses")
	assert.Contains(t, out, "canceled; nothing was changed")
	assert.Contains(t, out, "\x1b[", "the output is colored")
	assert.True(t, srv.KeyAlive(spare.Secret))

	out, code = terminal(t, srv, key.Secret, nil, prompt, "\n", revoke...)
	assert.Equal(t, codeFailure, code, out)

	out, code = terminal(t, srv, key.Secret, nil, prompt, "\x03", revoke...)
	assert.Equal(t, codeInterrupted, code, out)
	assert.True(t, srv.KeyAlive(spare.Secret))

	out, code = terminal(t, srv, key.Secret, []string{"NO_COLOR=1"}, prompt, "yes\n", revoke...)
	assert.Equal(t, codeOK, code, out)
	assert.NotContains(t, withoutProgress(out), "\x1b[")
	assert.False(t, srv.KeyAlive(spare.Secret))

	out, code = terminal(t, srv, key.Secret, nil, "", "", "doctor")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "\x1b[32mok")
	out, code = terminal(t, srv, key.Secret, []string{"TERM=dumb"}, "", "", "doctor")
	assert.Equal(t, codeOK, code, out)
	assert.NotContains(t, withoutProgress(out), "\x1b[")
}

// The terminal sends Ctrl-C to a command in the foreground, and exec to one in the background.
func TestInterruptReachesCommandOnce(t *testing.T) {
	t.Parallel()

	// exec is stopped while the terminal sends the signal, so that two signals do not become one.
	const command = `agrenting exec -- sh -c '
trap "n=\$((n+1)); echo got \$n" INT
[ -n "$BACKGROUND" ] || kill -STOP $PPID
echo ready
i=0; while [ -z "$n" ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done
kill -CONT $PPID
sleep 0.5; exit ${n:-0}'`
	for name, c := range map[string]struct{ script, answer string }{
		"foreground":       {"exec " + command, "\x03"},
		"input from file":  {"exec " + command + " < /dev/null", "\x03"},
		"background group": {"export BACKGROUND=1; set -m; " + command + " & read line; kill -INT $!; wait $!", "go\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t)
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.script)
			cmd.Env = append(r.environment(), "TERM=xterm")
			out, code := interact(t, cmd, []turn{{prompt: "ready", answer: c.answer}})
			assert.Equal(t, 1, code, out)
			assert.Contains(t, out, "got 1")
			assert.NotContains(t, out, "got 2")
		})
	}
}

func TestSlowCallsShowProgress(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(agent.ID)
	srv.Fault("GET /api/v1/agents", agrentingtest.Delay(1500*time.Millisecond))
	out, code := terminal(t, srv, key.Secret, nil, "", "", "agents", "list")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "reading the list of agents …")
	assert.Contains(t, out, "Scribe")
}

// TestProgressUsesOneRow checks that progress has only one row, since a terminal erases only
// the last row.
func TestProgressUsesOneRow(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	srv.Fault("GET *", agrentingtest.Delay(1500*time.Millisecond))
	out, code := terminal(t, srv, key.Secret, []string{"NO_COLOR=1"}, "", "", "request", "GET", "/api/v1/"+strings.Repeat("long/", 40))
	assert.Equal(t, codeNotFound, code, out)
	rows := strings.Split(out, "\r\x1b[K")
	require.Greater(t, len(rows), 2, out)
	for _, row := range rows[1 : len(rows)-1] {
		assert.LessOrEqual(t, utf8.RuneCountInString(row), 79, row)
		assert.Regexp(t, `^waiting for GET /api/v1/long/.* … \d s$`, row)
	}
}

func TestShownSecretOnATerminal(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(agent.ID)
	create := []string{"keys", "create", agent.ID, "--name", "robot", "--show"}
	env := []string{"NO_COLOR=1"}
	out, code := terminal(t, srv, key.Secret, env, "", "", create...)
	assert.Equal(t, codeOK, code, out)
	assert.Regexp(t, `(?m)^name +robot\r?$`, withoutProgress(out))
	assert.Regexp(t, `(?m)^secret +[0-9a-f]{40}\r?$`, withoutProgress(out))
	out, code = terminal(t, srv, key.Secret, env, "", "", append(create, "--quiet")...)
	assert.Equal(t, codeOK, code, out)
	assert.Regexp(t, `^[0-9a-f]{40}\r?\n$`, out)
}

func TestRemedyIsOnSeparateLineOnTerminal(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	env := []string{"NO_COLOR=1"}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"usage":  {[]string{"keys", "rotat"}, codeUsage, `^agrenting: [^\r\n;]+\r?\n-> see agrenting keys --help\r?\n$`},
		"call":   {[]string{"agents", "mine"}, codeRefused, `^agrenting: [^\r\n;]*403[^\r\n;]*\r?\n-> only users can do this: [^\r\n]+\r?\n$`},
		"secret": {[]string{"keys", "create", "x"}, codeUsage, `^agrenting: the platform shows the secret only once\r?\n-> add --out FILE to keep it, or --show to print it\r?\n$`},
		"JSON":   {[]string{"keys", "create", "x", "--json"}, codeUsage, `"hint": "add --out FILE`},
		"child":  {[]string{"exec", "--", "sh", "-c", "exit 9"}, 9, `^$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := terminal(t, srv, key.Secret, env, "", "", c.args...)
			assert.Equal(t, c.code, code, out)
			assert.Regexp(t, c.want, withoutProgress(out))
		})
	}
	out, _ := terminal(t, srv, key.Secret, nil, "", "", "keys", "create", "x")
	assert.Contains(t, out, "\x1b[33m-> add --out FILE")
}

func TestHelpUsesTheWidthOfTheTerminal(t *testing.T) {
	t.Parallel()

	for _, columns := range []uint16{60, 110} {
		cmd := exec.CommandContext(t.Context(), "agrenting", "request", "--help")
		cmd.Env = []string{"TERM=xterm", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
		f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: columns})
		require.NoError(t, err)
		out, _ := io.ReadAll(f) // EIO on Linux when the other side has gone
		require.NoError(t, cmd.Wait())
		_ = f.Close()
		text, _, _ := strings.Cut(string(out), "Examples:")
		widest := 0
		for line := range strings.Lines(text) {
			widest = max(widest, utf8.RuneCountInString(strings.TrimRight(line, "\r\n")))
		}
		assert.LessOrEqual(t, widest, int(columns), text)
		assert.Greater(t, widest, int(columns)-20, text)
	}
}

func TestCredentialOnATerminal(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	out, code := terminal(t, srv, key.Secret, nil, "", "", "credential")
	assert.Equal(t, codeOK, code, out)
	assert.NotContains(t, out, key.Secret)
	assert.Contains(t, out, `"header": "X-Api-Key"`)
	assert.Contains(t, out, "only to a pipe or a file, or with --show")
	out, code = terminal(t, srv, key.Secret, nil, "", "", "credential", "--show")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, `"secret": "`+key.Secret+`"`)
}
