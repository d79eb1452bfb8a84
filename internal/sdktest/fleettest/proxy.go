package fleettest

import (
	"context"
	"net"
	"sync"
)

// mode is what a [Proxy] does.
type mode int

const (
	pass mode = iota
	freeze
	refuse
)

// Proxy is a TCP proxy in front of a server. It can cut the network.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{}
	mode    mode
	closed  bool
	conns   map[net.Conn]struct{}
}

// NewProxy returns a proxy on a free port of 127.0.0.1. target is the server's host
// and port, such as "127.0.0.1:2379". Close must be called.
func NewProxy(target string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	return p, nil
}

// Addr returns the host and port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Pass forwards connections again, as at the start.
func (p *Proxy) Pass() { p.set(pass) }

// Freeze keeps and accepts connections, and forwards nothing.
func (p *Proxy) Freeze() { p.set(freeze) }

// Refuse closes existing connections and new ones.
func (p *Proxy) Refuse() { p.set(refuse) }

func (p *Proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
	if m == refuse || p.closed {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// hold waits while the proxy is frozen. It reports whether the connection may
// continue.
func (p *Proxy) hold() bool {
	for {
		p.mu.Lock()
		m, changed, closed := p.mode, p.changed, p.closed
		p.mu.Unlock()
		switch {
		case closed || m == refuse:
			return false
		case m == pass:
			return true
		}
		<-changed
	}
}

func (p *Proxy) track(c net.Conn, add bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if add {
		p.conns[c] = struct{}{}
		return
	}
	delete(p.conns, c)
}

func (p *Proxy) serve(conn net.Conn) {
	defer conn.Close()
	p.track(conn, true)
	defer p.track(conn, false)
	if !p.hold() {
		return
	}
	up, err := new(net.Dialer).Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer up.Close()
	p.track(up, true)
	defer p.track(up, false)
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{up, conn}, {conn, up}} {
		wg.Go(func() {
			defer pair[0].Close()
			defer pair[1].Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := pair[1].Read(buf)
				if err != nil || !p.hold() {
					return
				}
				if _, err := pair[0].Write(buf[:n]); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

// Close closes all connections, and waits until they are closed.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Refuse()
	p.wg.Wait()
}
