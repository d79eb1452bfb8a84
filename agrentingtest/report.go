package agrentingtest

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Report says what happened since the server was made. It has no credential in it: a
// fingerprint, such as "sha256:1e7974539f", is that of the SDK and of agrenting whoami.
// The lists are sorted, and never null in JSON.
type Report struct {
	StartedAt time.Time `json:"started_at"` // on the server's clock
	Stats     Stats     `json:"stats"`
	// Requests has a row for each route that was called, with the pattern that serves
	// it, such as "GET /api/v1/tasks/{id}", or "unknown route".
	Requests []RouteReport `json:"requests"`
	// Faults are those that were scripted, the oldest first. Those that no request meets
	// anymore are dropped after the latest 1,000.
	Faults []FaultReport `json:"faults"`
	Chaos  *ChaosReport  `json:"chaos"` // nil without [Server.Chaos]
	// Refused are the credentials, or their absence, that a response of 401 or 403 was
	// about.
	Refused []RefusedCredential `json:"refused_credentials"`
	// Misplaced are live and dead credentials of this server that were seen where they do
	// not belong, such as in a query.
	Misplaced []MisplacedCredential `json:"misplaced_credentials"`
	// Omitted is how many requests the lists leave out, because there were more than
	// 1,000 different rows.
	Omitted int `json:"omitted"`
}

// RouteReport is how a route responded.
type RouteReport struct {
	Route    string `json:"route"`
	Requests int    `json:"requests"` // that were answered or cut off
	// Responses are the requests by status, such as "200". "none" are those that got no
	// response because the server ended the connection, or the client left before.
	Responses map[string]int `json:"responses"`
}

// FaultReport is a scripted fault and what became of it.
type FaultReport struct {
	ID       uint64 `json:"id"`
	Pattern  string `json:"pattern"`
	Kind     string `json:"kind"`           // such as "status", or "page+stall" if joined
	State    string `json:"state"`          // "pending", "consumed", or "cleared"
	Requests int    `json:"requests"`       // that met it; 0 means that it never matched
	Left     int    `json:"left,omitempty"` // requests that can still meet it; 0 without limit
}

// ChaosReport is how many requests met a fault of [Server.Chaos].
type ChaosReport struct {
	Share    float64        `json:"share"`
	Seed     uint64         `json:"seed"`
	Requests int            `json:"requests"`
	Faults   map[string]int `json:"faults"` // requests by name in the mix
}

// RefusedCredential counts the requests that were answered with 401 or 403 for one
// reason.
type RefusedCredential struct {
	Fingerprint string `json:"fingerprint"` // empty if the request had no credential
	Header      string `json:"header"`      // that had it, such as "X-Api-Key", or "query" for a socket
	Kind        string `json:"kind"`        // as [CredentialKind], or "unknown" to this server
	ID          string `json:"id"`          // of the key, session, or token
	AgentID     string `json:"agent_id"`    // of a key or session
	State       string `json:"state"`       // "live", "expired", "ended", or "revoked" at that time
	Status      int    `json:"status"`      // 401 or 403
	Route       string `json:"route"`       // as in [RouteReport]
	Reason      string `json:"reason"`      // the message of the response
	Fault       string `json:"fault"`       // the kind of the fault that the requests met, if any
	Requests    int    `json:"requests"`
}

// MisplacedCredential counts the requests that had a credential where it does not belong.
type MisplacedCredential struct {
	Fingerprint string `json:"fingerprint"`
	Kind        string `json:"kind"`
	ID          string `json:"id"`
	AgentID     string `json:"agent_id"`
	Place       string `json:"place"` // "query", "path", "body", or "header" and its name
	Route       string `json:"route"`
	Requests    int    `json:"requests"`
}

// Report returns what happened so far. [Server.ResetLog] does not change it.
func (s *Server) Report() Report {
	r := Report{StartedAt: s.started, Stats: s.Stats()}
	s.script.mu.Lock()
	r.Faults = []FaultReport{}
	for _, e := range slices.Concat(s.script.past, s.script.entries) {
		r.Faults = append(r.Faults, e.report())
	}
	if c := s.script.chaos; c != nil {
		r.Chaos = &ChaosReport{Share: c.share, Seed: s.cfg.seed, Faults: maps.Clone(c.met)}
		for _, n := range c.met {
			r.Chaos.Requests += n
		}
	}
	s.script.mu.Unlock()
	slices.SortFunc(r.Faults, func(a, b FaultReport) int { return cmp.Compare(a.ID, b.ID) })
	s.tally.report(&r)
	return r
}

