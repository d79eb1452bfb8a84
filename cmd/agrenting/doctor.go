package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

type doctorCmd struct {
	Offline bool `help:"Look at the configuration only, and ask nobody."`
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
	Mend   string `json:"mend,omitempty"`
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
	app    *app
	report jsonDoctor
	codes  map[string]int // by check
}

func (e *examination) note(name, status, detail, mend string) {
	e.report.Checks = append(e.report.Checks, jsonCheck{name, status, visible(detail), visible(mend)})
}

func (e *examination) fail(name string, err error) {
	c := e.app.classify(err)
	e.codes[name] = c.code
	e.note(name, checkFail, c.msg, c.mend)
}

// Run looks at everything that requests depend on. Its exit code is that of what
// matters most: the connection, then the credential.
func (c *doctorCmd) Run(a *app) error {
	e := &examination{app: a, codes: map[string]int{}}
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
		e.note("connection", checkSkip, "not looked at", "")
	} else if e.connection() && usable {
		e.platform(client)
	}
	stop()
	for _, name := range []string{"url", "connection", "configuration", "credential", "platform"} {
		e.report.ExitCode = cmp.Or(e.report.ExitCode, e.codes[name])
	}
	e.report.OK = e.report.ExitCode == codeOK
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	if a.JSON {
		encode(a.out, e.report)
	} else {
		e.show()
	}
	if !e.report.OK {
		return exitStatusError(e.report.ExitCode)
	}
	return nil
}

// configuration makes a client, and notes what is wrong with flags and
// environment. The client is nil when there can be none.
func (e *examination) configuration() *agrenting.Client {
	opts, err := e.app.options()
	var client *agrenting.Client
	if err == nil {
		client, err = agrenting.New(opts...)
	}
	e.report.Sources = e.app.sources(opts)
	if client != nil {
		e.report.AgentID, e.report.URL = client.Status().AgentID, client.BaseURL()
	}
	u, uerr := url.Parse(e.report.URL)
	switch {
	case uerr != nil || u.Host == "":
		e.report.URL = ""
		e.codes["url"] = codeUsage
		e.note("url", checkFail, "the platform's URL is no URL", "set "+varURL+" or --url to one such as "+agrenting.DefaultBaseURL)
	case u.User != nil || u.RawQuery != "":
		e.report.URL = u.Scheme + "://" + u.Host // what is left out may be secret
		e.codes["url"] = codeUsage
		e.note("url", checkFail, "the platform's URL has a user or a query string", "leave them out")
	default:
		e.note("url", checkOK, e.report.URL, "")
	}
	switch {
	case isNoCredential(err):
		c := e.app.classify(err)
		e.codes["credential"] = c.code
		e.note("credential", checkFail, "there is none", c.mend)
	case err != nil:
		e.fail("configuration", err)
	}
	return client
}

// sources lists where credentials can come from, in their order and in the words
// of the command line. opts are nil when flags cannot even be made options.
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
		case s.Name == "WithKeyStore" && !exists(a.Store):
			state = "does not exist yet; the next source that is set seeds it"
		}
		for _, name := range []string{"WithCredential", varKeyFile} {
			state = strings.Replace(state, "shadowed by "+name, "shadowed by "+a.sourceName(name), 1)
		}
		state = strings.Replace(state, "see "+varEnv, "see --env", 1)
		list = append(list, jsonSource{a.sourceName(s.Name), state})
	}
	return list
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// credential obtains the credential and reports whether there is one.
func (e *examination) credential(client *agrenting.Client) bool {
	e.files()
	cred, err := client.Credential(e.app.ctx)
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
	e.note("credential", checkOK, fmt.Sprintf("%s %s from %s", cred.Kind(), j.Fingerprint, j.Source), "")
	if !j.Expires.IsZero() && time.Until(j.Expires) < 0 {
		e.note("expiry", checkWarn, "it expired at "+when(j.Expires), "get another one")
	}
	switch {
	case j.Environment == string(agrenting.Sandbox) && cred.Environment() == "" && cred.Kind() != agrenting.KindAPIKey:
		e.note("environment", checkWarn, fmt.Sprintf("%s, but the %s has no mark: that it belongs there is only said, by --unmarked-sandbox-tokens or %s",
			j.Environment, cred.Kind(), varUnmarked), "make sure that it was made for the sandbox: nothing else keeps production's out")
	case j.Environment != "":
		e.note("environment", checkOK, j.Environment, "")
	case e.app.env(varEnv) == "":
		e.note("environment", checkOK, "nothing tells; a "+cred.Kind().String()+" has no mark", "")
	}
	return true
}

// files looks at who can read the files that hold credentials.
func (e *examination) files() {
	if runtime.GOOS == "windows" {
		return
	}
	if path := e.app.env(varKeyFile); path != "" && e.app.KeyFile != "-" {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			e.note("key file", checkWarn, fmt.Sprintf("%s can be read by others (%04o)", path, info.Mode().Perm()), "chmod 600 "+path)
		}
	}
}

// show shows the findings to people.
func (e *examination) show() {
	p := e.app.ui
	p.line("%s", p.paint(bold, "Sources, in their order"))
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
		if c.Mend != "" {
			p.line("       %-12s %s", "", p.paint(yellow, "-> "+c.Mend))
		}
	}
	if e.report.OK {
		p.line("\n%s", p.paint(green, "All is well."))
	} else {
		p.line("\n%s", p.paint(red, "Something is wrong, see above."))
	}
}
