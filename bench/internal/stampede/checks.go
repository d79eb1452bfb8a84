package stampede

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Check is a target and its result, such as Check{Name: "exchanges per expiry", Got:
// "1.00", Want: "1.00", Pass: true}. Most callers only read Pass and Verdict.
type Check struct {
	Name, Got, Want string
	Pass            bool
}

// Verdict returns PASS or MISS.
func (c *Check) Verdict() string {
	if c.Pass {
		return "PASS"
	}
	return "MISS"
}

func exactly(name string, got, want int) Check {
	return Check{Name: name, Got: strconv.Itoa(got), Want: strconv.Itoa(want), Pass: got == want}
}

// Targets for an outage of 2 s. One attempt for each backoff step (0.25 s, doubled, with
// a jitter of a fifth) makes 4, or 5 if a renewal had begun before. The last step before
// the end of the outage may take 2 s.
const (
	maxAttempts = 5
	maxRecovery = 2500 * time.Millisecond
)

// Checks returns the counts of this SDK, which are valid on every machine.
func (r *Result) Checks() []Check {
	w := r.With
	checks := []Check{
		{
			Name: "exchanges per expiry", Got: fmt.Sprintf("%.2f", w.PerExpiry), Want: "1",
			Pass: w.Exchanges > 0 && w.PerExpiry == 1,
		},
		exactly("failed calls across expiries", w.Tally.Failures(), 0),
	}
	for _, e := range r.Revocations {
		if e.Ours {
			checks = append(checks,
				exactly("exchanges after "+e.scenario(), e.Exchanges, 1),
				exactly("failed calls after "+e.scenario(), e.Tally.Failures(), 0))
		}
	}
	for _, e := range r.Outages {
		if !e.Ours {
			continue
		}
		checks = append(checks,
			exactly("failed calls in "+e.scenario(), e.Tally.Failures(), 0),
			Check{
				Name: "exchanges tried in " + e.scenario(), Got: strconv.Itoa(e.Attempts), Want: fmt.Sprintf("≤ %d", maxAttempts),
				Pass: e.Attempts <= maxAttempts,
			})
	}
	return append(checks, r.compared()...)
}

// Times returns the targets of this SDK that also depend on other work of the machine.
func (r *Result) Times() []Check {
	var c comparison
	for _, e := range r.Deadlines {
		if e.Exchanges > 0 && e.Name != oursBehind.Name {
			c.add("calls with a deadline", e.Ours, e.Tally)
		}
	}
	checks := c.checks()
	for _, e := range r.Outages {
		if e.Ours {
			checks = append(checks, Check{
				Name: "recovery in ms after " + e.scenario(), Got: ms(e.Recovery), Want: "≤ " + ms(maxRecovery),
				Pass: e.Recovery <= maxRecovery,
			})
		}
	}
	return checks
}

func (e *Revocation) scenario() string {
	if e.Slow {
		return "a revocation, slow resource"
	}
	return "a revocation"
}

func (e *Outage) scenario() string {
	if e.Across {
		return "an outage across expiries"
	}
	return "an outage that the session outlives"
}

// compared returns the checks for scenarios in which at least one peer has no failed
// calls.
func (r *Result) compared() []Check {
	var c comparison
	for _, e := range r.Expiries {
		if e.Exchanges > 0 { // otherwise, the sessions of the peer do not expire
			c.add("expiry", e.Ours, e.Tally)
		}
	}
	for _, e := range r.Revocations {
		c.add(e.scenario(), e.Ours, e.Tally)
	}
	for _, e := range r.Outages {
		c.add(e.scenario(), e.Ours, e.Tally)
	}
	return c.checks()
}

// comparison counts the failed calls in each scenario. If at least one peer has no failed
// calls, this SDK must not have any either.
type comparison []struct {
	scenario string
	ours     int
	peers    []int
}

func (c *comparison) add(scenario string, ours bool, t Tally) {
	if n := len(*c); n == 0 || (*c)[n-1].scenario != scenario {
		*c = append(*c, comparison{{scenario: scenario}}...)
	}
	last := &(*c)[len(*c)-1]
	if ours {
		last.ours += t.Failures()
	} else {
		last.peers = append(last.peers, t.Failures())
	}
}

func (c *comparison) checks() []Check {
	var list []Check
	for _, s := range *c {
		if slices.Contains(s.peers, 0) {
			list = append(list, exactly("failed calls where a peer has none: "+s.scenario, s.ours, 0))
		}
	}
	return list
}
