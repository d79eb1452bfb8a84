package rotation_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// modelEnding is what becomes of the first process after the faults, if it is
// still alive.
type modelEnding string

const (
	itStays modelEnding = "the process is fixed and tries again"
	itDies  modelEnding = "the process dies"
)

// outcome is what came of a scenario.
type outcome struct {
	first  int       // operations until the end of the first rotation
	ops    []modelOp // and all until a process finished undisturbed
	lost   bool      // the key could not be saved, and an operator helped
	faults []string
}

// runModel makes one rotation go wrong as planned, and holds the end against
// the rules: whatever happened, a process that starts afterwards finds its way.
func runModel(t *testing.T, tc rotation.ModelCase, plan modelPlan, ending modelEnding) (out outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newModelWorld(t, tc)
		first := w.start(w.seed)
		if err := first.call(); err != nil {
			w.complain("the first call: %v", err)
		}
		w.arm(plan)
		err := first.rotate()
		out.first = w.count()
		w.pause(20 * time.Second) // other processes, and background work
		if ending == itDies {
			first.kill()
		}
		first.fix()
		_ = first.rotateUntilDone(err) // or its heir will
		w.seconds.Wait()

		// Another process comes when every lease has run out. A second fault may
		// befall it.
		w.pause(3 * time.Minute)
		heir := w.start(w.seed)
		before := w.struck()
		if err := heir.call(); err != nil && w.struck() == before && !w.hopeless() {
			w.complain("the first call of a fresh process: %v", err)
		}
		err = heir.rotate()
		heir.fix()
		out.ops = w.disarm()
		if heir.dead() {
			w.pause(3 * time.Minute)
			heir = w.start(w.seed)
		}
		err = heir.rotateUntilDone(err)
		w.seconds.Wait()
		out.lost = w.settle(heir, err)
		w.end()
		out.faults = w.faults
	})
	return out
}

// rotateUntilDone tries again after a failure, a few times.
func (p *modelProcess) rotateUntilDone(err error) error {
	for n := 0; err != nil && !p.dead() && n < 8; n++ {
		p.w.pause(time.Minute)
		err = p.rotate()
	}
	return err
}

// settle checks the end. It reports whether an operator had to help.
func (w *modelWorld) settle(heir *modelProcess, err error) (lost bool) {
	switch {
	case err == nil:
		w.rightEnd(0)
	case !w.hopeless():
		w.complain("a fresh process cannot rotate: %v", err)
	default:
		w.operate(heir, err)
		w.rightEnd(1)
		lost = true
	}
	for n, p := range w.processes {
		if p.dead() {
			continue
		}
		p.fix()
		if err := p.call(); err != nil {
			w.complain("a call of process %d at the end: %v", n, err)
		}
	}
	return lost
}

// hopeless reports whether the platform has a live key that no process has: its
// response was lost in a case where the rules know no way back to it.
func (w *modelWorld) hopeless() bool {
	if !w.tc.LosesKeys() {
		return false
	}
	rec, _, err := sdktest.LoadRecord(w.t.Context(), w.store)
	return err == nil && rec.Pending.IsZero() && !w.srv.KeyAlive(rec.Current.Credential.Reveal())
}

// operate checks that the error says what to do, and does it.
func (w *modelWorld) operate(p *modelProcess, err error) {
	e, ok := errors.AsType[*agrenting.RotationError](err)
	if !ok || !strings.Contains(e.Advice, "dashboard") || !strings.Contains(e.State, "dead") {
		w.complain("the error of a lost key does not say what to do: %v", err)
	}
	p.kill()
	byHand := w.srv.NewKey(w.agent).Secret
	w.hears.Hide(agrenting.APIKey(byHand))
	adopter := w.start(byHand)
	if err := adopter.call(); err != nil {
		w.complain("a call with the operator's key: %v", err)
	}
	rec, _, err := sdktest.LoadRecord(adopter.life, w.store)
	if err != nil || rec.Current.Credential.Reveal() != byHand {
		w.complain("the operator's key was not adopted")
	}
	if err := adopter.rotate(); err != nil {
		w.complain("rotating the operator's key: %v", err)
	}
}

// rightEnd asserts what every rotation must end with. orphans is how many live
// keys may exist that no process can know.
func (w *modelWorld) rightEnd(orphans int) {
	rec, _, err := sdktest.LoadRecord(w.t.Context(), w.store)
	switch {
	case err != nil:
		w.complain("the store: %v", err)
		return
	case rec.Intent != nil, !rec.Pending.IsZero(), !rec.Previous.IsZero():
		w.complain("the record is not settled: intent %v", rec.Intent)
	case !w.srv.KeyAlive(rec.Current.Credential.Reveal()):
		w.complain("the store's key is dead")
	}
	if n := len(w.srv.LiveKeys(w.agent)); n != 1+orphans {
		w.complain("%d live keys, want %d", n, 1+orphans)
	}
	issued, revoked := map[string]int{}, map[string]int{}
	for _, r := range w.srv.Requests() {
		if r.Replayed || r.Status >= 300 {
			continue
		}
		switch {
		case r.Method == http.MethodDelete:
			revoked[r.Path]++
		case r.Method == http.MethodPost && !strings.HasSuffix(r.Path, "/authenticate"):
			issued[r.Header.Get("X-Idempotency-Key")]++
		}
	}
	for key, n := range issued {
		if n > 1 || key == "" {
			w.complain("an intent was carried out %d times", n)
		}
	}
	for path, n := range revoked {
		if n > 1 {
			w.complain("%s was revoked %d times", path, n)
		}
	}
}

// modelRun runs scenarios on all processors and counts them.
type modelRun struct {
	t        *testing.T
	slots    chan struct{}
	wg       sync.WaitGroup
	n, lost  atomic.Int64
	mu       sync.Mutex
	failures int
}

func newModelRun(t *testing.T) *modelRun {
	t.Helper()
	return &modelRun{t: t, slots: make(chan struct{}, 4)}
}

func (r *modelRun) scenario(tc rotation.ModelCase, plan modelPlan, ending modelEnding, name string, then func(outcome)) {
	r.slots <- struct{}{}
	r.wg.Go(func() {
		defer func() { <-r.slots }()
		out := runModel(r.t, tc, plan, ending)
		r.n.Add(1)
		if out.lost {
			r.lost.Add(1)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(out.faults) > 0 {
			r.failures++
			if r.failures <= 40 {
				r.t.Errorf("%s; %s; %s:\n  %s", tc, name, ending, strings.Join(out.faults, "\n  "))
			}
		}
		if then != nil {
			then(out)
		}
	})
}

func (r *modelRun) wait() {
	r.wg.Wait()
	r.t.Logf("%d scenarios, in %d of them the key was lost by the rules; %d failed", r.n.Load(), r.lost.Load(), r.failures)
}

func (o modelOp) String() string { return o.name }

// TestARotationSurvivesAnyOneFault has each operation of each sort of rotation
// go wrong in each way.
func TestARotationSurvivesAnyOneFault(t *testing.T) {
	t.Parallel()
	run := newModelRun(t)
	for _, tc := range rotation.ModelCases() {
		clean := runModel(t, tc, nil, itStays)
		require.Empty(t, clean.faults, "%s, without a fault", tc)
		for n, op := range clean.ops[:clean.first] {
			for i, f := range op.faults() {
				endings := []modelEnding{itStays, itDies}
				if sample.Fewer { // TestAnyOneFault tries all, and the same code runs
					if (n+i)%16 != 0 {
						continue
					}
					endings = endings[(n+i)/16%2:][:1]
				}
				for _, ending := range endings {
					name := fmt.Sprintf("operation %d, %s: %s", n, op, f)
					run.scenario(tc, modelPlan{n: f}, ending, name, nil)
				}
			}
		}
	}
	run.wait()
	if !sample.Fewer {
		assert.Positive(t, run.lost.Load(), "some keys cannot be saved")
	}
}

// secondFaults are those of a pair's second half where not all are tried.
var secondFaults = []modelFault{crashAfter, failsAfter, broken, denied, pageAfter, emptyAfter, overtaken, mute, refuses}

// TestARotationSurvivesAnyTwoFaults has a second thing go wrong at every later
// operation: of the same process, or of the one that takes over.
func TestARotationSurvivesAnyTwoFaults(t *testing.T) {
	t.Parallel()
	run := newModelRun(t)
	stride, firsts := 45, 2
	switch {
	case *rotation.Every:
		stride = 1
	case sample.Fewer:
		stride, firsts = 75, 50
	}
	first, pair := 0, 0
	for _, tc := range rotation.ModelCases() {
		clean := runModel(t, tc, nil, itStays)
		for n, op := range clean.ops[:clean.first] {
			for _, f := range op.faults() {
				first++
				if f == forbidden { // it is believed, so what a second fault hides is left to the next rotation
					continue
				}
				if first%firsts != 0 { // as above; without the detector all of them
					continue
				}
				once := runModel(t, tc, modelPlan{n: f}, itStays)
				for m := n + 1; m < len(once.ops); m++ {
					if once.ops[m].kind == "load" { // no more than a pause, or a crash
						continue
					}
					for _, g := range once.ops[m].faults() {
						if g == forbidden || !*rotation.Every && !slices.Contains(secondFaults, g) {
							continue
						}
						// Without the flag, one of many pairs, evenly spread.
						pair++
						if pair%stride != 0 {
							continue
						}
						ending := []modelEnding{itStays, itDies}[pair/stride%2]
						name := fmt.Sprintf("operation %d, %s: %s; operation %d, %s: %s", n, op, f, m, once.ops[m], g)
						run.scenario(tc, modelPlan{n: f, m: g}, ending, name, nil)
					}
				}
			}
		}
	}
	run.wait()
}
