package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/itchyny/gojq"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/cli"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

// streams are the parts of the process that a run uses.
type streams struct {
	in       io.Reader
	out, err io.Writer
	lookup   func(string) (string, bool)
	environ  func() []string
}

// globals are the flags that every command accepts.
type globals struct {
	URL      string        `name:"url" placeholder:"URL" help:"The platform's URL (AGRENTING_URL)."`
	Agent    string        `placeholder:"ID" help:"The agent to act as or to show (AGRENTING_AGENT_ID)."`
	Env      string        `placeholder:"ENV" help:"production or sandbox (AGRENTING_ENV)."`
	KeyFile  string        `placeholder:"FILE" help:"File that holds the credential; - reads standard input (AGRENTING_KEY_FILE)."`
	Type     string        `placeholder:"TYPE" help:"Kind of the credential: api_key, user_token, or session (AGRENTING_CREDENTIAL_TYPE)."`
	Store    string        `placeholder:"FOLDER" help:"Folder that keeps the key through its rotations."`
	Timeout  time.Duration `default:"60s" help:"Time limit of one call; 0 means none."`
	JSON     bool          `name:"json" help:"Print JSON with stable field names."`
	JQ       *string       `name:"jq" placeholder:"EXPR" help:"Filter the JSON with a jq expression and print one result per line, strings without quotes. Implies --json."`
	Quiet    bool          `short:"q" help:"Print no notes. With --show, print only the secret."`
	Verbose  bool          `short:"v" help:"Log each step to standard error, without secrets (AGRENTING_LOG=debug)."`
	Unmarked bool          `name:"unmarked-sandbox-tokens" help:"Allow user tokens and sessions without a sandbox mark in the sandbox."`
}

// grammar has all flags and commands.
type grammar struct {
	globals

	Doctor     doctorCmd     `cmd:"" help:"Find out what is wrong, and how to fix it."`
	Whoami     whoamiCmd     `cmd:"" help:"Show the agent or user that the credential in use belongs to."`
	Login      loginCmd      `cmd:"" help:"Exchange the API key for a session."`
	Logout     logoutCmd     `cmd:"" help:"End a session."`
	Keys       keysCmd       `cmd:"" help:"Manage the keys of an agent."`
	Tokens     tokensCmd     `cmd:"" help:"Manage the tokens of a user."`
	Agents     agentsCmd     `cmd:"" help:"Look up and register agents."`
	Request    requestCmd    `cmd:"" help:"Call any endpoint of the platform."`
	Exec       execCmd       `cmd:"" help:"Run a command with a session or the credential in its environment."`
	Credential credentialCmd `cmd:"" help:"Print a valid credential as JSON for other programs."`
	Proxy      proxyCmd      `cmd:"" help:"Run a local proxy that adds the credential to requests, so that programs never see it."`
	Sandbox    sandboxCmd    `cmd:"" help:"Serve an embedded platform for trials and tests."`
	Help       helpCmd       `cmd:"" help:"Show the help of a command, as --help does."`
	Version    versionCmd    `cmd:"" help:"Show the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Complete   completeCmd   `cmd:"" hidden:"" name:"__complete" help:"Print candidates for completion scripts."`
}

// app is one run.
type app struct {
	globals
	streams
	ctx     context.Context //nolint:containedctx // a run is one call, and commands get the app alone
	ui      *printer
	stdout  *outlet // the outlet behind out
	program *cli.Command
	log     *slog.Logger // nil is silent
	last    *agrenting.Client
	fixed   agrenting.Kind // the kind of its credential, if a flag or variable gave it
	witness *witness       // records calls that issue a secret; nil for other commands
	hide    redact.Func    // removes the credential that was sent from errors; nil changes nothing

	sibling string // the platform's other host, if the platform's links lead there

	observe func(agrenting.Event) // observes the clients of options; nil means noteRenewal

	filter    *gojq.Code // of --jq; nil prints JSON unchanged
	filterErr error      // why the filter could not be applied to the output

	command    runner // nil until the command line has been read
	toldOutput bool   // it was reported that standard output could not be written
}

// runner is a command that can be run.
type runner interface{ Run(a *app) error }

func newProgram(g *grammar) *cli.Command {
	return cli.New("agrenting", "The Agrenting platform on the command line.\n\n"+
		"Credentials come from the environment, a key file or a store, never from a flag: "+
		"AGRENTING_KEY_FILE, in the sandbox AGRENTING_SANDBOX_API_KEY, AGRENTING_API_KEY, AGRENTING_SESSION_TOKEN.", g)
}

// run runs the command line args and returns the exit code. It does not end the process.
func run(ctx context.Context, args []string, s streams) (code int) {
	var g grammar
	stdout := &outlet{to: s.out}
	s.out = stdout
	a := &app{streams: s, stdout: stdout, ctx: ctx, ui: newPrinter(s, slices.ContainsFunc(args, asksForJSON))}
	defer func() { code = a.finish(code) }()
	if len(args) > 0 && args[0] == "--version" { // other programs have this flag
		args = append([]string{"version"}, args[1:]...)
	}
	a.program = newProgram(&g)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, help, err := a.program.Parse(args)
	switch {
	case err != nil:
		return a.report(usageOf(command, err))
	case help:
		a.printHelp(command)
		return codeOK
	}
	a.globals = g.globals
	if a.KeyFile == "" && a.keyFileIsInput() {
		a.KeyFile = "-"
	}
	a.ui.json, a.ui.quiet = a.JSON, a.Quiet
	if err := a.useFilter(g.JQ, command.Name); err != nil {
		return a.report(err)
	}
	if a.Verbose {
		a.log = slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	a.command, _ = command.Target.(runner) // a test checks that all targets implement runner
	if outlivesReader(a.command) {
		// By default, the program ends silently when the reader of standard output or
		// standard error has gone.
		gone := make(chan os.Signal, 1)
		signal.Notify(gone, syscall.SIGPIPE)
		defer signal.Stop(gone)
	}
	err = a.command.Run(a)
	if a.filterErr != nil && !errors.Is(err, a.filterErr) {
		code = a.report(a.filterErr)
	}
	if err != nil {
		code = a.report(err)
	}
	return code
}

// outlivesReader reports whether a command continues when the reader of its output has gone:
// it serves without a log, or it must report what happened to a secret.
func outlivesReader(command runner) bool {
	switch c := command.(type) {
	case *proxyCmd, *sandboxCmd:
		return true
	case interface{ shows() bool }:
		return c.shows()
	default:
		return false
	}
}

// asksForJSON reports whether an argument selects JSON output, also for errors.
func asksForJSON(arg string) bool {
	return arg == "--json" || arg == "--jq" || strings.HasPrefix(arg, "--jq=")
}

// longWord matches a word that may be a secret in the wrong place.
var longWord = regexp.MustCompile(`[A-Za-z0-9_.~+/=-]{20,}`)

// discreet replaces a word that may be a secret, because terminals and CI logs keep errors.
func discreet(text string) string {
	return longWord.ReplaceAllStringFunc(text, func(w string) string {
		if strings.HasPrefix(w, "--") && !strings.ContainsAny(w, "=0123456789") {
			return w
		}
		return "[a long word]"
	})
}

// usageOf returns the error of a command line, with a hint at the help of the command.
func usageOf(command *cli.Command, err error) error {
	hint := strings.Join(strings.Fields("see agrenting "+command.Path()+" --help"), " ")
	return &cliError{code: codeUsage, kind: "usage", msg: discreet(err.Error()), hint: hint}
}
