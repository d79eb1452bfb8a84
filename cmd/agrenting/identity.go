package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/agrenting/agrenting-go"
)

// isNoCredential reports whether no source has a credential. A source that cannot be read is a
// different error.
func isNoCredential(err error) bool {
	_, ok := errors.AsType[*agrenting.NoCredentialError](err)
	return ok
}

type whoamiCmd struct {
	Exchange bool `help:"With an API key: find out its agent by exchanging it for a session, which is then ended. The platform allows 10 exchanges per minute for each IP address."`
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

// Run shows the agent or user that the credential in use belongs to, after the platform has
// accepted it.
func (c *whoamiCmd) Run(a *app) error {
	client, err := a.reader()
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
	who := jsonWhoami{URL: client.BaseURL(), AgentID: a.knownAgent(client)}
	if who.AgentID != "" || cred.Kind() != agrenting.KindUserToken {
		if err := a.tried(client); err != nil {
			return err
		}
	}
	if cred.Kind() == agrenting.KindUserToken {
		err = who.askUser(a, client)
	} else {
		err = c.askKey(a, client, cred, &who)
	}
	if err != nil {
		return err
	}
	// Read the credential only now: a rejected key of a store may have been replaced.
	if cred, err = client.Credential(a.ctx); err != nil {
		return err
	}
	s := client.Status()
	who.Kind, who.Source, who.Fingerprint = kindName(cred.Kind()), a.sourceName(s.Source), cred.Fingerprint()
	who.Environment, who.Expires = string(s.Environment), cred.Expires()
	if a.JSON {
		a.encode(who)
		return nil
	}
	lines := []pair{
		{"platform", who.URL},
		{"credential", cred.Kind().String() + " " + who.Fingerprint},
		{"from", who.Source},
		{"environment", who.Environment},
		{"expires", when(who.Expires)},
		{"agent", who.AgentID},
		{"name", who.AgentName},
	}
	for i := range who.Agents {
		lines = append(lines, pair{"owns", who.Agents[i].ID + "  " + who.Agents[i].Name})
	}
	a.ui.pairs(lines...)
	return nil
}

// tried tries the credential, and notes a refusal that is not caused by the credential.
func (a *app) tried(client *agrenting.Client) error {
	t := a.try(client)
	if err := cmp.Or(t.err, t.agent); err != nil {
		return err
	}
	if t.refusal != nil && client.Status().Kind != agrenting.KindUserToken {
		a.ui.note("the platform recognizes the credential, but does not permit everything: %s", textOf(t.refusal))
	}
	return nil
}

// askUser requests the agents that belong to the user.
func (who *jsonWhoami) askUser(a *app, client *agrenting.Client) error {
	for g, err := range client.Agents.Mine(a.ctx) {
		if err != nil {
			return err
		}
		if g.ID == who.AgentID || g.DID == who.AgentID {
			who.AgentName = g.Name
		}
		who.Agents = append(who.Agents, agentJSON(&g))
	}
	return nil
}

func (c *whoamiCmd) askKey(a *app, client *agrenting.Client, cred agrenting.Credential, who *jsonWhoami) error {
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
		if who.AgentID == "" {
			a.ui.note("the platform did not name the agent whose key it exchanged")
		}
	}
	if who.AgentID != "" && who.AgentName == "" {
		who.AgentName = a.nameOf(client, who.AgentID)
	}
	return nil
}

