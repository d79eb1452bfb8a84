package agrenting

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Defaults of a client.
const (
	// DefaultBaseURL is the host without www, the default of the platform's
	// adapter since its version 0.4.0. Other clients of the platform use
	// https://www.agrenting.com, which is another origin.
	DefaultBaseURL = "https://agrenting.com"

	defaultTimeout = 60 * time.Second
)

// config collects the options before they are applied in a fixed order.
type config struct {
	source     CredentialSource
	credential Credential
	agentID    string
	baseURL    string
	allowed    []string
	env        Environment
	base       http.RoundTripper
	timeout    time.Duration
	retry      RetryPolicy
	keyHeader  string
	logger     *slog.Logger
	userAgent  string
	lookup     lookupFunc
	// unmarkedSandbox lets user tokens without a sandbox mark into sandbox mode.
	unmarkedSandbox bool
	insecure        bool
	anonymous       bool
	clientSideKeys  bool
	override        bool
	routes          *Routes
	session         *SessionPolicy // nil: none
	store           Store
	rotation        *RotationPolicy
	goos            string // runtime.GOOS, except in tests
	storeName       string // for Status
	instruments     []Instrumentation
}

// keyStore is where the key is kept, nil for nowhere.
func (c *config) keyStore() Store {
	if p := c.rotation; p != nil && p.Store != nil {
		return p.Store
	}
	return c.store
}

// nameStore names the store of the key, or else that of the sessions. A store may compute
// its name, so it is asked once. Its String may panic.
func (c *config) nameStore() {
	store := c.keyStore()
	if store == nil && c.session != nil {
		store = c.session.Store
	}
	if store != nil && !c.anonymous {
		defer func() { _ = recover() }()
		c.storeName = secret.NameOf(store)
		if s, ok := store.(fmt.Stringer); ok {
			c.storeName = secret.Line(secret.WithoutQueries(s.String()))
		}
	}
}

// sessionStore is where sessions are shared, nil for nowhere.
func (c *config) sessionStore() Store {
	if p := c.session; p != nil && p.Store != nil {
		return p.Store
	}
	return c.store
}

func (p RetryPolicy) validate() error {
	if p.MaxAttempts < 0 || p.BaseDelay < 0 || p.MaxDelay < 0 || p.MaxRetryAfter < 0 {
		return optionError("RetryPolicy", "a field is negative; 0 means its default, and MaxAttempts: 1 retries nothing")
	}
	return nil
}

// Option configures [New] and [NewTransport]. The error of an option says what is wrong
// with its value and never shows a secret.
type Option func(*config) error

func optionError(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidOption, name, fmt.Sprintf(format, args...))
}

// WithCredential uses one fixed credential. The environment is then not read for
// credentials. Of WithCredential, [WithCredentialSource], and [WithAnonymous], the last
// one given wins. A fixed credential cannot be renewed: the caller gets the 401 of the
// platform. If a request succeeded within the last second, the refused request is first
// resent, at most twice.
func WithCredential(c Credential) Option {
	return func(cfg *config) error {
		if err := c.validate(); err != nil {
			return fmt.Errorf("WithCredential: %w", err)
		}
		cfg.credential, cfg.source, cfg.anonymous = c, nil, false
		return nil
	}
}

// WithCredentialSource takes credentials from src. The environment is then not
// read for credentials. See [CredentialSource] for when src is asked.
func WithCredentialSource(src CredentialSource) Option {
	return func(cfg *config) error {
		if src == nil {
			return optionError("WithCredentialSource", "the source is nil")
		}
		cfg.source, cfg.credential, cfg.anonymous = src, Credential{}, false
		return nil
	}
}

// WithAgentID makes requests act as an agent by default, by the header
// X-Agent-ID. Users who own several agents must say which one acts (platform
// documentation, "Authentication"). See [Client.As] and [ContextWithAgent] for
// other agents.
func WithAgentID(id string) Option {
	return func(cfg *config) error {
		if err := validateAgentID(id); err != nil {
			return fmt.Errorf("WithAgentID: %w", err)
		}
		cfg.agentID = id
		return nil
	}
}

// WithBaseURL sets the URL of the platform; the default is [DefaultBaseURL].
// Its scheme, host and port are the origin that credentials are pinned to. A
// path is put before the path of every call.
func WithBaseURL(url string) Option {
	return func(cfg *config) error {
		if url == "" {
			return optionError("WithBaseURL", "it is empty")
		}
		cfg.baseURL = url
		return nil
	}
}

// WithAllowedOrigins names further origins (scheme, host and port, such as
// "https://files.example.com") that may receive the credential and X-Agent-ID.
// List only origins that you trust with your key.
func WithAllowedOrigins(origins ...string) Option {
	return func(cfg *config) error {
		cfg.allowed = append(cfg.allowed, origins...)
		return nil
	}
}

