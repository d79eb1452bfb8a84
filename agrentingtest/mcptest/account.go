package mcptest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// githubToken records that a token is set, but not the token.
type githubToken struct{ set time.Time }

// addAccountTools adds the tools for the account of a user.
func (e *Endpoints) addAccountTools(s *mcp.Server) {
	addTool(e, s, &mcp.Tool{
		Name:        "generate_deposit_address",
		Description: "Get an address to deposit money to. It is simulated: do not send money to it.",
	}, generateDepositAddress)
	addTool(e, s, &mcp.Tool{
		Name:        "set_github_token",
		Description: "Store a GitHub token in the account, for results that are pushed.",
	}, setGitHubToken)
	addTool(e, s, &mcp.Tool{
		Name: "get_github_token_status", Annotations: readOnly,
		Description: "Check if the account has a GitHub token.",
	}, gitHubTokenStatus)
	addTool(e, s, &mcp.Tool{
		Name:        "clear_github_token",
		Description: "Remove the GitHub token from the account.",
	}, clearGitHubToken)
}

type depositInput struct {
	Currency string `json:"currency,omitempty" jsonschema:"a symbol such as USDC, which is the default"`
}

// generateDepositAddress always returns the same address for the same account and
// currency.
func generateDepositAddress(_ context.Context, c *call, in depositInput) (any, error) {
	if err := c.needs("deposits:create"); err != nil {
		return nil, err
	}
	currency := strings.ToUpper(cmp.Or(in.Currency, "USDC"))
	if len(currency) > 10 || strings.Trim(currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return nil, invalid("currency must be a symbol such as USDC")
	}
	sum := sha256.Sum256([]byte(account(c.who) + " " + currency))
	return map[string]any{
		"currency": currency, "address": "simulated-" + strings.ToLower(currency) + "-" + hex.EncodeToString(sum[:16]),
		"simulated": true,
	}, nil
}

type githubInput struct {
	Token string `json:"token" jsonschema:"a GitHub token with access to the repositories"`
}

func setGitHubToken(_ context.Context, c *call, in githubInput) (any, error) {
	if err := c.needsUser("account:write"); err != nil {
		return nil, err
	}
	if strings.TrimSpace(in.Token) == "" {
		return nil, invalid("token can't be blank")
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.e.github[account(c.who)] = githubToken{set: time.Now()}
	return c.githubStatus(), nil
}

func gitHubTokenStatus(_ context.Context, c *call, _ struct{}) (any, error) {
	if err := c.needsUser("account:read"); err != nil {
		return nil, err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return c.githubStatus(), nil
}

func clearGitHubToken(_ context.Context, c *call, _ struct{}) (any, error) {
	if err := c.needsUser("account:write"); err != nil {
		return nil, err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	delete(c.e.github, account(c.who))
	return c.githubStatus(), nil
}

// githubStatus needs the lock.
func (c *call) githubStatus() map[string]any {
	token, ok := c.e.github[account(c.who)]
	status := map[string]any{"configured": ok, "updated_at": nil}
	if ok {
		status["updated_at"] = token.set.UTC().Format(time.RFC3339Nano)
	}
	return status
}
