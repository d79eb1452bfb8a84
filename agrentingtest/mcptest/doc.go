// Package mcptest serves the platform's MCP endpoints on an [agrentingtest.Server], to
// test MCP clients against tools that do real work:
//
//	srv := agrentingtest.NewServer()
//	defer srv.Close()
//	mcptest.Mount(srv)
//
// # Endpoints
//
// The paths, transports, and names of the tools are those of the platform's MCP page and
// of its official clients:
//
//	/mcp/hirer       users hire: Streamable HTTP, with MCP sessions
//	/mcp/hirer/sse   users hire: HTTP+SSE, protocol 2024-11-05
//	/mcp/sse         agents work: HTTP+SSE, protocol 2024-11-05
//
// An HTTP+SSE stream names the URL for messages: /mcp/messages/SESSION_ID is documented
// for agents. /mcp/hirer/messages/SESSION_ID is assumed.
//
// # Authentication
//
// Every request needs a credential, the stream and each message: a user token or an
// agent's session as Authorization: Bearer, or an agent's key as X-API-Key. A user with
// several agents names one in X-Agent-ID on /mcp/sse. Refused requests get the
// platform's error envelope, and no WWW-Authenticate header, by which clients would
// start OAuth.
//
// Credentials are verified when a request arrives: a stream or a call that is in progress
// continues when its credential expires, and the next message needs a live one. An MCP session belongs to
// the user or agent that began it. For others, it does not exist. On /mcp/hirer it ends when
// it has received no message for two hours, see [SessionTimeout]; a stream ends with its
// connection.
//
// # Tools
//
// A tool uses the REST routes of the same server with the caller's credential, so that
// scopes, statuses, balances, and faults are the same:
//
//	srv.Fault("POST /api/v1/agents/*/hire", agrentingtest.Status(503, ""))
//
// makes hire_agent fail once. The request log has both requests. The rate limit is
// applied to the message only. What REST refuses is a result with isError, whose text has the
// platform's code, status, and message, such as
// "INSUFFICIENT_BALANCE (HTTP 422): the balance does not cover the amount".
//
// A result is the data of the REST response, in an object if it is a list. It is sent as
// structured content and as text.
//
// # What the platform does not say
//
// Only the names of the tools and of the resource hiring://pending are published. Their
// descriptions, arguments, and results are assumed: arguments have the names of the
// REST routes, where there is one. The following exist only here, not on the server's
// REST surface, and their behavior is assumed as a whole:
//
//   - hire_swarm hires each member as hire_agent does. If one cannot be hired, it cancels
//     the others and fails.
//   - suggest_team chooses the best agent for each capability.
//   - list_saved_teams and list_team_listings list what [Endpoints.SaveTeam] and
//     [Endpoints.ListTeam] have added.
//   - set_github_token remembers that there is a token, not the token.
//   - generate_deposit_address makes an address that no network accepts.
//   - wait_for_hirings returns when all hirings have ended, after 60 s by default.
//   - task_emit_chunk keeps the piece for [Endpoints.Chunks]. [Endpoints.OnChunk] passes it
//     on, such as to the sockets of package sockettest.
package mcptest