// report needs the lock of the script.
func (e *scripted) report() FaultReport {
	r := FaultReport{ID: e.id, Pattern: e.route, Kind: kindOf(e.fault), State: "pending", Requests: e.met}
	switch {
	case e.cleared:
		r.State = "cleared"
	case e.left == 0:
		r.State = "consumed"
	case !e.fault.endless():
		r.Left = e.left
	}
	return r
}

// tally counts what [Report] lists.
type tally struct {
	mu        sync.Mutex
	routes    map[string]map[int]int // by route and status, 0 for none
	refused   map[RefusedCredential]int
	misplaced map[MisplacedCredential]int
	omitted   int
}

// maxTallied is how many rows a list of the report has at most.
const maxTallied = 1000

func newTally() *tally {
	return &tally{
		routes:    make(map[string]map[int]int),
		refused:   make(map[RefusedCredential]int),
		misplaced: make(map[MisplacedCredential]int),
	}
}

func (t *tally) report(r *Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Requests, r.Refused, r.Misplaced, r.Omitted = []RouteReport{}, []RefusedCredential{}, []MisplacedCredential{}, t.omitted
	for route, statuses := range t.routes {
		row := RouteReport{Route: route, Responses: map[string]int{}}
		for status, n := range statuses {
			name := "none"
			if status != 0 {
				name = strconv.Itoa(status)
			}
			row.Responses[name] = n
			row.Requests += n
		}
		r.Requests = append(r.Requests, row)
	}
	for row, n := range t.refused {
		row.Requests = n
		r.Refused = append(r.Refused, row)
	}
	for row, n := range t.misplaced {
		row.Requests = n
		r.Misplaced = append(r.Misplaced, row)
	}
	slices.SortFunc(r.Requests, func(a, b RouteReport) int {
		_, pathA, _ := strings.Cut(a.Route, " ")
		_, pathB, _ := strings.Cut(b.Route, " ")
		return cmp.Or(cmp.Compare(pathA, pathB), cmp.Compare(a.Route, b.Route))
	})
	slices.SortFunc(r.Refused, func(a, b RefusedCredential) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Fingerprint, b.Fingerprint),
			cmp.Compare(a.Route, b.Route), cmp.Compare(a.Status, b.Status), cmp.Compare(a.Header, b.Header),
			cmp.Compare(a.State, b.State), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Fault, b.Fault))
	})
	slices.SortFunc(r.Misplaced, func(a, b MisplacedCredential) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Fingerprint, b.Fingerprint),
			cmp.Compare(a.Route, b.Route), cmp.Compare(a.Place, b.Place))
	})
}

// add counts a row, unless there are too many of them already.
func add[Row comparable](t *tally, m map[Row]int, row Row) {
	if m[row] == 0 && len(m) >= maxTallied {
		t.omitted++
		return
	}
	m[row]++
}

// count enters a request in the report, before anything is sent to the client. Status 0
// means that the client gets no response.
func (x *exchange) count(status int) {
	x.counted = true
	route := x.routeName()
	misplaced := x.misplaced(route)
	var refused []RefusedCredential
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		refused = x.refused(status, route)
	}
	t := x.s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.routes[route] == nil {
		if len(t.routes) >= maxTallied {
			t.omitted++
			return
		}
		t.routes[route] = map[int]int{}
	}
	t.routes[route][status]++
	for _, row := range refused {
		add(t, t.refused, row)
	}
	for _, row := range misplaced {
		add(t, t.misplaced, row)
	}
}

// routeName is the name of a route in the report. Unknown routes share one, and
// patterns without a method get that of the request.
func (x *exchange) routeName() string {
	if x.route == "" {
		_, x.route = x.s.findRoute(x.r)
	}
	switch {
	case x.route == "":
		return "unknown route"
	case strings.Contains(x.route, " "):
		return x.route
	default:
		return x.r.Method + " " + x.route
	}
}
