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

// The kinds of faults. The zero value is none.
const (
	// Latency holds the request back for a while.
	Latency Kind = "latency"
	// Reset cuts the connection before anything of the request is forwarded.
	Reset Kind = "reset"
	// Silent takes the request, forwards nothing and answers nothing, until the
	// client hangs up or [Mix.Hang] is over.
	Silent Kind = "silence"
	// Lost forwards the request and cuts the connection in place of the answer.
	Lost Kind = "lost answer"
	// Slow lets the answer through in small pieces.
	Slow Kind = "slow answer"
)

// Mix says how likely each kind of fault is for an exchange, from 0 to 1; what
// is left of 1 passes unharmed. Durations that are zero have their defaults.
type Mix struct {
	Latency, Reset, Silent, Lost, Slow float64
	// Delay bounds what Latency adds; default 20 ms.
	Delay time.Duration
	// Hang bounds a silence; default 1 min.
	Hang time.Duration
	// Pause is what Slow waits before each piece of an answer; default 2 ms.
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
	harm   map[string]Kind // of the latest exchange, by the client's address
	links  map[*link]struct{}
}

// New starts a proxy for target, a host and port. It passes everything on until
// it is told otherwise.
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

// Addr is the host and port to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set replaces the mix that faults are drawn from. The zero Mix is peace.
func (p *Proxy) Set(m Mix) {
	m = m.withDefaults()
	p.mix.Store(&m)
}

// Next scripts the faults of the exchanges to come, before anything is drawn.
// The empty Kind lets one pass.
func (p *Proxy) Next(kinds ...Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = append(p.script, kinds...)
}

// Counts tells how many exchanges have suffered what.
func (p *Proxy) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Harm tells what befell the latest exchange of the connection that a client
// made from addr, "" for nothing. It is known until another connection comes
// from there.
func (p *Proxy) Harm(addr string) Kind {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.harm[addr]
}

// Cut resets every connection there is.
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

// Close stops listening, cuts every connection, and waits until no goroutine of
// the proxy is left. It may be called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	_ = p.listener.Close() // the second time it is closed already
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
	// begins tells that the client's next bytes begin an exchange.
	begins atomic.Bool
	lose   atomic.Bool // the answer
	slow   atomic.Bool // the answer
	doomed atomic.Bool // Cut has taken it
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

// draw decides about the next exchange.
func (p *Proxy) draw(m *Mix) (kind Kind, delay time.Duration) {
	n := p.exchanges.Add(1)
	r := rand.New(rand.NewPCG(p.seed, n)) // #nosec G404 -- the same in every run is the point
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

// note remembers what befalls an exchange, nothing included.
func (p *Proxy) note(l *link, kind Kind) {
	addr := l.client.RemoteAddr().String()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case kind == "" && l.doomed.Load():
		return // an exchange that began meanwhile ends with the others
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
			return // the fault has seen to the connection
		}
		if err != nil {
			break
		}
	}
	l.end()
}

// suffer applies the fault of an exchange that begins. It reports whether the
// request is to be forwarded.
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
		_ = l.server.Close() // nobody is going to speak to it
		_ = l.client.SetReadDeadline(time.Now().Add(m.Hang))
		_, _ = io.Copy(io.Discard, l.client) // until either side gives up
		l.cut()
		return false
	case Lost:
		l.lose.Store(true)
	default: // Slow is for the answer
	}
	return true
}

// down forwards what the server answers.
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

// silent reports whether the server's side was closed while the client's is to
// stay open.
func (l *link) silent() bool { return l.p.Harm(l.client.RemoteAddr().String()) == Silent }

// answer hands bytes to the client, in pieces where that is the fault.
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

// sleep waits; it is false when the proxy was closed meanwhile.
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