// WithEnvironment says which environment the client is for; it overrides
// AGRENTING_ENV. [Sandbox] accepts only credentials marked as sandbox,
// [Production] refuses those; a mismatch is [ErrEnvironmentMismatch].
func WithEnvironment(env Environment) Option {
	return func(cfg *config) error {
		e, err := ParseEnvironment(string(env))
		if err != nil {
			return fmt.Errorf("WithEnvironment: %w", err)
		}
		cfg.env = e
		return nil
	}
}

// WithUnmarkedSandboxTokens allows user tokens and session tokens without a sandbox mark
// in sandbox mode. The platform documents a mark only for API keys, so the SDK cannot
// distinguish a production token from a sandbox one: with this option, the program
// guarantees that its token belongs to the sandbox.
//
// AGRENTING_UNMARKED_SANDBOX_TOKENS=allow does the same for a credential from the
// environment, and not for a credential that an option gives.
func WithUnmarkedSandboxTokens() Option {
	return func(cfg *config) error {
		cfg.unmarkedSandbox = true
		return nil
	}
}

// WithTransport sets the base transport, which sends the requests. It is used unchanged.
//
// The default is that of [NewBaseTransport]. If [http.DefaultTransport] is not an
// [*http.Transport] when the client is made, because the program has replaced it by a
// tracer or a mock, requests go through it instead, as in other clients.
func WithTransport(base http.RoundTripper) Option {
	return func(cfg *config) error {
		if base == nil {
			return optionError("WithTransport", "the transport is nil")
		}
		cfg.base = base
		return nil
	}
}

// NewBaseTransport returns a new transport like the one that clients use by default, for
// programs that change one of its settings and pass it to [WithTransport]:
//
//	base := agrenting.NewBaseTransport()
//	base.MaxIdleConnsPerHost = 500
//
// It has the settings of [http.DefaultTransport]. A limit that the program has set to zero
// there gets its default, such as 10 s for a TLS handshake and 1 s for the response to
// Expect: 100-continue. In addition, it
//
//   - keeps up to 100 idle connections to one host instead of two,
//   - pings an HTTP/2 connection on which nothing has arrived for 30 s, and closes it if the
//     response does not arrive within 15 s,
//   - uses no proxy for loopback addresses, localhost, and names below localhost, whatever
//     proxy the program has set there.
//
// Clients that were given the same transport share its connections, and [Client.Close]
// leaves it alone. A program with many keys makes one for all of its clients: each client
// then takes a few kB and no goroutine. See docs/tenants.md.
func NewBaseTransport() *http.Transport {
	return wire.NewBase(origin.IsLocal)
}

// WithTimeout limits one [Client.Do] with all its attempts and the reading of the
// response, and one [SessionService.Authenticate]. The default is 60 s; 0 means no limit.
// Requests through [Client.HTTPClient] are limited only by their contexts, because
// streams may take long.
func WithTimeout(d time.Duration) Option {
	return func(cfg *config) error {
		if d < 0 {
			return optionError("WithTimeout", "%v is negative; 0 means no bound", d)
		}
		cfg.timeout = d
		return nil
	}
}

// WithRetryPolicy changes how failed requests are retried. Zero fields keep their
// defaults. RetryPolicy{MaxAttempts: 1} retries nothing.
func WithRetryPolicy(p RetryPolicy) Option {
	return func(cfg *config) error {
		if err := p.validate(); err != nil {
			return fmt.Errorf("WithRetryPolicy: %w", err)
		}
		cfg.retry = p
		return nil
	}
}

// WithAPIKeyHeader chooses the header that carries API keys: "X-API-Key", the
// default, or "Api-Key". The platform takes both (platform documentation,
// "Authentication").
func WithAPIKeyHeader(name string) Option {
	return func(cfg *config) error {
		switch http.CanonicalHeaderKey(name) {
		case wire.HeaderAPIKey, wire.HeaderAPIKeyAlias:
			cfg.keyHeader = http.CanonicalHeaderKey(name)
			return nil
		default:
			return optionError("WithAPIKeyHeader", "%q is neither X-API-Key nor Api-Key", secret.Clean(name))
		}
	}
}

