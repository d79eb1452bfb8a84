package agrentingtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// errUnreachable is the error for a dial of any other server, so that a test
// notices a client that follows a redirect away from the server.
var errUnreachable = errors.New("connection refused: an in-memory server reaches only itself")

// memListener passes one end of a pipe to the server for each dialed connection.
// It has no goroutine and no timer.
type memListener struct {
	addr    memAddr
	ports   atomic.Uint32
	pending chan net.Conn
	done    chan struct{}
	closing sync.Once
}

func newMemListener() *memListener {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return &memListener{
		// Each server has a different address in the loopback network.
		addr:    memAddr(fmt.Sprintf("127.77.%d.%d:4000", b[0], 1+b[1]%254)),
		pending: make(chan net.Conn),
		done:    make(chan struct{}),
	}
}

// Accept implements net.Listener.
func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.pending:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *memListener) Close() error {
	l.closing.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *memListener) Addr() net.Addr { return l.addr }

func (l *memListener) dialer(ip string) func(context.Context, string, string) (net.Conn, error) {
	if ip == "" {
		ip = "127.0.0.1"
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != l.addr.String() {
			return nil, &net.OpError{Op: "dial", Net: network, Addr: memAddr(addr), Err: errUnreachable}
		}
		from := memAddr(net.JoinHostPort(ip, strconv.Itoa(20_000+int(l.ports.Add(1)%40_000))))
		near, far := net.Pipe()
		select {
		case l.pending <- &memConn{Conn: far, local: l.addr, remote: from}:
			return &memConn{Conn: near, local: from, remote: l.addr}, nil
		case <-l.done:
			return nil, &net.OpError{Op: "dial", Net: network, Addr: l.addr, Err: net.ErrClosed}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

type memAddr string

func (memAddr) Network() string  { return "tcp" }
func (a memAddr) String() string { return string(a) }

// memConn is a pipe with addresses, which the limits by source address need.
type memConn struct {
	net.Conn
	local, remote memAddr
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }
