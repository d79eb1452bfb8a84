// Command report runs all benchmarks and the stampede, prints the results, and writes
// docs/benchmarks.md with its charts.
//
//	go run ./cmd/report          # everything, about ten minutes
//	go run ./cmd/report -quick   # a smoke test of about a minute; writes nothing
//	go run ./cmd/report -check   # fails if a count misses its target
//
// The clients run in turn, in rounds. Times are compared only within one round, and the
// report has the medians of the ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

type flags struct {
	quick, check, noDocs bool
	rounds               int
	benchtime            time.Duration
	limit                time.Duration
	wait                 time.Duration
}

func main() {
	var f flags
	flag.BoolVar(&f.quick, "quick", false, "make a short run that writes nothing and checks the counts")
	flag.BoolVar(&f.check, "check", false, "fail if a count misses its target; times are only reported")
	flag.BoolVar(&f.noDocs, "n", false, "print only; do not write docs/benchmarks.md")
	flag.IntVar(&f.rounds, "rounds", 10, "`number` of rounds of benchmarks")
	flag.DurationVar(&f.benchtime, "benchtime", 50*time.Millisecond, "time for each benchmark in a round")
	flag.DurationVar(&f.wait, "wait", 2*time.Minute, "wait at most this `duration` for other work on the machine to end")
	flag.DurationVar(&f.limit, "limit", 30*time.Minute, "stop after this `duration`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.limit)
	defer cancel()
	if err := run(ctx, f); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

// report has all results.
type report struct {
	procs []int
	// get, small, and large are requests without a body, with a body of 1 KiB, and with a
	// body of 16 MiB; bare is get with the heap of a test; read is the cached credential.
	get, small, large, bare, read *figures
	stampede                      *stampede.Result
	rounds                        int
	quick                         bool
	began                         time.Time
	load                          [2]string // load averages of the machine, before and after
}

// native returns the GOMAXPROCS of tables without a column for it: that of the machine
// if it was measured, and otherwise the middle one of those that were measured.
func (r *report) native() int {
	n := runtime.NumCPU()
	if slices.Contains(r.procs, n) {
		return n
	}
	return r.procs[len(r.procs)/2]
}

// liveHeap is the memory in MiB that benchmarks keep alive, so that the garbage
// collector runs as often as in a typical program, and not every few thousand requests.
const liveHeap = 64

func run(ctx context.Context, f flags) error {
	dir, err := moduleDir(ctx)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // a folder for temporary files
	r := &report{procs: []int{1, 2, 8}, rounds: f.rounds, quick: f.quick, began: time.Now()}
	so := stampede.Options{Workers: 256, Segment: 3 * time.Second, Rounds: 5, Progress: os.Stderr}
	if f.quick {
		r.procs, r.rounds, f.benchtime = []int{2}, 2, 5*time.Millisecond
		so = stampede.Options{
			Workers: 64, Segment: 1200 * time.Millisecond, Rounds: 1, OnlyOurs: true, NoOutage: true, Progress: os.Stderr,
		}
	}
	if !f.quick {
		settle(ctx, f.wait)
	}
	r.load[0] = loadAverage()
	b, err := newRunner(ctx, dir, tmp)
	if err != nil {
		return err
	}
	b.time, b.progress = f.benchtime, os.Stderr
	native := []int{r.native()}
	all, err := b.measure(ctx, r.rounds, []set{
		{pattern: `^Benchmark(Transport|TransportParallel|Call|CallParallel)$/^GET$`, procs: r.procs, heap: liveHeap},
		{pattern: `^Benchmark(Transport|TransportParallel|Call)$/^POST1K$`, procs: native, heap: liveHeap},
		{pattern: `^Benchmark(Transport|Call)$/^POST16M$`, procs: native, heap: liveHeap},
		{pattern: `^Benchmark(Transport|Call)(Parallel)?$/^GET$/^(bare|floor.*|ours.*)$`, procs: r.procs},
		{pattern: `^BenchmarkCredential$`, procs: r.procs, heap: liveHeap},
	})
	if err != nil {
		return err
	}
	r.get, r.small, r.large, r.bare, r.read = all[0], all[1], all[2], all[3], all[4]
	if r.stampede, err = stampede.Run(ctx, so); err != nil {
		return err
	}
	r.load[1] = loadAverage()
	text := r.markdown()
	fmt.Print(text)
	if !f.quick && !f.noDocs {
		if err := r.write(filepath.Join(dir, "..", "docs"), text); err != nil {
			return err
		}
	}
	if f.check || f.quick {
		return r.verdict()
	}
	return nil
}

// verdict returns an error if a count misses its target.
func (r *report) verdict() error {
	var errs []error
	for _, c := range r.checks() {
		if c.count && !c.Pass {
			errs = append(errs, fmt.Errorf("%s: %s, want %s", c.Name, c.Got, c.Want))
		}
	}
	return errors.Join(errs...)
}

func (r *report) write(docs, text string) error {
	img := filepath.Join(docs, "img")
	if err := os.MkdirAll(img, 0o755); err != nil { // #nosec G301 -- published documents
		return err
	}
	files := map[string]string{filepath.Join(docs, "benchmarks.md"): text}
	for name, svg := range r.charts() {
		files[filepath.Join(img, name)] = svg
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil { // #nosec G306 -- published documents
			return err
		}
	}
	return nil
}

// busy reports whether the load average of the last minute is higher than the CPUs and
// this program account for.
func busy(load string) bool {
	one, err := strconv.ParseFloat(strings.Split(load, ",")[0], 64)
	return err == nil && one > float64(runtime.NumCPU())+1
}

// settle waits until the machine is no longer busy.
func settle(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for busy(loadAverage()) {
		fmt.Fprintln(os.Stderr, "waiting for other work to end, the load average is", loadAverage())
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// loadAverage returns the load average of the machine if it is available.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], ", ")
}

// moduleDir returns the folder of this module. The program may run in any folder of the
// module.
func moduleDir(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/agrenting/agrenting-go/bench")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run it from within the module bench: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
