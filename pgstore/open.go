package pgstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// maxMessage bounds what is read from the server at once. A record is sent in
// hexadecimal, and has at most 64 KiB.
const maxMessage = 1 << 20

// Open returns a store with its own pool of connections. Close closes both. Open does
// not connect; the first operation does.
//
// connString is a URL such as "postgres://writer@db.example.com/app?sslmode=verify-full",
// or has the form "host=db.example.com dbname=app". pgxpool.ParseConfig describes it.
// What it leaves out comes from the environment (PGPASSWORD) and from ~/.pgpass. Of
// several hosts, the one that is the primary is used. The default of connect_timeout is
// half the timeout of the store ([WithTimeout]), or a quarter of it if there are several hosts.
//
// The connection to a host must be encrypted and its server verified
// (sslmode=verify-full), unless the host is loopback, localhost or a socket.
// [WithInsecureConnection] turns this off. Errors match [agrenting.ErrInvalidOption]
// and do not contain the password.
//
// name distinguishes fleets, see [New].
func Open(connString, name string, opts ...Option) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, invalid("Open", connStringProblem(err))
	}
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	conn := &cfg.ConnConfig.Config
	if problem := connectionProblem(conn); problem != "" && !o.insecure {
		return nil, invalid("Open", problem)
	}
	if conn.ConnectTimeout == 0 {
		// One silent host, or address of a host, must not use up the time of all.
		conn.ConnectTimeout = o.timeout / 2
		if slices.ContainsFunc(conn.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != conn.Host || f.Port != conn.Port }) {
			conn.ConnectTimeout = o.timeout / attempts
		}
	}
	if conn.ValidateConnect == nil {
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	conn.MaxProtocolMessageBodyLen = maxMessage
	// A connection that was lost while it was idle costs an attempt. A ping before each
	// operation would cost more.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, invalid("Open", "cannot create the connection pool")
	}
	s, err := newStore(pool, name, o)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.ownPool = true
	return s, nil
}

// connStringProblem says what is wrong with a connection string, without its text:
// pgx does not always recognize the password in a malformed one.
func connStringProblem(err error) string {
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return "a file that the connection string names cannot be read: " + file.Error()
	}
	return "not a valid connection string, or a file that it names has no certificate or key; " +
		"expected something like postgres://user@host/database?sslmode=verify-full"
}

// connectionProblem returns why a secret must not be sent to one of the hosts, "" if
// it may be sent to all.
func connectionProblem(cfg *pgconn.Config) string {
	hosts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	for _, h := range hosts {
		if network, _ := pgconn.NetworkAddress(h.Host, h.Port); network == "unix" || isLoopback(strings.ToLower(h.Host)) {
			continue
		}
		if problem := tlsProblem(h.TLSConfig); problem != "" {
			return fmt.Sprintf("the connection to host %q %s. Set sslmode=verify-full, and sslrootcert if the server's "+
				"certificate is not from a public authority. WithInsecureConnection accepts such connections", h.Host, problem)
		}
	}
	return ""
}

func tlsProblem(cfg *tls.Config) string {
	switch {
	case cfg == nil:
		return "may be unencrypted"
	case cfg.InsecureSkipVerify: // also with sslmode=verify-ca, which accepts any host name
		return "would not verify the server's certificate and name"
	}
	return ""
}

// isLoopback reports whether a host in lower case is this machine, whatever a name server says.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return a.Unmap().IsLoopback()
}
