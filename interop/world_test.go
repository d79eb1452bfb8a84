package interop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// What every client has to get through.
const (
	exchanges = 1000
	expiries  = 10
	rotations = 5
	workers   = 4
)

// world is the platform, an agent with a client of the SDK, and servers of other
// projects which trust the platform's credentials.
type world struct {
	t        *testing.T
	platform *agrentingtest.Server
	agent    *agrentingtest.Agent
	policy   agrenting.RotationPolicy
	roots    *x509.CertPool
	origins  []string
	servers  []*httptest.Server
	made     *agrenting.Client
	virtual  bool
	pipes    map[string]*pipeListener // by address, in virtual time
	failures []string

	mu      sync.Mutex
	seen    []string // ids of the credentials that were let in, in order
	refused int
	proto   string // of the latest request
	methods map[string]int
}

// newWorld is a world on sockets. Sessions end when the platform is told to end
// them, keys are rotated when the client is told to.
func newWorld(t *testing.T, strategy agrenting.Strategy) *world {
	t.Helper()
	return worldOn(t, agrenting.RotationPolicy{Strategy: strategy, Every: -1},
		agrentingtest.WithoutRateLimits(),         // months pass in a second here
		agrentingtest.WithSessionsEndingWithKey()) // the harder way to be read
}

// newVirtualWorld is a world on pipes, inside a bubble of testing/synctest: it is
// time that ends sessions and makes keys due.
func newVirtualWorld(t *testing.T, strategy agrenting.Strategy, ttl, age time.Duration) *world {
	t.Helper()
	w := worldOn(t, agrenting.RotationPolicy{Strategy: strategy, Every: age}, agrentingtest.InMemory(),
		agrentingtest.WithSessionTTL(ttl), agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1000}))
	w.virtual = true
	return w
}

func worldOn(t *testing.T, policy agrenting.RotationPolicy, opts ...agrentingtest.Option) *world {
	t.Helper()
	w := &world{
		t:        t,
		policy:   policy,
		roots:    x509.NewCertPool(),
		pipes:    make(map[string]*pipeListener),
		methods:  make(map[string]int),
		platform: agrentingtest.NewServer(append(opts, agrentingtest.WithLogLimit(10*exchanges))...),
	}
	t.Cleanup(w.platform.Close)
	w.agent = w.platform.NewAgent(w.platform.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	w.policy.AgentID = w.agent.ID
	return w
}

// serve starts a server of another project, which is to get the credential, and
// returns its base URL. Call it before client.
func (w *world) serve(h http.Handler) string {
	w.t.Helper()
	require.Nil(w.t, w.made, "servers are started before the client, which has to be told of their origins")
	url := w.listen(h)
	w.origins = append(w.origins, url)
	return url
}

// listen starts a server with TLS and HTTP/2 and returns its base URL.
func (w *world) listen(h http.Handler) string {
	w.t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	if w.virtual {
		_ = srv.Listener.Close()
		l := newPipeListener(len(w.pipes) + 1)
		w.pipes[l.addr.String()], srv.Listener = l, l
	}
	srv.StartTLS()
	w.t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	w.roots.AddCert(srv.Certificate())
	w.servers = append(w.servers, srv)
	return srv.URL
}

// cut ends every connection that the servers have.
func (w *world) cut() {
	for _, srv := range w.servers {
		srv.CloseClientConnections()
	}
}

// guard asks the platform about every request and remembers the responses.
func (w *world) guard(next http.Handler) http.Handler {
	type letIn struct{}
	guarded := w.platform.Guard(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if in, ok := r.Context().Value(letIn{}).(*bool); ok {
			*in = true
		}
		p, _ := agrentingtest.PrincipalFrom(r.Context())
		w.saw(p, r)
		next.ServeHTTP(out, r)
	}))
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		in := false
		guarded.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), letIn{}, &in)))
		if !in {
			w.refuse()
		}
	})
}

