package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

// Environment variables of the SDK.
const (
	varEnv        = "AGRENTING_ENV"
	varAgentID    = "AGRENTING_AGENT_ID"
	varURL        = "AGRENTING_URL"
	varKeyFile    = "AGRENTING_KEY_FILE"
	varSandboxKey = "AGRENTING_SANDBOX_API_KEY"
	varAPIKey     = "AGRENTING_API_KEY" // #nosec G101 -- the name of a variable
	varSession    = "AGRENTING_SESSION_TOKEN"
	varType       = "AGRENTING_CREDENTIAL_TYPE"
	varUnmarked   = "AGRENTING_UNMARKED_SANDBOX_TOKENS"
)

// unmarkedAllowed is the only value that AGRENTING_UNMARKED_SANDBOX_TOKENS accepts.
const unmarkedAllowed = "allow"

// env reads a variable as the SDK does: flags come first, an empty variable is unset, and white
// space around a value is removed.
func (a *app) env(name string) string {
	v, _ := a.lookupFlags(name)
	return strings.TrimSpace(v)
}

// lookupFlags looks up a variable in the environment. Flags override variables.
func (a *app) lookupFlags(name string) (string, bool) {
	var flag string
	switch name {
	case varEnv:
		flag = a.Env
	case varAgentID:
		flag = a.Agent
	case varURL:
		flag = a.URL
	case varKeyFile:
		if a.KeyFile != "-" {
			flag = a.KeyFile
		}
	case varType:
		flag = a.Type
	}
	if flag != "" {
		return flag, true
	}
	if name == varKeyFile && a.keyFileIsInput() {
		return "", false // it means --key-file -
	}
	return a.lookup(name)
}

// keyFileIsInput reports whether AGRENTING_KEY_FILE means standard input.
func (a *app) keyFileIsInput() bool {
	v, _ := a.lookup(varKeyFile)
	return strings.TrimSpace(v) == "-"
}

// baseURL returns the platform's base URL.
func (a *app) baseURL() string {
	if u := a.env(varURL); u != "" {
		return u
	}
	return agrenting.DefaultBaseURL
}

// renewalWait is how long a command waits for a credential that could not be obtained at
// the first attempt.
const renewalWait = 3 * time.Second

// noteRenewal reports why a command waits for a credential.
func (a *app) noteRenewal(e agrenting.Event) {
	if e.Type != agrenting.EventRenewalFailed {
		return
	}
	for _, permanent := range []error{
		agrenting.ErrUnauthorized, agrenting.ErrNoCredential, agrenting.ErrInvalidCredential,
		agrenting.ErrEnvironmentMismatch, agrenting.ErrLockedOut,
	} {
		if errors.Is(e.Err, permanent) {
			return // the command reports it when it fails
		}
	}
	if wait := time.Until(e.RetryAt); wait > 0 && wait <= renewalWait {
		a.ui.note("no credential yet: %s; next attempt in %v", textOf(e.Err), wait.Round(10*time.Millisecond))
	}
}

// options returns the options of every client. Flags are passed as options too, so that
// errors name them.
func (a *app) options() ([]agrenting.Option, error) {
	observe := a.observe
	if observe == nil {
		observe = a.noteRenewal
	}
	opts := []agrenting.Option{
		agrenting.WithLookupEnv(a.lookupFlags),
		agrenting.WithUserAgent("agrenting-cli/" + agrenting.Version),
		agrenting.WithTimeout(a.Timeout),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: renewalWait}),
		agrenting.WithObserver(observe),
	}
	if a.log != nil {
		opts = append(opts, agrenting.WithLogger(a.log))
	}
	if a.witness != nil {
		opts = append(opts, agrenting.WithTransport(a.witness))
	}
	if a.Env != "" {
		opts = append(opts, agrenting.WithEnvironment(agrenting.Environment(a.Env)))
	}
	if a.URL != "" {
		opts = append(opts, agrenting.WithBaseURL(a.URL))
	}
	if a.Agent != "" {
		opts = append(opts, agrenting.WithAgentID(a.Agent))
	}
	if a.unmarked() {
		opts = append(opts, agrenting.WithUnmarkedSandboxTokens())
	}
	if a.Store != "" {
		store, err := agrenting.FileStore(a.Store)
		if err != nil {
			return nil, err
		}
		opts = append(opts, agrenting.WithStore(store))
	}
	if a.KeyFile == "-" {
		c, err := a.credentialFromInput()
		if err != nil {
			return nil, err
		}
		opts = append(opts, agrenting.WithCredential(c))
	}
	return opts, nil
}

// unmarked reports whether the user allows tokens without a sandbox mark. For
// the SDK, the variable covers only the environment's credential. Here, it also covers
// the one on standard input, which belongs to the same user. The SDK refuses an unknown
// value.
func (a *app) unmarked() bool {
	return a.Unmarked || ascii.EqualFold(a.env(varUnmarked), unmarkedAllowed)
}

// client returns a client for the flags and the environment. It fills an empty store with the
// key from there; see reader.
func (a *app) client(more ...agrenting.Option) (*agrenting.Client, error) {
	opts, err := a.options()
	if err != nil {
		return nil, err
	}
	return a.made(agrenting.New(append(opts, more...)...))
}

// reader is like client, for commands that only read or make a call. It does not fill an empty
// store. Otherwise, a mistyped --store would save the environment's key in another folder.
func (a *app) reader() (*agrenting.Client, error) { return a.readerWith() }

