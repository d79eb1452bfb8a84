package main

import (
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

type credentialCmd struct {
	Session bool `help:"Print a session instead of the API key; with --store, all programs that use the store share one."`
	Show    bool `help:"Print the secret on a terminal, too."`
}

// jsonLive is what programs read.
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
	err = client.Verify(a.ctx) // renews what the platform rejects, if that is possible
	stop()
	if err != nil {
		return err
	}
	auth, err := client.Authorize(a.ctx, client.BaseURL()+probePath)
	if err != nil {
		return err
	}
	cred, err := client.Credential(a.ctx)
	if err != nil {
		return err
	}
	status := client.Status()
	live := jsonLive{
		URL: client.BaseURL(), Kind: kindName(cred.Kind()), Fingerprint: cred.Fingerprint(),
		Environment: string(status.Environment), AgentID: status.AgentID,
	}
	if e := cred.Expires(); !e.IsZero() {
		live.Expires = e.UTC().Truncate(time.Second)
	}
	for name, values := range auth.Header() {
		if i := slices.IndexFunc(values, func(v string) bool { return strings.HasSuffix(v, cred.Reveal()) }); i >= 0 {
			live.Header, live.Value, live.Secret = name, values[i], cred.Reveal()
		}
	}
	if isTerminal(a.out) && !c.Show {
		live.Value, live.Secret = "", ""
		a.ui.note("the secret is printed only to a pipe or a file, or with --show")
	}
	encode(a.out, live)
	return nil
}

func (c *credentialCmd) options() []agrenting.Option {
	if !c.Session {
		return nil
	}
	return []agrenting.Option{agrenting.WithSession()}
}
