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

// Report summarizes what happened since the server was created. It has no credentials: a
// fingerprint, such as "sha256:1e7974539f", is the same as that of the SDK and of
// agrenting whoami. The lists are sorted, and never null in JSON. Most programs only read
// Refused and Misplaced.
type Report struct {
	StartedAt time.Time `json:"started_at"` // on the server's clock
	Stats     Stats     `json:"stats"`
	// Requests has a row for each route that was called, with its pattern, such as "GET
	// /api/v1/tasks/{id}", or "unknown route".
	Requests []RouteReport `json:"requests"`
	// Faults are the scripted faults, the oldest first. Of the faults that can no longer
	// apply, only the latest 1,000 are kept.
	Faults []FaultReport `json:"faults"`
	Chaos  *ChaosReport  `json:"chaos"` // nil without [Server.Chaos]
	// Refused are the credentials that caused a response of 401 or 403. A request without a
	// credential has a row too.
	Refused []RefusedCredential `json:"refused_credentials"`
	// Misplaced are credentials of this server, live or not, that were sent in a wrong
	// place, such as in a query.
	Misplaced []MisplacedCredential `json:"misplaced_credentials"`
	// Omitted is the number of requests that are not in the lists, because there were more
	// than 1,000 different rows.
	Omitted int `json:"omitted"`
}

// RouteReport counts the responses of a route.
type RouteReport struct {
	Route    string `json:"route"`
	Requests int    `json:"requests"` // requests with a response or a cut connection
	// Responses has the number of requests by status, such as "200". "none" counts the
	// requests without a response, because the server closed the connection or the client
	// left before.
	Responses map[string]int `json:"responses"`
}

// FaultReport is the state of a scripted fault, such as {"pattern": "GET *", "kind":
// "status", "state": "consumed", "requests": 1}. Most programs only read Pattern and
// Requests.
type FaultReport struct {
	ID       uint64 `json:"id"`
	Pattern  string `json:"pattern"`
	Kind     string `json:"kind"`           // such as "status", or "page+stall" if joined
	State    string `json:"state"`          // "pending", "consumed", or "cleared"
	Requests int    `json:"requests"`       // that got the fault; 0 means that it never matched
	Left     int    `json:"left,omitempty"` // requests that can still get the fault; 0 if there is no limit
}

// ChaosReport counts the requests that got a fault of [Server.Chaos], such as 12 requests
// with a Share of 0.05. Most programs only read Requests.
type ChaosReport struct {
	Share    float64        `json:"share"`
	Seed     uint64         `json:"seed"`
	Requests int            `json:"requests"`
	Faults   map[string]int `json:"faults"` // number of requests by fault name
}

// RefusedCredential counts the requests that were refused with 401 or 403 for the same
// reason, such as 3 requests with a "revoked" key. Most programs only read Kind, State,
// and Requests.
type RefusedCredential struct {
	Fingerprint string `json:"fingerprint"` // empty if the request had no credential
	Header      string `json:"header"`      // the header, such as "X-Api-Key", or "query" for a socket
	Kind        string `json:"kind"`        // a [CredentialKind], or "unknown" if it is not of this server
	ID          string `json:"id"`          // of the key, session, or token
	AgentID     string `json:"agent_id"`    // of a key or session
	State       string `json:"state"`       // "live", "expired", "ended", or "revoked" at that time
	Status      int    `json:"status"`      // 401 or 403
	Route       string `json:"route"`       // as in [RouteReport]
	Reason      string `json:"reason"`      // the message of the response
	Fault       string `json:"fault"`       // the kind of the fault of the requests; empty if none
	Requests    int    `json:"requests"`
}

// MisplacedCredential counts the requests that had a credential in a wrong place, such as
// an "api_key" in a "query". Most programs only read Place and Route.
type MisplacedCredential struct {
	Fingerprint string `json:"fingerprint"`
	Kind        string `json:"kind"`
	ID          string `json:"id"`
	AgentID     string `json:"agent_id"`
	Place       string `json:"place"` // "query", "path", "body", or "header" and its name
	Route       string `json:"route"`
	Requests    int    `json:"requests"`
}

// Report returns a summary of what happened since the server was created.
// [Server.ResetLog] does not reset it.
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

// tally counts the rows of [Report].
type tally struct {
	mu        sync.Mutex
	routes    map[string]map[int]int // by route and status; status 0 means that there was no response
	refused   map[RefusedCredential]int
	misplaced map[MisplacedCredential]int
	omitted   int
}

// maxTallied is the maximum number of rows in a list of the report.
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

// add counts a row, unless there are too many different rows already.
func add[Row comparable](t *tally, m map[Row]int, row Row) {
	if m[row] == 0 && len(m) >= maxTallied {
		t.omitted++
		return
	}
	m[row]++
}

// count adds a request to the report before anything is sent to the client. Status 0
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

// routeName returns the name of a route in the report. All unknown routes have the same
// name, and patterns without a method get the method of the request.
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
