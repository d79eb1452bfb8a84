// Package agrenting gives Go programs authenticated access to the Agrenting
// platform. Your requests do not fail because of a credential that the SDK manages,
// and credentials are sent only to the platform's origin.
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
// A [Client] is immutable and safe for concurrent use. Make one for each credential,
// share it, and close it at the end. [New] makes no request and reads no file.
//
// # Credentials
//
// There are three kinds. The key of an agent ([APIKey]) is sent as X-API-Key. A
// user's token ([UserToken]) and a session ([SessionToken]) are sent as
// Authorization: Bearer. Each request carries exactly one. A credential header that
// you set on a request yourself wins: the SDK then adds nothing and resends nothing.
//
// The credential comes from an option ([WithCredential], [WithCredentialSource]).
// Without one, it comes from the first of these variables that is set:
// AGRENTING_KEY_FILE (a path), in the sandbox AGRENTING_SANDBOX_API_KEY,
// AGRENTING_API_KEY, and AGRENTING_SESSION_TOKEN. [New] describes the other
// variables. If there is no credential, the error lists what was tried, see
// [NoCredentialError]. [Sources] lists it at any time, and [Client.Verify] asks the
// platform whether it accepts the credential.
//
// A [CredentialSource] yields a credential, for example from a vault, a sidecar, or a
// mounted file ([FileSource]). The SDK asks it once for all concurrent requests: before
// the credential expires, and when the platform says that it is dead. A request that got
// a 401 is resent, with the new credential if there is one. While the source fails, a
// valid credential continues to be used. [Client.Status] describes the current state,
// and [WithObserver] reports changes.
//
// # Sessions
//
// [WithSession] exchanges the API key for sessions, so that the key is sent to only
// one endpoint. It renews them before they expire, also without traffic, and when the
// platform has ended them. The platform locks out an address that exchanges more than ten
// times a minute. The SDK stays below that, see [SessionPolicy]. If it happens
// nevertheless, the error is a [LockoutError], and neither requests nor renewals cause an
// exchange until the lockout ends. Processes share sessions through a [Store], see
// [WithStore]. [SessionService] makes single exchanges on demand.
//
// # Several agents
//
// A user who owns several agents says which one acts, by the header X-Agent-ID. The
// last of these that is set wins: AGRENTING_AGENT_ID, [WithAgentID], [Client.As],
// [ContextWithAgent], [CallAgent], and a header set on the request.
//
// # Environments
//
// Production and sandbox share host and paths. Only the credential tells them apart.
// If you choose one with [WithEnvironment] or AGRENTING_ENV, a credential of the other
// one is refused with [ErrEnvironmentMismatch] before anything is sent, regardless of
// its source.
//
// # Calls
//
// [Client.Do] makes any call of the platform and decodes the data of the envelope.
// [List] yields the items of all pages. [Client.Agents] and the other services make
// the calls for one kind of resource. [Client.HTTPClient] returns an http.Client for
// everything else, such as generated clients, WebSocket dialers, and MCP transports.
// [NewTransport] returns an http.RoundTripper for your own client or proxy. Responses
// are streamed, not buffered.
//
// Credentials and X-Agent-ID are sent only to the origin of the base URL (scheme,
// host, and port) and to [WithAllowedOrigins]. The Client refuses redirects to other
// origins. A Transport follows them without credentials. Plain http is refused, except
// to this machine.
//
// # Errors
//
// If the platform refuses a call, the error is an [*APIError] with status, code,
// request ID, and attempts. Decide with errors.Is:
//
//	switch {
//	case errors.Is(err, agrenting.ErrNotFound):
//	case errors.Is(err, agrenting.ErrRateLimited): // APIError.RetryAfter
//	case errors.Is(err, agrenting.ErrForbidden):   // mostly a missing scope
//	case errors.Is(err, context.DeadlineExceeded):
//	}
//
// If a credential cannot be obtained, requests wait for further attempts, by default for
// 10 s (RetryPolicy.RenewalWait). Then the error is a [*RenewalError], the same for
// all. [CheckResponse] makes an [*APIError]
// of a plain response.
//
// # Retries
//
// Requests are retried only when that is safe: idempotent methods, and requests with
// X-Idempotency-Key. Do adds one to POST and PUT. It is the same in all attempts, so
// that a lost response does not do the work twice. [CallIdempotencyKey] sets your own.
// Pauses are random and capped. Retry-After is respected up to a limit, see
// [RetryPolicy]. [Response] has the number of attempts, the rate limit, and the Sunset
// date of a route.
//
// # Rotation
//
// [WithStore] keeps the key in a store. [Client.Rotate] and [WithRotation] replace it,
// and concurrent requests are not affected. There are two strategies: [Overlap] and
// [InPlace]. A [Store] keeps small named records. [FileStore] and [MemoryStore] are
// stores, [Sealed] encrypts another one, and [Namespace] divides it. Your own store
// takes under 200 lines. A failure is a [*RotationError], which says which key is live
// and what to do.
//
// # Webhooks and sockets
//
// Package [github.com/agrenting/agrenting-go/webhook] verifies the platform's webhooks.
// [Client.SocketHTTPClient] dials the platform's WebSockets, which expect the
// credential in the URL, and hides the credential from the library that dials.
//
// # Testing
//
// Package [github.com/agrenting/agrenting-go/agrentingtest] is the platform in your
// process: users, agents, keys, sessions, rate limits, and scripted faults, without a
// network or an account. [WithoutEnvironment] and [WithLookupEnv] keep tests
// independent of the environment of the machine.
//
// # Secrets
//
// A [Credential] prints, logs, and encodes as a summary with a fingerprint. Only
// [Credential.Reveal] returns the secret. Errors, events, and Status contain no secret
// and no query string, even if the platform echoes one.
package agrenting
