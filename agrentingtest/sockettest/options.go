package sockettest

import (
	"fmt"
	"net/http"
	"time"
)

// The defaults of the options.
const (
	// DefaultTimeout is how long a client may send nothing: 1 minute, as in Phoenix.
	DefaultTimeout = time.Minute
	// DefaultQueue is how many messages may wait for a client that reads too slowly: 1024.
	DefaultQueue = 1024
	// DefaultReadLimit is the maximum size of a message in bytes: 1 MiB. The platform does
	// not publish a number.
	DefaultReadLimit = 1 << 20
)

// Option configures [Mount].
type Option func(*config)

type config struct {
	timeout   time.Duration
	queue     int
	readLimit int64
	refusal   int
	surviving bool
}

func newConfig(opts []Option) config {
	cfg := config{timeout: DefaultTimeout, queue: DefaultQueue, readLimit: DefaultReadLimit, refusal: http.StatusForbidden}
	for _, opt := range opts {
		opt(&cfg)
	}
	return cfg
}

// WithTimeout sets how long a client may send nothing before its socket is closed with
// code 1002, and how long the write of one message may take. The default is
// [DefaultTimeout]. Phoenix clients send a heartbeat every 30 seconds.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout = d } }

// WithQueue sets how many messages may wait for a client that reads too slowly. One more
// message closes its connection without a handshake, which the client sees as code 1006.
// All messages that are replayed when a client joins a stream late count as one. The
// default is [DefaultQueue]. Phoenix itself has no limit.
func WithQueue(messages int) Option { return func(c *config) { c.queue = max(messages, 1) } }

// WithReadLimit sets the maximum size of a message in bytes. A larger message closes the
// socket with code 1009. The default is [DefaultReadLimit].
func WithReadLimit(bytes int64) Option { return func(c *config) { c.readLimit = bytes } }

// WithRefusal sets the status of a refused handshake, such as 401. The default is 403,
// which is the default of Phoenix. The status that the platform uses is not documented.
// WithRefusal panics if the status is not a client error.
func WithRefusal(status int) Option {
	if status < 400 || status > 499 {
		panic(fmt.Sprintf("sockettest: WithRefusal: %d is not a client error, such as 401", status))
	}
	return func(c *config) { c.refusal = status }
}

// WithSurvivingSockets keeps sockets open when their credential is revoked or their
// session is ended. By default they are closed with code 1001.
func WithSurvivingSockets() Option { return func(c *config) { c.surviving = true } }
