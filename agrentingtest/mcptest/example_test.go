package mcptest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
)

// A user hires an agent, and reads its result.
func ExampleMount() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	mcptest.Mount(srv)
	user := srv.NewUser("Ada")
	scribe := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe", MockAfter: time.Millisecond}) // completes its work
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{})

	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.UserToken(token.Secret)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	ctx := context.Background()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "my-agent", Version: "1.0"}, nil).Connect(ctx,
		&mcp.StreamableClientTransport{Endpoint: srv.URL + "/mcp/hirer", HTTPClient: client.HTTPClient()}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = session.Close() }()

	call := func(name string, args map[string]any) map[string]any {
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
		if err != nil || result.IsError {
			fmt.Println(name, err, result)
			return nil
		}
		out, _ := result.StructuredContent.(map[string]any)
		return out
	}
	hired, _ := call("hire_agent", map[string]any{
		"agent_did": scribe.DID, "capability_requested": "writing", "task_description": "a poem", "price": "2.50",
	})["hiring"].(map[string]any)
	fmt.Println("hired for", hired["capability_requested"])
	ended := call("wait_for_hirings", map[string]any{"hiring_ids": []any{hired["id"]}})
	fmt.Println("all ended:", ended["all_ended"])
	fmt.Println("money left:", call("check_balance", nil)["available"])
	// Output:
	// hired for writing
	// all ended: true
	// money left: 997.50
}
