package agrenting_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// verifyMode is how the Verify route answers.
type verifyMode uint8

const (
	verifyWorks    verifyMode = iota
	verifyMissing             // 404 to everyone
	verifyKeysOnly            // 401 to sessions
)

// interval is a part of the time since the platform was started.
type interval struct{ from, to time.Duration }

func (i interval) has(at time.Duration) bool { return at >= i.from && at < i.to }

// imperfections are the faults of an [imperfectPlatform]. The zero value has none.
type imperfections struct {
	// stray is the share of responses, except those of authenticate, that are a 401
	// to a good credential. With strayPages they are a gateway's pages.
	stray      float64
	strayPages bool
	// staleNodes of the nodes learn of new sessions and keys late, by these delays.
	staleNodes             int
	staleSession, staleKey time.Duration
	// session and key are by how much all nodes learn of them late.
	session, key time.Duration
	// perConnection ties the requests of a connection to one node. Otherwise, each
	// request goes to a random node. With keptAlive, all connections that are kept alive
	// lead to the first node, which is stale if there is a stale one.
	perConnection, keptAlive bool
	// ttl is the lifetime of sessions; 0 means an hour.
	ttl time.Duration
	// endsSessions is set if a rotation ends the sessions of the old key.
	endsSessions bool
	// outage is when authenticate returns 503.
	outage interval
	verify verifyMode
	// unlimited allows any number of calls of authenticate.
	unlimited bool
}

const (
	// refusingPath is a route that refuses every caller.
	refusingPath = "/api/v1/billing"
	verifyPath   = "/api/v1/hirings/pending"
	loadBody     = `{"task_type":"test"}`

	nodes         = 10
	roundTrip     = 5 * time.Millisecond // ±30 %
	exchangeTime  = 20 * time.Millisecond
	maxAuth       = 10 // calls of authenticate a minute
	lockedOutTime = 5 * time.Minute
)

// known is a key or a session of an [imperfectPlatform].
type known struct {
	session      bool
	used         bool // was accepted
	issued, ends time.Time
	key          *known // of a session
}

// exchangeCall is a call of authenticate.
type exchangeCall struct {
	at time.Duration
	ok bool
}

// imperfectPlatform is the base transport of clients of a platform with several
// nodes, behind a gateway. It works in virtual time. A request with Close set, or
// after CloseIdleConnections, is sent on a new connection.
type imperfectPlatform struct {
	imperfections
	began time.Time

	mu   sync.Mutex
	rand *rand.Rand
	// verifyRand decides which responses of Verify are stray, or come from a stale node, so
	// that the seed determines how often a verdict is wrong.
	verifyRand  *rand.Rand
	known       map[string]*known // by secret
	idempotent  map[string]string // responses by idempotency key
	idle        []int             // the nodes of idle connections
	date        string
	dated       int64
	lockedUntil time.Time

	exchanges []exchangeCall
	verifies  []time.Duration
	lockouts  int
	requests  int
}

// newImperfectPlatform returns a platform that knows [sdktest.TestKey]. It must be made
// inside a bubble.
func newImperfectPlatform(faults imperfections, seed uint64) *imperfectPlatform {
	if faults.ttl == 0 {
		faults.ttl = time.Hour
	}
	p := &imperfectPlatform{
		imperfections: faults, began: time.Now(),
		rand: rand.New(rand.NewPCG(seed, 0)), verifyRand: rand.New(rand.NewPCG(seed, 1)),
		known: map[string]*known{}, idempotent: map[string]string{},
	}
	p.known[sdktest.TestKey] = &known{issued: p.began.Add(-time.Hour)}
	return p
}

func (p *imperfectPlatform) since() time.Duration { return time.Since(p.began) }