func (w *world) saw(p agrentingtest.Principal, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proto = r.Proto
	w.methods[r.Method]++
	if !slices.Contains(w.seen, p.CredentialID) {
		w.seen = append(w.seen, p.CredentialID)
	}
}

// opened counts the requests with a method that were let in.
func (w *world) opened(method string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.methods[method]
}

func (w *world) refuse() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused++
}

// dial reaches the platform and the servers.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if l, ok := w.pipes[addr]; ok {
		return l.dial(ctx)
	}
	if w.virtual {
		return w.platform.Transport().DialContext(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// base reaches the servers for http.
func (w *world) base() *http.Transport {
	t := &http.Transport{
		DialContext:           w.dial,
		TLSClientConfig:       &tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2 * workers,
		ExpectContinueTimeout: 10 * time.Second, // how long a body waits to be asked for
	}
	w.t.Cleanup(t.CloseIdleConnections)
	return t
}

// options are those of every client here.
func (w *world) options(more ...agrenting.Option) []agrenting.Option {
	return append([]agrenting.Option{
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(w.platform.URL),
		agrenting.WithAllowedOrigins(w.origins...),
		agrenting.WithTransport(w.base()),
		agrenting.WithStore(agrenting.MemoryStore()),
		agrenting.WithCredential(agrenting.APIKey(w.platform.NewKey(w.agent.ID).Secret)),
		agrenting.WithRotation(w.policy),
		agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 1000}), // they end within seconds
	}, more...)
}

// client makes the client of the SDK, once.
func (w *world) client(more ...agrenting.Option) *agrenting.Client {
	w.t.Helper()
	if w.made == nil {
		c, err := agrenting.New(w.options(more...)...)
		require.NoError(w.t, err)
		w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })
		w.made = c
	}
	return w.made
}

// contact is one client of another project, connected to its server.
type contact struct {
	// exchange is number n of the exchanges. Several run at once.
	exchange func(ctx context.Context, n int) error
	// alive uses a connection that was opened before anything happened. It is
	// nil for clients that have none.
	alive func(ctx context.Context) error
}

// result is one line of the report.
type result struct {
	exchanges, expiries, rotations, failures int64
	sessions, refused                        int
	proto                                    string
}

func (r *result) String() string {
	return fmt.Sprintf("%4d exchanges, %2d expiries, %d rotations, %d failures (%s, %d sessions, %d requests refused at first)",
		r.exchanges, r.expiries, r.rotations, r.failures, r.proto, r.sessions, r.refused)
}

// campaign lets the workers exchange while sessions end and keys are rotated
// below them, at fixed numbers of exchanges.
func (w *world) campaign(c contact) *result {
	w.t.Helper()
	var (
		r       result
		tickets atomic.Int64
		failed  atomic.Int64
		events  sync.Mutex
		group   sync.WaitGroup
	)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	count := func(what string, n int64, err error) {
		if err != nil {
			failed.Add(1)
			w.failed(fmt.Sprintf("%s %d: %v", what, n, err))
		}
	}
	// Two sessions end for each key that is rotated.
	const every = exchanges / (expiries + rotations + 1)
	// An event waits until the one before has been noticed: no session dies
	// before it was used.
	event := func(n int64) {
		events.Lock()
		defer events.Unlock()
		defer func() { count("exchange", n, c.exchange(ctx, int(n))) }()
		if r.expiries+r.rotations == expiries+rotations {
			return
		}
		if (r.expiries+r.rotations)%3 == 2 {
			_, err := w.made.Rotate(ctx)
			count("rotation at exchange", n, err)
			r.rotations++
		} else {
			w.platform.RevokeSessions()
			r.expiries++
		}
		if c.alive != nil {
			count("the old connection at exchange", n, c.alive(ctx))
		}
	}
	for range workers {
		group.Go(func() {
			for n := tickets.Add(1); n <= exchanges; n = tickets.Add(1) {
				if n%every == 0 {
					event(n)
				} else {
					count("exchange", n, c.exchange(ctx, int(n)))
				}
				atomic.AddInt64(&r.exchanges, 1)
			}
		})
	}
	group.Wait()
	r.failures = failed.Load()
	if len(w.origins) == 0 {
		w.readLog()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.sessions, r.refused, r.proto = len(w.seen), w.refused, w.proto
	return &r
}

// failed keeps what went wrong; the first few will do.
func (w *world) failed(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failures) < 5 {
		w.failures = append(w.failures, what)
	}
}

