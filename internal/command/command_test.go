package command_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/command"
	"github.com/agrenting/agrenting-go/internal/secret"
)

const key = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"

// helper marks the first argument of a test binary that plays the program.
const helper = "helper:"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], helper) {
		play(strings.TrimPrefix(os.Args[1], helper), os.Args[2:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is what the programs of these tests do.
func play(what string, args []string) {
	switch what {
	case "print":
		_, _ = os.Stdout.WriteString(args[0])
	case "fail":
		_, _ = os.Stdout.WriteString(args[0])
		fmt.Fprint(os.Stderr, args[1])
		os.Exit(3)
	case "flood":
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("x", 4096)); err != nil {
				os.Exit(1)
			}
		}
	case "count": // leaves a file, and waits until it is told to print
		f, err := os.CreateTemp(args[0], "run")
		if err != nil {
			os.Exit(4)
		}
		_ = f.Close()
		hold(args[1])
		_, _ = os.Stdout.WriteString(key)
	case "hang":
		hold(args[0])
	case "child": // starts another process that holds the output open, and waits
		child := exec.Command(os.Args[0], helper+"hang", args[0])
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if child.Start() != nil {
			os.Exit(4)
		}
		if len(args) > 1 {
			_, _ = os.Stdout.WriteString(args[1])
			return
		}
		_ = child.Wait()
	case "environment":
		for _, name := range []string{"AGRENTING_API_KEY", "agrenting_api_key", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_SESSION_TOKEN", "AGRENTING_TEST_INHERITED"} {
			if _, ok := os.LookupEnv(name); ok {
				fmt.Fprint(os.Stderr, "has ", name, " ")
			}
		}
		os.Exit(5)
	case "input":
		if n, err := os.Stdin.Read(make([]byte, 1)); n == 0 && err != nil {
			_, _ = os.Stdout.WriteString(key)
		}
	}
}

// hold connects to the test, and returns when the test closes the connection.
func hold(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		os.Exit(6)
	}
	_, _ = conn.Read(make([]byte, 1))
}

// holder accepts the connections of programs that wait.
func holder(t *testing.T) (address string, accept func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String(), func() net.Conn {
		conn, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

func run(t *testing.T, what string, args ...string) *command.Command {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	return command.New(0, exe, append([]string{helper + what}, args...)...)
}

func TestCommand_output_isParsed(t *testing.T) {
	t.Parallel()
	end := time.Date(2099, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		output string
		kind   secret.Kind
		ends   bool
	}{
		"bare":                {key + "\r\n", secret.KindAPIKey, false},
		"bare user token":     {"ap_" + key + "\n", secret.KindUserToken, false},
		"byte order mark":     {"\xef\xbb\xbf" + key, secret.KindAPIKey, false},
		"agrenting":           {`{"url":"https://agrenting.com","kind":"api_key","header":"X-Api-Key","value":"KEY","secret":"KEY"}`, secret.KindAPIKey, false},
		"agrenting session":   {`{"kind":"session","expires":"2099-03-01T12:00:00Z","header":"Authorization","value":"Bearer KEY","secret":"KEY"}`, secret.KindSession, true},
		"agrenting user":      {`{"kind":"user_token","secret":"KEY"}`, secret.KindUserToken, false},
		"expiring key":        {`{"secret":"KEY","expires":"2099-03-01T12:00:00Z"}`, secret.KindAPIKey, true},
		"seconds since 1970":  {`{"api_key":"KEY","expires_at":4076049600}`, secret.KindAPIKey, true},
		"no expiry":           {`{"secret":"KEY","expires":null,"expiry":""}`, secret.KindAPIKey, false},
		"ExecCredential":      {`{"kind":"ExecCredential","status":{"token":"KEY","expirationTimestamp":"2099-03-01T12:00:00Z"}}`, secret.KindAPIKey, true},
		"envelope":            {`{"data":{"session_token":"KEY","expires_at":"2099-03-01T12:00:00Z"}}`, secret.KindSession, true},
		"OAuth":               {`{"access_token":"KEY","token_type":"Bearer"}`, secret.KindSession, false},
		"white space, nulls":  {" \n{\"secret\": null, \"token\": \"KEY\"}\n", secret.KindAPIKey, false},
		"kind of other value": {`{"secret":"KEY","kind":17}`, secret.KindAPIKey, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cred, err := run(t, "print", strings.ReplaceAll(tc.output, "KEY", key)).Credential(t.Context())
			require.NoError(t, err)
			assert.Equal(t, key, strings.TrimPrefix(cred.Reveal(), "ap_"))
			assert.Equal(t, tc.kind, cred.Kind())
			if tc.ends {
				assert.True(t, end.Equal(cred.Expires()), "%v", cred.Expires())
			} else {
				assert.Zero(t, cred.Expires())
			}
		})
	}
}

func TestCommand_expiresIn_isRelative(t *testing.T) {
	t.Parallel()
	before := time.Now()
	cred, err := run(t, "print", `{"access_token":"`+key+`","expires_in":3600}`).Credential(t.Context())
	require.NoError(t, err)
	assert.False(t, cred.Expires().Before(before.Add(time.Hour).Round(0)))
	assert.False(t, cred.Expires().After(time.Now().Add(time.Hour)))
}

func TestCommand_malformedOutput_isNotShown(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		output string
		is     error
		says   string
	}{
		"nothing":          {"", secret.ErrNoCredential, "printed nothing"},
		"blank":            {" \n", secret.ErrNoCredential, "printed nothing"},
		"two lines":        {key + "\n" + key, secret.ErrInvalidCredential, "the output of command"},
		"quoted":           {`"` + key + `"`, secret.ErrInvalidCredential, "is enclosed in"},
		"broken JSON":      {`{"secret":"` + key, secret.ErrInvalidCredential, "begins like JSON"},
		"no secret":        {`{"value":"` + key + `"}`, secret.ErrInvalidCredential, `no member "secret"`},
		"errors":           {`{"errors":["permission denied"]}`, secret.ErrInvalidCredential, `no member "secret"`},
		"number":           {`{"secret":12345}`, secret.ErrInvalidCredential, `no member "secret"`},
		"empty secret":     {`{"secret":""}`, secret.ErrInvalidCredential, `no member "secret"`},
		"empty object":     {`{}`, secret.ErrInvalidCredential, `no member "secret"`},
		"secret of spaces": {`{"secret":"` + key + ` ` + key + `"}`, secret.ErrInvalidCredential, `member "secret"`},
		"expiry":           {`{"secret":"` + key + `","expires":"tomorrow"}`, secret.ErrInvalidCredential, `member "expires" that is not a time`},
		"expiry type":      {`{"secret":"` + key + `","expires":{}}`, secret.ErrInvalidCredential, `member "expires" that is not a time`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := run(t, "print", tc.output).Credential(t.Context())
			require.ErrorIs(t, err, tc.is)
			assert.Equal(t, errors.Is(tc.is, secret.ErrNoCredential), errors.Is(err, secret.ErrNoCredential), "a chain passes over that")
			require.ErrorContains(t, err, tc.says)
			noLeak(t, err)
		})
	}
}