// RoundTrip implements http.RoundTripper.
func (p *imperfectPlatform) RoundTrip(req *http.Request) (*http.Response, error) {
	body := sdktest.ReadBody(req)
	call, _ := req.Context().Value(callKey{}).(*loadCall)
	if call != nil {
		call.sends.Add(1)
	}
	p.mu.Lock()
	p.requests++
	node, took := p.connect(req), p.roundTripTime(req)
	p.mu.Unlock()
	if err := pause(req.Context(), took/2); err != nil {
		return nil, err
	}
	p.mu.Lock()
	resp := p.respond(req, body, node)
	p.mu.Unlock()
	if call != nil && resp.StatusCode == http.StatusOK {
		call.acted.Add(1)
	}
	if err := pause(req.Context(), took/2); err != nil {
		return nil, err
	}
	p.disconnect(req, node)
	return resp, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *imperfectPlatform) roundTripTime(req *http.Request) time.Duration {
	if isAuthenticate(req) {
		return exchangeTime
	}
	return time.Duration((0.7 + 0.6*p.rand.Float64()) * float64(roundTrip))
}

// connect returns the node that a request is sent to.
func (p *imperfectPlatform) connect(req *http.Request) (node int) {
	switch {
	case p.keptAlive && !req.Close:
		return 0
	case p.staleNodes > 0 && req.URL.Path == verifyPath && (req.Close || !p.perConnection):
		return p.verifyRand.IntN(nodes)
	case req.Close, len(p.idle) == 0:
		return p.rand.IntN(nodes)
	}
	i, last := p.rand.IntN(len(p.idle)), len(p.idle)-1
	node = p.idle[i]
	p.idle[i] = p.idle[last]
	p.idle = p.idle[:last]
	return node
}

// disconnect makes a connection idle if the next request is to use it.
func (p *imperfectPlatform) disconnect(req *http.Request, node int) {
	if !p.perConnection || req.Close {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, node)
}

// CloseIdleConnections closes the idle connections.
func (p *imperfectPlatform) CloseIdleConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = nil
}

// hasBody reports whether requests of a worker with this method have a body.
func hasBody(method string) bool { return method == http.MethodPost || method == http.MethodPut }

func isAuthenticate(req *http.Request) bool {
	return strings.HasSuffix(req.URL.Path, "/auth/authenticate")
}

