package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The maximum numbers of rows of lists in the report, so that it fits on one page.
const (
	maxReportRoutes  = 20
	maxReportRefused = 8
	maxReportFaults  = 8
)

// onStandardError returns a printer that writes lines and tables to standard error.
func (p *printer) onStandardError() *printer {
	return &printer{out: p.err, err: p.err, json: p.json, color: p.onError, onError: p.onError}
}

// sandboxReport prints a report of the requests to a sandbox.
func (p *printer) sandboxReport(r *agrentingtest.Report) {
	p.line("%s in %s", served(r.Stats), ago(time.Since(r.StartedAt)))
	if len(r.Requests) > 0 {
		slices.SortStableFunc(r.Requests, func(a, b agrentingtest.RouteReport) int { return b.Requests - a.Requests })
		var rows [][]string
		for _, route := range shortened(r.Requests, maxReportRoutes) {
			rows = append(rows, []string{route.Route, strconv.Itoa(route.Requests), counted(route.Responses)})
		}
		p.table([]string{"ROUTE", "REQUESTS", "BY STATUS"}, rows)
		p.more(len(r.Requests), maxReportRoutes)
	}
	s := r.Stats
	p.line("sessions issued %d, keys created %d, keys revoked %d, rotations %d (%d by overlap), idempotent replays %d, rate limited %d",
		s.SessionsIssued, s.KeysCreated, s.KeysRevoked, s.Rotations, s.OverlapRotations, s.IdempotentReplays, s.RateLimited)
	if s.Deliveries+s.DeliveriesFailed > 0 {
		p.line("delivered %d webhooks and hires, could not deliver %d", s.Deliveries, s.DeliveriesFailed)
	}
	p.reportFaults(r)
	p.reportCredentials(r)
}

// served returns a summary of the work of the platform.
func served(s agrentingtest.Stats) string {
	text := "served " + requests(int(s.Requests))
	if s.Deliveries+s.DeliveriesFailed > 0 {
		text += fmt.Sprintf(", delivered %d webhooks and hires, could not deliver %d", s.Deliveries, s.DeliveriesFailed)
	}
	return text
}

func (p *printer) reportFaults(r *agrentingtest.Report) {
	p.line("%s met a fault", requests(int(r.Stats.Faults)))
	if c := r.Chaos; c != nil {
		kinds := ""
		if c.Requests > 0 {
			kinds = " (" + counted(c.Faults) + ")"
		}
		p.line("  chaos (%s, seed %d): %s%s", share(c.Share), c.Seed, requests(c.Requests), kinds)
	}
	for _, f := range shortened(r.Faults, maxReportFaults) {
		met := requests(f.Requests)
		if f.Requests == 0 {
			met = "it never matched"
		}
		p.line("  of %s for %s (%s): %s", f.Kind, visible(f.Pattern), f.State, met)
	}
	p.more(len(r.Faults), maxReportFaults)
}

func (p *printer) reportCredentials(r *agrentingtest.Report) {
	refused := 0
	for _, c := range r.Refused {
		refused += c.Requests
	}
	verb := "were"
	if refused == 1 {
		verb = "was"
	}
	p.line("%s %s refused for the credential (401 or 403)", requests(refused), verb)
	if len(r.Refused) > 0 {
		var rows [][]string
		for _, c := range shortened(r.Refused, maxReportRefused) {
			who := strings.TrimSpace(strings.ReplaceAll(c.Kind, "_", " ") + " " + c.Fingerprint)
			if who == "" {
				who = "no credential"
			}
			reason := c.Reason
			if c.Fault != "" {
				reason = "fault: " + c.Fault
			}
			rows = append(rows, []string{"  " + strconv.Itoa(c.Status), who, c.State, c.Header, c.Route, strconv.Itoa(c.Requests), reason})
		}
		p.table([]string{"  STATUS", "CREDENTIAL", "STATE", "HEADER", "ROUTE", "REQUESTS", "REASON"}, rows)
		p.more(len(r.Refused), maxReportRefused)
	}
	if len(r.Misplaced) == 0 {
		p.line("no credential was seen where it does not belong")
		return
	}
	p.line("%s", p.paint(red, "credentials were seen where they do not belong:"))
	for _, c := range shortened(r.Misplaced, maxReportRefused) {
		p.line("  %s %s in the %s of %s (%s)", strings.ReplaceAll(c.Kind, "_", " "), c.Fingerprint, c.Place, c.Route, requests(c.Requests))
	}
	p.more(len(r.Misplaced), maxReportRefused)
}

// more prints how many rows are left out.
func (p *printer) more(all, shown int) {
	if all > shown {
		p.line("  and %d more; GET /_sandbox/report has all of them", all-shown)
	}
}

func shortened[T any](all []T, n int) []T { return all[:min(n, len(all))] }

// counted returns a list such as "200: 3, 401: 1".
func counted(m map[string]int) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}
