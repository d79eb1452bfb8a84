package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// check is a target. A count must be met on every machine. A time also depends on other
// work of the machine, so a missed time is reported but is not a failure.
type check struct {
	stampede.Check
	count bool
}

// The targets for times.
const (
	maxTransport = 1.10 // Transport, relative to the floor that checks the caller's headers
	maxCall      = 1.15 // http.Client with everything on, relative to one over the floor
	maxRead      = 1.00 // reading the credential at GOMAXPROCS 8, relative to GOMAXPROCS 1
	maxTail      = 1.10 // p99.9 across expiries, relative to the same run without expiries
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

// asTransport are this SDK's Transports with a credential.
var asTransport = []string{"ours-static", "ours-live", "ours-session"}

func (r *report) checks() []check {
	list := r.counts()
	if r.quick {
		return list // its times are not meaningful
	}
	return append(list, r.times()...)
}

func (r *report) counts() []check {
	allocs := func(group, who string) int { return r.allocs(r.get, group, who) }
	floor := allocs("Transport/GET", "floor")
	list := []check{
		equal("floor: allocations over the bare base", floor-allocs("Transport/GET", "bare"), 3),
		equal("floor with the caller's headers checked: allocations over the floor", allocs("Transport/GET", "floor-checked")-floor, 0),
	}
	for _, who := range asTransport {
		list = append(list, equal("Transport, "+labels[who]+": allocations over the floor", allocs("Transport/GET", who)-floor, 0))
	}
	for _, who := range asTransport[1:] {
		list = append(list, equal("Transport, "+labels[who]+": allocations of 16 MiB over 1 KiB",
			r.allocs(r.large, "Transport/POST16M", who)-r.allocs(r.small, "Transport/POST1K", who), 0))
	}
	list = append(list, equal("whole call, everything on: allocations over http.Client on the floor",
		allocs("Call/GET", "ours-all")-allocs("Call/GET", "floor"), 0))
	for _, c := range r.stampede.Checks() {
		list = append(list, check{Check: c, count: true})
	}
	return list
}

func (r *report) times() []check {
	var list []check
	compare := func(what, group, who string, ratio func(point) float64, limit float64) {
		serial, parallel, _ := strings.Cut(group, "/")
		list = append(list, atMost(fmt.Sprintf("%s, serial, GOMAXPROCS %d", what, r.native()), ratio(point{group, who, r.native()}), limit))
		for _, p := range r.procs {
			list = append(list, atMost(fmt.Sprintf("%s, parallel, GOMAXPROCS %d", what, p),
				ratio(point{serial + "Parallel/" + parallel, who, p}), limit))
		}
	}
	for _, who := range asTransport {
		compare("Transport, "+labels[who]+": time over the floor with the caller's headers checked",
			"Transport/GET", who, r.get.toChecked, maxTransport)
	}
	compare("whole call, everything on: time over http.Client on the floor", "Call/GET", "ours-all", r.get.toFloor, maxCall)
	if len(r.procs) > 1 && runtime.NumCPU() > 1 {
		list = append(list, atMost("reading the live credential: time at GOMAXPROCS 8 over 1",
			r.read.ratio(point{"Credential", "ours", 8}, point{"Credential", "ours", 1}), maxRead))
	}
	list = append(list, atMost("p99.9 across expiries over the same run without expiries", stampede.Median(r.stampede.Ratios), maxTail))
	for _, c := range r.stampede.Times() {
		list = append(list, check{Check: c})
	}
	return list
}

func (r *report) allocs(f *figures, group, who string) int {
	n, _ := f.cost(point{group, who, r.native()})
	return n
}
