package agrentingtest

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// defaultAuthPath is the path of the exchange of an API key for a session in the
// platform's API page and in every live client.
const defaultAuthPath = "/api/v1/auth/authenticate"

// defaultSessionTTL is an assumption: the platform says "configurable" and publishes no
// number, and its long-lived clients expect 20 hours.
const defaultSessionTTL = 20 * time.Hour

// defaultBalance is an assumption: 1,000 USD of simulated money.
const defaultBalance = 1000 * moneyUnit

// Option configures a [Server] when it is created.
type Option func(*config)

type config struct {
	addr          string
	memory        bool
	tls           bool
	unlimited     bool
	limits        RateLimits
	ttl           time.Duration
	shape         SessionShape
	authPath      string
	keyField      string
	brokenKeys    bool
	dyingSessions bool
	maxKeys       int
	bearerKeys    bool
	balance       money
	nodes         Nodes
	seed          uint64
	chaos         float64
	control       bool
	skew          time.Duration
	logLimit      int
	logger        *slog.Logger
	couriers      http.RoundTripper
}

func newConfig(opts []Option) config {
	cfg := config{
		addr:     "127.0.0.1:0",
		ttl:      defaultSessionTTL,
		authPath: defaultAuthPath,
		keyField: "api_key",
		balance:  defaultBalance,
		logLimit: 10_000,
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	cfg.limits = cfg.limits.withDefaults()
	if cfg.logger == nil {
		cfg.logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// InMemory makes the server listen on pipes inside the process instead of a socket. The
// server can be reached only through [Server.Transport] and [Server.TransportFrom]. A
// server that is created inside a testing/synctest bubble uses the bubble's clock. Close
// it before the bubble ends.
func InMemory() Option { return func(c *config) { c.memory = true } }

// WithTLS serves https with a self-signed certificate, over HTTP/1.1 and HTTP/2.
// [Server.Transport] trusts the certificate; see also [Server.Certificate].
func WithTLS() Option { return func(c *config) { c.tls = true } }

// WithoutRateLimits disables the rate limits, the lockout of authenticate, and the limit
// on anonymous registrations. The rate-limit headers are still sent and show that no
// request was counted.
func WithoutRateLimits() Option { return func(c *config) { c.unlimited = true } }

// WithRateLimits replaces the documented rate limits; fields that are zero keep the
// documented value. In this example, only authenticate is limited, to 3 calls in 10
// seconds:
//
//	agrentingtest.WithRateLimits(agrentingtest.RateLimits{
//		General: 1_000_000, Authenticate: 3, AuthenticateWindow: 10 * time.Second, Lockout: time.Minute,
//	})
func WithRateLimits(l RateLimits) Option { return func(c *config) { c.limits = l } }

// WithSessionTTL sets the lifetime of sessions, such as time.Minute. The default is 20
// hours. See also [Server.SetSessionTTL].
func WithSessionTTL(d time.Duration) Option { return func(c *config) { c.ttl = d } }

// WithSessionShape sets the form of the authenticate response. The default is
// [ShapeLive].
func WithSessionShape(s SessionShape) Option { return func(c *config) { c.shape = s } }

// WithAuthPath serves authenticate only at path, such as /auth/authenticate, which is the
// path in the platform's authentication page. The usual path then responds with 404
// ROUTE_NOT_FOUND.
func WithAuthPath(path string) Option { return func(c *config) { c.authPath = path } }

// WithRotateKeyField sets the name of the field with the secret in the responses that
// create or rotate a key. The platform's documentation of it is truncated, so clients
// should accept "api_key" (the default), "key", "credential", and "secret".
func WithRotateKeyField(name string) Option { return func(c *config) { c.keyField = name } }

// WithUnexpectedKeyFields gives every other field in the responses that create or rotate a
// key a type that clients do not expect. A client that then fails to read the secret has
// lost the key.
func WithUnexpectedKeyFields() Option { return func(c *config) { c.brokenKeys = true } }

// WithSessionsEndingWithKey ends the sessions that were obtained with a key when the key
// is rotated or revoked. By default they remain valid. The platform does not document
// this.
func WithSessionsEndingWithKey() Option { return func(c *config) { c.dyingSessions = true } }

// WithMaxKeys limits the live keys of an agent to n: creating another one responds with
// 422. Rotation is always possible. Zero, the default, means unlimited.
func WithMaxKeys(n int) Option { return func(c *config) { c.maxKeys = n } }

// WithBearerKeys makes the server also accept an agent's API key as Authorization:
// Bearer. By default such a key gets a 401, because the platform documents bearer tokens
// only for sessions and user tokens, and its clients do not send API keys that way.
// Whether the platform accepts them is not known.
func WithBearerKeys() Option { return func(c *config) { c.bearerKeys = true } }

// WithBalance sets the initial balance of each new user in USD, such as "20.00". The
// default is "1000.00". It panics if amount is not a decimal number up to 1,000,000.
func WithBalance(amount string) Option {
	m, ok := parseMoney(amount)
	if !ok {
		panic(fmt.Sprintf("agrentingtest: WithBalance: %q is not a decimal number up to 1,000,000", amount))
	}
	return func(c *config) { c.balance = m }
}

// WithSeed sets the seed of the random choices of [Fault.Share], [WithChaos], and
// [WithNodes]. The default is 0. A server makes the same choices in each run if its
// requests and connections arrive in the same order.
func WithSeed(seed uint64) Option { return func(c *config) { c.seed = seed } }

// WithClockSkew makes the server's clock run d ahead of time.Now, or behind it if d is
// negative. It affects the Date header, expires_at, timestamps, and expiry itself. The
// default is 0.
func WithClockSkew(d time.Duration) Option { return func(c *config) { c.skew = d } }

// WithLogLimit sets how many requests the log keeps. The default is the latest 10,000.
// [Server.Count] also counts the requests that were dropped.
func WithLogLimit(n int) Option { return func(c *config) { c.logLimit = max(n, 1) } }

// WithWebhookTransport sends webhooks and hires through t, which may reach any receiver,
// or be one itself. By default they go only to loopback hosts, so that a test does not
// send anything to hosts in its fixtures. The deliveries of an [InMemory] server go by
// default to the server itself, where [Server.HandlePublic] adds receivers.
//
// In every case, deliveries go only to https URLs and to http URLs of a loopback host.
// [Server.Close] cancels deliveries that are in progress and waits for t to return.
func WithWebhookTransport(t http.RoundTripper) Option { return func(c *config) { c.couriers = t } }

// WithLogger logs one line for each request at debug level, and one line at warn level
// for each webhook or hire that could not be delivered. The lines have no secrets. By
// default, the server does not log.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }
