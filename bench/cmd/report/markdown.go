package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// labels are how competitors are called in tables and charts.
var labels = map[string]string{
	"bare": "bare base", "floor": "floor", "atomic": "atomic pointer",
	"ours": "agrenting", "ours-static": "agrenting, static key", "ours-live": "agrenting, caller's source",
	"ours-session": "agrenting, session", "ours-all": "agrenting, everything on",
	"retryablehttp": "go-retryablehttp", "ghinstallation": "ghinstallation", "oauth2": "x/oauth2",
	"cloud-middleware": "cloud auth, middleware", "cloud-quiet": "cloud auth, no telemetry", "cloud": "cloud auth",
	"gophercloud": "gophercloud", "azcore-key": "azcore key", "azcore-bearer": "azcore bearer",
}

func ours(who string) bool { return strings.HasPrefix(who, "ours") }

var (
	transportOrder = []string{
		"bare", "floor", "ours-static", "ours-live", "ours-session", "retryablehttp", "ghinstallation", "oauth2",
		"cloud-middleware", "cloud-quiet", "cloud",
	}
	callOrder = []string{
		"bare", "floor", "ours-session", "ours-all", "retryablehttp", "gophercloud", "ghinstallation", "oauth2",
		"azcore-key", "azcore-bearer", "cloud-middleware", "cloud",
	}
	readOrder = []string{"atomic", "ours", "oauth2", "ghinstallation", "cloud", "gophercloud"}
)

type markdown struct{ strings.Builder }

func (m *markdown) p(format string, args ...any) { fmt.Fprintf(m, format+"\n\n", args...) }

