package agrentingtest

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxLoggedBody bounds what the log keeps of a request body.
const maxLoggedBody = 64 << 10

// Request is one request as it arrived and what became of it. The headers are
// unredacted, credentials included: that is what tests look at.
type Request struct {
	ID         string // as in meta.request_id
	Method     string
	Path       string // decoded
	RawPath    string // as sent
	Query      url.Values
	Header     http.Header
	Host       string
	Proto      string
	Body       []byte // what was read of it, at most 64 KiB
	BodySize   int64  // how much was read of it
	RemoteAddr string
	ReceivedAt time.Time // on the server's clock

	// Status is what was answered, or would have been had a fault not cut the
	// connection. Zero means not yet, or nothing at all.
	Status         int
	Principal      string // "agent:<id>", "user:<id>" or empty
	CredentialKind CredentialKind
	CredentialID   string
	AgentID        string // who acted
	Replayed       bool   // answered from an idempotency key
	Fault          string // names of the faults that befell it, empty for none
}

// Requests are counted by their own method and path for this many different ones, each of
// this many bytes. Further ones are counted by their route.
const (
	maxCounted      = 10_000
	maxCountedBytes = 1024
)

// requestLog keeps the latest requests and counts all of them.
type requestLog struct {
	limit int

	mu       sync.Mutex
	distinct int // maxCounted
	entries  []*Request
	counts   map[[2]string]int // by method and path
}

func newRequestLog(limit int) *requestLog {
	return &requestLog{limit: limit, distinct: maxCounted, counts: make(map[[2]string]int)}
}

// countedMethods are told apart in the counts of routes. A client can make up any other.
var countedMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// countedAs is where a request is counted. It needs the lock.
func (l *requestLog) countedAs(e *Request, route func() string) [2]string {
	at := [2]string{e.Method, e.Path}
	if len(e.Method)+len(e.Path) <= maxCountedBytes && (l.counts[at] > 0 || len(l.counts) < l.distinct) {
		return at
	}
	method, pattern := e.Method, route()
	if !slices.Contains(countedMethods, method) {
		method = ""
	}
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	return [2]string{method, pattern}
}

// add needs the pattern of the request's route, such as "GET /api/v1/tasks/{id}", or "" if
// it has none.
func (l *requestLog) add(e *Request, route func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[l.countedAs(e, route)]++
	if len(l.entries) >= 2*l.limit {
		kept := copy(l.entries, l.entries[len(l.entries)-l.limit:])
		clear(l.entries[kept:])
		l.entries = l.entries[:kept]
	}
	l.entries = append(l.entries, e)
}

// update changes an entry while it is not being copied.
func (l *requestLog) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// Requests returns copies of the logged requests in the order of arrival. A
// request is in the log before it is answered.
func (s *Server) Requests() []Request {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := l.entries
	if len(entries) > l.limit {
		entries = entries[len(entries)-l.limit:]
	}
	out := make([]Request, len(entries))
	for i, e := range entries {
		out[i] = *e
		out[i].Header = e.Header.Clone()
		out[i].Query = url.Values(http.Header(e.Query).Clone())
		out[i].Body = bytes.Clone(e.Body)
	}
	return out
}

// Count says how many requests matched a route, written as for [Server.Fault].
// It counts also what the log has dropped.
//
// Counts are exact for the first 10,000 different methods and paths since the server was
// made, or since [Server.ResetLog]. Further ones, and those of more than 1 KiB, are counted
// by their route: then "GET /api/v1/tasks/{id}" and "GET /api/v1/tasks/*" are still exact,
// but the path of one task, such as "GET /api/v1/tasks/7", is not. If no route serves them,
// only routes without a path count them, such as "GET *".
func (s *Server) Count(route string) int {
	p := parsePattern(route)
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	n := 0
	for at, count := range s.log.counts {
		if p.matches(at[0], at[1]) {
			n += count
		}
	}
	return n
}

// ResetLog forgets the logged requests and their counts. [Server.Stats] continues
// counting.
func (s *Server) ResetLog() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.entries = nil
	clear(s.log.counts)
}

// loggedBody copies what is read of a body into the log.
type loggedBody struct {
	io.ReadCloser
	log   *requestLog
	entry *Request
}

func (b *loggedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.log.update(func() {
			b.entry.BodySize += int64(n)
			room := maxLoggedBody - len(b.entry.Body)
			b.entry.Body = append(b.entry.Body, p[:min(n, room)]...)
		})
	}
	return n, err
}

// Stats are running totals of what happened since the server was made.
//
// A rotation in place is a successful call of rotate-key. A rotation by overlap has no
// call of its own: it is counted when a key is revoked over HTTP while the agent has a
// newer live key, which was created over HTTP and has replaced no other.
type Stats struct {
	Requests          int64 `json:"requests"`      // that arrived
	Authenticates     int64 `json:"authenticates"` // calls of authenticate, successful or not
	SessionsIssued    int64 `json:"sessions_issued"`
	Logouts           int64 `json:"logouts"`
	KeysCreated       int64 `json:"keys_created"`      // over HTTP, rotations and registrations included
	KeysRevoked       int64 `json:"keys_revoked"`      // in any way, rotations included
	Rotations         int64 `json:"rotations"`         // of both strategies
	OverlapRotations  int64 `json:"overlap_rotations"` // of these, by a second key, see above
	TokensCreated     int64 `json:"tokens_created"`    // over HTTP
	TokensRevoked     int64 `json:"tokens_revoked"`
	AgentsRegistered  int64 `json:"agents_registered"` // over HTTP
	Unauthorized      int64 `json:"unauthorized"`      // answers 401
	RateLimited       int64 `json:"rate_limited"`      // answers 429
	IdempotentReplays int64 `json:"idempotent_replays"`
	Faults            int64 `json:"faults"`            // requests that a fault befell
	Deliveries        int64 `json:"deliveries"`        // webhooks and hires that their receiver took
	DeliveriesFailed  int64 `json:"deliveries_failed"` // after the last try, or because too many waited already
}

type counters struct {
	requests, authenticates, sessions, logouts    atomic.Int64
	keysCreated, keysRevoked, rotations, overlaps atomic.Int64
	tokensCreated, tokensRevoked, registrations   atomic.Int64
	unauthorized, limited, replays, faults        atomic.Int64
	deliveries, undelivered                       atomic.Int64
}

// Stats returns the totals so far.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Requests:          c.requests.Load(),
		Authenticates:     c.authenticates.Load(),
		SessionsIssued:    c.sessions.Load(),
		Logouts:           c.logouts.Load(),
		KeysCreated:       c.keysCreated.Load(),
		KeysRevoked:       c.keysRevoked.Load(),
		Rotations:         c.rotations.Load() + c.overlaps.Load(),
		OverlapRotations:  c.overlaps.Load(),
		TokensCreated:     c.tokensCreated.Load(),
		TokensRevoked:     c.tokensRevoked.Load(),
		AgentsRegistered:  c.registrations.Load(),
		Unauthorized:      c.unauthorized.Load(),
		RateLimited:       c.limited.Load(),
		IdempotentReplays: c.replays.Load(),
		Faults:            c.faults.Load(),
		Deliveries:        c.deliveries.Load(),
		DeliveriesFailed:  c.undelivered.Load(),
	}
}
