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

// Fault is something that goes wrong with one request, for [Server.Fault]. Faults
// are values: the modifiers return changed copies.
//
// A fault says which response the client gets ([Status], [Page], [Empty],
// [Redirect], [DropBefore]; otherwise that of the route), and how much of the
// response arrives ([ResetMidBody], [MalformedJSON], [Stall]; otherwise all of
// it). [Fault.And] joins the two.
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
	share   float64 // of the matching requests, if sampled
}

// response is what the client gets.
type response uint8

const (
	respondRoute   response = iota // what the route responds with
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

// Delay lets the request wait before it is served.
func Delay(d time.Duration) Fault { return Fault{name: "Delay", delay: d} }

// DropBefore closes the connection before anything is done. Mind that
// net/http's Transport sends a request again by itself when that happens on a
// reused connection and the request is a GET or carries X-Idempotency-Key; the
// second sending consumes the next fault.
func DropBefore() Fault { return Fault{name: "DropBefore", response: respondNothing} }

// DropAfter does everything and then closes the connection instead of
// answering. What [DropBefore] says of automatic resending holds here too.
func DropAfter() Fault {
	return Fault{name: "DropAfter", response: respondNothing, after: true}
}

// ResetMidBody does everything and cuts the connection after n bytes of the
// answer's body.
func ResetMidBody(n int) Fault {
	return Fault{name: "ResetMidBody", delivery: deliverReset, bytes: max(n, 0)}
}

// Stall sends the headers and the first n bytes of the response's body, and then
// nothing until the client leaves or the server is closed. The route is served,
// unless the fault is joined with one that replaces it:
//
//	srv.Fault("GET /api/v1/tasks", agrentingtest.Stall(10))
//	srv.Fault("GET /api/v1/tasks", agrentingtest.Page(502).And(agrentingtest.Stall(10)))
//
// A body of at most n bytes arrives whole, but does not end. A response that
// cannot have a body is not affected. To withhold the headers too, use [Delay].
func Stall(n int) Fault { return Fault{name: "Stall", delivery: deliverStall, bytes: max(n, 0)} }

// Status answers with a status instead of the route, as a gateway would: nothing
// is done and nothing remembered under an idempotency key. An empty errorCode
// means the documented one.
func Status(code int, errorCode string) Fault {
	return Fault{name: "Status", response: respondStatus, status: code, code: errorCode}
}

// StatusWithRetryAfter is [Status] with a Retry-After header of any value.
func StatusWithRetryAfter(code int, value string) Fault {
	return Fault{name: "StatusWithRetryAfter", response: respondStatus, status: code, retryAfter: value}
}

// Page responds with an HTML page and any status instead of the route, as a
// gateway or firewall does that knows nothing of the platform's envelope. Nothing
// is done, unless [Fault.AfterServing] is added:
//
//	srv.Fault("*", agrentingtest.Page(403).Share(0.05))
//	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Page(502).AfterServing())
//
// The page has none of the platform's rate-limit headers.
func Page(status int) Fault { return Fault{name: "Page", response: respondPage, status: status} }

// Empty responds with a status, such as 200, and an empty body instead of the
// route. Nothing is done, unless [Fault.AfterServing] is added:
//
//	srv.Fault("POST /api/v1/auth/authenticate", agrentingtest.Empty(200))
//
// The response has none of the platform's rate-limit headers.
func Empty(status int) Fault { return Fault{name: "Empty", response: respondEmpty, status: status} }

// HandlerError lets the route itself fail, after authentication and under the
// request's idempotency key: replays of a 5xx repeat it until a new key is used.
// An empty errorCode means the documented one.
func HandlerError(code int, errorCode string) Fault {
	return Fault{name: "HandlerError", response: respondFailure, status: code, code: errorCode}
}

// MalformedJSON does everything and then answers with only the first half of the
// body, as a complete response.
func MalformedJSON() Fault { return Fault{name: "MalformedJSON", delivery: deliverHalf} }

// Redirect answers with a redirect (301, 302, 303, 307 or 308) to url.
func Redirect(code int, url string) Fault {
	return Fault{name: "Redirect", response: respondRedirect, status: code, location: url}
}

// RevokeNow revokes the credential that the request presents and then serves the
// request, which ends in 401, unless a node still accepts the credential; see
// [WithNodes].
func RevokeNow() Fault { return Fault{name: "RevokeNow", revoke: true} }

// SetHeader adds a header to the answer.
func SetHeader(name, value string) Fault {
	return Fault{name: "SetHeader", headers: [][2]string{{name, value}}}
}

// Sunset announces on the answer when the endpoint retires. See also
// [Server.SetSunset].
func Sunset(t time.Time) Fault { return Fault{name: "Sunset", sunset: t} }

// Gone answers 410. See also [Server.SetGone].
func Gone() Fault { return Fault{name: "Gone", response: respondStatus, status: http.StatusGone} }

// Times lets the fault befall n requests instead of one.
func (f Fault) Times(n int) Fault {
	f.times = max(n, 1)
	return f
}

// Always lets the fault befall every request until [Server.ClearFaults]. Faults
// scripted after it for the same requests never get their turn, except for the
// requests that [Fault.Share] leaves out.
func (f Fault) Always() Fault {
	f.always = true
	return f
}

// Share applies the fault to each matching request with probability p, from 0 to
// 1, until [Server.ClearFaults]; with [Fault.Times], until it has applied that
// often. All other requests go on to the next fault for them. It panics if p is
// out of range. A twentieth of all responses are stray 401s, in the platform's
// envelope or as a gateway's page:
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

// AfterServing lets the route do its work before its response is replaced by that
// of [Status], [Page], [Empty], or [Redirect]: the client cannot know that the
// work is done. A replay under the same idempotency key gets the response of the
// route. Other faults serve the request anyway and are not changed, except
// [DropBefore], which becomes [DropAfter].
func (f Fault) AfterServing() Fault {
	f.after = true
	return f
}

// And joins two faults into one that befalls the same request, such as a Delay
// and a Status, or a Page and a Stall. Where both say which response the client
// gets, or how much of it arrives, g wins.
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

// replaces reports whether the client gets another response than that of the route.
func (f Fault) replaces() bool { return f.response != respondRoute && f.response != respondFailure }

// script is the queue of faults still to come.
type script struct {
	seed    uint64
	pending atomic.Int64 // so that a server without faults takes no lock
	mu      sync.Mutex
	added   uint64 // faults ever scripted
	entries []*scripted
	past    []*scripted // the latest of those that are consumed or cleared
	chaos   *chaos      // nil for none
}

type scripted struct {
	id      uint64
	route   string // as it was given
	pattern pattern
	fault   Fault
	left    int
	met     int // requests
	cleared bool
	random  *rand.Rand // nil unless the fault is sampled
}

// maxPastFaults is how many consumed or cleared faults [Report] has at most.
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

// retire notes faults that no request meets anymore. It needs the lock.
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

// newRandom makes the same choices in every run.
func newRandom(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream)) // #nosec G404 -- the same in every run is the point
}

