package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

// promptTime bounds the calls to the platform that find the names for a question.
const promptTime = 10 * time.Second

// asks reports whether confirm will ask.
func (a *app) asks(f confirmFlags) bool { return !f.Yes && isTerminal(a.in) && isTerminal(a.err) }

// keyNamed describes a key of an agent for a question, as far as the platform returns it:
// "key ID", or the key "writer" (ID, …8178).
func (a *app) keyNamed(client *agrenting.Client, agent, id string) (name string, inUseHere bool) {
	ctx, cancel := context.WithTimeout(a.ctx, promptTime)
	defer cancel()
	var keys []agrenting.Key
	at := -1
	for k, err := range client.Keys.List(ctx, agent) {
		if err != nil {
			return "the key " + id, false
		}
		if k.ID == id {
			at = len(keys)
		}
		keys = append(keys, k)
	}
	if at < 0 {
		return "the key " + id, false
	}
	cred, err := client.Credential(ctx)
	return named("key", keys[at].Name, id, keys[at].Hint), err == nil && inUse(keys, cred) == at
}

// tokenNamed is like keyNamed, for the tokens of a user.
func (a *app) tokenNamed(client *agrenting.Client, id string) (name string, inUseHere bool) {
	ctx, cancel := context.WithTimeout(a.ctx, promptTime)
	defer cancel()
	cred, err := client.Credential(ctx)
	if err != nil {
		return "the token " + id, false
	}
	fits, found := 0, false
	for t, err := range client.Tokens.List(ctx) {
		if err != nil {
			return "the token " + id, false
		}
		match := len(t.Hint) >= 4 && cred.Kind() == agrenting.KindUserToken &&
			(strings.HasSuffix(cred.Reveal(), t.Hint) || strings.HasPrefix(cred.Reveal(), t.Hint))
		if match {
			fits++
		}
		if t.ID == id {
			name, found, inUseHere = named("token", t.Name, id, t.Hint), true, match
		}
	}
	if !found {
		return "the token " + id, false
	}
	return name, inUseHere && fits == 1
}

// named describes a key or token for a question.
func named(what, name, id, hint string) string {
	text := "the " + what
	if name != "" {
		text += ` "` + name + `"`
	}
	text += " (" + id
	if hint != "" {
		text += ", …" + hint
	}
	return text + ")"
}

// inUseNote returns the text before a question about the credential in use.
func (a *app) inUseNote(client *agrenting.Client, name string) string {
	return "This command itself uses " + name + ", from " + a.placeOf(client.Status().Source) + ". "
}

// ownName returns the name of the key in use, in quotes and after a space. It returns "" if the
// key has no name, or if the name is not available.
func (a *app) ownName(client *agrenting.Client, agent string, cred agrenting.Credential) string {
	if agent == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(a.ctx, promptTime)
	defer cancel()
	var keys []agrenting.Key
	for k, err := range client.Keys.List(ctx, agent) {
		if err != nil {
			return ""
		}
		keys = append(keys, k)
	}
	if at := inUse(keys, cred); at >= 0 && keys[at].Name != "" {
		return ` "` + keys[at].Name + `"`
	}
	return ""
}

// bareQuestion returns the question before the rotation of a key without a store.
func (c *keysRotateCmd) bareQuestion(a *app, client *agrenting.Client, key agrenting.Credential) string {
	name := ""
	if a.asks(c.confirmFlags) {
		name = a.ownName(client, client.Status().AgentID, key)
	}
	where := "is printed"
	if c.Out != "" {
		where = "goes to " + c.Out
	}
	return "Rotate the key" + name + " from " + a.placeOf(client.Status().Source) + " (" + key.Fingerprint() + ")? The new key " + where +
		"; the old one stops working in every program that has it."
}

// storeQuestion returns the question before the rotation of the key in the store, or of the key
// that will fill it.
func (c *keysRotateCmd) storeQuestion(a *app, client *agrenting.Client) (string, error) {
	state, err := a.stored()
	switch {
	case errors.Is(err, agrenting.ErrNoRecord) && a.KeyFile == "-":
		return "Store the key from standard input in " + a.Store + " and rotate it? " + onlyStore, nil
	case errors.Is(err, agrenting.ErrNoRecord):
		return c.fillQuestion(a)
	case err != nil:
		return "", err
	}
	name := ""
	if a.asks(c.confirmFlags) {
		name = a.ownName(client, state.AgentID, state.Credential)
	}
	text := " the key" + name + " in " + a.Store + " (" + state.Credential.Fingerprint() + ")? " + fromStore
	if state.Unfinished != nil {
		return "Finish the rotation of" + text, nil
	}
	return "Rotate" + text, nil
}

// The effects of a rotation over a store on other programs.
const (
	fromStore = "The old key is revoked; programs that use the store get the new one."
	onlyStore = "The old key is revoked; only programs that use the store get the new one."
)

// fillQuestion is like storeQuestion, for a store without a key.
func (c *keysRotateCmd) fillQuestion(a *app) (string, error) {
	bare := *a
	bare.Store = ""
	client, err := bare.client()
	if err != nil {
		return "", err
	}
	defer client.Close()
	key, err := client.Credential(a.ctx)
	if err != nil {
		return "", err
	}
	name := ""
	if a.asks(c.confirmFlags) {
		name = a.ownName(client, client.Status().AgentID, key)
	}
	return "Store the key" + name + " from " + a.placeOf(client.Status().Source) + " (" + key.Fingerprint() + ") in " + a.Store +
		" and rotate it? " + onlyStore, nil
}
