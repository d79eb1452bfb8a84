package agrenting

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/replay"
)

// Client makes requests to the platform with one credential. It is immutable and safe for
// concurrent use. Use one client for each credential, and close it when done. Most programs only
// use [Client.Do], [List], and [Client.HTTPClient].
type Client struct {
	// Agents registers agents and looks them up.
	Agents *AgentService
	// Sessions exchanges keys for sessions on demand.
	Sessions *SessionService
	// Keys creates, lists and revokes the keys of agents.
	Keys *KeyService
	// Tokens creates, lists and revokes the tokens of a user.
	Tokens *TokenService

	core      *core
	transport *Transport
	http      http.Client
}

// New returns a client. It makes no request. Without options, everything is read from the
// environment. For many clients in one process, see [NewBaseTransport].
//
// The credential is the first of:
//
//  1. an option: [WithCredential], [WithCredentialSource], [WithAnonymous];
//     the environment is then not read for credentials
//  2. AGRENTING_KEY_FILE, the path of a file that holds it, re-read when it
//     changes
//  3. in the sandbox, AGRENTING_SANDBOX_API_KEY
//  4. AGRENTING_API_KEY
//  5. AGRENTING_SESSION_TOKEN
//
// With [WithStore], the credential that is found fills the store while it is empty.
//
// New also reads these variables, unless an option sets the same:
//
//   - AGRENTING_ENV: production or sandbox
//   - AGRENTING_AGENT_ID
//   - AGRENTING_URL
//   - AGRENTING_LOG: debug, info, warn, error or off. It logs to standard error, see
//     [WithLogger].
//   - AGRENTING_CREDENTIAL_TYPE: api_key, user_token or session. It overrides the
//     guess by prefix, because the platform's documents call both user tokens and
//     agent keys ap_.
//   - AGRENTING_UNMARKED_SANDBOX_TOKENS: allow, see [WithUnmarkedSandboxTokens]
//
// The last two are read only if no option gives the credential. An empty variable
// counts as unset.
//
// Without a credential the error is a [*NoCredentialError], which lists what was
// tried; [Sources] lists it at any time. Other errors match [ErrInvalidCredential],
// [ErrInvalidOption], [ErrInvalidAgentID], [ErrInsecureURL] or
// [ErrEnvironmentMismatch].
func New(opts ...Option) (*Client, error) {
	core, err := newCore(opts)
	if err != nil {
		return nil, err
	}
	return newClient(core, core.transport), nil
}

// Sources lists where [New] would look for a credential with these options, in
// the order of precedence, and the state of each: used, shadowed, not set, or set to
// something that cannot be used. It is for diagnosis and also works if New fails: it skips an
// option or a variable that New refuses. Unlike New, it lists the variables even if an option
// gives the credential.
//
// It makes no request, asks no source, reads no file, and shows no value. The platform may
// reject the credential of a source that is used; see [Client.Verify].
func Sources(opts ...Option) []SourceState {
	cfg := defaultConfig()
	for _, opt := range opts {
		if opt != nil {
			_ = opt(cfg) // New reports it
		}
	}
	vars := environ.New(cfg.lookup)
	found := envConfig{environment: cfg.env}
	if cfg.env == "" {
		found.environment, _ = environmentIn(vars)
	}
	unmarked := cfg.unmarkedSandbox
	found.usable = func(src CredentialSource) bool {
		f, ok := src.(fixedSource)
		if !ok {
			return true
		}
		cred, _ := f.fixed()
		return checkEnvironment(found.environment, cred, unmarked) == nil
	}
	found.tryOptions(cfg)
	if !unmarked && !cfg.explicit() {
		unmarked, _ = vars.AllowsUnmarkedTokens()
	}
	kind, _ := vars.Kind()
	_ = found.findSource(vars, kind) // a survey has no errors
	if cfg.keyStore() == nil || cfg.anonymous {
		return found.tried
	}
	for i, s := range found.tried {
		if s.Used() {
			found.tried[i].State = stateInitial
		}
	}
	return append([]SourceState{{Name: "WithStore", State: stateUsed}}, found.tried...)
}

func newClient(core *core, t *Transport) *Client {
	c := &Client{
		core: core, transport: t,
		http: http.Client{Transport: t, CheckRedirect: t.checkRedirect},
	}
	c.Agents = &AgentService{client: c}
	c.Sessions = &SessionService{client: c}
	c.Keys = &KeyService{client: c}
	c.Tokens = &TokenService{client: c}
	return c
}

