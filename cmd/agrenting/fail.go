package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/agrenting/agrenting-go"
)

// The exit codes. They are documented in docs/cli.md and do not change.
const (
	codeOK          = 0
	codeFailure     = 1
	codeUsage       = 2
	codeCredential  = 3
	codeRefused     = 4
	codeNotFound    = 5
	codeLimited     = 6
	codeNetwork     = 7
	codeInterrupted = 130
)

// cliError is an error with its exit code and its remedy.
type cliError struct {
	code int
	kind string // for --json
	msg  string
	hint string
	err  error

	unknown bool // whether a call was carried out
}

func (e *cliError) Error() string { return e.msg }
func (e *cliError) Unwrap() error { return e.err }

func usage(hint, format string, args ...any) error {
	return &cliError{code: codeUsage, kind: "usage", msg: fmt.Sprintf(format, args...), hint: hint}
}

func failure(hint, format string, args ...any) error {
	return &cliError{code: codeFailure, kind: "failure", msg: fmt.Sprintf(format, args...), hint: hint}
}

// exitStatusError passes on the exit code of a child process, without a message.
type exitStatusError int

func (e exitStatusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// inCLI replaces the Go terms in messages of the SDK with terms of the command line.
var inCLI = strings.NewReplacer(phrases...)

// phrases are pairs of a phrase of the SDK and its replacement.
var phrases = []string{
	"WithUnmarkedSandboxTokens or, where it comes from the environment,", "--unmarked-sandbox-tokens or",
	"WithUnmarkedSandboxTokens", "--unmarked-sandbox-tokens",
	"AGRENTING_ENV=sandbox or WithEnvironment(Sandbox)", "--env sandbox or AGRENTING_ENV=sandbox",
	"AGRENTING_ENV and WithEnvironment", "AGRENTING_ENV and --env",
	"WithEnvironment(Sandbox)", "--env sandbox",
	"WithEnvironment", "--env",
	"the client's WithTimeout", "see --timeout",
	" would lock this address out; see SessionPolicy.MaxExchanges", " would lock this address out",
	"WithBaseURL", "--url",
	"WithAgentID", "--agent",
	"set WithStore, for example with FileStore", "pass --store FOLDER",
	"use https; WithInsecureHTTP allows plain http, which anyone on the network path can read (loopback addresses are always allowed)", "use https; plain http is allowed only for this machine",
	"If it may receive the credential, add it to WithAllowedOrigins or set it as the base URL", "If it may receive the credential, set --url to it",
	"and you trust the URL that the platform redirects to, set it as the base URL", "and you trust the URL that the platform redirects to, set --url to it",
	"so it may be damaged or sealed", "so it may be damaged, or sealed; the command line cannot open sealed records",
	"If they are the same agent, set WithAgentID. Otherwise, give each agent a part of the store: agrenting.Namespace(store, prefix), with the agent's ID as prefix",
	"If they are the same agent, set --agent. Otherwise, " + hintOtherStore,
	"Give each agent a part of the store: agrenting.Namespace(store, prefix), with the agent's ID as prefix", "",
	"Use another store, or agrenting.Namespace", "",
	", or a Store such as etcdstore", "",
	"; use CallQuery", "; use -f KEY=VALUE",
	"CallHeader", "-H",
	"CallIdempotencyKey", "--idempotency-key",
	"TokenRequest", "--expires-in",
	"WithSession", "--session",
	"WithTimeout", "--timeout",
	"into the environment or the option that gives the initial key", "into --key-file or the environment",
	"Create and revoke user tokens with Client.Tokens", "agrenting tokens creates and revokes user tokens",
	"Set RotationPolicy.AgentID", "Pass --agent ID",
	"Set RotationPolicy.KeyID", "Pass --key-id ID",
	"use InPlace for this rotation", "pass --strategy inplace",
	"Use InPlace for this rotation", "Pass --strategy inplace",
	"Set RotationPolicy.Owner to a credential that may create keys, or use InPlace", "Pass --strategy inplace",
	"; to avoid this, set RotationPolicy.Owner", "",
	". RawResponse of this error contains the response; save the key from it", "",
	". RawResponse of this error has the response; save the secret from it", "",
	"; RawResponse of this error contains what arrived", "",
	", or save what NewCredential of this error returns; the SDK keeps trying to save it", "",
	"Save what NewCredential returns before the process ends: the platform does not show it again", "The platform does not show it again",
	"the SDK does not know", "is not known",
	"The data is a list: decode it into a slice, or use List", "The data is a list",
	"The data is not a list: decode it into a struct or a map", "The data is not a list",
	"pass the credential with WithCredential", "pass the credential with --key-file or the environment",
	"a store (WithStore or SessionPolicy.Store)", "--store",
	"WithStore", "--store",
	"FileStore", "--store",
	", or pass one with WithCredential", "",
	" or pass it with WithCredential", "",
	"WithCredential", "the credential from standard input",
}

// jsonField matches the error of encoding/json for a value of another type.
var jsonField = regexp.MustCompile(`json: cannot unmarshal (.+?) into Go (?:struct field (?:\w*\.)?(\S+)|value) of type \S+`)

// withoutTypes removes the names of Go types from an error.
func withoutTypes(text string) string {
	return jsonField.ReplaceAllStringFunc(text, func(found string) string {
		m := jsonField.FindStringSubmatch(found)
		if m[2] == "" {
			return "the data has an unexpected type (" + m[1] + ")"
		}
		return "the field " + m[2] + " has an unexpected type (" + m[1] + ")"
	})
}

// nextTry matches when a long-running program would try again. A command does not try again.
var nextTry = regexp.MustCompile(`\. The next try is at [-0-9T:]+Z`)

// textOf returns the text of an error in one line.
func textOf(err error) string {
	text := strings.TrimPrefix(inCLI.Replace(err.Error()), "agrenting: ")
	text = nextTry.ReplaceAllString(text, "")
	text = withoutTypes(strings.ReplaceAll(text, ": agrenting: ", ": "))
	return strings.Join(strings.Fields(visible(text)), " ")
}

// splitHint returns the text of an error and the remedy that the SDK suggests. The command line
// has its own remedy for a rejected credential; see refusedHint.
func splitHint(err error) (msg, hint string) {
	text := err.Error()
	if api, ok := errors.AsType[*agrenting.APIError](err); ok && api.Hint != "" {
		return textOf(errors.New(strings.Replace(text, ". "+api.Hint, "", 1))), inCLI.Replace(api.Hint)
	}
	const check = ". Check the base URL"
	if before, after, found := strings.Cut(text, check); found {
		return textOf(errors.New(before)), inCLI.Replace("check the base URL" + after)
	}
	return textOf(err), ""
}

// sentinels map the errors of the SDK to exit codes. The first match wins.
var sentinels = []struct {
	err        error
	code       int
	kind, hint string
}{
	{agrenting.ErrLockedOut, codeLimited, "locked_out", "wait until then"},
	{agrenting.ErrRateLimited, codeLimited, "rate_limited", "wait and repeat the call"},
	{agrenting.ErrEnvironmentMismatch, codeCredential, "environment_mismatch", ""},
	{agrenting.ErrNoCredential, codeCredential, "no_credential", ""},
	{agrenting.ErrInvalidCredential, codeCredential, "invalid_credential", ""},
	{agrenting.ErrInvalidRecord, codeCredential, "invalid_record", ""},
	{agrenting.ErrNoRecord, codeCredential, "no_credential", ""},
	{agrenting.ErrUnauthorized, codeRefused, "unauthorized", "the credential is invalid, expired or revoked; agrenting doctor says which one is in use"},
	{agrenting.ErrForbidden, codeRefused, "forbidden", "the credential has the wrong kind, lacks a scope, or may not act for this agent; agrenting whoami shows it"},
	{agrenting.ErrRouteNotFound, codeNotFound, "route_not_found", "check the path and --url"},
	{agrenting.ErrNotFound, codeNotFound, "not_found", ""},
	{agrenting.ErrInsecureURL, codeUsage, "usage", ""},
	{agrenting.ErrInvalidAgentID, codeUsage, "usage", "set --agent to the UUID of an agent"},
	{agrenting.ErrForeignOrigin, codeUsage, "usage", ""},
	{agrenting.ErrInvalidOption, codeUsage, "usage", ""},
	{agrenting.ErrConflict, codeFailure, "conflict", ""},
	{agrenting.ErrValidation, codeFailure, "validation", ""},
	{agrenting.ErrGone, codeFailure, "gone", ""},
	{agrenting.ErrServer, codeFailure, "server", "the platform has a problem; try again later"},
	{agrenting.ErrMalformedResponse, codeFailure, "malformed_response", "check that --url is the URL of the platform"},
}

// classify finds exit code, kind, text and remedy of an error.
func (a *app) classify(err error) *cliError {
	if e, ok := errors.AsType[*cliError](err); ok {
		return e
	}
	msg, remedy := splitHint(err)
	e := &cliError{code: codeFailure, kind: "failure", msg: msg, err: err}
	if a.ctx.Err() != nil {
		e.code, e.kind, e.msg = codeInterrupted, "interrupted", "interrupted"
		return e
	}
	if n, ok := errors.AsType[*agrenting.NoCredentialError](err); ok {
		e.code, e.kind = codeCredential, "no_credential"
		e.msg, e.hint = noCredentialText(n), noCredentialHint(n.Environment)
		return e
	}
	if _, ok := errors.AsType[*agrenting.RecordMismatchError](err); ok {
		e.code, e.kind, e.hint = codeCredential, "record_mismatch", hintOtherStore
		return e
	}
	for _, s := range sentinels {
		if !errors.Is(err, s.err) {
			continue
		}
		e.code, e.kind, e.hint = s.code, s.kind, s.hint
		if s.code == codeRefused && errors.Is(err, agrenting.ErrUnauthorized) && a.last != nil {
			e.hint = a.refusedHint()
		}
		if remedy != "" && !errors.Is(err, agrenting.ErrUnauthorized) {
			e.hint = remedy
		}
		if s.code == codeCredential {
			e.hint = cmp.Or(a.keyFileHint(err), e.hint)
		}
		return e
	}
	switch isFile, said := fileError(err); {
	case isFile:
		e.kind, e.hint = "file", fileHint(said)
	case isNetwork(err):
		e.code, e.kind, e.hint = codeNetwork, "network", networkHint(err)
	}
	return e
}

// keyFileHint returns what to do about a key file that cannot be read, or "".
func (a *app) keyFileHint(err error) string {
	switch path := a.env(varKeyFile); {
	case errors.Is(err, fs.ErrNotExist):
		return "put the credential there, or name another file with --key-file or " + varKeyFile
	case path != "" && errors.Is(err, fs.ErrPermission):
		return readHint(path)
	default:
		return ""
	}
}

// fileError reports whether an error concerns a file or a folder, and returns the error of the
// operating system. Errors of sockets may be of the same types inside a [*net.OpError].
func fileError(err error) (ok bool, said error) {
	if _, socket := errors.AsType[*net.OpError](err); socket {
		return false, nil
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return true, p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return true, l.Err
	}
	return errors.Is(err, agrenting.ErrReadOnlyStore), err
}

// fileHint returns what to do about a file that cannot be used.
func fileHint(cause error) string {
	switch {
	case errors.Is(cause, fs.ErrPermission):
		return "run the command as the owner of the file, or make this user the owner"
	case errors.Is(cause, fs.ErrNotExist):
		return "check the path"
	case diskFull(cause):
		return "free space on the disk, or choose a folder on another disk"
	case readOnlyDisk(cause):
		return "choose a writable folder"
	default:
		return "choose another file or folder"
	}
}

// hint sets the remedy of an error that matches is, for a command that has a more specific
// remedy.
func (a *app) hint(err, is error, hint string) error {
	if err == nil || !errors.Is(err, is) {
		return err
	}
	e := *a.classify(err)
	e.hint = hint
	return &e
}

// What to do when a call is refused because another party must make it.
const (
	hintUser  = "only users can do this: use a user token (ap_…) with the required scope instead of an agent's key"
	hintAgent = "agrenting agents list shows all agents"

	hintOtherStore = "use another --store: a folder holds the key of one agent"
)

func noCredentialText(e *agrenting.NoCredentialError) string {
	var tried []string
	for _, s := range e.Tried {
		tried = append(tried, s.Name+" ("+s.State+")")
	}
	return "no credential found; tried " + strings.Join(tried, ", ")
}

func noCredentialHint(env agrenting.Environment) string {
	variable, key := "AGRENTING_API_KEY", "a key"
	if env == agrenting.Sandbox {
		variable, key = "AGRENTING_SANDBOX_API_KEY", "a sandbox key"
	}
	return "set " + variable + " to " + key + " from https://agrenting.com/dashboard/api-keys, " +
		"or put one into a file and name the file with --key-file"
}

func isNetwork(err error) bool {
	if e, ok := errors.AsType[net.Error](err); ok {
		// Any error number of the operating system is a net.Error, too.
		if _, number := e.(syscall.Errno); !number {
			return true
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	for _, e := range []error{
		context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, http.ErrSchemeMismatch,
	} {
		if errors.Is(err, e) && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

func networkHint(err error) string {
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	dns, isDNS := errors.AsType[*net.DNSError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case isOp && op.Op == "proxyconnect":
		return "the proxy cannot be reached; correct or unset " + proxyVariables() + ", or add the platform's host to NO_PROXY"
	case isDNS && dns.IsNotFound:
		return "the name does not resolve; check --url and the name server"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server responds without TLS; check the port of --url"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no server listens there; check --url"
	case errors.As(err, &host), errors.As(err, &unknown), errors.As(err, &invalid):
		return "the certificate is not trusted; check --url, the clock, and whether something on the network path intercepts TLS"
	case errors.Is(err, context.DeadlineExceeded):
		return "try again, with a longer --timeout if the network is slow"
	default:
		return "run agrenting doctor for details"
	}
}

// proxyVariables names the variables that are set and may name the proxy.
func proxyVariables() string {
	var set []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		if os.Getenv(name) != "" {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return "the proxy of the environment"
	}
	return strings.Join(set, " and ")
}

// jsonFailure is the error that --json prints to standard error.
type jsonFailure struct {
	Error jsonError `json:"error"`
}

type jsonError struct {
	Kind       string  `json:"kind"`
	Message    string  `json:"message"`
	Hint       string  `json:"hint,omitempty"`
	ExitCode   int     `json:"exit_code"`
	Status     int     `json:"status,omitempty"`
	Code       string  `json:"code,omitempty"`
	Field      string  `json:"field,omitempty"`
	RequestID  string  `json:"request_id,omitempty"`
	RetryAfter float64 `json:"retry_after_seconds,omitempty"`
	Outcome    string  `json:"outcome,omitempty"` // "unknown" if the call may have been carried out
}

// fail reports an error on standard error, in one line, and returns the exit
// code.
func (a *app) fail(err error) int {
	if s, ok := errors.AsType[exitStatusError](err); ok {
		return int(s)
	}
	shown := *a.classify(err) // a message may quote the name of a file, or an argument
	shown.msg, shown.hint = visible(shown.msg), visible(shown.hint)
	e := &shown
	if failed := a.stdout.failed(); failed != nil && errors.Is(err, failed) {
		a.toldOutput = true
	}
	hide := a.hide
	if hide == nil {
		hide = func(text string) string { return text }
	}
	if !a.ui.json {
		line := e.msg
		if e.hint != "" && !strings.Contains(e.msg, e.hint) {
			separator := "; "
			if first, _ := utf8.DecodeRuneInString(e.hint); unicode.IsUpper(first) {
				separator = ". "
			}
			line = strings.TrimRight(line, ".?!;") + separator + e.hint
		}
		line = a.ui.errPaint(red, "agrenting:") + " " + hide(line)
		fmt.Fprintln(a.err, line)
		return e.code
	}
	j := jsonError{Kind: e.kind, Message: hide(e.msg), Hint: e.hint, ExitCode: e.code}
	if e.unknown {
		j.Outcome = "unknown"
	}
	if api, ok := errors.AsType[*agrenting.APIError](err); ok {
		j.Status, j.Code, j.Field, j.RequestID = api.StatusCode, hide(api.Code), hide(api.Field), hide(api.RequestID)
		j.RetryAfter = api.RetryAfter.Seconds()
	}
	if l, ok := errors.AsType[*agrenting.LockoutError](err); ok {
		j.RetryAfter = max(0, time.Until(l.RetryAt).Round(time.Second).Seconds())
	}
	encode(a.err, jsonFailure{j})
	return e.code
}
