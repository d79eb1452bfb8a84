package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

type doctorCmd struct {
	Offline bool `help:"Check only the configuration, without calls to the platform."`
}

// The states of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
	checkSkip = "skip"
)

type jsonCheck struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

type jsonSource struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

type jsonCredential struct {
	Source      string    `json:"source"`
	Kind        string    `json:"kind"`
	Fingerprint string    `json:"fingerprint"`
	Environment string    `json:"environment,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Created     time.Time `json:"created,omitzero"`
	AgeDays     *float64  `json:"age_days,omitempty"`
}

type jsonConnection struct {
	Address      string    `json:"address,omitempty"`
	TLSVersion   string    `json:"tls_version,omitempty"`
	Protocol     string    `json:"protocol,omitempty"`
	CertIssuer   string    `json:"certificate_issuer,omitempty"`
	CertExpires  time.Time `json:"certificate_expires,omitzero"`
	Milliseconds float64   `json:"milliseconds,omitempty"`
	ClockSkew    *float64  `json:"clock_skew_seconds,omitempty"`
}

type jsonRate struct {
	Limit     int `json:"limit"`
	Remaining int `json:"remaining"`
}

type jsonDoctor struct {
	OK          bool            `json:"ok"`
	Warnings    int             `json:"warnings"`
	ExitCode    int             `json:"exit_code"`
	URL         string          `json:"url"`
	Environment string          `json:"environment,omitempty"`
	AgentID     string          `json:"agent_id,omitempty"`
	Sources     []jsonSource    `json:"sources"`
	Credential  *jsonCredential `json:"credential"`
	Connection  *jsonConnection `json:"connection"`
	Rate        *jsonRate       `json:"rate_limit"`
	Checks      []jsonCheck     `json:"checks"`
}

// examination collects findings.
type examination struct {
	app     *app
	offline bool
	report  jsonDoctor
	codes   map[string]int // by check
}

func (e *examination) note(name, status, detail, hint string) {
	if status == checkWarn {
		e.report.Warnings++
	}
	e.report.Checks = append(e.report.Checks, jsonCheck{name, status, visible(detail), visible(hint)})
}

func (e *examination) fail(name string, err error) {
	c := e.app.classify(err)
	e.codes[name] = c.code
	if errors.Is(err, http.ErrSchemeMismatch) {
		e.codes[name] = codeNetwork
	}
	hint := ""
	if name == "credential" {
		hint = e.storeHint(err)
	}
	what, command, ok := strings.Cut(c.msg, ". Run: ") // for a file that other users can change
	if ok && hint == "" {
		hint = "run: " + command
	}
	e.note(name, checkFail, what, cmp.Or(hint, e.hintOf(err, c)))
}

// hintOf returns what to do about an error. It is never empty, because no other command has
// more details.
func (e *examination) hintOf(err error, c *cliError) string {
	_, header := errors.AsType[tls.RecordHeaderError](err)
	keyFile := e.app.env(varKeyFile)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), header:
		return "the server does not use TLS; check the port of the URL, or write http:, which is allowed only for this machine"
	case c.code == codeNetwork && (c.hint == "" || strings.Contains(c.hint, "agrenting doctor")):
		hint := "check --url, and anything on the network path: proxy variables, a firewall, a VPN"
		if strings.HasPrefix(e.report.URL, "http:") {
			hint = "if the server uses TLS, write https: in the URL; " + hint
		}
		return hint
	case c.hint != "":
		return c.hint
	case errors.Is(err, agrenting.ErrEnvironmentMismatch):
		return "use a credential of that environment, or select the other environment with --env or " + varEnv
	case c.code == codeCredential && e.app.Store != "" && keyFile == "":
		return "check --store " + e.app.Store + "; once the record is removed, " + e.app.storeHint()
	case c.code == codeCredential && e.codes["key file"] != 0: // that finding has the reason
		return "name another file with --key-file or " + varKeyFile
	case c.code == codeCredential && keyFile != "" && errors.Is(err, fs.ErrPermission):
		return readHint(keyFile)
	case c.code == codeCredential && keyFile != "":
		return "put the credential into " + e.app.placeOf(varKeyFile) + ", alone and on one line"
	case c.code == codeCredential:
		return noCredentialHint(agrenting.Environment(e.report.Environment))
	}
	for _, v := range []struct{ name, hint string }{
		{varEnv, "set " + varEnv + " or --env to production or sandbox, or remove it"},
		{"--env", "set " + varEnv + " or --env to production or sandbox, or remove it"},
		{varType, "set " + varType + " or --type to api_key, user_token or session, or remove it"},
		{varUnmarked, "set " + varUnmarked + " to allow, or remove it"},
		{varURL, hintURL},
		{"--url", hintURL},
	} {
		if strings.Contains(c.msg, v.name) {
			return v.hint
		}
	}
	return "add --verbose, which shows each step"
}

const hintURL = "set " + varURL + " or --url to a URL such as " + agrenting.DefaultBaseURL

// Run checks everything that requests depend on. Its exit code is that of the most important
// failure: the connection comes before the credential.
func (c *doctorCmd) Run(a *app) error {
	e := &examination{app: a, offline: c.Offline, codes: map[string]int{}}
	e.report.URL = a.baseURL()
	if env, err := agrenting.ParseEnvironment(a.env(varEnv)); err == nil {
		e.report.Environment = string(env) // anything else may be a secret in the wrong place
	}
	stop := a.waiting("examining")
	client := e.configuration()
	if client != nil {
		defer client.Close()
	}
	usable := false
	if client != nil {
		usable = e.credential(client)
	}
	if c.Offline {
		e.note("connection", checkSkip, "not checked", "")
	} else {
		if e.connection() && usable {
			e.platform(client)
		}
		e.links()
	}
	stop()
	for _, name := range []string{"url", "connection", "configuration", "store", "key file", "credential", "agent", "platform"} {
		e.report.ExitCode = cmp.Or(e.report.ExitCode, e.codes[name])
	}
	e.report.OK = e.report.ExitCode == codeOK
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	if a.JSON {
		a.encode(e.report)
	} else {
		e.show()
	}
	if !e.report.OK {
		return exitStatusError(e.report.ExitCode)
	}
	return nil
}

// configuration returns a client, and notes what is wrong with the flags and the environment.
// The client is nil if they are invalid.
func (e *examination) configuration() *agrenting.Client {
	a := *e.app
	missing := a.storeMissing()
	if missing {
		a.Store = "" // doctor does not fill it
	}
	opts, err := a.options()
	var client *agrenting.Client
	if err == nil {
		client, err = agrenting.New(opts...)
	}
	shown := opts
	if store, serr := agrenting.FileStore(e.app.Store); missing && serr == nil && opts != nil {
		shown = append(slices.Clone(opts), agrenting.WithStore(store))
	}
	e.report.Sources = e.app.sources(shown)
	if client != nil {
		e.report.AgentID, e.report.URL = client.Status().AgentID, client.BaseURL()
	}
	bad := e.url(err)
	if e.app.Store != "" {
		e.store(missing)
	}
	switch {
	case isNoCredential(err):
		c := e.app.classify(err)
		e.codes["credential"] = c.code
		e.note("credential", checkFail, "not found", c.hint)
	case err != nil && !bad:
		e.fail("configuration", err)
	}
	return client
}

// url notes whether the URL is valid, and reports whether err concerns only the URL.
func (e *examination) url(err error) (bad bool) {
	text := ""
	if err != nil {
		text = textOf(err)
	}
	bad = strings.HasPrefix(text, varURL+": ") || strings.HasPrefix(text, "--url: ")
	refuse := func(detail, hint string) {
		e.codes["url"] = codeUsage
		e.note("url", checkFail, detail, hint)
	}
	u, uerr := url.Parse(e.report.URL)
	switch {
	case uerr != nil || u.Host == "":
		e.report.URL = ""
		refuse("the platform's URL is not valid", hintURL)
	case u.User != nil || u.RawQuery != "":
		e.report.URL = u.Scheme + "://" + u.Host // the other parts may be secret
		refuse("the platform's URL has a user or a query string", "leave them out")
	case errors.Is(err, agrenting.ErrInsecureURL):
		refuse(e.report.URL+": plain http is allowed only for this machine", "write https: in the URL")
	case bad:
		refuse(text, hintURL)
	default:
		e.note("url", checkOK, e.report.URL, "")
	}
	return bad
}

// store examines the store.
func (e *examination) store(missing bool) {
	if missing {
		e.codes["store"] = codeCredential
		e.note("store", checkFail, e.app.Store+" has no key yet; the other findings are about the key that would fill it", e.app.storeHint())
		return
	}
	key, err := e.app.stored()
	if err != nil {
		return // an unreadable record is reported with the credential
	}
	if agent := e.app.env(varAgentID); agent != "" && key.AgentID != "" && !ascii.EqualFold(agent, key.AgentID) {
		e.codes["store"] = codeCredential
		named := varAgentID
		if e.app.Agent != "" {
			named = "--agent"
		}
		e.note("store", checkFail, e.app.Store+" has the key of the agent "+key.AgentID+", but "+named+" is "+agent,
			"leave out "+named+" to act as the agent of the store, or set --store to the folder of the other agent")
	}
	if key.Unfinished == nil {
		return
	}
	in := key.Unfinished
	holder := "no process is working on it"
	if in.Holder != "" {
		holder = fmt.Sprintf("the process %s is working on it, or was killed; another process takes over if it writes nothing for %s", in.Holder, in.Lease)
	}
	e.note("store", checkWarn, fmt.Sprintf("a rotation is unfinished, at the stage %s; %s", in.Stage, holder),
		"agrenting keys rotate --store "+e.app.Store+" finishes it")
}

// sources lists the sources of credentials in order, in terms of the command line. opts is nil
// if the flags could not be converted into options.
func (a *app) sources(opts []agrenting.Option) []jsonSource {
	var list []jsonSource
	broken := ""
	if opts == nil {
		broken = "--store " + a.Store
		if a.KeyFile == "-" && a.Store == "" {
			broken = "standard input"
		}
		list = append(list, jsonSource{broken, "cannot be used"})
		opts = []agrenting.Option{agrenting.WithLookupEnv(a.lookupFlags)}
	}
	for _, s := range agrenting.Sources(opts...) {
		state := s.State
		switch {
		case s.Used() && broken != "":
			state = "set, but shadowed by " + broken
		case s.Name == "WithStore" && a.storeMissing():
			state = "has no key yet; the next source that is set fills it"
		}
		for _, name := range []string{"WithCredential", varKeyFile} {
			state = strings.Replace(state, "shadowed by "+name, "shadowed by "+a.sourceName(name), 1)
		}
		state = strings.Replace(state, "see "+varEnv, "see --env", 1)
		list = append(list, jsonSource{a.sourceName(s.Name), state})
	}
	return list
}

// credential obtains the credential and reports whether there is one.
func (e *examination) credential(client *agrenting.Client) bool {
	e.files()
	cred, err := e.obtain(client)
	if err != nil {
		e.fail("credential", err)
		return false
	}
	s := client.Status()
	j := &jsonCredential{
		Source: e.app.sourceName(s.Source), Kind: kindName(cred.Kind()), Fingerprint: cred.Fingerprint(),
		Environment: string(s.Environment), Expires: cred.Expires(),
	}
	e.report.Credential = j
	if hint := e.typedWrong(cred); hint != "" {
		e.note("credential", checkWarn, fmt.Sprintf("%s from %s is used as an API key, and begins with ap_, as user tokens do", j.Fingerprint, j.Source), hint)
	} else {
		e.note("credential", checkOK, fmt.Sprintf("%s %s from %s", cred.Kind(), j.Fingerprint, j.Source), "")
	}
	if !j.Expires.IsZero() && time.Until(j.Expires) < 0 {
		e.note("expiry", checkWarn, "it expired at "+when(j.Expires), "get a new one")
	}
	switch {
	case j.Environment == string(agrenting.Sandbox) && cred.Environment() == "" && cred.Kind() != agrenting.KindAPIKey:
		e.note("environment", checkWarn, fmt.Sprintf("%s, but the %s has no mark: only --unmarked-sandbox-tokens or %s says that it belongs there",
			j.Environment, cred.Kind(), varUnmarked), "check that it was created for the sandbox, because the SDK cannot detect a production token")
	case j.Environment != "":
		e.note("environment", checkOK, j.Environment, "")
	case e.app.env(varEnv) == "":
		e.note("environment", checkOK, "unknown; a "+cred.Kind().String()+" has no mark", "")
	}
	return true
}

// obtain returns the credential in use. Offline, it only reads the store, since
// using it could finish a rotation.
func (e *examination) obtain(client *agrenting.Client) (agrenting.Credential, error) {
	if e.offline && e.app.Store != "" && !e.app.storeMissing() {
		key, err := e.app.stored()
		return key.Credential, err
	}
	return client.Credential(e.app.ctx)
}

// files checks the file that contains the credential, and who can read it.
func (e *examination) files() {
	path := e.app.env(varKeyFile)
	if path == "" || e.app.KeyFile == "-" {
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		return // the finding about the credential reports it
	}
	switch {
	case info.IsDir():
		e.codes["key file"] = codeCredential
		e.note("key file", checkFail, path+" is a folder", "name the file in it that holds the credential")
	case !info.Mode().IsRegular():
		e.codes["key file"] = codeCredential
		e.note("key file", checkFail, path+" is not a regular file", "name a file that holds the credential, or pass the credential on standard input with --key-file -")
	case e.app.assignmentInFile():
		e.note("key file", checkWarn, path+" looks like a file of variable assignments", bareKey)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		e.note("key file", checkWarn, fmt.Sprintf("other users can read %s (%04o)", path, mode.Perm()), "run: chmod 600 "+shellQuoted(path))
	}
}

// shellQuoted quotes a path for pasting it into a shell, if it needs that.
func shellQuoted(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-", r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// show prints the findings for people.
func (e *examination) show() {
	p := e.app.ui
	p.line("%s", p.paint(bold, "Sources, in order of precedence"))
	for _, s := range e.report.Sources {
		mark := p.paint(faint, "-")
		if s.State == "used" {
			mark = p.paint(green, "*")
		}
		p.line("  %s %-26s %s", mark, s.Name, visible(s.State))
	}
	p.line("\n%s", p.paint(bold, "Findings"))
	marks := map[string]string{
		checkOK: p.paint(green, "ok  "), checkWarn: p.paint(yellow, "warn"),
		checkFail: p.paint(red, "FAIL"), checkSkip: p.paint(faint, "skip"),
	}
	for _, c := range e.report.Checks {
		p.line("  %s %-12s %s", marks[c.Status], c.Name, c.Detail)
		if c.Hint != "" {
			p.line("       %-12s %s", "", p.paint(yellow, "-> "+c.Hint))
		}
	}
	p.line("\n%s", e.summary())
}

// summary returns the last line of the report.
func (e *examination) summary() string {
	p := e.app.ui
	switch n := e.report.Warnings; {
	case !e.report.OK:
		return p.paint(red, "Something is wrong, see above.")
	case n == 1:
		return p.paint(yellow, "No failure, 1 warning, see above.")
	case n > 1:
		return p.paint(yellow, fmt.Sprintf("No failure, %d warnings, see above.", n))
	case e.offline:
		return p.paint(green, "No problems found; the platform was not asked.")
	default:
		return p.paint(green, "No problems found.")
	}
}
