package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

const (
	requestCommand    = "request"
	idempotencyHeader = "X-Idempotency-Key"
)

// issuing returns an issuing for a call that issues a secret, and nil for other calls.
func (c *requestCmd) issuing(a *app, client *agrenting.Client, query url.Values, body any) (*issuing, error) {
	if !c.issues() {
		return nil, nil //nolint:nilnil // it may be repeated like any other
	}
	flags := issueFlags{secretFlags: c.secretFlags}
	hash := sha256.New() // the body may have a password
	for _, h := range c.Header {
		name, value, _ := strings.Cut(h, ":")
		switch name = strings.TrimSpace(name); {
		case ascii.EqualFold(name, idempotencyHeader):
			flags.IdempotencyKey = strings.TrimSpace(value)
		case ascii.EqualFold(name, "Accept-Encoding"):
			return nil, usage("leave out Accept-Encoding", "a compressed response cannot be searched for the secret")
		default:
			fmt.Fprintln(hash, h)
		}
	}
	if err := json.NewEncoder(hash).Encode(body); err != nil {
		return nil, err
	}
	i := &issuing{
		what: "the secret", done: "issued",
		check: "agrenting keys list or agrenting tokens list shows whether there is a new one",
		undo:  "revoke it with agrenting keys revoke or agrenting tokens revoke",
	}
	err := i.begin(a, client, flags, requestCommand, map[string]string{
		"path": c.Path, "query": query.Encode(), "content": fmt.Sprintf("sha256:%x", hash.Sum(nil)[:8]), "agent": a.env(varAgentID),
	})
	return i, err
}
