package rotation

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// ending is what becomes of the first process after the faults, if it is alive.
type ending uint8

const (
	itStays     ending = iota // it is repaired and tries again
	itDies                    // another process comes
	itStaysLong               // it is repaired when it has tried again several times
)

var endingNames = [...]string{
	itStays: "then the process is repaired", itDies: "then the process dies", itStaysLong: "then the process is repaired late",
}

func (e ending) String() string { return endingNames[e] }

// scenario is one rotation with its faults. Its text is its name.
type scenario struct {
	tc     ModelCase
	plan   plan
	ending ending
	chatty bool
	quick  bool
}

func (s scenario) String() string {
	text := s.tc.String() + "; "
	if s.plan.n > 0 {
		text += s.plan.String() + "; "
	}
	if s.quick {
		text += "quick; "
	}
	return text + s.ending.String()
}

// outcome is what came of a scenario.
type outcome struct {
	first    int     // operations until the end of the first rotation
	ops      []trace // and all until another process has tried to rotate
	repaired int     // operations until the first process was repaired
	rested   int     // operations until the heir came, if nothing was left to do by then
	alive    bool    // the first process survived the faults, and its rotation failed
	lasting  bool    // and would fail again
	lost     bool    // the key was lost as the rules allow, and an operator helped
	problems []string
}

// run makes one rotation go wrong as planned, and checks the end: whatever
// happened, a process that starts afterwards sorts it out.
func (s scenario) run(t *testing.T) (out outcome) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := newModelWorld(s.tc, s.quick)
		w.chatty, w.dies, w.long = s.chatty, s.ending == itDies, s.ending == itStaysLong
		first := w.start(w.initial)
		if err := first.call(); err != nil {
			w.complain("the first call: %v", err)
		}
		w.arm(s.plan)
		err := first.rotate()
		out.first, out.alive = w.count(), err != nil && !first.dead()
		cut, muted, refusing := first.lasting()
		out.lasting = out.alive && (cut || muted || refusing)
		if err != nil && !first.dead() && s.harmless(w.recorded()) {
			w.complain("Rotate fails: %v", err)
		}
		pass(20 * time.Second) // for other processes, and what continues by itself
		switch s.ending {
		case itDies:
			first.kill()
		case itStaysLong:
			for n := 0; n <= w.policy.MaxAttempts && err != nil && !first.dead(); n++ {
				pass(time.Minute)
				err = first.rotate()
			}
		case itStays:
		}
		first.repair()
		out.repaired = w.count()
		w.mu.Lock()
		w.repaired = out.repaired
		w.mu.Unlock()
		_ = first.rotateUntilDone(err) // or another process will do it
		w.awaitOthers()

		// Another process comes when every lease has ended. The second fault may
		// strike it.
		pass(3 * time.Minute)
		out.rested = w.count()
		if !w.atRest() || err != nil {
			out.rested = math.MaxInt
		}
		heir := w.start(w.initial)
		before := w.struck()
		if err := heir.call(); err != nil && w.struck() == before && !w.lost() {
			w.complain("the first call of a fresh process: %v", err)
		}
		err = heir.rotate()
		heir.repair()
		out.ops = w.disarm()
		if heir.dead() {
			pass(3 * time.Minute)
			heir = w.start(w.initial)
			err = heir.rotate()
		}
		err = heir.rotateUntilDone(err)
		w.awaitOthers()
		out.lost = w.settle(heir, err)
		w.end()
		out.problems = w.found()
	})
	return out
}

// rotateUntilDone tries again after a failure, a few times.
func (p *process) rotateUntilDone(err error) error {
	for n := 0; err != nil && !p.dead() && n < 8; n++ {
		pass(time.Minute)
		err = p.rotate()
	}
	return err
}

// atRest reports whether no process has anything left to do.
func (w *modelWorld) atRest() bool {
	e, err := w.record()
	return err == nil && e.Body.Intent == nil && e.Lease.Holder == "" && w.platform.live() == 1 && w.platform.accepts(e.Body.Current.Credential)
}