// WithLogger sends records to l. Each event has its own message, and records of an [Event]
// have it as the group "event":
//
//	level  message
//	Debug  agrenting: request                    an attempt begins, also of the SDK's own requests
//	Debug  agrenting: response                   a request has ended: its status, duration, attempts, and ID
//	Debug  agrenting: request failed             a request has ended without a response
//	Debug  agrenting: rotating key               a rotation has reached a stage, or waits for another process
//	Info   agrenting: credential renewed         a new generation is in use, also the first one
//	Info   agrenting: credential confirmed       the source has no other credential than the rejected one
//	Info   agrenting: key rotated                the store has a new current key
//	Warn   agrenting: credential rejected        the platform rejects the credential in use
//	Warn   agrenting: renewal failed             the source has failed, the exchange too
//	Warn   agrenting: key is old                 no schedule rotates a key that is older than 90 days
//	Warn   agrenting: store failed               the process continues with what is in memory
//	Warn   agrenting: store is open to others    a store accepts a place that others may write to
//	Warn   agrenting: retrying request           a request is sent again after a transient failure
//	Warn   agrenting: no credential added to the request
//	                                             the first request to each host that gets none, and why
//	Warn   agrenting: WebSocket handshake refused  the first to each host whose credential is in a header
//	Warn   agrenting: a route will be retired    the platform has announced it by Sunset
//	Error  agrenting: key rotation failed        the event has the stage and the error
//	Error  agrenting: instrumentation panicked   the first panic of a function of WithInstrumentation
//
// No record contains a secret or a query string. Without WithLogger, and with nil, the
// variable AGRENTING_LOG decides; without that, nothing is logged. Set AGRENTING_LOG to
// debug, info, warn, or error to log records of that level and above to standard error,
// as text, for example in a deployed program. Off, none, and 0 log nothing. Any other value
// logs a warning, and is taken for info.
func WithLogger(l *slog.Logger) Option {
	return func(cfg *config) error {
		cfg.logger = l
		return nil
	}
}

// WithObserver reports what happens to the credential. Events arrive in order, one at
// a time, and none is dropped; fn runs outside the request path, on a goroutine that
// runs while there are events. fn must not call [Client.Close]. If WithObserver is
// given several times, all functions are called, in this order.
func WithObserver(fn func(Event)) Option {
	return func(cfg *config) error {
		if fn == nil {
			return optionError("WithObserver", "the function is nil")
		}
		cfg.instruments = append(cfg.instruments, Instrumentation{Event: fn})
		return nil
	}
}

// WithUserAgent puts a product such as "my-agent/1.2" before the SDK's own in
// the User-Agent of [Client.Do] and of the calls that the SDK itself makes.
func WithUserAgent(product string) Option {
	return func(cfg *config) error {
		if product == "" || strings.ContainsFunc(product, func(r rune) bool { return r < ' ' || r > '~' }) {
			return optionError("WithUserAgent", "invalid product (want visible ASCII characters, such as my-agent/1.2)")
		}
		cfg.userAgent = product
		return nil
	}
}

// WithLookupEnv reads environment variables through lookup instead of from the
// process. It makes tests independent of each other.
func WithLookupEnv(lookup func(string) (string, bool)) Option {
	return func(cfg *config) error {
		if lookup == nil {
			return optionError("WithLookupEnv", "the function is nil")
		}
		cfg.lookup = lookup
		return nil
	}
}

// WithoutEnvironment ignores all environment variables.
func WithoutEnvironment() Option {
	return WithLookupEnv(func(string) (string, bool) { return "", false })
}

// WithInsecureHTTP permits plain http to hosts other than this machine. Anyone on the
// network path can then read the keys. It is meant for test networks.
func WithInsecureHTTP() Option {
	return func(cfg *config) error {
		cfg.insecure = true
		return nil
	}
}

// WithRoutes changes the paths of the calls that the SDK itself makes. Empty fields keep
// their defaults. See [Routes].
func WithRoutes(r Routes) Option {
	return func(cfg *config) error {
		for _, p := range r.each() {
			if *p == "" {
				continue
			}
			if err := origin.CheckPath(*p); err != nil {
				return fmt.Errorf("WithRoutes: %w", err)
			}
		}
		cfg.routes = r.withDefaults()
		return nil
	}
}

// WithAnonymous sends no credential, for the few public calls. For example, an agent
// without a key registers itself (see [AgentService.Register]). The environment is not
// read for credentials.
func WithAnonymous() Option {
	return func(cfg *config) error {
		cfg.anonymous, cfg.credential, cfg.source = true, Credential{}, nil
		return nil
	}
}

// WithClientSideKeys permits API keys and user tokens where the program runs on
// its user's side (GOOS=js). The platform asks that keys are never exposed in
// client-side code (platform documentation, "Authentication"); hand a session
// token to such programs instead.
func WithClientSideKeys() Option {
	return func(cfg *config) error {
		cfg.clientSideKeys = true
		return nil
	}
}

// explicit reports whether an option gives the credential, so that the
// environment is not read for one.
func (c *config) explicit() bool {
	return c.source != nil || !c.credential.IsZero() || c.anonymous
}

func defaultConfig() *config {
	return &config{
		timeout:   defaultTimeout,
		keyHeader: wire.HeaderAPIKey,
		lookup:    processEnvironment,
		goos:      runtime.GOOS,
		routes:    defaultRoutes,
	}
}

// newConfig runs the options in order.
func newConfig(opts []Option) (*config, error) {
	cfg := defaultConfig()
	for _, opt := range opts {
		if opt == nil {
			return nil, optionError("New", "an option is nil")
		}
		if err := opt(cfg); err != nil {
			return nil, err
		}
	}
	if !cfg.unmarkedSandbox && !cfg.explicit() {
		var err error
		if cfg.unmarkedSandbox, err = environ.New(cfg.lookup).AllowsUnmarkedTokens(); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}
