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

// maxLoggedBody is the maximum size of a request body in the log.
const maxLoggedBody = 64 << 10

// Request is a request and its outcome, such as a "GET" of "/api/v1/tasks" with the
// status 200. The headers are not redacted, so that tests can check the credentials. Most
// programs only read Method, Path, Header, and Status.
type Request struct {
	ID         string // as in meta.request_id
	Method     string
	Path       string // decoded
	RawPath    string // as sent
	Query      url.Values
	Header     http.Header
	Host       string
	Proto      string
	Body       []byte // the part that was read, at most 64 KiB
	BodySize   int64  // how many bytes were read
	RemoteAddr string
	ReceivedAt time.Time // on the server's clock

	// Status is the status of the response, or the status that it would have had if a fault
	// had not cut the connection. Zero means that there is no status, or not yet.
	Status         int
	Principal      string // "agent:<id>", "user:<id>", or empty
	CredentialKind CredentialKind
	CredentialID   string
	AgentID        string // the acting agent
	Replayed       bool   // the response was stored for an idempotency key
	Fault          string // names of the faults that were applied; empty if none
}

// Requests are counted by method and path for the first maxCounted different ones of up
// to maxCountedBytes bytes each. All others are counted by route.
const (
	maxCounted      = 10_000
	maxCountedBytes = 1024
)

// requestLog keeps the latest requests and counts all of them.
type requestLog struct {
	limit int

	mu       sync.Mutex
	distinct int // at most maxCounted
	entries  []*Request
	counts   map[[2]string]int // by method and path
}

func newRequestLog(limit int) *requestLog {
	return &requestLog{limit: limit, distinct: maxCounted, counts: make(map[[2]string]int)}
}

// countedMethods are counted separately. All others count as one, because a client can
// invent any number of them.
var countedMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// countedAs returns the method and the path that a request is counted as. It needs the
// lock.
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

// add adds a request. route returns the pattern of its route, such as "GET
// /api/v1/tasks/{id}", or "" if there is none.
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

// update changes an entry while no copy is being made.
func (l *requestLog) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// Requests returns copies of the logged requests in the order of arrival. A request is in
// the log before its response is sent.
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

// Count returns how many requests have matched a route, in the form that [Server.Fault]
// describes. It also counts requests that were dropped from the log.
//
// Counts are exact for the first 10,000 different methods and paths since the server was
// created, or since [Server.ResetLog]. Later ones, and those of more than 1 KiB, are
// counted by their route: "GET /api/v1/tasks/{id}" and "GET /api/v1/tasks/*" are then
// still exact, but the path of one task, such as "GET /api/v1/tasks/7", is not. If no
// route serves them, only a route without a path counts them, such as "GET *".
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

// ResetLog removes the logged requests and their counts. It does not reset
// [Server.Stats].
func (s *Server) ResetLog() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.entries = nil
	clear(s.log.counts)
}

// loggedBody copies the part of a body that is read into the log.
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

// Stats are the totals since the server was created, such as Requests: 40,
// SessionsIssued: 2. Most programs only read Authenticates, Rotations, and Unauthorized.
//
// A rotation in place is a successful call of rotate-key. A rotation by overlap has no
// separate call: it is counted when a key is revoked over HTTP while the agent has a
// newer live key that was created over HTTP and has not replaced another key.
type Stats struct {
	Requests          int64 `json:"requests"`      // all requests that arrived
	Authenticates     int64 `json:"authenticates"` // calls of authenticate, successful or not
	SessionsIssued    int64 `json:"sessions_issued"`
	Logouts           int64 `json:"logouts"`
	KeysCreated       int64 `json:"keys_created"`      // over HTTP, including rotations and registrations
	KeysRevoked       int64 `json:"keys_revoked"`      // in any way, including rotations
	Rotations         int64 `json:"rotations"`         // with both strategies
	OverlapRotations  int64 `json:"overlap_rotations"` // rotations by overlap, see above
	TokensCreated     int64 `json:"tokens_created"`    // over HTTP
	TokensRevoked     int64 `json:"tokens_revoked"`
	AgentsRegistered  int64 `json:"agents_registered"` // over HTTP
	Unauthorized      int64 `json:"unauthorized"`      // responses with 401
	RateLimited       int64 `json:"rate_limited"`      // responses with 429
	IdempotentReplays int64 `json:"idempotent_replays"`
	Faults            int64 `json:"faults"`            // requests with at least one fault
	Deliveries        int64 `json:"deliveries"`        // webhooks and hires that the receiver accepted
	DeliveriesFailed  int64 `json:"deliveries_failed"` // failed after the last try, or dropped because too many were waiting
}

type counters struct {
	requests, authenticates, sessions, logouts    atomic.Int64
	keysCreated, keysRevoked, rotations, overlaps atomic.Int64
	tokensCreated, tokensRevoked, registrations   atomic.Int64
	unauthorized, limited, replays, faults        atomic.Int64
	deliveries, undelivered                       atomic.Int64
}

// Stats returns the current totals.
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
