package agrentingtest

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is an embedded platform with its own users, agents, keys, and clock. All
// its methods are safe for concurrent use. It must be closed.
type Server struct {
	// URL is the base URL without a slash at the end, such as http://127.0.0.1:41234.
	// It does not change.
	URL string

	cfg      config
	certs    *certificate
	memory   *memListener
	http     *http.Server
	platform *http.ServeMux
	patterns []string // patterns of platform
	extra    *http.ServeMux
	inQuery  sync.Map // patterns of HandleQuery
	dir      *directory
	limits   *limiter
	idem     *idempotency
	script   *script
	nodes    *nodes
	life     *lifecycle
	alarm    alarm // needs the directory's lock
	log      *requestLog
	stats    counters
	tally    *tally
	started  time.Time

	ttl atomic.Int64

	gate     sync.RWMutex // protects closed against inflight.Add
	closed   bool
	inflight sync.WaitGroup
	conns    sync.WaitGroup
	alive    context.Context //nolint:containedctx // ends with the server
	end      context.CancelFunc
	served   chan struct{}
	closing  sync.Once

	courierOnce sync.Once
	courier     *http.Client // for deliveries

	ownedMu    sync.Mutex
	transports []*http.Transport
	hijacked   []net.Conn
	farewells  farewells
}

// NewServer starts a platform. Without options, it serves plain http on a free port
// of 127.0.0.1. It panics if it cannot listen, which is suitable for tests;
// programs use [Listen].
func NewServer(opts ...Option) *Server {
	s, err := start(newConfig(opts))
	if err != nil {
		panic("agrentingtest: " + err.Error())
	}
	return s
}

// Listen starts a platform on addr, such as "127.0.0.1:4000", or "127.0.0.1:0" for
// any free port. It is like [NewServer], but returns an error if it cannot listen.
// The error matches its cause, such as [syscall.EADDRINUSE]. addr has no effect on
// an [InMemory] server.
func Listen(addr string, opts ...Option) (*Server, error) {
	cfg := newConfig(opts)
	cfg.addr = addr
	return start(cfg)
}

func start(cfg config) (*Server, error) {
	s := &Server{
		cfg:    cfg,
		extra:  http.NewServeMux(),
		dir:    newDirectory(),
		limits: newLimiter(cfg.limits, cfg.unlimited),
		idem:   newIdempotency(),
		script: &script{seed: cfg.seed},
		nodes:  newNodes(cfg.nodes, cfg.seed),
		life:   &lifecycle{},
		log:    newRequestLog(cfg.logLimit),
		tally:  newTally(),
		served: make(chan struct{}),
	}
	s.alive, s.end = context.WithCancel(context.Background())
	s.dir.post = s.post
	s.started = s.now()
	s.script.setChaos(cfg.chaos)
	s.ttl.Store(int64(cfg.ttl))
	s.platform = s.routes()

	l, host, err := s.listen()
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if cfg.tls {
		scheme = "https"
		s.certs = newCertificate(host)
	}
	s.URL = scheme + "://" + host
	s.dir.origin = s.URL
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: time.Minute,
		ConnState:         s.trackConn,
		ConnContext:       s.nodes.connContext,
		ErrorLog:          slog.NewLogLogger(cfg.logger.Handler(), slog.LevelDebug),
	}
	if cfg.tls {
		s.http.TLSConfig = s.certs.serverConfig()
	}
	go func() {
		defer close(s.served)
		// Serve always returns an error, which is the expected one after Close.
		if cfg.tls {
			_ = s.http.ServeTLS(l, "", "")
		} else {
			_ = s.http.Serve(l)
		}
	}()
	return s, nil
}

func (s *Server) listen() (l net.Listener, host string, err error) {
	if s.cfg.memory {
		s.memory = newMemListener()
		return s.memory, s.memory.addr.String(), nil
	}
	l, err = net.Listen("tcp", s.cfg.addr) //nolint:noctx // listening is immediate and there is no context
	if err != nil {
		return nil, "", fmt.Errorf("cannot listen on %q: %w", s.cfg.addr, err)
	}
	return l, l.Addr().String(), nil
}

// trackConn lets Close wait for the goroutine of each connection. The accept loop
// reports the new state, so Add happens before that loop ends.
func (s *Server) trackConn(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	case http.StateActive, http.StateIdle:
	}
}

// Close stops listening, closes every connection, including hijacked ones, and
// waits until all goroutines of the server have ended. It may be called twice. It
// must not be called from a handler of the same server, because it would wait for
// that handler.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.gate.Lock()
		s.closed = true
		s.gate.Unlock()
		s.sayFarewell()
		s.end()
		s.dir.mu.Lock()
		if s.alarm.timer != nil {
			s.alarm.timer.Stop()
		}
		s.dir.mu.Unlock()
		_ = s.http.Close() // no caller can use the listener's error
		<-s.served
		s.ownedMu.Lock()
		for _, c := range s.hijacked {
			_ = c.Close() // most are already closed
		}
		for _, t := range s.transports {
			t.CloseIdleConnections()
		}
		s.hijacked, s.transports = nil, nil
		s.ownedMu.Unlock()
		s.conns.Wait()
		s.inflight.Wait()
	})
}

// enter accepts a request unless the server is closed.
func (s *Server) enter() bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return false
	}
	s.inflight.Add(1)
	return true
}

// Handler returns the platform as a handler, which can be mounted in another
// server. After [Server.Close], it responds with 503.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Transport returns a new transport that reaches the server. It uses the pipes of
// an [InMemory] server and trusts the certificate of [WithTLS]. It does not use a
// proxy. A request with Expect: 100-continue waits up to 10 s before it sends its
// body, longer than by default, so that a busy machine does not affect it. Close
// closes the transport's idle connections.
func (s *Server) Transport() *http.Transport { return s.TransportFrom("") }

// TransportFrom is like [Server.Transport], but the server sees ip as the address
// of the client. Limits by source address use it. On a socket, ip must be an
// address of this machine, such as 127.0.0.2 on Linux.
func (s *Server) TransportFrom(ip string) *http.Transport {
	t := &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, ExpectContinueTimeout: 10 * time.Second}
	if s.memory != nil {
		t.DialContext = s.memory.dialer(ip)
	} else {
		d := &net.Dialer{Timeout: 10 * time.Second}
		if ip != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
		}
		t.DialContext = d.DialContext
	}
	if s.certs != nil {
		t.TLSClientConfig = s.certs.clientConfig()
		t.ForceAttemptHTTP2 = true
	}
	s.adopt(t)
	return t
}

// adopt makes Close close the idle connections of a transport.
func (s *Server) adopt(t *http.Transport) {
	s.ownedMu.Lock()
	defer s.ownedMu.Unlock()
	s.transports = append(s.transports, t)
}

// own records a hijacked connection, which http.Server no longer tracks.
func (s *Server) own(c net.Conn) {
	s.ownedMu.Lock()
	defer s.ownedMu.Unlock()
	select {
	case <-s.alive.Done():
		_ = c.Close() // the server was closed before
	default:
		s.hijacked = append(s.hijacked, c)
	}
}

// Certificate returns the certificate of [WithTLS], for the caller's own root pool,
// or nil without TLS.
func (s *Server) Certificate() *x509.Certificate {
	if s.certs == nil {
		return nil
	}
	return s.certs.leaf
}

// now returns the time on the server's clock.
func (s *Server) now() time.Time { return time.Now().Add(s.cfg.skew) }

// SetSessionTTL sets the lifetime of sessions that are issued from now on, such as
// time.Minute.
func (s *Server) SetSessionTTL(d time.Duration) { s.ttl.Store(int64(d)) }
