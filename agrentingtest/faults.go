package agrentingtest

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is a failure of one request, such as a 503 or a lost connection, for
// [Server.Fault]. Faults are values: the modifiers return changed copies.
//
// A fault determines which response the client gets ([Status], [Page], [Empty],
// [Redirect], or [DropBefore]; otherwise the response of the route), and how much
// of it arrives ([ResetMidBody], [MalformedJSON], or [Stall]; otherwise all of it).
// [Fault.And] combines two faults.
type Fault struct {
	name    string
	delay   time.Duration
	revoke  bool
	headers [][2]string
	sunset  time.Time

	response   response
	after      bool // the route is served before its response is replaced
	status     int
	code       string
	retryAfter string
	location   string

	delivery delivery
	bytes    int

	times   int
	always  bool
	sampled bool
	share   float64 // the share of the matching requests, if sampled
}

// response is the response that the client gets.
type response uint8

const (
	respondRoute   response = iota // the response of the route
	respondFailure                 // the route fails, after authentication
	respondNothing                 // the connection is closed
	respondStatus
	respondRedirect
	respondPage
	respondEmpty
)

// delivery is how much of the response arrives.
type delivery uint8

const (
	deliverAll delivery = iota
	deliverHalf
	deliverReset
	deliverStall
)

// interrupted reports whether the body stops after a number of bytes.
func (d delivery) interrupted() bool { return d == deliverReset || d == deliverStall }

// Delay delays the request before it is served.
func Delay(d time.Duration) Fault { return Fault{name: "Delay", delay: d} }

// DropBefore closes the connection before the request is served. When that happens
// on a reused connection, the Transport of net/http resends a request that is a GET
// or has X-Idempotency-Key. The resent request gets the next fault.
func DropBefore() Fault { return Fault{name: "DropBefore", response: respondNothing} }

// DropAfter serves the request and then closes the connection instead of sending
// the response. The Transport of net/http resends requests as for [DropBefore].
func DropAfter() Fault {
	return Fault{name: "DropAfter", response: respondNothing, after: true}
}

// ResetMidBody serves the request and closes the connection after n bytes of the
// response body.
func ResetMidBody(n int) Fault {
	return Fault{name: "ResetMidBody", delivery: deliverReset, bytes: max(n, 0)}
}

// Stall sends the headers and the first n bytes of the response body, and then
// nothing until the client leaves or the server is closed. The route is served,
// unless the fault is combined with one that replaces it:
//
//	srv.Fault("GET /api/v1/tasks", agrentingtest.Stall(10))
//	srv.Fault("GET /api/v1/tasks", agrentingtest.Page(502).And(agrentingtest.Stall(10)))
//
// A body of at most n bytes arrives completely, but does not end. Stall does not
// affect a response that cannot have a body. To withhold the headers too, use
// [Delay].
func Stall(n int) Fault { return Fault{name: "Stall", delivery: deliverStall, bytes: max(n, 0)} }

// Status responds with a status instead of the route, as a gateway does. The
// request is not served, and the response is not stored for its idempotency key. An
// empty errorCode means the documented code of the status.
func Status(code int, errorCode string) Fault {
	return Fault{name: "Status", response: respondStatus, status: code, code: errorCode}
}

// StatusWithRetryAfter is like [Status], with a Retry-After header of any value,
// such as "2".
func StatusWithRetryAfter(code int, value string) Fault {
	return Fault{name: "StatusWithRetryAfter", response: respondStatus, status: code, retryAfter: value}
}

// Page responds with an HTML page and any status instead of the route, like a
// gateway or firewall that does not use the platform's envelope. The request is not
// served, unless [Fault.AfterServing] is added:
//
//	srv.Fault("*", agrentingtest.Page(403).Share(0.05))
//	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Page(502).AfterServing())
//
// The page has none of the platform's rate-limit headers.
func Page(status int) Fault { return Fault{name: "Page", response: respondPage, status: status} }

// Empty responds with a status, such as 200, and an empty body instead of the
// route. The request is not served, unless [Fault.AfterServing] is added:
//
//	srv.Fault("POST /api/v1/auth/authenticate", agrentingtest.Empty(200))
//
// The response has none of the platform's rate-limit headers.
func Empty(status int) Fault { return Fault{name: "Empty", response: respondEmpty, status: status} }

// HandlerError makes the route itself fail, after authentication and with the
// request's idempotency key. Replays repeat a 5xx until a new idempotency key is
// used. An empty errorCode means the documented code of the status.
func HandlerError(code int, errorCode string) Fault {
	return Fault{name: "HandlerError", response: respondFailure, status: code, code: errorCode}
}

