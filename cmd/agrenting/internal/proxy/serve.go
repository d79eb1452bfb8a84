package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/ascii"
)

// Listen opens a loopback port or, for "unix:PATH", a socket that only its owner
// can use. Other addresses are refused: anyone who reaches the proxy acts with its
// credential.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	at, err := resolve(addr)
	if err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(at, unixPrefix); ok {
		return listenUnix(ctx, path)
	}
	lc := new(net.ListenConfig)
	lc.SetMultipathTCP(false) // one machine has one path, and shut needs plain TCP
	return lc.Listen(ctx, "tcp", at)
}

const unixPrefix = "unix:"

// CheckAddr returns the error of [Listen] for an address that it refuses. It opens nothing.
func CheckAddr(addr string) error {
	_, err := resolve(addr)
	return err
}

// resolve returns an address without a name for this machine.
func resolve(addr string) (string, error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		if path == "" {
			return "", errors.New("unix: needs the path of the socket behind it")
		}
		return addr, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("invalid address %q (want host:port, such as 127.0.0.1:8080, or unix:/path/to/socket)", addr)
	}
	if ascii.EqualFold(host, "localhost") {
		host = "127.0.0.1" // whatever the name server says
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("%q is not an address of this machine alone; use 127.0.0.1, [::1] or unix:/path/to/socket", addr)
	}
	return net.JoinHostPort(host, port), nil
}

// listenUnix makes the socket in a separate folder that no other user can enter,
// and moves it into place once its mode is right.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s exists and is not a socket", path)
		}
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("another program listens on %s", path)
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".agrenting-") // 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "s")
	l, err := new(net.ListenConfig).Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it has moved by then
	}
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &unixListener{Listener: l, path: path}, nil
}

type unixListener struct {
	net.Listener
	path string
	once sync.Once
}

func (l *unixListener) Close() error {
	l.hide()
	return l.Listener.Close()
}

// hide takes the name away, once: another proxy may have the place by then.
func (l *unixListener) hide() { l.once.Do(func() { _ = os.Remove(l.path) }) }

// Addr names the socket where it is now.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// SyscallConn lets [Serve] see who waits.
func (l *unixListener) SyscallConn() (syscall.RawConn, error) {
	if c, ok := l.Listener.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// SetDeadline lets [Serve] take what still waits at the end.
func (l *unixListener) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

// Hosts are the values of Host that lead to a listener; nil for a unix socket.
func Hosts(l net.Listener) []string {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	port := strconv.Itoa(a.Port)
	hosts := []string{net.JoinHostPort(a.IP.String(), port), "localhost:" + port}
	if a.Port == 80 { // which browsers leave out
		hosts = append(hosts, a.IP.String(), "localhost")
	}
	return hosts
}

// A closing proxy continues to accept requests on open connections until none
// has come for a while, that is in so many glances of this length one after the
// other: what was sent before its callers could know is answered, with the word
// that the connection ends. Glances are counted, because on a busy machine a
// single long sleep may end before anybody has read what came during it.
const (
	glance  = 10 * time.Millisecond
	glances = 25
)

// limit is how long callers who keep coming may hold up the end, at the door and
// once more inside.
const limit = 5 * time.Second

// Serve serves until ctx ends, and then as long as requests are under way, but
// no longer than grace. Until the last moment requests on open connections are
// answered; none is dropped that was sent before its connection was closed. It
// reports how many requests were cut short.
func Serve(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration) (cut int, err error) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var closing atomic.Bool
	var active, begun atomic.Int64
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			active.Add(1)
			defer active.Add(-1)
			if r.ProtoMajor == 1 { // HTTP/2 has better ways to say that a connection ends
				begun.Add(1)
				if closing.Load() {
					w.Header().Set("Connection", "close")
				}
			}
			h.ServeHTTP(w, r)
		}),
		Protocols:         protocols,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    256 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          silent,
	}
	d := &draining{Listener: l, ended: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(d) }()
	select {
	case err := <-served:
		return 0, err
	case <-ctx.Done():
	}
	d.shut() // first: who is told that a connection ends finds no way to a new one
	closing.Store(true)
	d.drain()
	_ = l.Close()
	serr := <-served // every connection that was accepted is the server's by then
	// Shutdown drops requests that it finds unread on open connections.
	linger(base, &begun)
	ending, stop := context.WithTimeout(base, grace)
	defer stop()
	if err := srv.Shutdown(ending); err == nil {
		// Upgraded connections are not the server's any more.
		for active.Load() > 0 && ending.Err() == nil {
			wait(ending, 10*time.Millisecond)
		}
	}
	cut = int(active.Load())
	cancel()
	err = srv.Close()
	if !errors.Is(serr, http.ErrServerClosed) && !errors.Is(serr, net.ErrClosed) {
		err = errors.Join(err, serr)
	}
	return cut, err
}

// linger returns when no request has begun for a while, or at the limit. Every
// connection has one more at most.
func linger(ctx context.Context, begun *atomic.Int64) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	seen := begun.Load()
	for quiet := 0; quiet < glances && ctx.Err() == nil; quiet++ {
		wait(ctx, glance)
		if now := begun.Load(); now != seen {
			seen, quiet = now, -1
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// draining is a listener that takes what still waits before it closes.
type draining struct {
	net.Listener
	last  atomic.Bool
	ended chan struct{}
}

// settle is how long no connection may have arrived before the listener is closed.
const settle = 20 * time.Millisecond

// shut keeps newcomers from joining those who wait, where the system can.
func (d *draining) shut() {
	switch l := d.Listener.(type) {
	case *net.TCPListener:
		_ = shut(l) // or callers come until it closes
	case *unixListener:
		l.hide()
	}
}

// drain returns when no connection waits, or at the limit, which only a listener
// that could not be shut reaches.
func (d *draining) drain() {
	t, ok := d.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return
	}
	d.last.Store(true)
	if t.SetDeadline(time.Now().Add(settle)) != nil {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.ended:
	case <-timer.C:
	}
}

// Accept implements [net.Listener].
func (d *draining) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if !d.last.Load() {
			return c, err
		}
		more := err == nil || (errors.Is(err, os.ErrDeadlineExceeded) && queued(d.Listener))
		if t, ok := d.Listener.(interface{ SetDeadline(time.Time) error }); more && ok {
			_ = t.SetDeadline(time.Now().Add(settle))
		}
		if err == nil {
			return c, nil
		}
		if !more {
			break
		}
	}
	select {
	case <-d.ended:
	default:
		close(d.ended)
	}
	return nil, net.ErrClosed
}
