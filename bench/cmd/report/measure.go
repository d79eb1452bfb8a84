package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// point is one benchmark at one GOMAXPROCS.
type point struct {
	group string // such as Transport/GET
	who   string // such as floor
	procs int
}

// reading is the result of one run of a benchmark.
type reading struct {
	ns            float64
	bytes, allocs int
}

// round is one run of all benchmarks. Its results were measured within seconds
// of each other, so they can be compared.
type round map[point]reading

// figures has all rounds of one set of benchmarks.
type figures struct {
	rounds []round
	shares []float64 // CPU time over wall time of each round's process
	all    int       // number of rounds before calm
	cpu    string
}

// calm removes the rounds in which other work used the CPUs: those whose process
// got less than nine tenths of the CPU share of the best round. The measured
// times do not affect the choice. With fewer than three remaining rounds, calm
// removes none.
func (f *figures) calm() {
	f.all = len(f.rounds)
	var kept []round
	for i, r := range f.rounds {
		if f.shares[i] >= 0.9*slices.Max(f.shares) {
			kept = append(kept, r)
		}
	}
	if len(kept) >= 3 {
		f.rounds = kept
	}
}

// ns returns the median time of a point.
func (f *figures) ns(p point) float64 {
	var v []float64
	for _, r := range f.rounds {
		if x, ok := r[p]; ok {
			v = append(v, x.ns)
		}
	}
	return stampede.Median(v)
}

// spread returns the minimum and the maximum time of a point.
func (f *figures) spread(p point) (low, high float64) {
	low = math.Inf(1)
	for _, r := range f.rounds {
		if x, ok := r[p]; ok {
			low, high = min(low, x.ns), max(high, x.ns)
		}
	}
	return low, high
}

// ratio returns the median over the rounds of the ratio of two points.
func (f *figures) ratio(a, b point) float64 {
	var v []float64
	for _, r := range f.rounds {
		x, ok := r[a]
		y, also := r[b]
		if ok && also && y.ns > 0 {
			v = append(v, x.ns/y.ns)
		}
	}
	return stampede.Median(v)
}

// toFloor returns the ratio to the floor of the same group and GOMAXPROCS.
func (f *figures) toFloor(p point) float64 {
	return f.ratio(p, point{p.group, "floor", p.procs})
}

// toChecked returns the ratio to the floor that checks the caller's headers.
func (f *figures) toChecked(p point) float64 {
	return f.ratio(p, point{p.group, "floor-checked", p.procs})
}

// cost returns the allocations of a point. It is the minimum of all rounds,
// because a round in which the garbage collector emptied a pool also counts
// filling it again.
func (f *figures) cost(p point) (allocs, bytes int) {
	allocs, bytes = math.MaxInt, math.MaxInt
	for _, r := range f.rounds {
		if x, ok := r[p]; ok {
			allocs, bytes = min(allocs, x.allocs), min(bytes, x.bytes)
		}
	}
	return allocs, bytes
}

func (f *figures) has(p point) bool {
	return slices.ContainsFunc(f.rounds, func(r round) bool {
		_, ok := r[p]
		return ok
	})
}

// runner builds the benchmarks once and runs them many times.
type runner struct {
	binary string

	time     time.Duration
	progress io.Writer
}

// newRunner builds the benchmarks of the module in dir into tmp.
func newRunner(ctx context.Context, dir, tmp string) (*runner, error) {
	r := &runner{binary: filepath.Join(tmp, "bench.test")}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", r.binary, ".") // #nosec G204 -- the path is made here
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmarks: %w\n%s", err, out)
	}
	return r, nil
}

// set is a group of benchmarks that run together.
type set struct {
	pattern string
	procs   []int
	heap    int // MiB of live heap
}

// run runs one round of a set.
func (r *runner) run(ctx context.Context, s set) (found round, cpu string, share float64, err error) {
	procs := make([]string, len(s.procs))
	for i, p := range s.procs {
		procs[i] = strconv.Itoa(p)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, r.binary, // #nosec G204 -- built by newRunner
		"-test.run=^$", "-test.bench="+s.pattern, "-test.benchtime="+r.time.String(),
		"-test.cpu="+strings.Join(procs, ","), "-heap="+strconv.Itoa(s.heap))
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, "", 0, fmt.Errorf("benchmarks %s: %w\n%s%s", s.pattern, err, out.String(), errs.String())
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	share = used.Seconds() / time.Since(begin).Seconds()
	found, cpu, err = parse(out.String())
	return found, cpu, share, err
}

// measure runs the sets in turn for a number of rounds.
func (r *runner) measure(ctx context.Context, rounds int, sets []set) ([]*figures, error) {
	all := make([]*figures, len(sets))
	for i := range sets {
		all[i] = new(figures)
	}
	for n := range rounds {
		fmt.Fprintf(r.progress, "benchmarks: round %d of %d\n", n+1, rounds)
		for i, s := range sets {
			found, cpu, share, err := r.run(ctx, s)
			if err != nil {
				return nil, err
			}
			all[i].rounds, all[i].cpu = append(all[i].rounds, found), cpu
			all[i].shares = append(all[i].shares, share)
		}
	}
	for _, f := range all {
		f.calm()
	}
	return all, nil
}

var line = regexp.MustCompile(`^Benchmark(\S+?)(?:-(\d+))?\s+\d+\s+([\d.]+) ns/op\s.*?(\d+) B/op\s+(\d+) allocs/op`)

func parse(out string) (round, string, error) {
	found, cpu := make(round), ""
	for l := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(l, "cpu: "); ok {
			cpu = strings.TrimSpace(name)
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		i := strings.LastIndexByte(m[1], '/')
		if i < 0 {
			continue
		}
		p := point{group: m[1][:i], who: m[1][i+1:], procs: 1}
		var r reading
		var errs [4]error
		if m[2] != "" {
			p.procs, errs[0] = strconv.Atoi(m[2])
		}
		r.ns, errs[1] = strconv.ParseFloat(m[3], 64)
		r.bytes, errs[2] = strconv.Atoi(m[4])
		r.allocs, errs[3] = strconv.Atoi(m[5])
		if err := cmp.Or(errs[:]...); err != nil {
			return nil, "", err
		}
		found[p] = r
	}
	if len(found) == 0 {
		return nil, "", errors.New("no benchmark has run")
	}
	return found, cpu, nil
}