// MalformedJSON serves the request and then sends only the first half of the body,
// as a complete response.
func MalformedJSON() Fault { return Fault{name: "MalformedJSON", delivery: deliverHalf} }

// Redirect responds with a redirect (301, 302, 303, 307, or 308) to url.
func Redirect(code int, url string) Fault {
	return Fault{name: "Redirect", response: respondRedirect, status: code, location: url}
}

// RevokeNow revokes the credential of the request and then serves the request. The
// response is a 401, unless a node still accepts the credential; see [WithNodes].
func RevokeNow() Fault { return Fault{name: "RevokeNow", revoke: true} }

// SetHeader adds a header to the response.
func SetHeader(name, value string) Fault {
	return Fault{name: "SetHeader", headers: [][2]string{{name, value}}}
}

// Sunset adds a Sunset header to the response, with the time at which the endpoint
// retires. See also [Server.SetSunset].
func Sunset(t time.Time) Fault { return Fault{name: "Sunset", sunset: t} }

// Gone responds with 410. See also [Server.SetGone].
func Gone() Fault { return Fault{name: "Gone", response: respondStatus, status: http.StatusGone} }

// Times applies the fault to n requests instead of one.
func (f Fault) Times(n int) Fault {
	f.times = max(n, 1)
	return f
}

// Always applies the fault to every request until [Server.ClearFaults]. Later
// faults for the same requests are never applied, except to the requests that
// [Fault.Share] leaves out.
func (f Fault) Always() Fault {
	f.always = true
	return f
}

// Share applies the fault to each matching request with probability p, from 0 to 1.
// It does so until [Server.ClearFaults] or, with [Fault.Times], until it was
// applied that often. All other requests get the next fault that matches them.
// Share panics if p is out of range. For example, 5% of all responses are
// unexpected 401s, in the platform's envelope or as a gateway's page:
//
//	srv.Fault("*", agrentingtest.Status(401, "").Share(0.05))
//	srv.Fault("*", agrentingtest.Page(401).Share(0.05))
//
// Requests that arrive in the same order get the same faults in each run; see
// [WithSeed].
func (f Fault) Share(p float64) Fault {
	checkShare("Share", p)
	f.sampled, f.share = true, p
	return f
}

// AfterServing serves the request before its response is replaced by that of
// [Status], [Page], [Empty], or [Redirect]. The client then cannot know that the
// request was served. A replay with the same idempotency key gets the response of
// the route. Other faults serve the request anyway and are not changed, except
// [DropBefore], which becomes [DropAfter].
func (f Fault) AfterServing() Fault {
	f.after = true
	return f
}

// And combines two faults for the same request, such as a Delay and a Status, or a
// Page and a Stall. If both determine the response or how much of it arrives, g
// takes precedence.
func (f Fault) And(g Fault) Fault {
	f.name += "+" + g.name
	f.delay += g.delay
	f.revoke = f.revoke || g.revoke
	f.headers = slices.Concat(f.headers, g.headers)
	if !g.sunset.IsZero() {
		f.sunset = g.sunset
	}
	if g.response != respondRoute {
		f.response, f.after, f.status, f.code = g.response, g.after, g.status, g.code
		f.retryAfter, f.location = g.retryAfter, g.location
	}
	if g.delivery != deliverAll {
		f.delivery, f.bytes = g.delivery, g.bytes
	}
	f.times = max(f.times, g.times)
	f.always = f.always || g.always
	if g.sampled {
		f.sampled, f.share = true, g.share
	}
	return f
}

// endless reports whether the fault applies until the faults are cleared.
func (f Fault) endless() bool { return f.always || f.sampled && f.times == 0 }

// replaces reports whether the client gets a response other than that of the route.
func (f Fault) replaces() bool { return f.response != respondRoute && f.response != respondFailure }

// script is the queue of pending faults.
type script struct {
	seed    uint64
	pending atomic.Int64 // lets a server without faults skip the lock
	mu      sync.Mutex
	added   uint64 // number of faults ever scripted
	entries []*scripted
	past    []*scripted // the latest faults that were consumed or cleared
	chaos   *chaos      // nil for none
}

type scripted struct {
	id      uint64
	route   string // as the caller wrote it
	pattern pattern
	fault   Fault
	left    int
	met     int // number of requests that got the fault
	cleared bool
	random  *rand.Rand // nil unless the fault is sampled
}

// maxPastFaults is the maximum number of consumed or cleared faults in [Report].
const maxPastFaults = 1000