// checkRedirect is the redirect policy of clients. net/http sets the response of the
// redirect, and reads some of it afterwards.
func (t *Transport) checkRedirect(req *http.Request, via []*http.Request) error {
	if req.Response != nil {
		replay.Bound(req.Response)
	}
	return t.origins.CheckRedirect(req, via)
}

// HTTPClient returns an http.Client whose requests to the platform carry the
// credential, renewed and retried. Pass it to anything that takes one: a
// generated client, a WebSocket dialer, an MCP transport. It follows no
// redirect to other origins than the pinned ones ([ErrForeignOrigin]), and has no
// timeout. The caller owns the returned copy.
func (c *Client) HTTPClient() *http.Client {
	h := c.http
	return &h
}

// SocketHTTPClient returns an http.Client for WebSocket libraries that dial with
// one. The platform's sockets expect the credential in the query, as api_key, or as
// session_token if it is a session. The client adds it when it sends the request, so
// the library, its logs, and its errors never contain it:
//
//	const agentSocket = "wss://agrenting.com/socket/agent/websocket?vsn=2.0.0"
//	conn, _, err := websocket.Dial(ctx, agentSocket, &websocket.DialOptions{
//		HTTPClient: client.SocketHTTPClient(),
//	})
//
// API keys use /socket/agent, user tokens /socket/hirer, and sessions /socket
// (platform documentation, "Channels" and "WebSocket").
//
// Everything else is as with [Client.HTTPClient]. The credential is sent only to the
// pinned origins. A credential that the caller set wins, in a header or in the query.
// After a 401 or 403 the handshake is resent, with another credential if this one is
// dead: Phoenix refuses a connection with 403. One that fails is retried as the
// [RetryPolicy] says. The client follows no redirect. Use it only for sockets:
// elsewhere the platform expects headers, and queries end up in logs. A transport of
// [WithTransport] sees the query.
//
// A connection stays open when its credential is renewed or rotated. The platform
// does not document what happens to a connection whose key is revoked.
func (c *Client) SocketHTTPClient() *http.Client {
	t := *c.transport
	t.inQuery = true
	return &http.Client{
		Transport:     &t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport returns the [http.RoundTripper] of the client, for use under your
// own http.Client or a [net/http/httputil.ReverseProxy].
func (c *Client) Transport() http.RoundTripper { return c.transport }

// Credential returns the credential in use. If there is none yet, it asks the source. During a
// rotation in place, it waits for the new key. ctx limits the wait.
func (c *Client) Credential(ctx context.Context) (Credential, error) {
	l, err := c.core.creds.waitOpen(ctx, nil)
	if err != nil {
		return Credential{}, err
	}
	return l.Value.cred, nil
}

// BaseURL returns the base URL of the client's calls: scheme, host, port if it is not
// the default of the scheme, and the path of [WithBaseURL] without a trailing slash, such as
// "https://agrenting.com". It has no user information and no query string, because [New]
// refuses those.
func (c *Client) BaseURL() string { return c.core.base.String() }

// Close ends renewal, waits until all goroutines of the client have ended, and closes the idle
// connections of the base transport, unless the program has given it. A rotation under way has
// up to 15 s to finish; after that, the next start resumes it. Requests then fail with
// [ErrClosed]. Close also closes all clients made by [Client.As]. It may be called twice.
//
// The error is a [*RotationError] if a new key is only in memory and could still not be
// saved; save what its NewCredential returns. Otherwise, it reports that a credential source
// or a store ignored the end of its context for 5 s.
func (c *Client) Close() error { return c.core.close() }

// String returns a summary without secrets.
func (c *Client) String() string {
	if c == nil || c.core == nil {
		return "agrenting.Client()"
	}
	s := c.Status()
	text := fmt.Sprintf("agrenting.Client(%s, %s from %s", s.Origin, s.Kind, s.Source)
	if s.Fingerprint != "" {
		text += ", " + s.Fingerprint
	}
	if s.AgentID != "" {
		text += ", agent " + s.AgentID
	}
	return text + ")"
}

// GoString returns what String returns.
func (c *Client) GoString() string { return c.String() }

// Format implements [fmt.Formatter]: every verb prints the summary.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue implements [slog.LogValuer].
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], so that JSON shows the
// summary too.
func (c *Client) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
