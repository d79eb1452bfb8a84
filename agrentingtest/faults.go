package agrentingtest

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong with one request, for [Server.Fault]. Faults
// are values: the modifiers return changed copies.
type Fault struct {
	name    string
	kind    faultKind
	delay   time.Duration
	revoke  bool
	headers [][2]string
	sunset  time.Time

	status     int
	code       string
	retryAfter string
	location   string
	bytes      int

	times  int
	always bool
}

type faultKind uint8

const (
	faultNone faultKind = iota // the request is served
	faultDropBefore
	faultDropAfter
	faultReset
	faultMalformed
	faultStatus   // answered instead of the route
	faultHandler  // answered by the route
	faultRedirect // answered instead of the route
)

// Delay lets the request wait before it is served.
func Delay(d time.Duration) Fault { return Fault{name: "Delay", delay: d} }

// DropBefore closes the connection before anything is done. Mind that
// net/http's Transport sends a request again by itself when that happens on a
// reused connection and the request is a GET or carries X-Idempotency-Key; the
// second sending consumes the next fault.
func DropBefore() Fault { return Fault{name: "DropBefore", kind: faultDropBefore} }

// DropAfter does everything and then closes the connection instead of
// answering. What [DropBefore] says of automatic resending holds here too.
func DropAfter() Fault { return Fault{name: "DropAfter", kind: faultDropAfter} }

// ResetMidBody does everything and cuts the connection after n bytes of the
// answer's body.
func ResetMidBody(n int) Fault {
	return Fault{name: "ResetMidBody", kind: faultReset, bytes: max(n, 0)}
}

// Status answers with a status instead of the route, as a gateway would: nothing
// is done and nothing remembered under an idempotency key. An empty errorCode
// means the documented one.
func Status(code int, errorCode string) Fault {
	return Fault{name: "Status", kind: faultStatus, status: code, code: errorCode}
}

// StatusWithRetryAfter is [Status] with a Retry-After header of any value.
func StatusWithRetryAfter(code int, value string) Fault {
	return Fault{name: "StatusWithRetryAfter", kind: faultStatus, status: code, retryAfter: value}
}

// HandlerError lets the route itself fail, after authentication and under the
// request's idempotency key: replays of a 5xx repeat it until a new key is used.
// An empty errorCode means the documented one.
func HandlerError(code int, errorCode string) Fault {
	return Fault{name: "HandlerError", kind: faultHandler, status: code, code: errorCode}
}

// MalformedJSON does everything and then answers with only the first half of the
// body, as a complete response.
func MalformedJSON() Fault { return Fault{name: "MalformedJSON", kind: faultMalformed} }

// Redirect answers with a redirect (301, 302, 303, 307 or 308) to url.
func Redirect(code int, url string) Fault {
	return Fault{name: "Redirect", kind: faultRedirect, status: code, location: url}
}

// RevokeNow revokes the credential that the request presents and then serves the
// request, which ends in 401.
func RevokeNow() Fault { return Fault{name: "RevokeNow", revoke: true} }

// SetHeader adds a header to the answer.
func SetHeader(name, value string) Fault {
	return Fault{name: "SetHeader", headers: [][2]string{{name, value}}}
}

// Sunset announces on the answer when the endpoint retires. See also
// [Server.SetSunset].
func Sunset(t time.Time) Fault { return Fault{name: "Sunset", sunset: t} }

// Gone answers 410. See also [Server.SetGone].
func Gone() Fault { return Fault{name: "Gone", kind: faultStatus, status: http.StatusGone} }

// Times lets the fault befall n requests instead of one.
func (f Fault) Times(n int) Fault {
	f.times = max(n, 1)
	return f
}

// Always lets the fault befall every request until [Server.ClearFaults]. Faults
// scripted after it for the same requests never get their turn.
func (f Fault) Always() Fault {
	f.always = true
	return f
}

// And joins two faults into one that befalls the same request, such as a Delay
// and a Status. Where both say how the request ends, g wins.
func (f Fault) And(g Fault) Fault {
	f.name += "+" + g.name
	f.delay += g.delay
	f.revoke = f.revoke || g.revoke
	f.headers = slices.Concat(f.headers, g.headers)
	if !g.sunset.IsZero() {
		f.sunset = g.sunset
	}
	if g.kind != faultNone {
		f.kind, f.status, f.code = g.kind, g.status, g.code
		f.retryAfter, f.location, f.bytes = g.retryAfter, g.location, g.bytes
	}
	f.times = max(f.times, g.times)
	f.always = f.always || g.always
	return f
}

// script is the queue of faults still to come.
type script struct {
	pending atomic.Int64 // so that a server without faults takes no lock
	mu      sync.Mutex
	entries []*scripted
}

type scripted struct {
	pattern pattern
	fault   Fault
	left    int
}

// Fault scripts what goes wrong: each request that matches route consumes the
// first fault left for it, in the order of scripting. A route is
// "POST /api/v1/auth/authenticate", "GET /api/v1/agents/*" (* is any run of
// characters, {id} one segment), a path without a method, or "*". It panics on
// anything else. Faults come before authentication and rate limits.
func (s *Server) Fault(route string, f ...Fault) {
	p := parsePattern(route)
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	for _, fault := range f {
		s.script.entries = append(s.script.entries, &scripted{pattern: p, fault: fault, left: max(fault.times, 1)})
	}
	s.script.pending.Store(int64(len(s.script.entries)))
}

// ClearFaults forgets the faults still to come. What [Server.SetSunset] and
// [Server.SetGone] said stays.
func (s *Server) ClearFaults() {
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	s.script.entries = nil
	s.script.pending.Store(0)
}

func (q *script) next(method, path string) (Fault, bool) {
	if q.pending.Load() == 0 {
		return Fault{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range q.entries {
		if !e.pattern.matches(method, path) {
			continue
		}
		if !e.fault.always {
			e.left--
			if e.left == 0 {
				q.entries = slices.Delete(q.entries, i, i+1)
				q.pending.Store(int64(len(q.entries)))
			}
		}
		return e.fault, true
	}
	return Fault{}, false
}

// lifecycle is which endpoints are deprecated or retired.
type lifecycle struct {
	any     atomic.Bool
	mu      sync.RWMutex
	sunsets []endpointSunset
	gone    []pattern
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
	s.life.gone = append(s.life.gone, p)
	s.life.any.Store(true)
}

func (l *lifecycle) of(method, path string) (sunset time.Time, gone bool) {
	if !l.any.Load() {
		return time.Time{}, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, e := range l.sunsets {
		if e.pattern.matches(method, path) {
			sunset = e.at
		}
	}
	gone = slices.ContainsFunc(l.gone, func(p pattern) bool { return p.matches(method, path) })
	return sunset, gone
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
