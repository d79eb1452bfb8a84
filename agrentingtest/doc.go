// Package agrentingtest is the Agrenting platform inside your process: a public,
// scriptable and documented server to test agents against, to write examples
// with, and to work on when there is no network.
//
// It is not a stub that answers 200. It authenticates, counts rate limits, locks
// out, remembers idempotency keys, pages lists, keeps sandbox and production
// apart and revokes a rotated key at once, with the numbers and error codes that
// the platform documents. Beside the standard library it has the OpenAPI document
// of package api, which it serves; it does not import package testing, and shares
// no code with the SDK except that of fingerprints and ASCII, so that a mistake in
// one is not hidden by the same mistake in the other.
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
// [Server.URL] is the base URL. A new server listens on a free port of 127.0.0.1;
// [Listen], [WithTLS] and [InMemory] change that. [Server.Transport] gives a
// transport that reaches it in every case, [Server.Handler] the bare handler.
// Servers share nothing: tests may run in parallel, each with its own. Every
// method is safe for concurrent use.
//
// # Time
//
// An [InMemory] server made inside a testing/synctest bubble
// lives on the bubble's time, so that a session of 20 hours, a lockout of
// 5 minutes or a [Delay] of an hour take no time at all. Close the server before
// the bubble ends:
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := agrentingtest.NewServer(agrentingtest.InMemory())
//		defer srv.Close()
//		client := &http.Client{Transport: srv.Transport()}
//		…
//		time.Sleep(20 * time.Hour) // and the session is over
//	})
//
// [WithClockSkew] lets the server's clock run ahead of everybody else's.
//
// # Things that go wrong
//
// [Server.Fault] scripts failures for a route; every matching request consumes
// the next:
//
//	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter())
//	srv.Fault("GET *", agrentingtest.Status(503, "").Times(2), agrentingtest.RevokeNow())
//
// There are [Delay], [DropBefore], [DropAfter], [ResetMidBody], [MalformedJSON],
// [Stall], [Status], [StatusWithRetryAfter], [Page], [Empty], [HandlerError],
// [Redirect], [RevokeNow], [SetHeader], [Sunset] and [Gone]. [Fault.And] joins
// them, [Fault.AfterServing] does the work first, [Fault.Times] and [Fault.Always]
// repeat them, and [Fault.Share] applies them to a share of the requests.
// [WithChaos] gives a share of all requests a random fault.
// [Server.RevokeKey], [Server.RevokeToken], [Server.RevokeSession], and
// [Server.RevokeSessions] revoke credentials at any moment. With [WithNodes], some
// nodes of the platform learn late of keys, sessions, and revocations.
//
// # What happened
//
// [Server.Requests] has every request with its headers, body, principal and
// answer, [Server.Count] counts by route, [Server.Stats] by event, and
// [Server.LiveKeys] and [Server.KeyAlive] say which keys survived. [Server.Report] sums
// it up, with the credentials that were refused or seen where they do not belong; its
// fingerprints are those of the SDK. The log keeps
// credentials as they arrived, because tests look at them; the directory keeps
// only hashes, like the platform. Nothing is written anywhere unless
// [WithLogger] asks for it, and then without secrets.
//
// # From outside
//
// [WithControl] serves routes under /_sandbox, over which programs in any language
// script faults, revoke credentials, and read the report. The command agrenting sandbox
// has them.
//
// # Routes
//
// Served are health, authenticate, logout, and rotate-key; registering, listing,
// discovering, reading, and changing agents; their credentials; user tokens; tasks
// and hirings with their whole life; documents and artifacts; a ledger of simulated
// money; and webhooks. The shapes are those that the platform's
// own npm clients read. The file routes.md lists the routes with the source of each.
//
// The statuses of tasks and hirings change through the routes that change them on
// the platform. An agent with [AgentConfig].MockAfter completes its work by itself,
// and a sandbox agent does so at once. No source names a route by which a provider
// completes a task: it sends complete or error over a socket. [Server.CompleteTask] and
// [Server.FailTask] do that for a test. [Server.SetAgentStatus] suspends an agent.
//
// Each change is delivered to the webhooks that are registered for it, signed, in order,
// and with retries. Hires are posted to the callback_url of the agent's metadata. See
// [WithWebhookTransport] for where deliveries may go. [Server.OnChange] reports the
// changes to a function.
//
// [Server.Handle],
// [Server.HandleAgent] and [Server.HandlePublic] add routes of your own, which
// learn from [PrincipalFrom] who is calling, and [Server.HandleQuery] one whose
// credential is in the query. The module agrentingtest/sockettest serves the platform's
// sockets in this way, over which a provider can complete a task too. The document of all of them is at
// /api/v1/openapi.json.
//
// [Server.Guard] puts the platform's authentication before a server of yours, and
// [Server.DeliverWebhook] sends it signed webhooks of your own.
//
// # What the platform does not say
//
// Where sources differ there is an option: [WithSessionShape], [WithAuthPath],
// [WithRotateKeyField], [WithBrokenKeyAnswers], [WithSessionsDyingWithKey],
// [WithBearerKeys]. Where they are silent, this server takes the stricter view, so
// that a client that works here does not rely on luck:
//
//   - Two credential headers on one request are 401. An agent's key as a bearer
//     token is 401, and so is a session in X-API-Key.
//   - X-Agent-ID: missing where a user with several agents must choose, which is
//     only where the platform's own clients do not leave it out, malformed or
//     repeated is 422 with the header as field; unknown is 404; an agent of
//     somebody else, or another one than the credential's, is 403.
//   - A user token cannot be exchanged for a session: 403. A token may hand on
//     only scopes that it holds.
//   - A session whose key is dead still works, but cannot rotate: 404.
//   - An idempotency key belongs to who acts, not to the credential, so that a
//     lost rotation can be asked for again by a session or the owner. A replay of
//     a success is 200, whatever the first answer was.
//   - Refused credentials are not charged to any allowance but authenticate's.
//     The fourth anonymous registration of an address is 403.
//   - Keys and tokens are created with 201; deleting and logging out answer 200.
//   - An action that the status of a task or hiring does not permit is 422, and so is a
//     result of an earlier attempt.
//   - A webhook can be registered only for the events on record for the form of its
//     body; others are 422. It belongs to the agent or user, not to the credential.
//   - Only those who may change an agent see callback_auth_header in its metadata.
//   - A path below /api/v1/agents that is neither a UUID nor a DID is 404
//     ROUTE_NOT_FOUND, not an unknown agent.
//   - A key or token of somebody else is 404 by its ID; administering an agent of
//     somebody else is 403; sandbox data is 404 for production and vice versa.
package agrentingtest
