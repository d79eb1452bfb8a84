// Package agrenting gives Go programs authenticated access to the Agrenting
// platform, and then stays out of the way: no request of yours fails because of
// a credential that the SDK manages, and no credential leaves for a place it
// does not belong.
//
//	client, err := agrenting.New() // everything from the environment
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//
//	var agent agrenting.Agent
//	resp, err := client.Do(ctx, http.MethodGet, "/api/v1/agents/"+id, nil, &agent)
//
// A [Client] is immutable and safe for concurrent use: make one per credential,
// share it, close it at the end. [New] makes no request and reads no file.
//
// # Credentials
//
// There are three kinds. The key of an agent ([APIKey]) travels as X-API-Key, a
// user's token ([UserToken]) and a session ([SessionToken]) as Authorization:
// Bearer. Each request carries exactly one. A credential header that you set on
// a request yourself wins, and then nothing is added or repeated.
//
// They come from an option ([WithCredential], [WithCredentialSource]) or, without
// one, from the first of these variables that is set: AGRENTING_KEY_FILE (a path),
// in the sandbox AGRENTING_SANDBOX_API_KEY, AGRENTING_API_KEY,
// AGRENTING_SESSION_TOKEN. See [New] for the others. If there is none, the error
// lists what was tried, see [NoCredentialError]; [Sources] lists it at any time,
// and [Client.Verify] asks the platform whether it knows the credential.
//
// A [CredentialSource] is a function that yields a credential: a vault, a
// sidecar, a mounted file ([FileSource]). It is asked once for all concurrent
// requests, ahead of the expiry, and after a 401; the rejected request is
// replayed with what it yields. While it fails, a good credential serves on.
// [Client.Status] tells how it stands, [WithObserver] what happens.
//
// # Sessions
//
// [WithSession] exchanges the API key for sessions and renews them ahead of their
// expiry, without traffic too, and after a 401, so that the key itself goes to
// one endpoint only. The platform locks an address out that exchanges more than
// ten times a minute; that is a [LockoutError], and neither requests nor renewals
// cause one until it is over. Processes share sessions through a [Store], see
// [WithStore]. [SessionService] makes single exchanges on demand.
//
// # Several agents
//
// A user who owns several agents says which one acts, by X-Agent-ID. In rising
// order of precedence: AGRENTING_AGENT_ID, [WithAgentID], [Client.As],
// [ContextWithAgent], [CallAgent], and a header set on the request.
//
// # Environments
//
// Production and sandbox share host and paths; only the credential tells them
// apart. With [WithEnvironment] or AGRENTING_ENV chosen, a credential of the
// other one is refused with [ErrEnvironmentMismatch] before anything is sent,
// whichever source it comes from.
//
// # Calls
//
// [Client.Do] makes any call of the platform and decodes the data of the
// envelope; [List] walks through pages; [Client.Agents] and the other services
// know single resources. [Client.HTTPClient] gives an http.Client for everything
// else, such as generated clients, WebSocket dialers and MCP transports, and
// [NewTransport] an http.RoundTripper for a client or proxy of your own.
// Responses stream through untouched.
//
// Credentials and X-Agent-ID go to the origin of the base URL (scheme, host and
// port) and to [WithAllowedOrigins], nowhere else. Redirects that lead away are
// refused by the Client and followed bare by a Transport. Plain http is refused
// but for this machine.
//
// # Errors
//
// What the platform refuses is an [*APIError] with status, code, request id and
// attempts. Decide with errors.Is:
//
//	switch {
//	case errors.Is(err, agrenting.ErrNotFound):
//	case errors.Is(err, agrenting.ErrRateLimited): // APIError.RetryAfter
//	case errors.Is(err, agrenting.ErrForbidden):   // mostly a missing scope
//	case errors.Is(err, context.DeadlineExceeded):
//	}
//
// A credential that cannot be obtained is a [*RenewalError], shared by all who
// waited for it. [CheckResponse] makes the same errors of plain responses.
//
// # Retries
//
// Repeated is what is safe to repeat: idempotent methods, and whatever carries
// X-Idempotency-Key. Do gives POST and PUT one, the same over all attempts, so
// that a lost answer does not do the work twice; [CallIdempotencyKey] sets your
// own. Pauses are random and capped, Retry-After is obeyed up to a limit, see
// [RetryPolicy]. [Response] tells attempts, rate limit and the Sunset of a route.
//
// # Rotation
//
// [WithStore] keeps the key through its whole life, and [Client.Rotate] and
// [WithRotation] replace it without a failed request, by one of two strategies:
// [Overlap] and [InPlace]. A [Store] keeps small named records: [FileStore] and
// [MemoryStore] are two, [Sealed] encrypts another one, [Namespace] divides it, and
// your own takes under 200 lines. A failure is a [*RotationError], which says what
// is live and what to do.
//
// # Webhooks and sockets
//
// Package [github.com/agrenting/agrenting-go/webhook] verifies the platform's webhooks.
// [Client.SocketHTTPClient] opens the platform's WebSockets, which want the
// credential in the URL, without showing it to the library that dials.
//
// # Testing
//
// Package [github.com/agrenting/agrenting-go/agrentingtest] is the platform in
// your process: users, agents, keys, sessions, rate limits and scripted faults,
// without a network or an account. [WithoutEnvironment] and [WithLookupEnv] keep
// tests apart from the environment of the machine.
//
// # Secrets
//
// A [Credential] prints, logs and encodes as a summary with a fingerprint;
// [Credential.Reveal] is the only way to the secret. Errors, events and Status
// have no secret and no query string in them, even if the platform echoes one.
package agrenting
