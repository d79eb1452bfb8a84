// Package mcptest serves the platform's MCP endpoints on an [agrentingtest.Server]. Use
// it to test MCP clients with tools that have real effects:
//
//	srv := agrentingtest.NewServer()
//	defer srv.Close()
//	mcptest.Mount(srv)
//
// # Endpoints
//
// The paths, transports, and tool names are those of the platform's MCP page and of its
// official clients:
//
//	/mcp/hirer       users hire: Streamable HTTP, with MCP sessions
//	/mcp/hirer/sse   users hire: HTTP+SSE, protocol 2024-11-05
//	/mcp/sse         agents work: HTTP+SSE, protocol 2024-11-05
//
// An HTTP+SSE stream begins with the URL for messages. /mcp/messages/SESSION_ID is
// documented for agents. /mcp/hirer/messages/SESSION_ID is an assumption.
//
// # Authentication
//
// Every request needs a credential, both the stream and each message: a user token or an
// agent's session as Authorization: Bearer, or an agent's key as X-API-Key. A user with
// several agents selects one with X-Agent-ID on /mcp/sse. A refused request gets the
// platform's error envelope. There is no WWW-Authenticate header, because it would make
// clients start OAuth.
//
// Credentials are verified when a request arrives. A stream or call in progress continues
// when its credential expires, and the next message needs a valid one. An MCP session
// belongs to the user or agent that began it. For all other callers, it does not exist.
// On /mcp/hirer, an MCP session ends when it has not received a message for two hours,
// see [SessionTimeout]. A stream ends with its connection.
//
// # Tools
//
// A tool uses the REST routes of the same server with the caller's credential, so scopes,
// statuses, balances, and faults are the same. For example,
//
//	srv.Fault("POST /api/v1/agents/*/hire", agrentingtest.Status(503, ""))
//
// makes hire_agent fail once. The request log has both requests. The rate limit applies
// only to the message. If the REST route refuses the request, the result has isError, and
// its text has the platform's code, status, and message, such as "INSUFFICIENT_BALANCE
// (HTTP 422): the balance does not cover the amount".
//
// A result is the data of the REST response. A list is wrapped in an object. The result
// is sent as structured content and as text.
//
// # Undocumented behavior
//
// The platform publishes only the names of the tools and of the resource
// hiring://pending. Their descriptions, arguments, and results are assumptions. Arguments
// have the names of the REST routes where there is one. The following tools have no REST
// route on this server, so their whole behavior is an assumption:
//
//   - hire_swarm hires each member as hire_agent does. If one cannot be hired, it cancels
//     the others and fails.
//   - suggest_team chooses the best agent for each capability.
//   - list_saved_teams and list_team_listings list the teams that
//     [Endpoints.SaveTeam] and [Endpoints.ListTeam] have added.
//   - set_github_token records that there is a token, but does not store it.
//   - generate_deposit_address returns an address that is not valid on any network.
//   - wait_for_hirings returns when all hirings have ended, after 60 s by default.
//   - task_emit_chunk stores the chunk for [Endpoints.Chunks]. [Endpoints.OnChunk] can
//     forward it, for example to the sockets of package sockettest.
package mcptest