// settle checks the end. It reports whether an operator had to help.
func (w *modelWorld) settle(heir *process, err error) (lost bool) {
	switch {
	case err == nil:
		w.checkEnd(0)
	case w.lost():
		lost = true
		w.help(heir, err)
		w.checkEnd(1)
	default:
		w.complain("a fresh process cannot rotate: %v", err)
	}
	e, _ := w.record()
	for _, p := range w.all() {
		if p.dead() {
			continue
		}
		p.repair()
		if err := p.call(); err != nil {
			w.complain("a call of process %d at the end: %v", p.n, err)
		}
		if got := p.handover.InUse().Credential; !got.Equal(e.Body.Current.Credential) {
			w.complain("process %d uses %s at the end", p.n, got.Reveal())
		}
		if p.handover.isHeld() {
			w.complain("process %d keeps requests waiting at the end", p.n)
		}
		if err := p.manager.StoreError(); err != nil {
			w.complain("the store error of process %d at the end: %v", p.n, err)
		}
	}
	return lost
}

// lost reports whether the platform has a live key that no process can know of: the
// response was lost in a case in which the rules know no way back to it, or in which
// it could not be asked for again in as many attempts as the policy allows.
func (w *modelWorld) lost() bool {
	if mayLose := w.tc.LosesKeys() || (w.long && w.tc.Strategy == InPlace); !mayLose || w.storeAlone() {
		return false
	}
	e, err := w.record()
	return err == nil && e.Body.Pending.IsZero() && !w.platform.accepts(e.Body.Current.Credential)
}

// storeAlone reports whether no more than the store has failed, not for ever, and
// every process has survived that: the key is in the memory of one.
func (w *modelWorld) storeAlone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.plan.faults[:w.plan.n] {
		if f.at >= len(w.ops) {
			continue
		}
		op := w.ops[f.at]
		switch {
		case op.op != opLoad && op.op != opSave:
			return false
		case f.f == refuse && (op.process != 0 || f.at >= w.repaired):
			return false // until the end
		case !slices.Contains([]fault{failBefore, failAfter, conflict, refuse, secondJoins}, f.f):
			return false
		}
	}
	return !w.dies
}

// help checks that the error says what to do, and does it.
func (w *modelWorld) help(p *process, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok || !strings.Contains(e.Advice, "dashboard") || !strings.Contains(e.State, "dead") {
		w.complain("the error of a lost key does not say what to do: %v", err)
	}
	p.kill()
	initial := w.platform.newKey("of the operator")
	adopter := w.start(initial)
	if err := adopter.call(); err != nil {
		w.complain("a call with the operator's key: %v", err)
	}
	if e, err := w.record(); err != nil || !e.Body.Current.Credential.Equal(initial) {
		w.complain("the operator's key was not adopted")
	}
	if err := adopter.rotate(); err != nil {
		w.complain("rotating the operator's key: %v", err)
	}
}

// checkEnd checks what every rotation must end with. orphans is how many live keys
// there may be that no process can know of.
func (w *modelWorld) checkEnd(orphans int) {
	e, err := w.record()
	rec := e.Body
	switch {
	case err != nil:
		w.complain("the store: %v", err)
		return
	case rec.Intent != nil, !rec.Pending.IsZero(), !rec.Previous.IsZero(), e.Lease.Holder != "":
		w.complain("the record is not at rest: intent %+v, lease %v", rec.Intent, e.Lease)
	case !w.platform.accepts(rec.Current.Credential):
		w.complain("the store's key is dead")
	}
	if n := w.platform.live(); n != 1+orphans {
		w.complain("%d live keys, want %d", n, 1+orphans)
	}
}

// modelRun runs scenarios on all processors, counts them, and collects what fails.
type modelRun struct {
	t       *testing.T
	n, lost atomic.Int64

	mu     sync.Mutex
	failed []string
}

// maxShown bounds how many failures are printed.
const maxShown = 20

// run runs one scenario.
func (r *modelRun) run(s scenario) outcome {
	out := s.run(r.t)
	r.n.Add(1)
	if out.lost {
		r.lost.Add(1)
	}
	if len(out.problems) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.failed) < maxShown {
			r.t.Errorf("%s:\n  %s%s", s, strings.Join(out.problems, "\n  "), listing(r.t, out.ops, s.plan))
		}
		r.failed = append(r.failed, s.String())
	}
	return out
}

