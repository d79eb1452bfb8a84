package etcdstore

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Config describes where etcd is. It prints without the password.
type Config struct {
	// Endpoints are the members, such as "https://etcd-0:2379". With a password or a TLS
	// configuration, [Open] accepts only https, http to localhost and loopback addresses,
	// and sockets (unix, unixs). It refuses user information in any case, and a mixture of
	// encrypted and other endpoints, because etcd's client treats all like the first.
	Endpoints []string
	// Name distinguishes fleets, see [New].
	Name string
	// Namespace comes before all keys; empty for none.
	Namespace string
	// Username and Password are for etcd's own authentication; empty for none.
	Username, Password string
	// TLS is for https endpoints, with the client certificate if etcd requires
	// one. nil uses the system's roots.
	TLS *tls.Config
	// KeepAlive is how long a connection may be silent during a call or a watch
	// before it is pinged. The response may take half as long. The default is 10 s,
	// which is also the minimum of gRPC.
	KeepAlive time.Duration
	// Logger is for the messages of etcd's client; nil discards them.
	Logger *zap.Logger
}

// String returns a summary without the password, and without user information in the
// endpoints.
func (c Config) String() string {
	texts := make([]string, len(c.Endpoints))
	for i, raw := range c.Endpoints {
		e, _ := parseEndpoint(raw)
		texts[i] = e.text
	}
	return fmt.Sprintf("etcdstore.Config(%s at %s)", c.Name, strings.Join(texts, ","))
}

// GoString returns what String returns.
func (c Config) GoString() string { return c.String() }

// Format writes what String returns, for every verb and flag.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText returns what String returns.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

const defaultKeepAlive = 10 * time.Second

// client returns the configuration of etcd's client. Connections are not pinged
// between calls, because etcd closes connections that are pinged. A connection that
// was cut in the meantime is pinged during the next call.
func (c Config) client(timeout time.Duration) clientv3.Config {
	return clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.Username, Password: c.Password, Logger: c.Logger,
		DialTimeout: timeout, DialKeepAliveTime: c.KeepAlive, DialKeepAliveTimeout: c.KeepAlive / 2,
	}
}

// Open returns a store with its own client of etcd. Close closes both. Invalid options are
// an [agrenting.ErrInvalidOption].
//
// Without a password, Open does not wait for etcd; the first operation does. With one, Open
// authenticates. While etcd is down, it then fails after the timeout ([WithTimeout]) with an
// error that matches [ErrUnavailable].
func Open(cfg Config, opts ...Option) (*Store, error) {
	if err := cfg.checkEndpoints(); err != nil {
		return nil, err
	}
	if cfg.KeepAlive < 0 {
		return nil, invalid("Open", "KeepAlive is negative")
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	o, err := newOptions(cfg.Name, opts)
	if err != nil {
		return nil, err
	}
	o.namespace = cfg.Namespace
	client, err := clientv3.New(cfg.client(o.timeout))
	switch {
	case err != nil && transient(err):
		return nil, fmt.Errorf("%w: Open: %w", ErrUnavailable, err)
	case err != nil:
		return nil, fmt.Errorf("etcdstore: Open: %w", err)
	}
	s, err := newStore(client, cfg.Name, o)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	s.closeClient = client.Close
	return s, nil
}
