package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults. The zero value causes no fault.
const (
	// Latency delays the request.
	Latency Kind = "latency"
	// Reset cuts the connection before anything of the request is forwarded.
	Reset Kind = "reset"
	// Silent reads the request, but forwards nothing and sends nothing back,
	// until the client closes the connection or [Mix.Hang] has passed.
	Silent Kind = "silence"
	// Lost forwards the request and cuts the connection instead of passing the
	// response on.
	Lost Kind = "lost response"
	// Slow passes the response on in small pieces.
	Slow Kind = "slow response"
)

// Mix gives the probability of each kind of fault for an exchange, from 0 to 1,
// such as Mix{Reset: 0.05, Lost: 0.05}. All other exchanges pass unharmed.
// Durations that are zero have their defaults. Most programs only set one or
// two probabilities.
type Mix struct {
	Latency, Reset, Silent, Lost, Slow float64
	// Delay bounds the delay that Latency adds; default 20 ms.
	Delay time.Duration
	// Hang bounds a silence; default 1 min.
	Hang time.Duration
	// Pause is how long Slow waits before each piece of a response; default
	// 2 ms.
	Pause time.Duration
}

func (m Mix) withDefaults() Mix {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&m.Delay, 20 * time.Millisecond}, {&m.Hang, time.Minute}, {&m.Pause, 2 * time.Millisecond}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return m
}

// Proxy forwards connections to one address. It is safe for concurrent use and
// must be closed.
type Proxy struct {
	target    string
	listener  net.Listener
	seed      uint64
	exchanges atomic.Uint64
	mix       atomic.Pointer[Mix]
	ctx       context.Context //nolint:containedctx // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu     sync.Mutex
	closed bool
	script []Kind
	counts map[Kind]int
	harm   map[string]Kind // of the latest exchange, by client address
	links  map[*link]struct{}
}

// New starts a proxy for target, a host and port. The proxy forwards everything
// unharmed until Set or Next is called.
func New(target string, seed uint64) (*Proxy, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, fmt.Errorf("chaos: %w", err)
	}
	p := &Proxy{
		target: target, listener: l, seed: seed, ctx: ctx, cancel: cancel,
		counts: map[Kind]int{}, harm: map[string]Kind{}, links: map[*link]struct{}{},
	}
	p.Set(Mix{})
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the host and port to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set replaces the mix that faults are drawn from. The zero Mix causes no
// faults.
func (p *Proxy) Set(m Mix) {
	m = m.withDefaults()
	p.mix.Store(&m)
}

// Next scripts the faults of the next exchanges, before any fault is drawn from
// the mix. The empty Kind lets one exchange pass.
func (p *Proxy) Next(kinds ...Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = append(p.script, kinds...)
}

// Counts returns how many exchanges had each kind of fault.
func (p *Proxy) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Harm returns the fault of the latest exchange on the connection that a client
// made from addr, or "" if it had none. The result is kept until another
// connection comes from that address.
func (p *Proxy) Harm(addr string) Kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.harm[addr]
}

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	links := maps.Clone(p.links)
	p.mu.Unlock()
	for l := range links {
		l.doomed.Store(true)
		p.note(l, Reset)
		l.cut()
	}
}

// Close stops listening, cuts every connection, and waits until all goroutines
// of the proxy have ended. It may be called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	_ = p.listener.Close() // a second call gets an error
	p.mu.Lock()
	links := maps.Clone(p.links)
	p.mu.Unlock()
	for l := range links {
		l.cut()
	}
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.wg.Go(func() { p.serve(c) })
		}
	}
}

// link is a connection through the proxy.
type link struct {
	p      *Proxy
	client net.Conn
	server net.Conn
	// begins is set if the client's next bytes begin an exchange.
	begins atomic.Bool
	lose   atomic.Bool // the response
	slow   atomic.Bool // the response
	doomed atomic.Bool // Cut resets it
}