// each runs f for each first fault of each case, on all processors. span returns how
// many operations of the undisturbed rotation can go wrong.
func (r *modelRun) each(quick bool, span func(outcome) int, faults func(operation) []fault, f func(scenario)) {
	r.t.Helper()
	jobs := make(chan scenario)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for s := range jobs {
				done := make(chan struct{})
				go func() { // which a test that fails ends
					defer close(done)
					f(s)
				}()
				<-done
			}
		})
	}
	for _, tc := range ModelCases() {
		clean := r.run(scenario{tc: tc, quick: quick})
		if quick && tc.Lifeline && !slices.ContainsFunc(clean.ops, func(op trace) bool { return op.op == opLifeline }) {
			continue // without a session, it makes no difference for how long one lives
		}
		for n, op := range clean.ops[:span(clean)] {
			for _, what := range faults(op.op) {
				jobs <- scenario{tc: tc, quick: quick, plan: plan{}.with(n, what)}
			}
		}
	}
	close(jobs)
	wg.Wait()
	r.t.Logf("%d scenarios, in %d of them the key was lost as the rules allow; %d failed", r.n.Load(), r.lost.Load(), len(r.failed))
	for _, name := range r.failed[min(maxShown, len(r.failed)):] {
		r.t.Log("also failed: " + name)
	}
}

// endings runs a scenario with all endings that differ, and passes on what came of
// each: if the first process survived, it may have something left to do.
func (r *modelRun) endings(s scenario, then func(scenario, outcome)) {
	stays := r.run(s)
	then(s, stays)
	if stays.alive {
		s.ending = itDies
		then(s, r.run(s))
	}
	if stays.lasting {
		s.ending = itStaysLong
		then(s, r.run(s))
	}
}

// harmless reports whether the rotation has to succeed: a single call went wrong
// once, and each is repeated, unless the key is lost with its response; or another
// process has rotated before this one began.
func (s scenario) harmless(ops []trace) bool {
	if s.plan.n != 1 || s.plan.faults[0].at >= len(ops) {
		return s.plan.n == 0
	}
	f := s.plan.faults[0]
	if !slices.ContainsFunc(ops[:f.at+1], func(op trace) bool { return op.op == opSave }) && f.f >= stopBefore && f.f <= stopAfter2 {
		return true // it had not begun, and adopts what the other process has made
	}
	if op := ops[f.at].op; op == opLoad || op == opSave {
		return f.f == secondJoins || f.f == failAfter || f.f == conflict
	}
	return (ops[f.at].op != opRotate || !s.tc.LosesKeys()) && slices.Contains([]fault{secondJoins, failBefore, failAfter, truncated, failedAfter, denied}, f.f)
}

// TestAnyOneFault has each operation of each kind of rotation go wrong in each way,
// of the first process and of one that rotates after it.
func TestAnyOneFault(t *testing.T) {
	t.Parallel()
	r := &modelRun{t: t}
	all := func(op operation) []fault {
		if op == opLoad {
			return op.faults()
		}
		return append([]fault{stopBefore2, stopAfter2}, op.faults()...)
	}
	var faults atomic.Int64
	stride := int64(1)
	if sample.Fewer {
		stride = 10 // one of several, evenly distributed; all of them without the detector
	}
	r.each(false, func(o outcome) int { return len(o.ops) }, all, func(s scenario) {
		if faults.Add(1)%stride != 0 {
			return
		}
		r.endings(s, func(scenario, outcome) {})
		s.chatty = true
		r.run(s)
	})
	if r.lost.Load() == 0 {
		t.Error("no key was lost, although some cannot be saved")
	}
}

// TestAnyTwoFaults has a second operation go wrong, too: each later one, of the
// same process or of one that takes over.
func TestAnyTwoFaults(t *testing.T) {
	t.Parallel()
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	r := &modelRun{t: t}
	var firsts, pairs atomic.Int64
	step, stride := int64(1), int64(6)
	if *Every {
		stride = 1
	}
	if sample.Fewer || testing.Short() {
		step, stride = 5, 40 // one of many pairs, evenly distributed; other steps of CI run without the detector
	}
	r.each(true, func(o outcome) int { return o.first }, func(op operation) []fault { return notBelieved(op.faults()) }, func(s scenario) {
		if firsts.Add(1)%step != 0 {
			return
		}
		r.endings(s, func(s scenario, once outcome) {
			at, from := s.plan.faults[0].at, 0
			switch s.ending {
			case itDies:
				from = once.first // by then, the ending was not different
			case itStaysLong:
				from = once.repaired // by then, attempts failed anyway
			case itStays:
			}
			// What happens after the first fault has left no trace is what happens
			// without it, see TestAnyOneFault.
			for m := max(at+1, from); m < min(len(once.ops), once.rested); m++ {
				for _, f := range notBelieved(once.ops[m].faults()) {
					if repeats(once.ops, at, m, f) || !once.slowMatters(s.tc, at, m) || pairs.Add(1)%stride != 0 {
						continue
					}
					pair := s
					if pair.plan = s.plan.with(m, f); m < once.first {
						r.endings(pair, func(scenario, outcome) {})
					} else {
						r.run(pair)
					}
				}
			}
		})
	})
}