func noLeak(t *testing.T, err error) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, err)
		assert.NotContains(t, text, key)
		assert.NotContains(t, text, key[4:])
		assert.NotContains(t, text, helper, "arguments may be secrets")
	}
}

func TestCommand_failure_quotesStandardError(t *testing.T) {
	t.Parallel()
	_, err := run(t, "fail", "short-9x", "\x1b[31mcannot log in\nas "+key+", or short-9x").Credential(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, secret.ErrNoCredential)
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok)
	assert.Equal(t, 3, exit.ExitCode())
	require.ErrorContains(t, err, "exit status 3; it wrote: ")
	require.ErrorContains(t, err, "cannot log in as ")
	assert.NotContains(t, err.Error(), "short-9x", "it was printed to standard output")
	assert.NotContains(t, err.Error(), "\x1b")
	noLeak(t, err)
}

func TestCommand_standardError_quotesNoOutput(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ output, echo string }{
		"short words":      {"user:pw12345", "user:pw12345"},
		"short line":       {"pw1234\n", "pw1234"},
		"second line":      {"# key\r\n  a,b:c-d 12 \r\n", "a,b:c-d 12"},
		"in JSON":          {`{"secret":"user:pw12345"}`, "user:pw12345"},
		"after other ones": {strings.Repeat("otherword ", 200) + "\nuser:pw12345", "user:pw12345"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := run(t, "fail", tc.output, "cannot use } "+tc.echo+" now").Credential(t.Context())
			require.ErrorContains(t, err, "it wrote: cannot use } [redacted] now")
		})
	}
}

func TestCommand_longStandardError_isCut(t *testing.T) {
	t.Parallel()
	_, err := run(t, "fail", "", strings.Repeat("cannot log in, ", 1<<11)).Credential(t.Context())
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 4<<10)
	require.ErrorContains(t, err, "cannot log in, cannot log in")
}

func TestCommand_endlessOutput_isRefused(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	require.NoError(t, err)
	_, err = command.New(time.Hour, exe, helper+"flood").Credential(t.Context())
	require.ErrorIs(t, err, secret.ErrInvalidCredential)
	assert.ErrorContains(t, err, "more than 65536 bytes")
}

func TestCommand_missingProgram_isNoCredential(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{
		"": secret.ErrNoCredential, "agrenting-no-such-program": exec.ErrNotFound,
		filepath.Join(t.TempDir(), "missing"): fs.ErrNotExist,
	} {
		_, err := command.New(0, name, key).Credential(t.Context())
		require.ErrorIs(t, err, secret.ErrNoCredential, name)
		require.ErrorIs(t, err, want, name)
		noLeak(t, err)
	}
	_, err := command.New(0, key).Credential(t.Context())
	require.Error(t, err)
	noLeak(t, err)
}

func TestCommand_unusableProgram_isNotPassedOver(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("any file may be a program")
	}
	file := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600))
	for path, want := range map[string]error{file: fs.ErrPermission, t.TempDir(): nil, filepath.Join(file, "x"): nil} {
		_, err := command.New(0, path, key).Credential(t.Context())
		require.Error(t, err)
		require.NotErrorIs(t, err, secret.ErrNoCredential)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
		noLeak(t, err)
	}
}