// respond and the methods below need the lock.
func (p *imperfectPlatform) respond(req *http.Request, body string, node int) *http.Response {
	secret := req.Header.Get("X-Api-Key")
	if secret == "" {
		secret = strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	}
	cred := p.known[secret]
	if isAuthenticate(req) {
		return p.authenticate(cred, node)
	}
	random := p.rand
	if req.URL.Path == verifyPath {
		p.verifies = append(p.verifies, p.since())
		random = p.verifyRand
	}
	if p.stray > 0 && random.Float64() < p.stray {
		if p.strayPages {
			return p.page(http.StatusUnauthorized)
		}
		return p.unauthorized()
	}
	switch {
	case req.URL.Path == refusingPath:
		return p.unauthorized()
	case req.URL.Path == verifyPath && p.verify == verifyMissing:
		return p.problem(http.StatusNotFound, "ROUTE_NOT_FOUND")
	case req.URL.Path == verifyPath && p.verify == verifyKeysOnly && cred != nil && cred.session:
		return p.unauthorized()
	case !p.accepts(cred, node):
		return p.unauthorized()
	case strings.HasSuffix(req.URL.Path, "/auth/rotate-key"):
		return p.rotate(cred, req.Header.Get("X-Idempotency-Key"))
	case hasBody(req.Method) && body != loadBody:
		return p.problem(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
	default:
		cred.used = cred.used || req.URL.Path != verifyPath
		return p.ok(`[]`)
	}
}

// accepts reports whether a node accepts a credential.
func (p *imperfectPlatform) accepts(c *known, node int) bool {
	if c == nil || (!c.ends.IsZero() && !time.Now().Before(c.ends)) {
		return false
	}
	lag, stale := p.key, p.staleKey
	if c.session {
		lag, stale = p.session, p.staleSession
	}
	if node < p.staleNodes {
		lag = max(lag, stale)
	}
	return time.Since(c.issued) >= lag
}

func (p *imperfectPlatform) authenticate(key *known, node int) *http.Response {
	call := exchangeCall{at: p.since()}
	defer func() { p.exchanges = append(p.exchanges, call) }()
	switch {
	case p.lockedOut():
		return p.problem(http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED", "Retry-After", "300")
	case p.outage.has(p.since()):
		return p.page(http.StatusServiceUnavailable)
	case !p.accepts(key, node):
		return p.unauthorized()
	}
	call.ok = true
	s := &known{session: true, issued: time.Now(), ends: time.Now().Add(p.ttl), key: key}
	token := fmt.Sprintf("st_%019d", len(p.known))
	p.known[token] = s
	return p.ok(`{"session_token":"` + token + `","expires_at":"` + s.ends.UTC().Format(time.RFC3339Nano) + `"}`)
}

// lockedOut reports whether the address is locked out, as it is for five minutes after
// the eleventh call in a minute.
func (p *imperfectPlatform) lockedOut() bool {
	now := time.Now()
	if p.unlimited {
		return false
	}
	if now.Before(p.lockedUntil) {
		return true
	}
	recent := 0
	for _, c := range p.exchanges {
		if p.since()-c.at < time.Minute {
			recent++
		}
	}
	if recent < maxAuth {
		return false
	}
	p.lockedUntil = now.Add(lockedOutTime)
	p.lockouts++
	return true
}

// rotate replaces a key, or the key of a session. The old one ends at once.
func (p *imperfectPlatform) rotate(by *known, idempotencyKey string) *http.Response {
	if again, ok := p.idempotent[idempotencyKey]; ok && idempotencyKey != "" {
		return p.ok(again)
	}
	old := by
	if by.session {
		old = by.key
	}
	if !old.ends.IsZero() {
		return p.problem(http.StatusNotFound, "NOT_FOUND")
	}
	old.ends = time.Now()
	for _, s := range p.known {
		if p.endsSessions && s.key == old {
			s.ends = time.Now()
		}
	}
	n := len(p.known)
	secret := fmt.Sprintf("sk_%019d", n)
	p.known[secret] = &known{issued: time.Now()}
	data := fmt.Sprintf(`{"id":"key-%d","agent_id":"agent-1","api_key":%q}`, n, secret)
	p.idempotent[idempotencyKey] = data
	return p.ok(data)
}

func (p *imperfectPlatform) ok(data string) *http.Response {
	return p.reply(http.StatusOK, `{"data":`+data+`}`, "Content-Type", "application/json")
}

func (p *imperfectPlatform) unauthorized() *http.Response {
	return p.problem(http.StatusUnauthorized, "UNAUTHORIZED")
}

func (p *imperfectPlatform) problem(status int, code string, header ...string) *http.Response {
	body := `{"data":null,"errors":[{"code":"` + code + `","message":"refused"}]}`
	return p.reply(status, body, append(header, "Content-Type", "application/json")...)
}

// page is a gateway's response.
func (p *imperfectPlatform) page(status int) *http.Response {
	return p.reply(status, "<html>gateway</html>", "Content-Type", "text/html")
}

func (p *imperfectPlatform) reply(status int, body string, header ...string) *http.Response {
	if now := time.Now(); now.Unix() != p.dated {
		p.date, p.dated = now.UTC().Format(http.TimeFormat), now.Unix()
	}
	return sdktest.Reply(status, body, append(header, "Date", p.date)...)
}

// end ends all sessions, and the keys too if keys is set.
func (p *imperfectPlatform) end(keys bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.known {
		if (c.session || keys) && (c.ends.IsZero() || c.ends.After(time.Now())) {
			c.ends = time.Now()
		}
	}
}

// usedSessions is the number of sessions with which requests were accepted.
func (p *imperfectPlatform) usedSessions() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.known {
		if c.session && c.used {
			n++
		}
	}
	return n
}