// applies draws whether a matching request gets the fault.
func (e *scripted) applies() bool { return e.random == nil || e.random.Float64() < e.fault.share }

// add needs the lock.
func (q *script) add(route string, p pattern, f Fault) *scripted {
	q.added++
	e := &scripted{id: q.added, route: strings.TrimSpace(route), pattern: p, fault: f, left: max(f.times, 1)}
	if f.sampled {
		e.random = newRandom(q.seed, q.added)
	}
	q.entries = append(q.entries, e)
	return e
}

// retire records faults that can no longer apply. It needs the lock.
func (q *script) retire(ended ...*scripted) {
	q.past = append(q.past, ended...)
	if surplus := len(q.past) - maxPastFaults; surplus > 0 {
		q.past = slices.Delete(q.past, 0, surplus)
	}
}

// count needs the lock.
func (q *script) count() {
	n := len(q.entries)
	if q.chaos != nil {
		n++
	}
	q.pending.Store(int64(n))
}

// newRandom returns a generator that makes the same choices in every run.
func newRandom(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream)) // #nosec G404 -- the same in every run is the point
}

// Fault scripts faults: each request that matches route consumes the first pending
// fault for it, in the order of scripting. A route is "POST
// /api/v1/auth/authenticate", "GET /api/v1/agents/*" (* matches any characters,
// {id} matches one segment), a path without a method, or "*". A leading "!", as in
// "!/api/v1/auth/authenticate", selects all other requests. Fault panics if route
// has another form. Faults come before authentication and rate limits.
func (s *Server) Fault(route string, f ...Fault) {
	p := parsePattern(route)
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	for _, fault := range f {
		s.script.add(route, p, fault)
	}
	s.script.count()
}

// ClearFaults removes the pending faults. [Server.SetSunset], [Server.SetGone], and
// [Server.Chaos] remain in effect.
func (s *Server) ClearFaults() { s.script.clear() }

// clear removes the pending faults and returns their number.
func (q *script) clear() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		e.cleared = true
	}
	n := len(q.entries)
	q.retire(q.entries...)
	q.entries = nil
	q.count()
	return n
}

// next returns the fault of a request: a scripted one, or one of the chaos.
func (q *script) next(method, path string) (Fault, bool) {
	if q.pending.Load() == 0 {
		return Fault{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range q.entries {
		if !e.pattern.matches(method, path) || !e.applies() {
			continue
		}
		e.met++
		if !e.fault.endless() {
			e.left--
			if e.left == 0 {
				q.retire(e)
				q.entries = slices.Delete(q.entries, i, i+1)
				q.count()
			}
		}
		return e.fault, true
	}
	if q.chaos != nil {
		return q.chaos.next()
	}
	return Fault{}, false
}

// lifecycle records which endpoints are deprecated or retired.
type lifecycle struct {
	any     atomic.Bool
	mu      sync.RWMutex
	sunsets []endpointSunset
	retired []pattern
}

type endpointSunset struct {
	pattern pattern
	at      time.Time
}

// SetSunset adds a Sunset header to every response of a route, with the time at
// which the route retires. The zero time removes the header. A route has the form
// that [Server.Fault] describes.
func (s *Server) SetSunset(route string, t time.Time) {
	p := parsePattern(route)
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.life.sunsets = slices.DeleteFunc(s.life.sunsets, func(e endpointSunset) bool { return e.pattern == p })
	if !t.IsZero() {
		s.life.sunsets = append(s.life.sunsets, endpointSunset{p, t})
	}
	s.life.any.Store(true)
}

// SetGone retires a route permanently: it responds with 410. A route has the form
// that [Server.Fault] describes.
func (s *Server) SetGone(route string) {
	p := parsePattern(route)
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.life.retired = append(s.life.retired, p)
	s.life.any.Store(true)
}

// sunset returns the time at which a route retires, or the zero time.
func (l *lifecycle) sunset(method, path string) (at time.Time) {
	if !l.any.Load() {
		return time.Time{}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range l.sunsets {
		if e.pattern.matches(method, path) {
			at = e.at
		}
	}
	return at
}

// gone reports whether a route is retired.
func (l *lifecycle) gone(method, path string) bool {
	if !l.any.Load() {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.ContainsFunc(l.retired, func(p pattern) bool { return p.matches(method, path) })
}

// failure returns the response of a status fault.
func (f Fault) failure() *failure {
	code := f.code
	if code == "" {
		code = defaultCode(f.status)
	}
	out := fail(f.status, code, "%s", strings.ToLower(http.StatusText(f.status)))
	out.retryAfter = f.retryAfter
	return out
}
