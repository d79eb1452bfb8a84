package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go"
)

// isNoCredential reports whether there is no credential at all, which is
// another thing than one that cannot be read.
func isNoCredential(err error) bool {
	_, ok := errors.AsType[*agrenting.NoCredentialError](err)
	return ok
}

type whoamiCmd struct {
	Exchange bool `help:"With an API key: ask which agent it is of by exchanging it for a session, which is ended again. The platform allows 10 exchanges a minute for each IP address."`
}

type jsonWhoami struct {
	URL         string      `json:"url"`
	Kind        string      `json:"kind"`
	Source      string      `json:"source"`
	Fingerprint string      `json:"fingerprint"`
	Environment string      `json:"environment,omitempty"`
	Expires     time.Time   `json:"expires,omitzero"`
	AgentID     string      `json:"agent_id,omitempty"`
	AgentName   string      `json:"agent_name,omitempty"`
	Agents      []jsonAgent `json:"agents,omitempty"`
}

// Run shows whose credential is in use, after the platform has taken it.
func (c *whoamiCmd) Run(a *app) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	stop := a.waiting("asking the platform")
	defer stop()
	cred, err := client.Credential(a.ctx)
	if err != nil {
		return err
	}
	s := client.Status()
	who := jsonWhoami{
		URL: client.BaseURL(), Kind: kindName(cred.Kind()), Source: a.sourceName(s.Source), Fingerprint: cred.Fingerprint(),
		Environment: string(s.Environment), Expires: cred.Expires(), AgentID: s.AgentID,
	}
	if cred.Kind() == agrenting.KindUserToken {
		for g, err := range client.Agents.Mine(a.ctx) {
			if err != nil {
				return err
			}
			if g.ID == who.AgentID {
				who.AgentName = g.Name
			}
			who.Agents = append(who.Agents, agentJSON(&g))
		}
	} else if err := c.askKey(a, client, cred, &who); err != nil {
		return err
	}
	if a.JSON {
		encode(a.out, who)
		return nil
	}
	a.ui.pairs(
		pair{"platform", who.URL}, pair{"credential", cred.Kind().String() + " " + who.Fingerprint}, pair{"from", who.Source},
		pair{"environment", who.Environment}, pair{"expires", when(who.Expires)}, pair{"agent", who.AgentID}, pair{"name", who.AgentName},
	)
	for i := range who.Agents {
		a.ui.pairs(pair{"owns", who.Agents[i].ID + "  " + who.Agents[i].Name})
	}
	return nil
}

func (c *whoamiCmd) askKey(a *app, client *agrenting.Client, cred agrenting.Credential, who *jsonWhoami) error {
	if err := client.Verify(a.ctx); err != nil {
		return err
	}
	if c.Exchange && cred.Kind() == agrenting.KindAPIKey {
		session, err := client.Sessions.Authenticate(a.ctx)
		if err != nil {
			return err
		}
		if session.AgentID != "" {
			who.AgentID, who.AgentName = session.AgentID, session.AgentName
		}
		if err := a.end(session.Credential); err != nil {
			a.ui.note("the session could not be ended: %s", textOf(err))
		}
	}
	if who.AgentID != "" && who.AgentName == "" {
		if g, err := client.Agents.Get(a.ctx, who.AgentID); err == nil {
			who.AgentName = g.Name
		}
	}
	return nil
}

// end ends a session, also when the run is being interrupted.
func (a *app) end(session agrenting.Credential) error {
	client, err := a.as(session)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 5*time.Second)
	defer cancel()
	return client.Sessions.Logout(ctx)
}

// sourceName says where a credential is from in the words of the command line.
func (a *app) sourceName(source string) string {
	switch {
	case source == "WithCredential":
		return "standard input"
	case source == "WithKeyStore":
		return "--store " + a.Store
	case source == varKeyFile && a.KeyFile != "":
		return "--key-file " + a.KeyFile
	default:
		return source
	}
}

type loginCmd struct {
	secretFlags
}

type jsonSession struct {
	Fingerprint string    `json:"fingerprint"`
	AgentID     string    `json:"agent_id,omitempty"`
	AgentName   string    `json:"agent_name,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Kept        bool      `json:"kept"`
	File        string    `json:"file,omitempty"`
	Secret      string    `json:"secret,omitempty"`
}

// Run buys a session. One that nobody is going to have is ended again.
func (c *loginCmd) Run(a *app) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := c.open(false)
	if err != nil {
		return err
	}
	defer s.close()
	stop := a.waiting("exchanging the key for a session")
	session, err := client.Sessions.Authenticate(a.ctx)
	stop()
	if err != nil {
		return a.hint(err, agrenting.ErrForbidden, "only an agent's key buys sessions; a user token (ap_…) is used as it is")
	}
	cred := session.Credential
	secret := cred.Reveal()
	if err := s.put(secret); err != nil {
		return err
	}
	kept := c.Show || c.Out != ""
	if !kept {
		if err := a.end(cred); err != nil {
			return err
		}
		a.ui.note("the session was ended again, since nobody would have it: keep it by --out FILE, or print it by --show")
	}
	if a.JSON {
		encode(a.out, jsonSession{
			Fingerprint: cred.Fingerprint(), AgentID: session.AgentID, AgentName: session.AgentName,
			Expires: cred.Expires(), Kept: kept, File: c.Out, Secret: s.shown(secret),
		})
		return nil
	}
	a.ui.pairs(
		pair{"session", cred.Fingerprint()}, pair{"agent", session.AgentID}, pair{"name", session.AgentName},
		pair{"expires", when(cred.Expires())}, pair{"file", c.Out}, pair{"secret", s.shown(secret)},
	)
	if c.Out != "" {
		a.ui.note("use it by --key-file %s --type session", c.Out)
	}
	return nil
}

// refusedMend is what to do about a credential that the platform does not know.
func refusedMend(source string, kind agrenting.Kind) string {
	mend := "it is invalid, expired or revoked: put a valid one into " + source
	if kind == agrenting.KindAPIKey {
		mend += " (keys come from https://agrenting.com/dashboard/api-keys); if it is a session token, say so by --type session"
	}
	return mend
}

// refusedMend is the same for the credential of the last client.
func (a *app) refusedMend() string {
	s := a.last.Status() // closed by now, and a closed client forgets what it was given
	kind := cmp.Or(s.Kind, a.fixed)
	if kind == 0 {
		return "no credential was sent: " + noCredentialMend(s.Environment)
	}
	return refusedMend(a.sourceName(s.Source), kind)
}

type logoutCmd struct{}

// Run ends the session in use or, with an API key, what the platform ends for
// it.
func (*logoutCmd) Run(a *app) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	cred, err := client.Credential(a.ctx)
	if err != nil {
		return err
	}
	if cred.Kind() == agrenting.KindUserToken {
		return usage("give the session's token by --key-file FILE --type session or AGRENTING_SESSION_TOKEN; "+
			"agrenting tokens revoke ends a user token", "a user token has no session")
	}
	if err := client.Sessions.Logout(a.ctx); err != nil {
		return err
	}
	if a.JSON {
		encode(a.out, map[string]any{"ended": true, "kind": kindName(cred.Kind()), "fingerprint": cred.Fingerprint()})
		return nil
	}
	if cred.Kind() == agrenting.KindSession {
		a.ui.line("session %s has ended", cred.Fingerprint())
	} else {
		a.ui.line("the sessions of key %s have ended", cred.Fingerprint())
	}
	return nil
}