// Fault scripts what goes wrong: each request that matches route consumes the
// first fault left for it, in the order of scripting. A route is
// "POST /api/v1/auth/authenticate", "GET /api/v1/agents/*" (* is any run of
// characters, {id} one segment), a path without a method, or "*". A leading "!",
// as in "!/api/v1/auth/authenticate", selects all other requests. Fault panics on
// anything else. Faults come before authentication and rate limits.
func (s *Server) Fault(route string, f ...Fault) {
	p := parsePattern(route)
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	for _, fault := range f {
		s.script.add(route, p, fault)
	}
	s.script.count()
}

// ClearFaults forgets the faults still to come. What [Server.SetSunset],
// [Server.SetGone], and [Server.Chaos] said stays.
func (s *Server) ClearFaults() { s.script.clear() }

// clear returns how many faults there were.
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

// next returns the fault that a request meets: a scripted one, or one of the chaos.
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

// lifecycle is which endpoints are deprecated or retired.
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

// SetSunset announces on every answer of a route when it retires, by the Sunset
// header. The zero time takes the announcement back. Routes are written as for
// [Server.Fault].
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

// SetGone retires a route for good: 410. Routes are written as for
// [Server.Fault].
func (s *Server) SetGone(route string) {
	p := parsePattern(route)
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	s.life.retired = append(s.life.retired, p)
	s.life.any.Store(true)
}

// sunset is when a route retires, or zero.
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

// failure is what a status fault answers.
func (f Fault) failure() *failure {
	code := f.code
	if code == "" {
		code = defaultCode(f.status)
	}
	out := fail(f.status, code, "%s", strings.ToLower(http.StatusText(f.status)))
	out.retryAfter = f.retryAfter
	return out
}