// notBelieved returns faults without forbidden. A refusal in the platform's format, of a
// caller that is alive, is believed: what a second fault then hides is left to the next
// rotation.
func notBelieved(all []fault) []fault {
	return slices.DeleteFunc(slices.Clone(all), func(f fault) bool { return f == forbidden })
}

// slowMatters reports whether a case differs from the one in which new keys are known
// at once: one of the faults strikes a call that finds out whether a key is known.
func (o outcome) slowMatters(tc ModelCase, first, second int) bool {
	return !tc.Slow || o.ops[first].op == opVerify || o.ops[second].op == opVerify
}

// repeats reports whether a second fault comes to the same as another one, of the
// same operation or of the one before: nothing has happened in between.
func repeats(ops []trace, first, second int, f fault) bool {
	op, before := ops[second], ops[second-1]
	switch {
	case f == conflict:
		return true // the load that follows finds the same as after failAfter
	case second-1 == first, op.process != before.process:
		return false
	case f == crashBefore:
		return true // it crashes after the operation before, or before that if it changes nothing
	case f == secondJoins:
		return before.op != opSave && op.at == before.at // it finds the same record
	case op.op == opLoad && before.op == opLoad && second+1 < len(ops):
		// It waits for another process, and the first and the last load represent all.
		next := ops[second+1]
		return next.op == opLoad && next.process == op.process
	default:
		return false
	}
}

var replay = flag.String("replay", "", "the name of a scenario that TestReplay runs, as a failure prints it")

// TestReplay runs one scenario by its name and shows its operations.
func TestReplay(t *testing.T) {
	t.Parallel()
	if *replay == "" {
		t.Skip("no -replay")
	}
	s, err := scenarioNamed(*replay)
	if err != nil {
		t.Fatal(err)
	}
	out := s.run(t)
	t.Logf("%s: %+v%s", s, out.problems, listing(t, out.ops, s.plan))
	if len(out.problems) > 0 {
		t.Fail()
	}
}

// scenarioNamed is the inverse of scenario.String.
func scenarioNamed(name string) (s scenario, err error) {
	parts := strings.Split(strings.TrimSuffix(name, ":"), "; ")
	found := false
	for _, tc := range ModelCases() {
		if tc.String() == parts[0] {
			s.tc, found = tc, true
		}
	}
	if s.quick = slices.Contains(parts, "quick"); s.quick {
		parts = slices.DeleteFunc(parts, func(part string) bool { return part == "quick" })
	}
	if !found || len(parts) < 2 || len(parts) > 4 {
		return s, fmt.Errorf("not the name of a scenario: %q", name)
	}
	for _, part := range parts[1 : len(parts)-1] {
		at, what := 0, noFault
		if _, err := fmt.Sscan(part, &at); err != nil {
			return s, fmt.Errorf("not a fault: %q", part)
		}
		for f, text := range &faultNames {
			if part == fmt.Sprintf("%d %s", at, text) {
				what = fault(f)
			}
		}
		if what == noFault {
			return s, fmt.Errorf("not a fault: %q", part)
		}
		s.plan = s.plan.with(at, what)
	}
	s.ending = ending(slices.Index(endingNames[:], parts[len(parts)-1]))
	return s, nil
}

func TestScenarioNames(t *testing.T) {
	t.Parallel()
	for _, s := range []scenario{
		{tc: ModelCase{Strategy: Overlap}},
		{tc: ModelCase{Strategy: InPlace, Owner: true, Slow: true}, plan: plan{}.with(3, crashAfter), ending: itDies},
		{tc: ModelCase{Strategy: InPlace, Lifeline: true}, plan: plan{}.with(0, secondJoins).with(17, failed5xx), quick: true},
	} {
		got, err := scenarioNamed(s.String())
		if err != nil || got != s {
			t.Errorf("%v (%v), want %v", got, err, s)
		}
	}
}
