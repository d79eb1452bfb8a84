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

// Text prints the result as tables.
func (r *Result) Text() string {
	var b strings.Builder
	for _, t := range r.Tables() {
		fmt.Fprintf(&b, "%s\n\n", t.Title)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{t.Head}, t.Rows...) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		_ = w.Flush() // into memory
		fmt.Fprintf(&b, "\n%s\n\n", t.Note)
	}
	fmt.Fprintf(&b, "%d callers, %v\n", r.Workers, r.Took.Round(time.Second))
	return b.String()
}

// Table is one experiment for readers.
type Table struct {
	Title string
	Note  string
	Head  []string
	Rows  [][]string
}

// Tables for readers, one for each experiment.
func (r *Result) Tables() []Table {
	exp := Table{
		Title: "Sessions of 1 s, exchanges of 100 ms",
		Note: fmt.Sprintf("%d callers, each pausing 20 to 60 ms between calls, against a server on loopback. Held up are calls of more than 80 ms. "+
			"\"No expiry\" is the same client with sessions of a day, run in turn with the other: its p99.9 is what the machine costs. "+
			"Across expiries ours is %.2f of that (median of %d rounds, %.2f to %.2f).",
			r.Workers, Median(r.Ratios), len(r.Ratios), slices.Min(r.Ratios), slices.Max(r.Ratios)),
		Head: []string{"client", "exchanges", "per expiry", "401 surfaced", "401 on the wire", "calls held up", "p50", "p99", "p99.9", "max (ms)"},
	}
	for _, e := range r.Expiries {
		per := fmt.Sprintf("%.2f", e.PerExpiry)
		if e.Exchanges == 0 {
			per = "–"
		}
		exp.Rows = append(exp.Rows, []string{
			e.Name, strconv.Itoa(e.Exchanges), per, strconv.Itoa(e.Tally.Unauthorized + e.Tally.Failed), strconv.Itoa(e.Refused),
			fmt.Sprintf("%d of %d", e.Tally.Slow, e.Tally.Calls), ms(e.Tally.P50), ms(e.Tally.P99), ms(e.Tally.P999), ms(e.Tally.Max),
		})
	}
	rev := Table{
		Title: "The server ends a session of 1 h early",
		Note: "Calls that ended after it. A resource of 500 ms looks at the session when it answers, so all calls under way are refused: " +
			"one 401 for each caller is the least that can be on the wire there.",
		Head: []string{"client", "resource", "exchanges", "401 surfaced", "other failures", "of calls", "401 on the wire"},
	}
	for _, e := range r.Revocations {
		speed := "fast"
		if e.Slow {
			speed = "500 ms"
		}
		rev.Rows = append(rev.Rows, []string{
			e.Name, speed, strconv.Itoa(e.Exchanges), strconv.Itoa(e.Tally.Unauthorized), strconv.Itoa(e.Tally.Failed + e.Tally.Late),
			strconv.Itoa(e.Tally.Calls), strconv.Itoa(e.Refused),
		})
	}
	dl := Table{
		Title: "Calls with a deadline of 50 ms, exchanges of 100 ms, sessions of 1 s",
		Note: "Who renews on the context of a caller gives up with it, and the next one begins anew. " +
			"\"Never ahead\" is ours with renewal ahead switched off: calls fail while an exchange runs, as they must, but at their deadline, and the exchange goes on.",
		Head: []string{"client", "exchanges", "past the deadline", "other failures", "of calls", "served in the second half", "longest call (ms)"},
	}
	for _, e := range r.Deadlines {
		dl.Rows = append(dl.Rows, []string{
			e.Name, strconv.Itoa(e.Exchanges), strconv.Itoa(e.Tally.Late), strconv.Itoa(e.Tally.Failed + e.Tally.Unauthorized),
			strconv.Itoa(e.Tally.Calls), fmt.Sprintf("%.1f %%", math.Floor(e.Served*1000)/10), ms(e.Tally.Max),
		})
	}
	out := Table{
		Title: "The token endpoint answers 503 for 2 s",
		Note: "An eighth of the callers, all clients at the same time. The session that has time to spare ends 1.4 s after the outage: " +
			"who renews at the expiry only is held up there, as after every session; cloud auth's background renewal tries once in a session. " +
			"Where the session ends within the outage, no call can succeed for more than a second, whatever the client: ours lets those wait that find an exchange under way, " +
			"for as long as that takes, and fails the others at once, with an error that says when the next attempt is made, " +
			"where others make theirs queue; so more calls fail, and none is held up for longer than one exchange.",
		Head: []string{"client", "session", "exchanges tried", "failed calls", "of calls", "calls held up", "longest call (ms)", "trouble after the outage (ms)"},
	}
	for _, e := range r.Outages {
		where := "has time to spare"
		if e.Across {
			where = "ends within it"
		}
		out.Rows = append(out.Rows, []string{
			e.Name, where, strconv.Itoa(e.Attempts), strconv.Itoa(e.Tally.Unauthorized + e.Tally.Failed + e.Tally.Late),
			strconv.Itoa(e.Tally.Calls), strconv.Itoa(e.Tally.Slow), ms(e.Tally.Max), ms(e.Recovery),
		})
	}
	tables := []Table{exp, rev, dl, out}
	if len(r.Outages) == 0 {
		tables = tables[:3]
	}
	return tables
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}