func TestCommand_shellSyntax_isNotInterpreted(t *testing.T) {
	t.Parallel()
	_, err := run(t, "print", "$(echo "+key+")").Credential(t.Context())
	require.ErrorIs(t, err, secret.ErrInvalidCredential)
}

func TestCommand_environment_hasNoCredential(t *testing.T) {
	for _, name := range []string{"AGRENTING_API_KEY", "agrenting_api_key", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_SESSION_TOKEN"} {
		t.Setenv(name, "env-secret")
	}
	t.Setenv("AGRENTING_TEST_INHERITED", "inherited")
	_, err := run(t, "environment").Credential(t.Context())
	require.ErrorContains(t, err, "it wrote: has AGRENTING_TEST_INHERITED")
}

func TestCommand_standardInput_isEmpty(t *testing.T) {
	t.Parallel()
	cred, err := run(t, "input").Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, key, cred.Reveal())
}

func TestCommand_concurrentCallers_shareOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address, accept := holder(t)
	c := run(t, "count", dir, address)
	impatient, leave := context.WithCancelCause(t.Context())
	reason := errors.New("no longer wanted")
	left := make(chan error, 1)
	go func() {
		_, err := c.Credential(impatient)
		left <- err
	}()
	conn := accept() // the program runs
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			cred, err := c.Credential(t.Context())
			if assert.NoError(t, err) {
				assert.Equal(t, key, cred.Reveal())
			}
		})
	}
	for c.Waiters() < 21 {
		runtime.Gosched()
	}
	leave(reason)
	require.ErrorIs(t, <-left, reason, "a canceled caller leaves the run to the others")
	require.NoError(t, conn.Close())
	callers.Wait()
	runs, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, runs, 1)

	go func() { _ = accept().Close() }()
	_, err = c.Credential(t.Context())
	require.NoError(t, err)
	runs, err = os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, runs, 2, "the result is not kept")
}

// counted starts a program that counts its runs and prints key, and a caller that waits for it.
func counted(t *testing.T) (*command.Command, func() net.Conn, <-chan error, func() int) {
	t.Helper()
	dir := t.TempDir()
	address, accept := holder(t)
	c := run(t, "count", dir, address)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Credential(t.Context())
		ended <- err
	}()
	return c, accept, ended, func() int {
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(files)
	}
}

func TestCommand_refreshDuringRun_runsAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rejected string
		runs     int
	}{
		"prints the rejected one": {key, 2},
		"prints another":          {"rejected", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, accept, first, runs := counted(t)
			conn := accept() // it began before the rejection
			refreshed := make(chan error, 1)
			go func() {
				cred, err := c.Refresh(t.Context(), secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: tc.rejected}))
				assert.Equal(t, key, cred.Reveal())
				refreshed <- err
			}()
			for c.Waiters() < 2 {
				runtime.Gosched()
			}
			if tc.runs == 2 {
				go func() { _ = accept().Close() }()
			}
			require.NoError(t, conn.Close())
			require.NoError(t, <-first)
			require.NoError(t, <-refreshed)
			assert.Equal(t, tc.runs, runs())
		})
	}
}

func TestCommand_refreshAlone_runsOnce(t *testing.T) {
	t.Parallel()
	c, accept, first, runs := counted(t)
	_ = accept().Close()
	require.NoError(t, <-first)
	go func() { _ = accept().Close() }()
	cred, err := c.Refresh(t.Context(), secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: key}))
	require.NoError(t, err)
	assert.Equal(t, key, cred.Reveal())
	assert.Equal(t, 2, runs(), "the run began after the rejection")
}

// gone waits until the process at the other end has ended.
func gone(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the process lives")
}

func TestCommand_canceled_endsTheProcess(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"hang", "child"} {
		if what == "child" && runtime.GOOS == "windows" {
			continue // what the program has started is not ended
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			address, accept := holder(t)
			c := run(t, what, address)
			ctx, cancel := context.WithCancelCause(t.Context())
			reason := errors.New("no longer wanted")
			ended := make(chan error, 1)
			go func() {
				_, err := c.Credential(ctx)
				ended <- err
			}()
			conn := accept()
			cancel(reason)
			require.ErrorIs(t, <-ended, reason)
			gone(t, conn)
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fs.ErrClosed)
	_, err := run(t, "print", key).Credential(ctx)
	require.ErrorIs(t, err, fs.ErrClosed)
}

func TestCommand_timeout_namesTheCommand(t *testing.T) {
	t.Parallel()
	address, _ := holder(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	c := command.New(50*time.Millisecond, exe, helper+"hang", address)

	_, err = c.Credential(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "did not end within 50ms")
	assert.ErrorContains(t, err, filepath.Base(exe))
}

func TestCommand_processLeftBehind_doesNotBlock(t *testing.T) {
	t.Parallel()
	address, accept := holder(t)
	cred, err := run(t, "child", address, key).Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, key, cred.Reveal())
	_ = accept().Close()
}