// nameOf returns the name of an agent, or "" if it is not available.
func (a *app) nameOf(client *agrenting.Client, agent string) string {
	g, err := client.Agents.Get(a.ctx, agent)
	if err != nil {
		return ""
	}
	return g.Name
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

// sourceName returns the source of a credential in terms of the command line.
func (a *app) sourceName(source string) string {
	switch {
	case source == "WithCredential":
		return "standard input"
	case source == "WithStore":
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

// Run exchanges the key for a session. It ends a session that is neither saved nor printed.
func (c *loginCmd) Run(a *app) error {
	client, err := a.reader()
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
		return a.hint(err, agrenting.ErrForbidden, "only an agent's key can be exchanged for sessions; a user token (ap_…) is used directly")
	}
	cred := session.Credential
	secret := cred.Reveal()
	if left, err := s.write(secret + "\n"); err != nil {
		if left != "" {
			_ = os.Remove(left)
		}
		msg := c.Out + " could not be written: " + cause(err).Error() + "; the session "
		if eerr := a.end(cred); eerr != nil {
			return failure(fileHint(err), "%scould not be ended either (%s), and will expire", msg, textOf(eerr))
		}
		return failure(fileHint(err), "%swas ended", msg)
	}
	c.lookUp(a, client, session)
	kept := c.Show || c.Out != ""
	if !kept {
		if err := a.end(cred); err != nil {
			return err
		}
		a.ui.note("the session was ended, because it was neither saved nor printed: save it with --out FILE, or print it with --show")
	}
	if a.JSON {
		a.encode(jsonSession{
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
		a.ui.note("use it with --key-file %s --type session", c.Out)
	}
	return nil
}

// lookUp fills in the agent if the response with the session did not name it: the agent that was
// specified, or the one in the store, if the platform confirms it.
func (*loginCmd) lookUp(a *app, client *agrenting.Client, session *agrenting.Session) {
	if session.AgentID == "" {
		id := a.knownAgent(client)
		if id == "" {
			return
		}
		if t := a.try(client); t.err != nil || t.agent != nil {
			return
		}
		session.AgentID = id
	}
	if session.AgentName == "" {
		session.AgentName = a.nameOf(client, session.AgentID)
	}
}

// keyPage is the web page for creating keys.
const keyPage = "https://agrenting.com/dashboard/api-keys"

// refusedHint returns what to do about the credential of the last client, which the platform
// rejected.
func (a *app) refusedHint() string {
	s := a.last.Status() // a closed client has no credential, but its status is still available
	kind := cmp.Or(s.Kind, a.fixed)
	if s.Source == "WithAnonymous" {
		return "no credential was sent: " + noCredentialHint(s.Environment)
	}
	const hint = "it is invalid, expired, or revoked: "
	if s.Source == "WithStore" {
		return hint + a.initialKeyHint(s.Environment) + ", and --store " + a.Store + " adopts it (keys come from " + keyPage + ")"
	}
	text := hint + "put a valid one into " + a.placeOf(s.Source)
	if kind == agrenting.KindAPIKey {
		text += " (keys come from " + keyPage + ")"
	}
	switch {
	case a.Type == "" && a.env(varType) != "":
		text += "; " + varType + " sets its type to " + kindName(kind) + ": make sure that this is correct"
	case kind == agrenting.KindAPIKey:
		text += "; if it is a session token, add --type session"
	}
	return text
}

// initialKeyHint returns where to put another initial key for a store.
func (a *app) initialKeyHint(env agrenting.Environment) string {
	switch {
	case a.KeyFile == "-":
		return "pass a valid key on standard input"
	case a.env(varKeyFile) != "":
		return "put a valid key into " + a.placeOf(varKeyFile)
	case env == agrenting.Sandbox:
		return "set " + varSandboxKey + " to a valid key"
	default:
		return "set " + varAPIKey + " to a valid key"
	}
}

// placeOf is like sourceName, with the path of a file that a variable names.
func (a *app) placeOf(source string) string {
	if source == varKeyFile && a.KeyFile == "" {
		return "the key file " + a.env(varKeyFile) + " (" + varKeyFile + ")"
	}
	return a.sourceName(source)
}

const bareKey = "a key file has only the key itself, without NAME="

// assignment matches a line of a file of variables for a shell or container. A key may end
// with =.
var assignment = regexp.MustCompile(`^\x{feff}?\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*=[^=\s]`)

// assignmentInFile reports whether the key file assigns a variable.
func (a *app) assignmentInFile() bool {
	path := a.env(varKeyFile)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path) // #nosec G304 -- it is the key file
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 4<<10)
	n, _ := io.ReadFull(f, head)
	return assignment.Match(head[:n])
}

type logoutCmd struct {
	confirmFlags
}

// Run ends the session in use or, with an API key, sessions that were obtained with the key. The
// platform does not document which ones, or how many.
func (c *logoutCmd) Run(a *app) error {
	client, err := a.reader()
	if err != nil {
		return err
	}
	defer client.Close()
	cred, err := client.Credential(a.ctx)
	if err != nil {
		return err
	}
	if cred.Kind() == agrenting.KindUserToken {
		return usage("pass the token of the session with --key-file FILE --type session or AGRENTING_SESSION_TOKEN; "+
			"agrenting tokens revoke ends a user token", "a user token has no session")
	}
	if cred.Kind() == agrenting.KindAPIKey {
		question := "End the sessions of the key " + cred.Fingerprint() + " from " + a.placeOf(client.Status().Source) +
			"? The platform does not say how many it ends: all sessions of this key may end, on other machines too. " +
			"Every program that uses one must exchange the key again."
		if err := a.confirm(c.confirmFlags, question); err != nil {
			return err
		}
	}
	if err := client.Sessions.Logout(a.ctx); err != nil {
		return err
	}
	if a.JSON {
		a.encode(map[string]any{"ended": true, "kind": kindName(cred.Kind()), "fingerprint": cred.Fingerprint()})
		return nil
	}
	if cred.Kind() == agrenting.KindSession {
		a.ui.line("session %s has ended", cred.Fingerprint())
	} else {
		a.ui.line("the platform has ended sessions of the key %s; it does not say which or how many", cred.Fingerprint())
	}
	return nil
}
