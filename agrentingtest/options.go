package agrentingtest

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// defaultAuthPath is where the platform's API page and every live client find
// the exchange of an API key for a session.
const defaultAuthPath = "/api/v1/auth/authenticate"

// defaultSessionTTL is an assumption: the platform says "configurable" and
// publishes no number, and long-lived clients of it reckon with 20 hours.
const defaultSessionTTL = 20 * time.Hour

// defaultBalance is an assumption: 1,000 USD of simulated money.
const defaultBalance = 1000 * moneyUnit

// Option configures a [Server] when it is made.
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

// InMemory makes the server listen on pipes inside the process instead of a
// socket. It is reachable only through [Server.Transport] and
// [Server.TransportFrom]. A server made inside a testing/synctest bubble runs
// on the bubble's time; close it before the bubble ends.
func InMemory() Option { return func(c *config) { c.memory = true } }

// WithTLS serves https with a self-signed certificate, HTTP/1.1 and HTTP/2.
// [Server.Transport] trusts it; see also [Server.Certificate].
func WithTLS() Option { return func(c *config) { c.tls = true } }

// WithoutRateLimits lifts the rate limits, the lockout of authenticate and the
// ceiling on anonymous registrations. The rate-limit headers are still sent and
// show an untouched allowance.
func WithoutRateLimits() Option { return func(c *config) { c.unlimited = true } }

// WithRateLimits replaces the documented numbers; zero fields keep them. A platform
// on which only authenticate is limited, to 3 calls in 10 seconds:
//
//	agrentingtest.WithRateLimits(agrentingtest.RateLimits{
//		General: 1_000_000, Authenticate: 3, AuthenticateWindow: 10 * time.Second, Lockout: time.Minute,
//	})
func WithRateLimits(l RateLimits) Option { return func(c *config) { c.limits = l } }

// WithSessionTTL sets how long sessions live, 20 hours unless told otherwise.
// See also [Server.SetSessionTTL].
func WithSessionTTL(d time.Duration) Option { return func(c *config) { c.ttl = d } }

// WithSessionShape selects how authenticate answers, [ShapeLive] unless told
// otherwise.
func WithSessionShape(s SessionShape) Option { return func(c *config) { c.shape = s } }

// WithAuthPath serves authenticate at path only, such as /auth/authenticate, as the
// platform's authentication page writes it. The usual path then answers 404
// ROUTE_NOT_FOUND.
func WithAuthPath(path string) Option { return func(c *config) { c.authPath = path } }

// WithRotateKeyField names the field that carries the secret in the answers
// that create or rotate a key. The platform's text of it is cut off, so clients
// should cope with "api_key" (the default), "key", "credential" and "secret".
func WithRotateKeyField(name string) Option { return func(c *config) { c.keyField = name } }

// WithBrokenKeyAnswers gives every other field of those answers a type that
// clients do not expect. A client that then loses the secret has lost the key.
func WithBrokenKeyAnswers() Option { return func(c *config) { c.brokenKeys = true } }

// WithSessionsDyingWithKey ends the sessions obtained with a key when the key is
// rotated or revoked. The platform does not say; by default they live on.
func WithSessionsDyingWithKey() Option { return func(c *config) { c.dyingSessions = true } }

// WithMaxKeys refuses to create more than n live keys an agent, with 422.
// Rotation is always possible. Zero means no ceiling.
func WithMaxKeys(n int) Option { return func(c *config) { c.maxKeys = n } }

// WithBearerKeys also accepts an agent's API key as Authorization: Bearer. The
// platform documents bearer tokens for sessions and user tokens only, and clients send
// no agent's key that way, so that by default such a key gets a 401. Whether the
// platform accepts it is not known.
func WithBearerKeys() Option { return func(c *config) { c.bearerKeys = true } }

// WithBalance sets the money that each new user has, such as "20.00". The default is
// "1000.00". It panics if amount is not a decimal number up to 1,000,000.
func WithBalance(amount string) Option {
	m, ok := parseMoney(amount)
	if !ok {
		panic(fmt.Sprintf("agrentingtest: WithBalance: %q is not a decimal number up to 1,000,000", amount))
	}
	return func(c *config) { c.balance = m }
}

// WithSeed sets the seed of the choices that [Fault.Share], [WithChaos], and
// [WithNodes] make, 0 by default. A server makes the same choices in each run if its requests and
// connections arrive in the same order.
func WithSeed(seed uint64) Option { return func(c *config) { c.seed = seed } }

// WithClockSkew lets the server's clock (Date header, expires_at, timestamps,
// expiry itself) run d ahead of time.Now; negative d lets it lag.
func WithClockSkew(d time.Duration) Option { return func(c *config) { c.skew = d } }

// WithLogLimit keeps the latest n requests in the log, 10,000 unless told
// otherwise. [Server.Count] also counts those that were dropped.
func WithLogLimit(n int) Option { return func(c *config) { c.logLimit = max(n, 1) } }

// WithWebhookTransport sends webhooks and hires through t, which may reach any receiver,
// or be one. By default they go to loopback hosts only, so that a test does not
// send anything to the hosts of its fixtures, and those of an [InMemory] server go to the
// server itself, where [Server.HandlePublic] mounts receivers.
//
// In every case deliveries go to https URLs, and to http URLs of a loopback host.
// [Server.Close] cancels deliveries that are in progress and waits for t to return.
func WithWebhookTransport(t http.RoundTripper) Option { return func(c *config) { c.couriers = t } }

// WithLogger logs one line a request at debug level, and one at warn level for each
// webhook or hire that could not be delivered, without any secret. The default is silence.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }
