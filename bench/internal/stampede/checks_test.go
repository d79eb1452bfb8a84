package stampede

import (
	"slices"
	"testing"
	"time"
)

// verdicts returns the verdicts of the checks with these names.
func verdicts(checks []Check, names ...string) []string {
	var out []string
	for _, c := range checks {
		if slices.Contains(names, c.Name) {
			out = append(out, c.Verdict()+" "+c.Name)
		}
	}
	return out
}

func TestReportFailsIfOnlySDKCallsFail(t *testing.T) {
	t.Parallel()
	const name = "failed calls where a peer has none: an outage across expiries"
	for what, tc := range map[string]struct {
		ours  int
		peers []int
		want  []string
	}{
		"none":         {0, []int{0, 3}, []string{"PASS " + name}},
		"one":          {1, []int{3, 0}, []string{"MISS " + name}},
		"all fail":     {1, []int{3, 1}, nil},
		"no peer runs": {1, nil, nil},
	} {
		r := Result{Outages: []Outage{{Name: ours.Name, Ours: true, Across: true, Tally: Tally{Failed: tc.ours}}}}
		for _, n := range tc.peers {
			r.Outages = append(r.Outages, Outage{Across: true, Tally: Tally{Late: n}})
		}
		if got := verdicts(r.Checks(), name); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", what, got, tc.want)
		}
	}
}

func TestOnlyRenewingPeersAreCompared(t *testing.T) {
	t.Parallel()
	const expiry, deadline = "failed calls where a peer has none: expiry", "failed calls where a peer has none: calls with a deadline"
	floor := "floor, no expiry"
	r := Result{
		Expiries: []Expiry{{Name: floor}, {Name: ours.Name, Ours: true, Exchanges: 3, Tally: Tally{Unauthorized: 1}}},
		Deadlines: []Deadline{
			{Name: floor}, {Name: ours.Name, Ours: true, Exchanges: 3}, {Name: oursBehind.Name, Ours: true, Exchanges: 3, Tally: Tally{Late: 9}},
		},
	}
	if got := verdicts(append(r.Checks(), r.Times()...), expiry, deadline); got != nil {
		t.Errorf("got %q without a peer that renews", got)
	}
	r.Expiries = append(r.Expiries, Expiry{Name: "peer", Exchanges: 3})
	r.Deadlines = append(r.Deadlines, Deadline{Name: "peer", Exchanges: 3})
	want := []string{"MISS " + expiry, "PASS " + deadline}
	if got := verdicts(append(r.Checks(), r.Times()...), expiry, deadline); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOutageHasTargets(t *testing.T) {
	t.Parallel()
	r := Result{Outages: []Outage{{Ours: true, Across: true, Attempts: 6, Recovery: 3 * time.Second, Tally: Tally{Failed: 1}}, {Across: true, Attempts: 13}}}
	const where = " an outage across expiries"
	names := []string{"failed calls in" + where, "exchanges tried in" + where, "recovery in ms after" + where}
	checks := append(r.Checks(), r.Times()...)
	if got, want := verdicts(checks, names...), []string{"MISS " + names[0], "MISS " + names[1], "MISS " + names[2]}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Outages[0].Attempts, r.Outages[0].Recovery, r.Outages[0].Tally = 5, 2*time.Second, Tally{}
	checks = append(r.Checks(), r.Times()...)
	if got, want := verdicts(checks, names...), []string{"PASS " + names[0], "PASS " + names[1], "PASS " + names[2]}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
