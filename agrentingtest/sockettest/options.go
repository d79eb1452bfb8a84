package sockettest

import (
	"fmt"
	"net/http"
	"time"
)

// The defaults of the options.
const (
	// DefaultTimeout is how long a socket may be silent, as in Phoenix.
	DefaultTimeout = time.Minute
	// DefaultQueue is how many messages may wait for a client that reads too slowly.
	DefaultQueue = 1024
	// DefaultReadLimit is the size of the largest message in bytes: 1 MiB. The platform
	// publishes no number.
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
// code 1002, and how long one message may take to be written. The default is
// [DefaultTimeout]; Phoenix clients send a heartbeat every 30 seconds.
func WithTimeout(d time.Duration) Option { return func(c *config) { c.timeout = d } }

// WithQueue sets how many messages may wait for a client that reads too slowly. With one
// more its connection is cut, which it sees as code 1006. What a client gets when it joins
// a stream late counts as one message. The default is [DefaultQueue].
// Phoenix itself has no limit.
func WithQueue(messages int) Option { return func(c *config) { c.queue = max(messages, 1) } }

// WithReadLimit sets the size of the largest message in bytes. A socket with a larger one
// is closed with code 1009. The default is [DefaultReadLimit].
func WithReadLimit(bytes int64) Option { return func(c *config) { c.readLimit = bytes } }

// WithRefusal sets the status of a refused handshake, such as 401. The default is 403,
// with which Phoenix responds unless an application says otherwise; that of the platform
// is not documented. It panics if the status is not a client error.
func WithRefusal(status int) Option {
	if status < 400 || status > 499 {
		panic(fmt.Sprintf("sockettest: WithRefusal: %d is not a client error, such as 401", status))
	}
	return func(c *config) { c.refusal = status }
}

// WithSurvivingSockets keeps sockets open when their credential is revoked or their session
// ended. By default they are closed with code 1001.
func WithSurvivingSockets() Option { return func(c *config) { c.surviving = true } }
