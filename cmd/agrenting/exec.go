package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

type execCmd struct {
	Credential bool     `help:"Hand the credential itself over, in AGRENTING_API_KEY, instead of a session."`
	Var        string   `placeholder:"NAME" help:"The variable to hand it over in; AGRENTING_SESSION_TOKEN by default."`
	Keep       bool     `help:"Leave the session alive when the command has ended."`
	Command    []string `arg:"" passthrough:"" help:"The command and its arguments, behind --."`
}

// Exit codes of a command that could not be run, as shells have them.
const (
	codeNotExecutable = 126
	codeNoCommand     = 127
)

// Run runs a command. It passes on the command's exit code, and its signals.
func (c *execCmd) Run(a *app) error {
	args := c.Command
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return usage("agrenting exec -- command argument…", "there is no command")
	}
	if err := c.checkVar(); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := codeNotExecutable // a folder, for example
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = codeNoCommand
		}
		return &cliError{code: code, kind: "command", msg: "cannot run " + visible(args[0]) + ": " + cause(errors.Unwrap(err)).Error()}
	}
	cred, exchanged, err := c.obtain(a)
	if err != nil {
		return err
	}
	if c.Var == varSession && cred.Kind() != agrenting.KindSession {
		return usage("omit --credential, or choose another --var", "--var %s is for sessions, and this is not a session (%s)", varSession, cred.Kind())
	}
	if exchanged && !c.Keep {
		defer func() {
			if err := a.end(cred); err != nil {
				a.ui.note("the session could not be ended: %s", textOf(err))
			}
		}()
	}
	return a.runCommand(path, args, c.environment(a, cred))
}

// variableName is a name that shells know as that of a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// meansSomethingElse has variables that a credential would do harm in: those of
// the SDK that hold none, and those by which programs are found, loaded and run.
var meansSomethingElse = regexp.MustCompile(`(?i)^(AGRENTING_(URL|ENV|AGENT_ID|KEY_FILE|CREDENTIAL_TYPE|UNMARKED_SANDBOX_TOKENS)|` +
	`PATH|PATHEXT|COMSPEC|SYSTEMROOT|HOME|USERPROFILE|USER|LOGNAME|SHELL|PWD|OLDPWD|IFS|ENV|BASH_ENV|TERM|TZ|LANG|TMPDIR|TMP|TEMP|` +
	`(HTTP|HTTPS|ALL|NO)_PROXY|(LC|LD|DYLD)_.*|_)$`)

func (c *execCmd) checkVar() error {
	switch {
	case c.Var == "":
		return nil
	case !variableName.MatchString(c.Var):
		return usage("it is letters, digits and underscores, and begins with no digit", "--var is not the name of a variable")
	case meansSomethingElse.MatchString(c.Var):
		return usage("choose another name", "--var %s: this variable has another meaning", c.Var)
	default:
		return nil
	}
}

// obtain returns the credential to hand over. exchanged reports whether it is a session
// that was obtained for this command.
func (c *execCmd) obtain(a *app) (cred agrenting.Credential, exchanged bool, err error) {
	client, err := a.client()
	if err != nil {
		return cred, false, err
	}
	defer client.Close()
	cred, err = client.Credential(a.ctx)
	a.noteStore(client)
	if err != nil || c.Credential || cred.Kind() == agrenting.KindSession {
		return cred, false, err
	}
	stop := a.waiting("exchanging the key for a session")
	session, err := client.Sessions.Authenticate(a.ctx)
	stop()
	if err != nil {
		if cred.Kind() == agrenting.KindUserToken && errors.Is(err, agrenting.ErrForbidden) {
			return cred, false, &cliError{
				code: codeRefused, kind: "forbidden", err: err,
				msg: "a user token cannot be exchanged for a session", hint: "hand it over itself by --credential",
			}
		}
		return cred, false, err
	}
	return session.Credential, true, nil
}

// noteStore says that a command runs without its store, which could not be written or read.
func (a *app) noteStore(client *agrenting.Client) {
	if err := client.Status().StoreError; err != nil && a.Store != "" {
		a.ui.note("--store %s cannot be used, and the command runs without it: %s", a.Store, textOf(err))
	}
}

// environment is that of the command: the one credential, and no other secret
// of the platform.
func (c *execCmd) environment(a *app, cred agrenting.Credential) []string {
	env := slices.DeleteFunc(slices.Clone(a.environ()), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return secretVariable(name)
	})
	set := func(name, value string) {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	for _, v := range []struct{ name, flag string }{{varURL, a.URL}, {varEnv, a.Env}, {varAgentID, a.Agent}} {
		if v.flag != "" {
			set(v.name, v.flag)
		}
	}
	name := c.Var
	if name == "" {
		name = varAPIKey
		if cred.Kind() == agrenting.KindSession {
			name = varSession
		}
	}
	if name == varAPIKey || name == varSandboxKey { // the name does not say it
		set(varType, kindName(cred.Kind()))
	}
	if unmarked(cred) && ascii.EqualFold(a.env(varEnv), string(agrenting.Sandbox)) {
		// The token bears no mark, so that the command's SDK would refuse it. This
		// one has checked the key that it was obtained with, or was notified.
		if name == varAPIKey || name == varSandboxKey || name == varSession {
			set(varUnmarked, unmarkedAllowed)
		} else {
			set(varEnv, "") // the variable answers for the SDK's own variables only
		}
	}
	set(name, cred.Reveal())
	return env
}

// unmarked reports whether a token has no mark that shows another process
// which environment it belongs to. Keys without a mark are production keys.
func unmarked(c agrenting.Credential) bool {
	switch c.Kind() {
	case agrenting.KindSession:
		return agrenting.SessionToken(c.Reveal(), noTime).Environment() == "" // an exchanged one knows its key's
	case agrenting.KindUserToken:
		return c.Environment() == ""
	default:
		return false
	}
}

// secretVariable reports whether a variable may hold a secret of the platform,
// or leads to one.
func secretVariable(name string) bool {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "AGRENTING_") {
		return false
	}
	for _, word := range []string{"KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func (a *app) runCommand(path string, args, env []string) error {
	// An interruption is the command's to answer.
	cmd := exec.CommandContext(context.WithoutCancel(a.ctx), path, args[1:]...) // #nosec G204 -- running it is what was asked for
	cmd.Args[0] = args[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.stdout.to, a.err
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := a.ctx.Err(); err != nil { // checked last: later signals are passed on
		return err
	}
	if err := cmd.Start(); err != nil {
		return &cliError{code: codeNotExecutable, kind: "command", msg: "cannot run " + visible(args[0]) + ": " + cause(err).Error()}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s, isTerminal(a.in)) {
				_ = cmd.Process.Signal(s) // it may have ended in the meantime
			}
		case err := <-done:
			return statusOf(cmd, err)
		}
	}
}

// statusOf is the command's exit code, 128 and the signal if one ended it.
func statusOf(cmd *exec.Cmd, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return failure("", "the command's output could not be passed on: %v", cause(err))
	}
	if s := endingSignal(cmd.ProcessState); s > 0 {
		return exitStatusError(128 + s)
	}
	return exitStatusError(cmd.ProcessState.ExitCode())
}
