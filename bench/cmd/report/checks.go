package main

import (
	"fmt"
	"runtime"
	"strconv"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// check is a target. A count has to be met on every machine; a time depends on
// what else runs, so a miss is reported and fails nothing.
type check struct {
	stampede.Check
	count bool
}

func (c *check) verdict() string {
	if c.Pass {
		return "PASS"
	}
	return "MISS"
}

// The targets for times.
const (
	maxTransport = 1.25 // the Transport with a live credential, against the floor
	maxCall      = 1.15 // an http.Client with everything on, against one over the floor
	maxRead      = 1.00 // reading the credential at GOMAXPROCS 8, against 1
	maxTail      = 1.10 // p99.9 across expiries, against none
)

func equal(name string, got, want int) check {
	return check{count: true, Check: stampede.Check{
		Name: name, Got: strconv.Itoa(got), Want: strconv.Itoa(want), Pass: got == want,
	}}
}

func atMost(name string, got, limit float64) check {
	return check{Check: stampede.Check{
		Name: name, Got: fmt.Sprintf("%.2f", got), Want: fmt.Sprintf("≤ %.2f", limit), Pass: got <= limit,
	}}
}

func (r *report) checks() []check {
	cpu := runtime.NumCPU()
	f := r.get
	allocs := func(group, who string) int {
		n, _ := f.cost(point{group, who, r.native()})
		return n
	}
	floor := allocs("Transport/GET", "floor")
	list := []check{
		equal("floor: allocations over the bare base", floor-allocs("Transport/GET", "bare"), 3),
	}
	for _, who := range []string{"ours-static", "ours-live", "ours-session"} {
		list = append(list, equal("Transport, "+labels[who]+": allocations over the floor", allocs("Transport/GET", who)-floor, 0))
	}
	for _, who := range []string{"ours-live", "ours-session"} {
		list = append(list, equal("Transport, "+labels[who]+": allocations of 16 MiB over 1 KiB",
			r.allocs(r.large, "Transport/POST16M", who)-r.allocs(r.small, "Transport/POST1K", who), 0))
	}
	list = append(list, equal("whole call, everything on: allocations over http.Client on the floor",
		allocs("Call/GET", "ours-all")-allocs("Call/GET", "floor"), 0))
	for _, c := range r.stampede.Checks() {
		list = append(list, check{Check: c, count: true})
	}
	if r.quick {
		return list // its times mean nothing
	}
	for _, who := range []string{"ours-live", "ours-session"} {
		list = append(list, atMost(fmt.Sprintf("Transport, %s: time over the floor's, serial, GOMAXPROCS %d", labels[who], r.native()),
			f.toFloor(point{"Transport/GET", who, r.native()}), maxTransport))
		for _, p := range r.procs {
			list = append(list, atMost(fmt.Sprintf("Transport, %s: time over the floor's, parallel, GOMAXPROCS %d", labels[who], p),
				f.toFloor(point{"TransportParallel/GET", who, p}), maxTransport))
		}
	}
	list = append(list, atMost(fmt.Sprintf("whole call, everything on: time over http.Client on the floor, serial, GOMAXPROCS %d", r.native()),
		f.toFloor(point{"Call/GET", "ours-all", r.native()}), maxCall))
	for _, p := range r.procs {
		list = append(list, atMost(fmt.Sprintf("whole call, everything on: time over http.Client on the floor, parallel, GOMAXPROCS %d", p),
			f.toFloor(point{"CallParallel/GET", "ours-all", p}), maxCall))
	}
	if len(r.procs) > 1 && cpu > 1 {
		list = append(list, atMost("reading the live credential: time at GOMAXPROCS 8 over 1",
			r.read.ratio(point{"Credential", "ours", 8}, point{"Credential", "ours", 1}), maxRead))
	}
	return append(list, atMost("p99.9 across expiries over without", stampede.Median(r.stampede.Ratios), maxTail))
}

func (r *report) allocs(f *figures, group, who string) int {
	n, _ := f.cost(point{group, who, r.native()})
	return n
}
