package stampede

import (
	"fmt"
	"strconv"
)

// Check is a count that has to hold on every machine.
type Check struct {
	Name, Got, Want string
	Pass            bool
}

func exactly(name string, got, want int) Check {
	return Check{Name: name, Got: strconv.Itoa(got), Want: strconv.Itoa(want), Pass: got == want}
}

// Checks are the counts of our client.
func (r *Result) Checks() []Check {
	w := r.With
	checks := []Check{
		{
			Name: "exchanges per expiry", Got: fmt.Sprintf("%.2f", w.PerExpiry), Want: "1",
			Pass: w.Exchanges > 0 && w.PerExpiry == 1,
		},
		exactly("failed calls across expiries", w.Tally.Unauthorized+w.Tally.Failed+w.Tally.Late, 0),
	}
	for _, e := range r.Revocations {
		if !e.Ours {
			continue
		}
		name := "after a revocation"
		if e.Slow {
			name += ", slow resource"
		}
		checks = append(checks,
			exactly("exchanges "+name, e.Exchanges, 1),
			exactly("failed calls "+name, e.Tally.Unauthorized+e.Tally.Failed+e.Tally.Late, 0))
	}
	for _, e := range r.Outages {
		if e.Ours && !e.Across {
			checks = append(checks, exactly("failed calls in an outage with time to spare", e.Tally.Unauthorized+e.Tally.Failed+e.Tally.Late, 0))
		}
	}
	return checks
}