// table writes a table whose first column is text and whose others are numbers.
func (m *markdown) table(head []string, rows [][]string) {
	fmt.Fprintf(m, "| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("--:|", len(head)-1))
	for _, row := range rows {
		fmt.Fprintf(m, "| %s |\n", strings.Join(row, " | "))
	}
	m.WriteByte('\n')
}

func bold(who, s string) string {
	if ours(who) {
		return "**" + s + "**"
	}
	return s
}

// markdown is the document.
func (r *report) markdown() string {
	m := new(markdown)
	m.p("# Benchmarks")
	m.p("<!-- Written by bench/cmd/report. Change the program, not this file. -->")
	m.p("This SDK beside other Go clients that manage credentials, in one run on one machine, and beside the floor: " +
		"the least that the contract of `http.RoundTripper` allows to whoever adds a header, which is a shallow copy of the request, " +
		"a copy of its header map and one entry whose value was made beforehand. The floor checks nothing and renews nothing. " +
		"All of it again: `cd bench && GOWORK=off go run ./cmd/report`.")
	if busy(r.load[0]) || busy(r.load[1]) {
		m.p("> The machine was busy with other work while this was measured (load averages %s before and %s after, on %d CPUs): "+
			"the counts hold, the times say little.", r.load[0], r.load[1], runtime.NumCPU())
	}
	r.headlines(m)
	r.targets(m)
	r.transports(m)
	r.calls(m)
	r.bodies(m)
	r.credential(m)
	for i, t := range r.stampede.Tables() {
		m.p("## %s", t.Title)
		if i == 0 {
			m.p("![p99.9 while sessions expire](img/bench-expiry.svg)")
		}
		m.p("%s", t.Note)
		m.stampede(t)
	}
	r.smallHeap(m)
	r.caveats(m)
	return strings.TrimRight(m.String(), "\n") + "\n"
}

func (m *markdown) stampede(t stampede.Table) {
	rows := make([][]string, 0, len(t.Rows))
	for _, row := range t.Rows {
		if strings.HasPrefix(row[0], "agrenting") {
			row = append([]string{"**" + row[0] + "**"}, row[1:]...)
		}
		rows = append(rows, row)
	}
	m.table(t.Head, rows)
}

func (r *report) headlines(m *markdown) {
	n := r.native()
	live := r.get.toFloor(point{"Transport/GET", "ours-session", n})
	call := r.get.toFloor(point{"Call/GET", "ours-all", n})
	m.p("## In short")
	m.p("Ratios, each of two things measured within one round; times relative to the floor at GOMAXPROCS %d, less is better.", n)
	line := func(who string) string { return fmt.Sprintf("%.2f", r.get.toFloor(point{"Transport/GET", who, n})) }
	fmt.Fprintf(m, "- Adding a live, expiring credential to a request: **%.2f** of the floor's time and the same number of allocations "+
		"(x/oauth2 %s, ghinstallation %s, cloud auth %s to %s; go-retryablehttp, which adds none, %s).\n",
		live, line("oauth2"), line("ghinstallation"), line("cloud-middleware"), line("cloud"), line("retryablehttp"))
	fmt.Fprintf(m, "- A whole call with everything on (sessions, renewal, retries, agent, logger, observer): **%.2f** of `http.Client` over the floor, "+
		"and no allocation more (x/oauth2 %.2f, gophercloud %.2f, azcore %.2f, cloud auth %.2f).\n", call,
		r.get.toFloor(point{"Call/GET", "oauth2", n}), r.get.toFloor(point{"Call/GET", "gophercloud", n}),
		r.get.toFloor(point{"Call/GET", "azcore-bearer", n}), r.get.toFloor(point{"Call/GET", "cloud", n}))
	if len(r.procs) > 1 {
		fmt.Fprintf(m, "- Reading the live credential gets no slower with more readers: at GOMAXPROCS 8 **%.2f** of the time at 1 (x/oauth2 %.2f, cloud auth %.2f).\n",
			r.grows("ours"), r.grows("oauth2"), r.grows("cloud"))
	}
	w := r.stampede.With
	fmt.Fprintf(m, "- Across expiries: **%.0f** exchange each, **%d** of %d calls failed, **%d** held up; p99.9 is **%.2f** of the same run without expiries.\n\n",
		w.PerExpiry, w.Tally.Unauthorized+w.Tally.Failed+w.Tally.Late, w.Tally.Calls, w.Tally.Slow, stampede.Median(r.stampede.Ratios))
}

func (r *report) grows(who string) float64 {
	return r.read.ratio(point{"Credential", who, 8}, point{"Credential", who, 1})
}

func (r *report) targets(m *markdown) {
	m.p("## Targets")
	m.p("Counts hold on every machine, and CI fails when one does not. Times are reported as they came.")
	var rows [][]string
	for _, c := range r.checks() {
		kind := "time"
		if c.count {
			kind = "count"
		}
		rows = append(rows, []string{c.Name, kind, c.Got, c.Want, c.verdict()})
	}
	m.table([]string{"target", "kind", "measured", "wanted", ""}, rows)
}

// comparison is a table of one group, serial and parallel.
func (r *report) comparison(m *markdown, group string, order []string) {
	n := r.native()
	head := []string{"", fmt.Sprintf("x floor, serial, %d", n)}
	for _, p := range r.procs {
		head = append(head, fmt.Sprintf("parallel, %d", p))
	}
	head = append(head, "ns, serial", "B/op", "allocs/op")
	serial, parallel, _ := strings.Cut(group, "/")
	var rows [][]string
	for _, who := range order {
		p := point{group, who, n}
		if !r.get.has(p) {
			continue
		}
		row := []string{bold(who, labels[who]), bold(who, fmt.Sprintf("%.2f", r.get.toFloor(p)))}
		for _, procs := range r.procs {
			row = append(row, fmt.Sprintf("%.2f", r.get.toFloor(point{serial + "Parallel/" + parallel, who, procs})))
		}
		allocs, bytes := r.get.cost(p)
		rows = append(rows, append(row, fmt.Sprintf("%.0f", r.get.ns(p)), strconv.Itoa(bytes), strconv.Itoa(allocs)))
	}
	m.table(head, rows)
}

func (r *report) transports(m *markdown) {
	m.p("## The RoundTripper alone")
	m.p("![time against the floor](img/bench-transport.svg)")
	m.p("GET with six headers over a base that answers at once. The numbers behind serial and parallel are GOMAXPROCS.")
	r.comparison(m, "Transport/GET", transportOrder)
}

func (r *report) calls(m *markdown) {
	m.p("## The whole call")
	m.p("![whole call against http.Client over the floor](img/bench-call.svg)")
	m.p("The request is built each time, with six headers, and goes through `http.Client` or what a peer has in its place. " +
		"azcore and gophercloud are not RoundTrippers and appear only here. go-retryablehttp adds no credential.")
	r.comparison(m, "Call/GET", callOrder)
}

func (r *report) bodies(m *markdown) {
	m.p("## Bodies")
	m.p("POST with GetBody, the RoundTripper alone, GOMAXPROCS %d. The base reads the body to its end.", r.native())
	var rows [][]string
	for _, who := range transportOrder {
		small, large := point{"Transport/POST1K", who, r.native()}, point{"Transport/POST16M", who, r.native()}
		if !r.small.has(small) || !r.large.has(large) {
			continue
		}
		sa, sb := r.small.cost(small)
		la, lb := r.large.cost(large)
		rows = append(rows, []string{
			bold(who, labels[who]), fmt.Sprintf("%.2f", r.small.toFloor(small)), strconv.Itoa(sa), strconv.Itoa(sb),
			fmt.Sprintf("%.2f", r.large.toFloor(large)), strconv.Itoa(la), strconv.Itoa(lb),
		})
	}
	m.table([]string{"", "1 KiB: x floor", "allocs/op", "B/op", "16 MiB: x floor", "allocs/op", "B/op"}, rows)
}

func (r *report) credential(m *markdown) {
	m.p("## Reading a live cached credential")
	m.p("![reading the credential](img/bench-credential.svg)")
	m.p("In parallel, ns by GOMAXPROCS. The least is an atomic load and a look at the clock. gophercloud's builds a map; it looks at no clock.")
	head := []string{""}
	for _, p := range r.procs {
		head = append(head, strconv.Itoa(p))
	}
	var rows [][]string
	for _, who := range readOrder {
		row := []string{bold(who, labels[who])}
		for _, p := range r.procs {
			row = append(row, fmt.Sprintf("%.0f", r.read.ns(point{"Credential", who, p})))
		}
		allocs, _ := r.read.cost(point{"Credential", who, r.native()})
		rows = append(rows, append(row, strconv.Itoa(allocs)))
	}
	m.table(append(head, "allocs/op"), rows)
}

func (r *report) smallHeap(m *markdown) {
	m.p("## On the heap of a test")
	m.p("All of the above keeps %d MiB alive, as a program may. On the next to empty heap of a test the collector runs each few thousand requests and "+
		"costs more than what is compared; the same ratios there:", liveHeap)
	head := []string{"x floor", fmt.Sprintf("serial, %d", r.native())}
	for _, p := range r.procs {
		head = append(head, fmt.Sprintf("parallel, %d", p))
	}
	var rows [][]string
	for _, x := range []struct{ group, who string }{
		{"Transport", "ours-static"}, {"Transport", "ours-live"}, {"Transport", "ours-session"}, {"Call", "ours-session"}, {"Call", "ours-all"},
	} {
		kind := "RoundTripper"
		if x.group == "Call" {
			kind = "whole call"
		}
		row := []string{kind + ": " + labels[x.who], fmt.Sprintf("%.2f", r.bare.toFloor(point{x.group + "/GET", x.who, r.native()}))}
		for _, p := range r.procs {
			row = append(row, fmt.Sprintf("%.2f", r.bare.toFloor(point{x.group + "Parallel/GET", x.who, p})))
		}
		rows = append(rows, row)
	}
	m.table(head, rows)
}

func (r *report) caveats(m *markdown) {
	m.p("## What to make of it")
	low, high := r.get.spread(point{"Transport/GET", "floor", r.native()})
	for _, s := range []string{
		fmt.Sprintf("Measured on %s with %s, %s/%s, %d CPUs (%s), shared with other work. Absolute times say little about another machine, nor much about this one: "+
			"the floor itself took from %.0f to %.0f ns. Hence %d rounds in turn, ratios within a round, and their medians. "+
			"A difference of less than a tenth is none. Allocations and bytes are exact.",
			r.began.UTC().Format("2006-01-02"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), r.get.cpu, low, high, r.rounds),
		fmt.Sprintf("Rounds count only if their process got at least nine tenths of the CPU time that it got in the best one: %d of %d for the first tables. "+
			"The load average was %s when the run began and %s when it ended (1, 5 and 15 minutes); this run itself is a load of about 2.",
			len(r.get.rounds), r.get.all, r.load[0], r.load[1]),
		"GOMAXPROCS 8 on fewer CPUs shows contention, not speed.",
		"On a real network a call takes milliseconds, and none of the differences in the first tables can be noticed. What can are the tables about expiry, revocation and outages.",
		"The peers get the settings that show them at their best with sessions this short: those who renew in the background do so in the last fifth of a session, " +
			"as ours does; those who make their callers wait renew 20 ms before the expiry. azcore renews ahead at most once in 30 s, which sessions of 1 s never reach, and takes " +
			"a token for good up to its last instant. gophercloud knows no expiry and acts on the 401. With sessions of an hour all of this happens once an hour.",
		"Retries of failed requests are off in azcore and on everywhere else where they are by default, ours included.",
		"The server, the callers and the client share the CPUs; connections are opened before a load begins.",
	} {
		fmt.Fprintf(m, "- %s\n", s)
	}
}
