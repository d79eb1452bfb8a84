// Package agrentingtest is an embedded Agrenting platform: a public, scriptable, and
// documented server for tests of agents, for examples, and for work without a network.
//
// The server does more than return 200. It authenticates, applies rate limits and
// lockouts, stores idempotency keys, paginates lists, separates sandbox from production,
// and revokes a rotated key at once, with the numbers and error codes that the platform
// documents. It uses only the standard library and the OpenAPI document of package api,
// which it serves. It does not import package testing. The only code that it shares with
// the SDK is that for fingerprints and ASCII, so that a bug in one does not hide the same
// bug in the other.
//
// # Starting
//
//	srv := agrentingtest.NewServer()
//	defer srv.Close()
//
//	user := srv.NewUser("Ada")
//	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe"})
//	key := srv.NewKey(agent.ID)      // key.Secret goes into X-API-Key
//	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{})
//	session, expires := srv.NewSession(key.Secret)
//
// [Server.URL] is the base URL. By default, a server listens on a free port of 127.0.0.1;
// [Listen], [WithTLS], and [InMemory] change that. [Server.Transport] returns a transport
// that reaches the server in every case, and [Server.Handler] returns the handler alone.
// Servers share no state, so tests may run in parallel, each with its own server. Every
// method is safe for concurrent use.
//
// # Time
//
// An [InMemory] server that is made inside a testing/synctest bubble uses the bubble's
// clock. A session of 20 hours, a lockout of 5 minutes, or a [Delay] of an hour then
// takes no real time. Close the server before the bubble ends:
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := agrentingtest.NewServer(agrentingtest.InMemory())
//		defer srv.Close()
//		client := &http.Client{Transport: srv.Transport()}
//		…
//		time.Sleep(20 * time.Hour) // the session has expired
//	})
//
// [WithClockSkew] makes the server's clock run ahead of all other clocks.
//
// # Faults
//
// [Server.Fault] scripts faults for a route. Each matching request gets the next one:
//
//	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter())
//	srv.Fault("GET *", agrentingtest.Status(503, "").Times(2), agrentingtest.RevokeNow())
//
// The faults are [Delay], [DropBefore], [DropAfter], [ResetMidBody], [MalformedJSON],
// [Stall], [Status], [StatusWithRetryAfter], [Page], [Empty], [HandlerError], [Redirect],
// [RevokeNow], [SetHeader], [Sunset], and [Gone]. [Fault.And] combines two of them,
// [Fault.AfterServing] serves the request first, [Fault.Times] and [Fault.Always] repeat
// them, and [Fault.Share] applies them to a share of the requests. [WithChaos] applies a
// random fault to a share of all requests. [Server.RevokeKey], [Server.RevokeToken],
// [Server.RevokeSession], and [Server.RevokeSessions] revoke credentials at any moment.
// With [WithNodes], some nodes of the platform recognize keys, sessions, and revocations
// late.
//
// # Inspecting requests
//
// [Server.Requests] returns every request with its headers, body, principal, and status.
// [Server.Count] counts by route, [Server.Stats] counts by event, and [Server.LiveKeys]
// and [Server.KeyAlive] report which keys are live. [Server.Report] summarizes all of it,
// and lists the credentials that were refused or were sent in a wrong place; it uses the
// fingerprints of the SDK. The log keeps credentials unchanged, because tests check them.
// The directory keeps only hashes, like the platform. The server writes nothing unless
// [WithLogger] is set, and then it writes no secrets.
//
// # Control from other programs
//
// [WithControl] serves routes under /_sandbox. Programs in any language can use them to
// script faults, revoke credentials, and read the report. The command agrenting sandbox
// serves them too.
//
// # Routes
//
// The server has routes for health, authenticate, logout, and rotate-key; registering,
// listing, discovering, reading, and changing agents; their credentials; user tokens; the
// whole life cycle of tasks and hirings; documents and artifacts; a ledger of simulated
// money; and webhooks. The shapes are those that the platform's own npm clients read.
// The file routes.md lists the routes and the source of each.
//
// Tasks and hirings change their status through the same routes as on the platform. An
// agent with [AgentConfig].MockAfter completes its work by itself, and a sandbox agent
// completes its work at once. No source names a route with which a provider completes a
// task: it sends complete or error over a socket. In a test, [Server.CompleteTask] and
// [Server.FailTask] do the same. [Server.SetAgentStatus] suspends an agent.
//
// Each change is delivered to the webhooks that are registered for it: signed, in order,
// and with retries. Hires are posted to the callback_url of the agent's metadata.
// [WithWebhookTransport] describes where deliveries may go. [Server.OnChange] reports the
// changes to a function.
//
// [Server.Handle], [Server.HandleAgent], and [Server.HandlePublic] add your routes, which
// call [PrincipalFrom] for the caller. [Server.HandleQuery] adds a route with the
// credential in the query. The module agrentingtest/sockettest uses it to serve the
// platform's sockets, over which a provider can also complete a task. The OpenAPI
// document of all these routes is at /api/v1/openapi.json.
//
// # Undocumented behavior
//
// Where sources differ, there is an option: [WithSessionShape], [WithAuthPath],
// [WithRotateKeyField], [WithUnexpectedKeyFields], [WithSessionsEndingWithKey],
// [WithBearerKeys]. Where sources do not say anything, this server is strict, so that a
// client that works with it does not depend on luck:
//
//   - Two credential headers on one request cause a 401. So does an agent's key as
//     a bearer token, and a session in X-API-Key.
//   - X-Agent-ID: a malformed or repeated header causes a 422 with the header as
//     the field. So does a missing header if the user has several agents, but only
//     on routes for which the platform's own clients send it. An unknown agent
//     causes a 404. An agent of another user, or an agent other than that of the
//     credential, causes a 403.
//   - A user token cannot be exchanged for a session: 403. A token can create
//     tokens only with scopes that it has itself.
//   - A session still works after its key was revoked, but cannot rotate: 404.
//   - An idempotency key belongs to the acting agent or user, not to the
//     credential, so that a session or the owner can repeat a rotation with a lost
//     response. The replay of a success has the status 200, even if the first
//     response had another one.
//   - Requests with refused credentials count only toward the rate limit of
//     authenticate. The fourth anonymous registration from an address causes a 403.
//   - Creating a key or token returns 201. Deleting and logging out return 200.
//   - An action that the status of a task or hiring does not permit causes a 422. So
//     does a result of an earlier attempt.
//   - A webhook can be registered only for the events that are known for the form of
//     its body; others cause a 422. It belongs to the agent or user, not to the
//     credential.
//   - callback_auth_header in the metadata of an agent is visible only to callers
//     that may change the agent.
//   - A path below /api/v1/agents that is neither a UUID nor a DID causes a 404
//     ROUTE_NOT_FOUND, not the 404 of an unknown agent.
//   - Another user's key or token causes a 404, and administering another user's
//     agent causes a 403. Sandbox data causes a 404 in production, and vice versa.
package agrentingtest
