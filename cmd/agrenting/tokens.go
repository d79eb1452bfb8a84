package main

import (
	"context"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

type tokensCmd struct {
	List   tokensListCmd   `cmd:"" help:"List the tokens of the user."`
	Create tokensCreateCmd `cmd:"" help:"Create a token."`
	Revoke tokensRevokeCmd `cmd:"" help:"Revoke a token immediately."`
}

type tokensListCmd struct{}

type jsonToken struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Scopes   []string  `json:"scopes"`
	Hint     string    `json:"hint,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	LastUsed time.Time `json:"last_used,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
}

// Run lists tokens.
func (*tokensListCmd) Run(a *app) error {
	client, err := a.reader()
	if err != nil {
		return err
	}
	defer client.Close()
	stop := a.waiting("reading the list of tokens")
	defer stop()
	list := []jsonToken{}
	var rows [][]string
	for t, err := range client.Tokens.List(a.ctx) {
		if err != nil {
			return a.hint(err, agrenting.ErrForbidden, hintUser)
		}
		list = append(list, jsonToken{
			ID: t.ID, Name: t.Name, Scopes: append([]string{}, t.Scopes...), Hint: t.Hint,
			Created: t.Created, LastUsed: t.LastUsed, Expires: t.Expires,
		})
		rows = append(rows, []string{t.ID, t.Name, t.Hint, when(t.Created), when(t.Expires), strings.Join(t.Scopes, " ")})
	}
	if a.JSON {
		a.encode(map[string]any{"tokens": list})
		return nil
	}
	a.ui.table([]string{"ID", "NAME", "HINT", "CREATED", "EXPIRES", "SCOPES"}, rows)
	return nil
}

type tokensCreateCmd struct {
	issueFlags

	Name      string        `arg:"" help:"The name of the token, for people."`
	Scope     []string      `placeholder:"SCOPE" help:"A scope of the token, such as agents:read; may be repeated. By default, the platform chooses the scopes."`
	ExpiresIn time.Duration `placeholder:"DURATION" help:"Lifetime, such as 720h."`
}

// Run creates a token.
func (c *tokensCreateCmd) Run(a *app) error {
	a.watched()
	client, err := a.reader()
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
		what: "the token", done: "created",
		check: "agrenting tokens list shows whether there is a new token", undo: "revoke it with agrenting tokens revoke",
	}
	request := agrenting.TokenRequest{Name: c.Name, Scopes: c.Scope, ExpiresIn: c.ExpiresIn}
	if err := i.begin(a, client, c.issueFlags, "tokens create", request); err != nil {
		return err
	}
	stop := a.waiting("creating a token")
	t, err := client.Tokens.Create(a.ctx, request, i.option())
	stop()
	if err != nil {
		return i.rescue(s, a.hint(err, agrenting.ErrForbidden, hintUser))
	}
	if err := a.issued(s, i, "token", t); err != nil {
		return err
	}
	i.strays(t.ID, c.Name, func(ctx context.Context, yield func(id, name string, created time.Time)) {
		for t, err := range client.Tokens.List(ctx) {
			if err == nil {
				yield(t.ID, t.Name, t.Created)
			}
		}
	})
	return nil
}

type tokensRevokeCmd struct {
	confirmFlags

	ID string `arg:"" help:"The ID of the token; see tokens list."`
}

// Run revokes a token.
func (c *tokensRevokeCmd) Run(a *app) error {
	client, err := a.reader()
	if err != nil {
		return err
	}
	defer client.Close()
	question := "Revoke the token " + c.ID + " at once?"
	if a.asks(c.confirmFlags) {
		name, inUseHere := a.tokenNamed(client, c.ID)
		question = "Revoke " + name + " at once?"
		if inUseHere {
			question = a.inUseNote(client, name) + question
		}
	}
	if err := a.confirm(c.confirmFlags, question); err != nil {
		return err
	}
	if err := client.Tokens.Revoke(a.ctx, c.ID); err != nil {
		err = a.hint(err, agrenting.ErrForbidden, hintUser)
		return a.hint(err, agrenting.ErrNotFound, "agrenting tokens list shows the IDs")
	}
	return a.revoked("token", c.ID)
}