// readLog takes what the platform itself was asked for, where it is the server
// of the client.
func (w *world) readLog() {
	for _, r := range w.platform.Requests() {
		switch {
		case r.Status == http.StatusUnauthorized:
			w.refuse()
		case r.CredentialKind == agrentingtest.KindSession:
			w.saw(agrentingtest.Principal{CredentialID: r.CredentialID}, &http.Request{Proto: r.Proto})
		}
	}
}

// check holds the result against what was promised.
func (w *world) check(r *result) {
	w.t.Helper()
	assert.EqualValues(w.t, exchanges, r.exchanges)
	assert.EqualValues(w.t, expiries, r.expiries)
	assert.EqualValues(w.t, rotations, r.rotations)
	assert.Zero(w.t, r.failures, "%s", w.failures)
	// Each death was noticed, and led to one new session for all workers.
	deaths := expiries + rotations
	assert.Equal(w.t, deaths+1, r.sessions, "different sessions that the other server let in")
	assert.Equal(w.t, deaths+1, w.platform.Count("POST /api/v1/auth/authenticate"), "exchanges")
	assert.GreaterOrEqual(w.t, r.refused, expiries, "each end of the sessions came without notice")
	live := w.platform.LiveKeys(w.agent.ID)
	assert.Len(w.t, live, 1, "every key but the last is dead")
	assert.EqualValues(w.t, rotations, w.platform.Stats().KeysRevoked)
}

// clients are the clients of other projects.
var clients = []struct {
	name  string
	start func(w *world) contact
}{
	{"coder/websocket", coderWebSocket},
	{"gorilla/websocket", gorillaWebSocket},
	{"MCP, streamable HTTP", mcpStreamable},
	{"MCP, SSE", mcpSSE},
	{"oapi-codegen", generatedClient},
	{"resty", restyClient},
	{"connect, its own protocol", connectJSON},
	{"connect, gRPC protocol", connectGRPC},
	{"grpc-go", grpcGo},
	{"otelhttp above", otelAbove},
	{"otelhttp below", otelBelow},
	{"httputil.ReverseProxy", reverseProxy},
	{"anthropic-sdk-go", anthropicSDK},
	{"openai-go", openaiSDK},
}

func TestCampaignOfEachClientHasNoFailure(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		for _, c := range clients {
			t.Run(fmt.Sprintf("%s/%s", strategy, c.name), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, strategy)
				contact := c.start(w)
				w.client()
				r := w.campaign(contact)
				w.check(r)
				t.Logf("%-32s %-8s %s", c.name, strategy, r)
			})
		}
	}
}

// A client with a session that is not renewed fails after
// the first expiry: it is the SDK that the others owe their exchanges to.
func TestCampaignWithoutTheSDKFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrenting.InPlace)
	target := w.echoServer()
	token, _ := w.platform.NewSession(w.platform.NewKey(w.agent.ID).Secret)
	w.client()
	bare := &http.Client{Transport: bearerOf(token, w.base())}
	r := w.campaign(contact{exchange: func(ctx context.Context, n int) error { return post(ctx, bare, target, n) }})
	assert.Greater(t, r.failures, int64(exchanges*9/10))
	assert.Equal(t, 1, r.sessions)
}

// bearerOf is what one writes without an SDK.
func bearerOf(token string, base http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+token)
		return base.RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

var errWrongEcho = errors.New("the response is not what was sent")

// echoed compares a response with what was sent.
func echoed(sent, got string) error {
	if sent != got {
		return fmt.Errorf("%w: sent %q, got %q", errWrongEcho, sent, got)
	}
	return nil
}