// readerWith is like reader, with more options.
func (a *app) readerWith(more ...agrenting.Option) (*agrenting.Client, error) {
	if a.storeMissing() {
		return nil, &cliError{
			code: codeCredential, kind: "no_credential", err: agrenting.ErrNoCredential,
			msg: "--store " + a.Store + " has no key yet", hint: a.storeHint(),
		}
	}
	return a.client(more...)
}

// storeMissing reports whether the named store has no key: it is empty or does not exist.
func (a *app) storeMissing() bool {
	if a.Store == "" {
		return false
	}
	_, err := a.stored()
	return errors.Is(err, agrenting.ErrNoRecord)
}

func (a *app) storeHint() string {
	return "agrenting keys rotate --store " + a.Store + " saves the key in it and rotates it"
}

// withoutAgent returns the same app without an agent to act as, for calls that concern only
// the credential.
func (a *app) withoutAgent() *app {
	b := *a
	b.Agent, b.lookup = "", func(name string) (string, bool) {
		if name == varAgentID {
			return "", false
		}
		return a.lookup(name)
	}
	return &b
}

// maxInput bounds a credential on standard input.
const maxInput = 64 << 10

// credentialFromInput reads a credential from the first line of standard input.
func (a *app) credentialFromInput() (agrenting.Credential, error) {
	read := func() ([]byte, error) {
		return untilCanceled(a.ctx, func() ([]byte, error) { return firstLine(a.in) })
	}
	if isTerminal(a.in) {
		read = func() ([]byte, error) { return a.askSecret("Credential (not shown):") }
	}
	line, err := read()
	if err != nil && !errors.Is(err, io.EOF) {
		return agrenting.Credential{}, err
	}
	line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")))
	if len(line) == 0 {
		return agrenting.Credential{}, fmt.Errorf("%w: standard input is empty", agrenting.ErrNoCredential)
	}
	switch kind := a.env(varType); ascii.ToLower(kind) {
	case "":
		return agrenting.ParseCredential(string(line))
	case "api_key":
		return agrenting.APIKey(string(line)), nil
	case "user_token":
		return agrenting.UserToken(string(line)), nil
	case "session":
		return agrenting.SessionToken(string(line), noTime), nil
	default:
		return agrenting.Credential{}, usage("", "invalid --type (want api_key, user_token, or session)")
	}
}

// firstLine reads the first line, up to maxInput bytes. It reads single bytes, because the rest is
// for the command that exec runs.
func firstLine(r io.Reader) ([]byte, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < maxInput && b[0] != '\n'; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			return line, err
		}
	}
	return line, nil
}

// as returns a separate client for one credential, at the same platform.
func (a *app) as(c agrenting.Credential, more ...agrenting.Option) (*agrenting.Client, error) {
	opts, err := a.optionsWithoutCredential()
	if err != nil {
		return nil, err
	}
	opts = append(opts, agrenting.WithCredential(c), agrenting.WithUnmarkedSandboxTokens())
	return agrenting.New(append(opts, more...)...)
}

// anonymous returns a client that sends no credential.
func (a *app) anonymous(more ...agrenting.Option) (*agrenting.Client, error) {
	opts, err := a.optionsWithoutCredential()
	if err != nil {
		return nil, err
	}
	return a.made(agrenting.New(append(append(opts, agrenting.WithAnonymous()), more...)...))
}

// made remembers the client of a command. The error for a refused credential needs it.
func (a *app) made(client *agrenting.Client, err error) (*agrenting.Client, error) {
	if err == nil {
		a.last, a.fixed = client, client.Status().Kind
	}
	return client, err
}

func (a *app) optionsWithoutCredential() ([]agrenting.Option, error) {
	bare := *a
	bare.Store, bare.KeyFile = "", ""
	return bare.options()
}

// withStore returns the same app with a temporary store.
func (a *app) withStore(folder string) *app {
	b := *a
	b.Store = folder
	return &b
}

// clientFor is like reader, for a command that concerns an agent.
func (a *app) clientFor(argument string) (client *agrenting.Client, agent string, err error) {
	if client, err = a.reader(); err != nil {
		return nil, "", err
	}
	if agent, err = a.agentID(client, argument); err != nil {
		_ = client.Close()
		return nil, "", err
	}
	return client, agent, nil
}

// agentID returns the agent that a command concerns.
func (a *app) agentID(c *agrenting.Client, argument string) (string, error) {
	if id := cmp.Or(argument, a.knownAgent(c)); id != "" {
		return id, nil
	}
	hint := "pass --agent ID or set " + varAgentID
	switch cred, err := c.Credential(a.ctx); {
	case err != nil:
		return "", err
	case cred.Kind() == agrenting.KindUserToken:
		hint += "; agrenting agents mine lists yours"
	default:
		hint += "; agrenting agents list shows names and IDs"
	}
	return "", usage(hint, "no agent specified")
}

// knownAgent returns the named agent, or else the agent of the key in the store. It returns ""
// if neither is known.
func (a *app) knownAgent(c *agrenting.Client) string {
	if id := c.Status().AgentID; id != "" {
		return id
	}
	key, err := a.stored()
	if err != nil {
		return ""
	}
	return key.AgentID
}

// stored returns the key in the store. It changes nothing.
func (a *app) stored() (agrenting.KeyState, error) {
	if a.Store == "" {
		return agrenting.KeyState{}, agrenting.ErrNoRecord
	}
	store, err := agrenting.FileStore(a.Store)
	if err != nil {
		return agrenting.KeyState{}, err
	}
	// A canceled run still reports what is in the store. Reading files does not block.
	return agrenting.LoadKeyState(context.WithoutCancel(a.ctx), store)
}
