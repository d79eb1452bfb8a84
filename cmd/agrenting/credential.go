package main

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

type credentialCmd struct {
	Session bool `help:"Print a session instead of the API key; with --store, all programs that use the store share one."`
	Show    bool `help:"Print the secret even if standard output is a terminal."`
}

// jsonLive is the output for programs.
type jsonLive struct {
	URL         string    `json:"url"`
	Kind        string    `json:"kind"`
	Fingerprint string    `json:"fingerprint"`
	Environment string    `json:"environment,omitempty"`
	AgentID     string    `json:"agent_id,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Header      string    `json:"header"`
	Value       string    `json:"value,omitempty"`
	Secret      string    `json:"secret,omitempty"`
}

// Run prints a credential that the platform accepts, for another program.
func (c *credentialCmd) Run(a *app) error {
	client, err := a.readerWith(c.options()...)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := a.waiting("checking the credential")
	err = client.Verify(a.ctx) // renews a rejected credential, if that is possible
	stop()
	if err != nil {
		return err
	}
	live := jsonLive{URL: client.BaseURL()}
	cred, err := live.fill(func() (http.Header, error) {
		auth, err := client.Authorize(a.ctx, client.BaseURL()+probePath)
		if err != nil {
			return nil, err
		}
		return auth.Header(), nil
	}, func() (agrenting.Credential, error) { return client.Credential(a.ctx) })
	if err != nil {
		return err
	}
	status := client.Status()
	live.Kind, live.Fingerprint = kindName(cred.Kind()), cred.Fingerprint()
	live.Environment, live.AgentID = string(status.Environment), status.AgentID
	if e := cred.Expires(); !e.IsZero() {
		live.Expires = e.UTC().Truncate(time.Second)
	}
	if isTerminal(a.out) && !c.Show {
		live.Value, live.Secret = "", ""
		a.ui.note("the secret is printed only to a pipe or a file, or with --show")
	}
	a.encode(live)
	return nil
}

// fillAttempts bounds how often fill reads the credential again.
const fillAttempts = 5

// fill sets the header that carries the credential in use, and returns that credential. The
// two are read one after the other. If the credential was replaced in between, they are read
// again.
func (l *jsonLive) fill(header func() (http.Header, error), credential func() (agrenting.Credential, error)) (agrenting.Credential, error) {
	for range fillAttempts {
		h, err := header()
		if err != nil {
			return agrenting.Credential{}, err
		}
		cred, err := credential()
		if err != nil {
			return agrenting.Credential{}, err
		}
		for name, values := range h {
			if i := slices.IndexFunc(values, func(v string) bool { return strings.HasSuffix(v, cred.Reveal()) }); i >= 0 {
				l.Header, l.Value, l.Secret = name, values[i], cred.Reveal()
				return cred, nil
			}
		}
	}
	return agrenting.Credential{}, failure("run the command again", "the credential was replaced each time it was read")
}

func (c *credentialCmd) options() []agrenting.Option {
	if !c.Session {
		return nil
	}
	return []agrenting.Option{agrenting.WithSession()}
}
