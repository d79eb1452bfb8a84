package main

import (
	"context"
	"time"

	"github.com/agrenting/agrenting-go"
)

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List the keys of an agent."`
	Create keysCreateCmd `cmd:"" help:"Create a key for an agent."`
	Rotate keysRotateCmd `cmd:"" help:"Replace the key in use."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke a key of an agent immediately."`
}

type keysListCmd struct {
	AgentID string `arg:"" optional:"" help:"The agent of the keys; --agent by default."`
}

type jsonKey struct {
	ID          string    `json:"id"`
	AgentID     string    `json:"agent_id,omitempty"`
	Name        string    `json:"name"`
	Hint        string    `json:"hint,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Created     time.Time `json:"created,omitzero"`
	LastUsed    time.Time `json:"last_used,omitzero"`
	Expires     time.Time `json:"expires,omitzero"`
	Revoked     time.Time `json:"revoked,omitzero"`
	InUse       bool      `json:"in_use,omitempty"`
}

// inUse returns the index of the one live key that matches the credential, or -1 if that is not
// certain.
func inUse(keys []agrenting.Key, cred agrenting.Credential) int {
	found := -1
	for i := range keys {
		if cred.Kind() != agrenting.KindAPIKey || !keys[i].Revoked.IsZero() || !keys[i].Matches(cred) {
			continue
		}
		if found >= 0 {
			return -1
		}
		found = i
	}
	return found
}

// Run lists keys.
func (c *keysListCmd) Run(a *app) error {
	client, agent, err := a.clientFor(c.AgentID)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := a.waiting("reading the list of keys")
	defer stop()
	list := []jsonKey{}
	var keys []agrenting.Key
	var rows [][]string
	for k, err := range client.Keys.List(a.ctx, agent) {
		if err != nil {
			return a.hint(err, agrenting.ErrNotFound, hintAgent)
		}
		keys = append(keys, k)
		list = append(list, jsonKey{
			ID: k.ID, AgentID: k.AgentID, Name: k.Name, Hint: k.Hint, Environment: string(k.Environment),
			Created: k.Created, LastUsed: k.LastUsed, Expires: k.Expires, Revoked: k.Revoked,
		})
		state := "live"
		if !k.Revoked.IsZero() {
			state = "revoked"
		}
		rows = append(rows, []string{k.ID, k.Name, k.Hint, state, when(k.Created), when(k.LastUsed)})
	}
	if cred, err := client.Credential(a.ctx); err == nil {
		if i := inUse(keys, cred); i >= 0 {
			list[i].InUse, rows[i][3] = true, "in use"
		}
	}
	if a.JSON {
		a.encode(map[string]any{"keys": list})
		return nil
	}
	a.ui.table([]string{"ID", "NAME", "HINT", "STATE", "CREATED", "LAST USED"}, rows)
	return nil
}

type keysCreateCmd struct {
	issueFlags

	AgentID string `arg:"" optional:"" help:"The agent of the key; --agent by default."`
	Name    string `help:"The name of the key, for people."`
}

// Run creates a key.
func (c *keysCreateCmd) Run(a *app) error {
	a.watched()
	client, agent, err := a.clientFor(c.AgentID)
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := c.open(true)
	if err != nil {
		return err
	}
	defer s.close()
	i := &issuing{
		what: "the key", done: "created",
		check: "agrenting keys list " + agent + " shows whether there is a new key", undo: "revoke it with agrenting keys revoke",
	}
	if err := i.begin(a, client, c.issueFlags, "keys create", map[string]string{"agent": agent, "name": c.Name}); err != nil {
		return err
	}
	stop := a.waiting("creating a key")
	k, err := client.Keys.Create(a.ctx, agent, c.Name, i.option())
	stop()
	if err != nil {
		return i.rescue(s, a.hint(err, agrenting.ErrNotFound, hintAgent))
	}
	if k.AgentID == "" {
		k.AgentID = agent
	}
	if err := a.issued(s, i, "key", k); err != nil {
		return err
	}
	i.strays(k.ID, c.Name, func(ctx context.Context, yield func(id, name string, created time.Time)) {
		for k, err := range client.Keys.List(ctx, agent) {
			if err == nil && k.Revoked.IsZero() {
				yield(k.ID, k.Name, k.Created)
			}
		}
	})
	return nil
}

type keysRevokeCmd struct {
	confirmFlags

	KeyID   string `arg:"" help:"The ID of the key; see keys list."`
	AgentID string `name:"of" placeholder:"ID" help:"The agent of the key; --agent by default."`
}

// Run revokes a key.
func (c *keysRevokeCmd) Run(a *app) error {
	client, agent, err := a.clientFor(c.AgentID)
	if err != nil {
		return err
	}
	defer client.Close()
	question := "Revoke the key " + c.KeyID + " of the agent " + agent + " at once?"
	if a.asks(c.confirmFlags) {
		name, inUseHere := a.keyNamed(client, agent, c.KeyID)
		question = "Revoke " + name + " of the agent " + agent + " at once?"
		if inUseHere {
			question = a.inUseNote(client, name) + question
		}
	}
	if err := a.confirm(c.confirmFlags, question); err != nil {
		return err
	}
	if err := client.Keys.Revoke(a.ctx, agent, c.KeyID); err != nil {
		return a.hint(err, agrenting.ErrNotFound, "agrenting keys list shows the IDs")
	}
	return a.revoked("key", c.KeyID)
}

// revoked reports that a key or token was revoked.
func (a *app) revoked(what, id string) error {
	if a.JSON {
		a.encode(map[string]any{"revoked": id})
		return nil
	}
	a.ui.line("%s %s is revoked", what, visible(id))
	return nil
}
