package stampede

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Text returns the result as tables, with the targets.
func (r *Result) Text() string {
	var b strings.Builder
	for _, t := range r.Tables() {
		fmt.Fprintf(&b, "%s\n\n", t.Title)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{t.Head}, t.Rows...) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		_ = w.Flush() // writes to memory do not fail
		fmt.Fprintf(&b, "\n%s\n\n", t.Note)
	}
	for _, c := range append(r.Checks(), r.Times()...) {
		fmt.Fprintf(&b, "%s  %s: %s, want %s\n", c.Verdict(), c.Name, c.Got, c.Want)
	}
	fmt.Fprintf(&b, "\n%d callers, %v\n", r.Workers, r.Took.Round(time.Second))
	return b.String()
}

// Table is the result of one experiment in readable form, such as a Table with
// the Title "Calls with a deadline of 50 ms". Most callers print all fields.
type Table struct {
	Title string
	Note  string
	Head  []string
	Rows  [][]string
}

// Tables returns one table for each experiment.
func (r *Result) Tables() []Table {
	tables := []Table{r.expiryTable(), r.revocationTable(), r.deadlineTable()}
	if len(r.Outages) > 0 {
		tables = append(tables, r.outageTable())
	}
	return tables
}

func (r *Result) expiryTable() Table {
	t := Table{
		Title: "Sessions of 1 s, exchanges of 100 ms",
		Note: fmt.Sprintf("%d callers call a server on loopback and pause 20 to 60 ms between calls. A call is held up if it takes more than 80 ms. "+
			"\"No expiry\" is the same client with sessions of a day. The two run in turn, and the p99.9 without expiries is what the machine itself costs. "+
			"Across expiries, the p99.9 of agrenting is %.2f times that (median of %d rounds, %.2f to %.2f).",
			r.Workers, Median(r.Ratios), len(r.Ratios), slices.Min(r.Ratios), slices.Max(r.Ratios)),
		Head: []string{"client", "exchanges", "per expiry", "failed calls", "401 on the wire", "calls held up", "p50", "p99", "p99.9", "max (ms)"},
	}
	for _, e := range r.Expiries {
		per := fmt.Sprintf("%.2f", e.PerExpiry)
		if e.Exchanges == 0 {
			per = "–"
		}
		t.Rows = append(t.Rows, []string{
			e.Name, strconv.Itoa(e.Exchanges), per, strconv.Itoa(e.Tally.Failures()), strconv.Itoa(e.Refused),
			fmt.Sprintf("%d of %d", e.Tally.Slow, e.Tally.Calls), ms(e.Tally.P50), ms(e.Tally.P99), ms(e.Tally.P999), ms(e.Tally.Max),
		})
	}
	return t
}

func (r *Result) revocationTable() Table {
	t := Table{
		Title: "The server ends a session of 1 h early",
		Note: "Calls that ended after the revocation. A resource that takes 500 ms checks the session when it responds, so it refuses every call " +
			"that is on the wire. At least one 401 for each caller is then unavoidable.",
		Head: []string{"client", "resource", "exchanges", "401 returned", "other failures", "of calls", "401 on the wire"},
	}
	for _, e := range r.Revocations {
		speed := "fast"
		if e.Slow {
			speed = "500 ms"
		}
		t.Rows = append(t.Rows, []string{
			e.Name, speed, strconv.Itoa(e.Exchanges), strconv.Itoa(e.Tally.Unauthorized), strconv.Itoa(e.Tally.Failed + e.Tally.Late),
			strconv.Itoa(e.Tally.Calls), strconv.Itoa(e.Refused),
		})
	}
	return t
}

func (r *Result) deadlineTable() Table {
	t := Table{
		Title: "Calls with a deadline of 50 ms, exchanges of 100 ms, sessions of 1 s",
		Note: "A client that renews on the context of a caller abandons the exchange at that caller's deadline, and the next caller starts again. " +
			"\"Never ahead\" is agrenting with renewal ahead of the expiry switched off. Calls during an exchange then fail at their deadline, " +
			"which is unavoidable, but the exchange continues.",
		Head: []string{"client", "exchanges", "past the deadline", "other failures", "of calls", "served in the second half", "longest call (ms)"},
	}
	for _, e := range r.Deadlines {
		t.Rows = append(t.Rows, []string{
			e.Name, strconv.Itoa(e.Exchanges), strconv.Itoa(e.Tally.Late), strconv.Itoa(e.Tally.Failed + e.Tally.Unauthorized),
			strconv.Itoa(e.Tally.Calls), fmt.Sprintf("%.1f %%", math.Floor(e.Served*1000)/10), ms(e.Tally.Max),
		})
	}
	return t
}

func (r *Result) outageTable() Table {
	t := Table{
		Title: "The token endpoint responds with 503 for 2 s",
		Note: fmt.Sprintf("A session of 15 s outlives the outage: it ends 1.4 s after it. An eighth of the callers call, all clients at the same time. "+
			"A client that renews only at the expiry holds its callers up there, as after every session. cloud auth tries to renew in the background once in each session. "+
			"Sessions of 1 s do not outlive the outage. All %d callers call, one client after the other. No call can then succeed for more than a second, so it waits or fails. "+
			"Recovery is the time from the end of the outage to the end of the last call that failed or took more than 250 ms.", r.Workers),
		Head: []string{"client", "session", "exchanges tried", "failed calls", "of calls", "calls held up", "longest call (ms)", "recovery (ms)"},
	}
	for _, e := range r.Outages {
		life := "15 s"
		if e.Across {
			life = "1 s"
		}
		t.Rows = append(t.Rows, []string{
			e.Name, life, strconv.Itoa(e.Attempts), strconv.Itoa(e.Tally.Failures()),
			strconv.Itoa(e.Tally.Calls), strconv.Itoa(e.Tally.Slow), ms(e.Tally.Max), ms(e.Recovery),
		})
	}
	return t
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}