func (p *Proxy) serve(client net.Conn) {
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	l := &link{p: p, client: client, server: server}
	l.begins.Store(true)
	if !p.add(l) {
		l.cut()
		return
	}
	defer p.remove(l)
	p.wg.Go(l.down)
	l.up()
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.links[l] = struct{}{}
	delete(p.harm, l.client.RemoteAddr().String())
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// draw chooses the fault of the next exchange.
func (p *Proxy) draw(m *Mix) (kind Kind, delay time.Duration) {
	n := p.exchanges.Add(1)
	r := rand.New(rand.NewPCG(p.seed, n)) // #nosec G404 -- it must be the same in every run
	x, delay := r.Float64(), time.Duration(r.Float64()*float64(m.Delay))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.script) > 0 {
		kind, p.script = p.script[0], p.script[1:]
		return kind, delay
	}
	for _, c := range []struct {
		kind  Kind
		share float64
	}{{Latency, m.Latency}, {Reset, m.Reset}, {Silent, m.Silent}, {Lost, m.Lost}, {Slow, m.Slow}} {
		if x < c.share {
			return c.kind, delay
		}
		x -= c.share
	}
	return "", delay
}

// note records the fault of an exchange, which may be none.
func (p *Proxy) note(l *link, kind Kind) {
	addr := l.client.RemoteAddr().String()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case kind == "" && l.doomed.Load():
		return // Cut also ends an exchange that begins while it runs
	case kind == "":
		delete(p.harm, addr)
		return
	}
	p.harm[addr] = kind
	p.counts[kind]++
}

// up forwards what the client sends.
func (l *link) up() {
	buf := make([]byte, 16<<10)
	for {
		n, err := l.client.Read(buf)
		if n > 0 && (!l.begins.Swap(false) || l.suffer()) {
			if _, werr := l.server.Write(buf[:n]); werr != nil {
				break
			}
		} else if n > 0 {
			return // the fault has already ended the connection
		}
		if err != nil {
			break
		}
	}
	l.end()
}

// suffer applies the fault of an exchange that begins. It reports whether the
// request must be forwarded.
func (l *link) suffer() bool {
	m := l.p.mix.Load()
	kind, delay := l.p.draw(m)
	l.p.note(l, kind)
	l.slow.Store(kind == Slow)
	switch kind {
	case Latency:
		return l.p.sleep(delay)
	case Reset:
		l.cut()
		return false
	case Silent:
		_ = l.server.Close() // it gets no request
		_ = l.client.SetReadDeadline(time.Now().Add(m.Hang))
		_, _ = io.Copy(io.Discard, l.client) // until the client closes, or the deadline passes
		l.cut()
		return false
	case Lost:
		l.lose.Store(true)
	default: // Slow applies to the response
	}
	return true
}

// down forwards what the server sends.
func (l *link) down() {
	buf := make([]byte, 16<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 && l.lose.Load() {
			l.cut()
			return
		}
		if n > 0 {
			l.begins.Store(true)
			if werr := l.answer(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if !l.silent() {
		l.end()
	}
}

// silent reports whether the server's side was closed but the client's must
// stay open.
func (l *link) silent() bool { return l.p.Harm(l.client.RemoteAddr().String()) == Silent }

// answer sends bytes to the client, in pieces if the fault is Slow.
func (l *link) answer(b []byte) error {
	const piece = 64
	for len(b) > piece && l.slow.Load() {
		if !l.p.sleep(l.p.mix.Load().Pause) {
			return net.ErrClosed
		}
		if _, err := l.client.Write(b[:piece]); err != nil {
			return err
		}
		b = b[piece:]
	}
	_, err := l.client.Write(b)
	return err
}

// end closes both sides in an orderly way.
func (l *link) end() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// cut resets the client's side and closes the server's.
func (l *link) cut() {
	reset(l.client)
	_ = l.server.Close()
}

// reset closes a connection so that its peer sees ECONNRESET.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// sleep waits for d. It returns false if the proxy was closed during that time.
func (p *Proxy) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}
