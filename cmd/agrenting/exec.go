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
	Credential bool     `help:"Pass the credential itself, in AGRENTING_API_KEY, instead of a session."`
	Var        string   `placeholder:"NAME" help:"The variable that gets the credential; AGRENTING_SESSION_TOKEN by default."`
	Keep       bool     `help:"Do not end the session when the command has ended."`
	Command    []string `arg:"" passthrough:"" help:"The command and its arguments, after --."`
}

// Exit codes of a command that could not be run, as in shells.
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
		return usage("use agrenting exec -- command argument…", "no command specified")
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
		return usage("omit --credential, or choose another --var", "--var %s requires a session, but the kind of the credential is %s", varSession, cred.Kind())
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

// variableName matches a name that shells accept for a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// meansSomethingElse matches variables that must not hold a credential: those of the SDK for
// other settings, and those that control how programs are found, loaded, and run.
var meansSomethingElse = regexp.MustCompile(`(?i)^(AGRENTING_(URL|ENV|AGENT_ID|KEY_FILE|CREDENTIAL_TYPE|UNMARKED_SANDBOX_TOKENS)|` +
	`PATH|PATHEXT|COMSPEC|SYSTEMROOT|HOME|USERPROFILE|USER|LOGNAME|SHELL|PWD|OLDPWD|IFS|ENV|BASH_ENV|TERM|TZ|LANG|TMPDIR|TMP|TEMP|` +
	`(HTTP|HTTPS|ALL|NO)_PROXY|(LC|LD|DYLD)_.*|_)$`)

func (c *execCmd) checkVar() error {
	switch {
	case c.Var == "":
		return nil
	case !variableName.MatchString(c.Var):
		return usage("use letters, digits, and underscores, and do not begin with a digit", "--var is not a valid name of a variable")
	case meansSomethingElse.MatchString(c.Var):
		return usage("choose another name", "--var %s is reserved", c.Var)
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
				msg: "a user token cannot be exchanged for a session", hint: "pass the token itself with --credential",
			}
		}
		return cred, false, err
	}
	return session.Credential, true, nil
}

// noteStore reports that a command runs without its store, which could not be read or written.
func (a *app) noteStore(client *agrenting.Client) {
	if err := client.Status().StoreError; err != nil && a.Store != "" {
		a.ui.note("--store %s cannot be used, and the command runs without it: %s", a.Store, textOf(err))
	}
}

// environment returns the environment of the command: with the one credential, and without any
// other secret of the platform.
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
	if name == varAPIKey || name == varSandboxKey { // the name does not indicate the kind
		set(varType, kindName(cred.Kind()))
	}
	if unmarked(cred) && ascii.EqualFold(a.env(varEnv), string(agrenting.Sandbox)) {
		// The token has no mark, so the command's SDK would refuse it. This program has checked
		// the key that the token was obtained with, or a flag or variable allows the token.
		if name == varAPIKey || name == varSandboxKey || name == varSession {
			set(varUnmarked, unmarkedAllowed)
		} else {
			set(varEnv, "") // AGRENTING_UNMARKED_SANDBOX_TOKENS covers only the SDK's own variables
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
		return agrenting.SessionToken(c.Reveal(), noTime).Environment() == "" // the credential of an exchange has the environment of its key
	case agrenting.KindUserToken:
		return c.Environment() == ""
	default:
		return false
	}
}

// secretVariable reports whether a variable may hold a secret of the platform or name a file
// that does.
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
	// The command itself handles an interruption.
	cmd := exec.CommandContext(context.WithoutCancel(a.ctx), path, args[1:]...) // #nosec G204 -- running it is what was asked for
	cmd.Args[0] = args[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.stdout.to, a.err
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
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
			if !fromTerminal(s) {
				_ = cmd.Process.Signal(s) // the command may have ended in the meantime
			}
		case err := <-done:
			return statusOf(cmd, err)
		}
	}
}

// statusOf returns the exit code of the command: 128 plus the signal if a signal ended it.
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
