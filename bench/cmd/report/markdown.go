package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// labels are the names of the clients in tables and charts.
var labels = map[string]string{
	"bare": "bare base", "floor": "floor", "floor-checked": "floor, caller's headers checked", "atomic": "atomic pointer",
	"ours": "agrenting", "ours-static": "agrenting, static key", "ours-live": "agrenting, caller's source",
	"ours-session": "agrenting, session", "ours-all": "agrenting, everything on",
	"retryablehttp": "go-retryablehttp", "ghinstallation": "ghinstallation", "oauth2": "x/oauth2",
	"cloud-middleware": "cloud auth, middleware", "cloud-quiet": "cloud auth, no telemetry", "cloud": "cloud auth",
	"gophercloud": "gophercloud", "azcore-key": "azcore key", "azcore-bearer": "azcore bearer",
}

func ours(who string) bool { return strings.HasPrefix(who, "ours") }

var (
	transportOrder = []string{
		"bare", "floor", "floor-checked", "ours-static", "ours-live", "ours-session", "retryablehttp", "ghinstallation", "oauth2",
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
	_ = m.WriteByte('\n')
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
	m.p("These tables compare this SDK with other Go clients that manage credentials. All of them ran on one machine, in one run. " +
		"To repeat it, use `cd bench && GOWORK=off go run ./cmd/report`. [performance](performance.md) explains the numbers.")
	m.p("Times are relative to a *floor*: the least that the contract of `http.RoundTripper` allows for adding a header. " +
		"That is a shallow copy of the request, a copy of its header map, and one entry whose value was made beforehand. " +
		"The floor checks nothing and renews nothing.")
	m.p("A second floor also checks the caller's headers, in one loop over the header map. A credential that the caller has set then wins, " +
		"in any spelling (`X-API-Key`, `x_api_key`). This is the least that a client with that promise costs, so it is the base of the transport's targets.")
	if busy(r.load[0]) || busy(r.load[1]) {
		m.p("> The machine was busy with other work during this run (load averages %s before and %s after, on %d CPUs). "+
			"The counts are valid, but the times are not.", r.load[0], r.load[1], runtime.NumCPU())
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
	session := point{"Transport/GET", "ours-session", n}
	m.p("## In short")
	m.p("Each ratio compares two measurements of the same round. Times are relative to the floor at GOMAXPROCS %d. Less is better.", n)
	line := func(who string) string { return fmt.Sprintf("%.2f", r.get.toFloor(point{"Transport/GET", who, n})) }
	call := func(who string) string { return fmt.Sprintf("%.2f", r.get.toFloor(point{"Call/GET", who, n})) }
	fmt.Fprintf(m, "- Adding a credential that expires to a request takes **%.2f** times the floor, and **%.2f** times the floor that checks the caller's headers. "+
		"It makes no allocation more than either. Others take %s (x/oauth2), %s (ghinstallation), and %s to %s (cloud auth). "+
		"go-retryablehttp, which adds no credential, takes %s.\n",
		r.get.toFloor(session), r.get.toChecked(session),
		line("oauth2"), line("ghinstallation"), line("cloud-middleware"), line("cloud"), line("retryablehttp"))
	fmt.Fprintf(m, "- A whole call with sessions, renewal, retries, an agent, a logger, and an observer takes **%s** times `http.Client` over the floor, "+
		"with the same allocations. Others take %s (x/oauth2), %s (gophercloud), %s (azcore), and %s (cloud auth).\n",
		call("ours-all"), call("oauth2"), call("gophercloud"), call("azcore-bearer"), call("cloud"))
	if len(r.procs) > 1 {
		fmt.Fprintf(m, "- Reading the credential does not get slower with more readers. At GOMAXPROCS 8 it takes **%.2f** times as long as at 1 "+
			"(x/oauth2 %.2f, cloud auth %.2f).\n", r.grows("ours"), r.grows("oauth2"), r.grows("cloud"))
	}
	w := r.stampede.With
	fmt.Fprintf(m, "- Each expiry causes **%.0f** exchange. **%d** of %d calls failed, and **%d** were held up. "+
		"The p99.9 is **%.2f** times that of the same run without expiries.\n",
		w.PerExpiry, w.Tally.Failures(), w.Tally.Calls, w.Tally.Slow, stampede.Median(r.stampede.Ratios))
	for _, e := range r.stampede.Outages {
		if e.Ours && e.Across {
			fmt.Fprintf(m, "- While the token endpoint was down for 2 s and sessions of 1 s expired, **%d** of %d calls failed.\n", e.Tally.Failures(), e.Tally.Calls)
		}
	}
	_ = m.WriteByte('\n')
}

func (r *report) grows(who string) float64 {
	return r.read.ratio(point{"Credential", who, 8}, point{"Credential", who, 1})
}

func (r *report) targets(m *markdown) {
	m.p("## Targets")
	m.p("A count is the same on every machine, and CI fails if it is not met. A time depends on the machine, so a missed one is reported here.")
	var rows [][]string
	for _, c := range r.checks() {
		kind := "time"
		if c.count {
			kind = "count"
		}
		rows = append(rows, []string{c.Name, kind, c.Got, c.Want, c.Verdict()})
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
	m.p("A GET request with six headers, over a base that responds at once. \"Serial\" and \"parallel\" are followed by GOMAXPROCS.")
	r.comparison(m, "Transport/GET", transportOrder)
}

func (r *report) calls(m *markdown) {
	m.p("## The whole call")
	m.p("![whole call against http.Client over the floor](img/bench-call.svg)")
	m.p("Each call builds a request with six headers and sends it through `http.Client`, or through the client's own equivalent. " +
		"azcore and gophercloud are not RoundTrippers, so they appear only here. go-retryablehttp adds no credential.")
	r.comparison(m, "Call/GET", callOrder)
}

func (r *report) bodies(m *markdown) {
	m.p("## Bodies")
	m.p("POST requests with a `GetBody`, the RoundTripper alone, GOMAXPROCS %d. The base reads the body to its end.", r.native())
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
	m.p("Parallel reads, in ns, by GOMAXPROCS. The first row is the least: an atomic load and a comparison with the clock. " +
		"gophercloud builds a map and does not check the time.")
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
	m.p("All other tables keep %d MiB alive, as a program may. A test has almost no live heap, so the collector runs every few thousand requests "+
		"and costs more than what is compared. These are the same ratios on such a heap.", liveHeap)
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
	m.p("## How to read the numbers")
	low, high := r.get.spread(point{"Transport/GET", "floor", r.native()})
	for _, s := range []string{
		fmt.Sprintf("Measured on %s with %s, %s/%s, %d CPUs (%s), shared with other work. Absolute times say little, even about this machine: "+
			"the floor itself took %.0f to %.0f ns. Therefore %d rounds run in turn, ratios are taken within a round, and the tables show their medians. "+
			"Treat a difference of less than a tenth as noise. Allocations and bytes are exact.",
			r.began.UTC().Format("2006-01-02"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), r.get.cpu, low, high, r.rounds),
		fmt.Sprintf("A round counts only if its process got at least nine tenths of the CPU time of the best round: %d of %d did for the first tables. "+
			"The load average was %s before the run and %s after it (1, 5, and 15 minutes). The run itself is a load of about 2.",
			len(r.get.rounds), r.get.all, r.load[0], r.load[1]),
		"GOMAXPROCS 8 on fewer CPUs shows contention, not speed.",
		"On a real network a call takes milliseconds, so the differences in the first tables are not noticeable. Those at expiries, revocations, and outages are.",
		"Each client has the settings that suit sessions this short best. Clients that renew in the background do so in the last fifth of a session, like agrenting. " +
			"Clients that renew while a caller waits do so 20 ms before the expiry. azcore renews ahead at most once in 30 s, so never in sessions of 1 s, and uses " +
			"a token up to its last instant. gophercloud does not know the expiry and reacts to the 401. With sessions of an hour, all of this happens once an hour.",
		"azcore's retries of failed requests are off. The other clients, including agrenting, have their defaults.",
		"The server, the callers, and the client share the CPUs. Connections are opened before a load begins.",
	} {
		fmt.Fprintf(m, "- %s\n", s)
	}
}
