package rotation

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// victim is which process dies after the faults.
type victim uint8

const (
	noVictim victim = iota
	theFirst
	theSecond
	allDie

	victims = iota
)

var victimNames = [...]string{
	noVictim: "then both live", theFirst: "then the first process dies", theSecond: "then the second process dies", allDie: "then both die",
}

func (v victim) String() string { return victimNames[v] }

func (v victim) has(process int) bool {
	return v == allDie || (v == theFirst && process == 0) || (v == theSecond && process == 1)
}

// ledgerScenario is two processes that share a key and rotate it one after the other,
// while the store and the platform fail as planned. Its text is its name.
type ledgerScenario struct {
	tc      ModelCase
	watched bool // the store reports changes
	plan    plan
	victim  victim
}

func (s ledgerScenario) String() string {
	parts := []string{s.tc.String()}
	if s.watched {
		parts = append(parts, "watched")
	}
	if s.plan.n > 0 {
		parts = append(parts, s.plan.String())
	}
	return strings.Join(append(parts, s.victim.String()), "; ")
}

// ledgerOutcome is what came of a scenario.
type ledgerOutcome struct {
	ops      []trace
	lost     bool // the key was lost as the rules allow
	problems []string
}

// run runs the scenario. The rules that it checks:
//
//   - A request fails only if neither the process nor the store knows a live key.
//   - When the faults have ended and time has passed, each process uses a live key, and
//     the store has that key.
//   - After one more rotation, exactly one key is live.
//
// Two exceptions apply when processes have died, or the response to their call was lost:
//
//   - If no process and no store knows a live key and there is no owner who could
//     create one, or if all processes died and the record is damaged, the key is lost.
//   - A key that no process and no store knows may stay live if nothing distinguishes it
//     from the keys of others: it was made in place, so it has the name of the key
//     before, or the record that says which marks are ours is gone with all processes.
func (s ledgerScenario) run(t *testing.T) (out ledgerOutcome) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w := newModelWorld(s.tc, false)
		w.watched = s.watched
		first, second := w.start(w.initial), w.start(w.initial)
		users := []*process{first, second}
		for _, p := range users {
			if err := p.request(); err != nil {
				w.complain("the first request of process %d: %v", p.n, err)
			}
		}
		w.arm(s.plan)
		end := w.traffic(users, time.Second)
		for _, p := range users {
			p.rotateInTime()
			pass(5 * time.Second)
		}
		out.ops = w.disarm()
		for _, p := range users {
			if s.victim.has(p.n) {
				p.kill()
			}
			p.repair()
		}
		w.store.repair()
		orphans, lost := w.unknown()
		if out.lost = lost; lost {
			end()
			pass(time.Minute) // for what dead processes had begun
			w.awaitOthers()
			w.end()
			return
		}
		pass(20 * time.Second)
		end()
		pass(2 * time.Minute) // the survivors write back what they know
		for n, p := range users {
			if p.dead() {
				users[n] = w.start(w.initial)
			}
		}
		end = w.traffic(users, 30*time.Second)
		pass(10 * time.Minute)
		end()
		w.awaitOthers()
		w.checkKnown(users)
		began := w.clock()
		err := users[0].rotateUntilDone(users[0].rotate())
		w.awaitOthers()
		switch took := w.clock() - began; {
		case err != nil:
			w.complain("a rotation after the faults: %v", err)
		case took > time.Minute:
			w.complain("a rotation after the faults takes %v", took)
		}
		w.checkEnd(min(orphans, w.platform.live()-1))
		w.checkKnown(users)
		w.end()
		out.problems = w.found()
	})
	return out
}

// rotateLimit is how long a rotation may take while the store or the platform fails.
const rotateLimit = 10 * time.Minute

// rotateInTime rotates, and complains if that does not end.
func (p *process) rotateInTime() {
	ctx, cancel := context.WithTimeout(p.life, rotateLimit)
	defer cancel()
	if _, err := p.manager.Rotate(ctx); err != nil && !p.dead() {
		p.check(err)
		if ctx.Err() != nil {
			p.w.complain("Rotate of process %d does not return", p.n)
		}
	}
}

// traffic has each process make a request each interval, until end is called.
func (w *modelWorld) traffic(users []*process, every time.Duration) (end func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, p := range users {
		wg.Go(func() {
			for !p.dead() {
				began := w.clock()
				if err := p.request(); err != nil && !p.dead() && w.knowsLiveKey(p, began) {
					w.complain("at %v, a request of process %d: %v", w.clock(), p.n, err)
				}
				select {
				case <-time.After(every):
				case <-done:
					return
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

const (
	// requestLimit is how long a request waits for a key, requestSends how often it is
	// sent.
	requestLimit = time.Minute
	requestSends = 7
)

// request makes a request as the root does: with the key in use, and after a 401 with
// what takes its place, a few times.
func (p *process) request() error {
	ctx, cancel := context.WithTimeout(p.life, requestLimit)
	defer cancel()
	var rejected secret.Credential
	for n := 1; ; n++ {
		k, _, err := p.manager.Choose(ctx, rejected)
		use := k.Credential
		if err != nil {
			p.check(err)
			use = p.handover.InUse().Credential
			if known, ok := p.manager.Remembered(rejected); ok {
				use = known.Credential
			}
		}
		if !use.IsZero() {
			p.handover.put(use)
			if p.w.platform.accepts(use) {
				return nil
			}
		}
		if n == requestSends || ctx.Err() != nil {
			return fmt.Errorf("refused with %q after %d attempts: %w", use.Reveal(), n, errors.Join(errRefused, err))
		}
		rejected = use
		pass(min(50*time.Millisecond<<(n-1), 400*time.Millisecond))
	}
}

// liveKeys returns the secrets of the live keys.
func (pf *platform) liveKeys() (all []string) {
	pf.mu.Lock()
	defer pf.mu.Unlock()
	for _, k := range pf.keys {
		if k.live() {
			all = append(all, k.secret)
		}
	}
	return all
}

// knowsLiveKey reports whether the process knows a live key, or could load one since
// its request began.
func (w *modelWorld) knowsLiveKey(p *process, began time.Duration) bool {
	p.mu.Lock()
	loads := p.outdatedUntil < began
	p.mu.Unlock()
	return slices.ContainsFunc(w.platform.liveKeys(), func(key string) bool {
		return w.knows(p, key) || (loads && w.storeHas(key))
	})
}

// knows reports whether the process was given a key, by the platform, by the store, or
// when it was started.
func (w *modelWorld) knows(p *process, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.knows[key] || p.initial.Reveal() == key ||
		slices.ContainsFunc(w.store.saved(), func(raw record.Raw) bool { return p.knows[raw.Revision] && holds(raw, key) })
}

// storeHas reports whether the record has a key.
func (w *modelWorld) storeHas(key string) bool {
	e, err := w.record()
	return err == nil && slices.ContainsFunc(e.Body.Credentials(), func(c secret.Credential) bool { return c.Reveal() == key })
}

func holds(raw record.Raw, key string) bool { return bytes.Contains(raw.Data, []byte(`"`+key+`"`)) }

// unknown returns how many live keys may stay live besides the one in use, since no
// process and no store knows them. lost reports whether there is no other one.
func (w *modelWorld) unknown() (orphans int, lost bool) {
	_, err := w.record()
	lives := false
	for _, p := range w.all() {
		lives = lives || !p.dead()
	}
	keys := w.platform.liveKeys()
	for _, key := range keys {
		known := w.storeHas(key)
		for _, p := range w.all() {
			known = known || (!p.dead() && w.knows(p, key))
		}
		if !known {
			orphans++
		}
	}
	lost = !lives && err != nil && !errors.Is(err, record.ErrNoRecord)
	lost = lost || (orphans == len(keys) && !w.tc.Owner)
	if w.tc.Strategy == Overlap && (lives || err == nil) {
		orphans = 0
	}
	return orphans, lost
}

// checkKnown checks that each process uses a live key, which the store has.
func (w *modelWorld) checkKnown(users []*process) {
	e, err := w.record()
	if err != nil {
		w.complain("the store: %v", err)
	}
	for _, p := range users {
		if err := p.request(); err != nil {
			w.complain("a request of process %d at the end: %v", p.n, err)
		}
		if got := p.handover.InUse().Credential; !got.Equal(e.Body.Current.Credential) {
			w.complain("process %d uses %s, and the store has %s", p.n, got.Reveal(), e.Body.Current.Credential.Reveal())
		}
		if p.handover.isHeld() {
			w.complain("process %d keeps requests waiting", p.n)
		}
		if err := p.manager.StoreError(); err != nil {
			w.complain("the store error of process %d: %v", p.n, err)
		}
	}
}

var (
	ledgerLoadFaults = []fault{
		deleted, rolledBack, rolledBackFirst, cutInHalf, emptied, outdated, outdatedLong, failBefore, gone,
		dayForward, dayBack,
	}
	ledgerSaveFaults = []fault{
		deleted, rolledBack, rolledBackFirst, cutInHalf, emptied, lostSave, failBefore, failAfter, conflict, refuse, gone,
		crashBefore, crashAfter, dayForward, dayBack,
	}
)

// ledgerFaults returns what can go wrong with an operation in the model of the ledger.
func (o operation) ledgerFaults() []fault {
	switch o {
	case opLoad:
		return ledgerLoadFaults
	case opSave:
		return ledgerSaveFaults
	default:
		return slices.DeleteFunc(slices.Clone(o.faults()), func(f fault) bool {
			return f == stopBefore || f == stopAfter || f == secondJoins // see TestAnyOneFault
		})
	}
}

// ledgerCases are the cases in which the ledger behaves differently.
func ledgerCases() (all []ledgerScenario) {
	for _, tc := range ModelCases() {
		if !tc.Slow {
			all = append(all, ledgerScenario{tc: tc}, ledgerScenario{tc: tc, watched: true})
		}
	}
	return all
}

// ledgerRun runs scenarios on all processors and collects what fails.
type ledgerRun struct {
	t       *testing.T
	n, lost atomic.Int64

	mu       sync.Mutex
	failed   []string
	cleanOps map[ledgerScenario][]trace
}

// run runs a scenario. Its number, if it has one, is a part of its name.
func (r *ledgerRun) run(number string, s ledgerScenario) ledgerOutcome {
	out := s.run(r.t)
	r.n.Add(1)
	if out.lost {
		r.lost.Add(1)
	}
	if len(out.problems) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.failed) < maxShown {
			r.t.Errorf("%s%s:\n  %s%s", number, s, strings.Join(out.problems[:min(5, len(out.problems))], "\n  "), listing(r.t, out.ops, s.plan))
		}
		r.failed = append(r.failed, number+s.String())
	}
	return out
}

// onAllProcessors calls f with each value of all.
func onAllProcessors[T any](all iter.Seq[T], f func(T)) {
	jobs := make(chan T)
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
	for s := range all {
		jobs <- s
	}
	close(jobs)
	wg.Wait()
}

// end reports what came of all scenarios.
func (r *ledgerRun) end() {
	r.t.Helper()
	r.t.Logf("%d scenarios, in %d of them no process and no store knew a live key; %d failed", r.n.Load(), r.lost.Load(), len(r.failed))
	for _, name := range r.failed[min(maxShown, len(r.failed)):] {
		r.t.Log("also failed: " + name)
	}
}

var (
	everyLedger = flag.Bool("ledger.every", false, "try every single fault of the ledger's model, and 100 times as many pairs")
	ledgerPair  = flag.Int("ledger.pair", -1, "the number of the only pair of faults to try")
)

// TestLedger_anyOneFault has each operation of two rotations, and of the requests
// beside them, go wrong in each way. Processes may die afterwards.
func TestLedger_anyOneFault(t *testing.T) {
	t.Parallel()
	r := &ledgerRun{t: t}
	defer r.end()
	stride, n := 9, 0 // one of many, evenly spread
	switch {
	case *everyLedger:
		stride = 1
	case sample.Fewer || testing.Short():
		stride = 481
	}
	onAllProcessors(func(yield func(ledgerScenario) bool) {
		for _, s := range ledgerCases() {
			clean := r.run("", s)
			for at, op := range clean.ops {
				for _, f := range op.op.ledgerFaults() {
					for v := range victims {
						s.plan, s.victim = plan{}.with(at, f), victim(v)
						n++
						if n%stride == 0 && !yield(s) {
							return
						}
					}
				}
			}
		}
	}, func(s ledgerScenario) { r.run("", s) })
}

// TestLedger_anyTwoFaults has two operations go wrong. The pairs are drawn at random,
// and the number of a pair draws the same one again.
func TestLedger_anyTwoFaults(t *testing.T) {
	t.Parallel()
	r := &ledgerRun{t: t}
	defer r.end()
	from, to := 0, 2000
	switch {
	case *ledgerPair >= 0:
		from, to = *ledgerPair, *ledgerPair+1
	case *everyLedger:
		to *= 100
	case sample.Fewer || testing.Short():
		to /= 50
	}
	onAllProcessors(func(yield func(int) bool) {
		for n := from; n < to; n++ {
			if !yield(n) {
				return
			}
		}
	}, r.pair)
}

// pair runs the scenario of a pair of faults.
func (r *ledgerRun) pair(n int) {
	const seed = 16
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	s := ledgerCases()[random.IntN(len(ledgerCases()))]
	ops := r.clean(s)
	s = s.with(random, ops, 0)
	once := s.run(r.t)
	if at := s.plan.faults[0].at + 1; at < len(once.ops) {
		s = s.with(random, once.ops, at)
	}
	s.victim = victim(random.IntN(victims))
	out := r.run(fmt.Sprintf("pair %d: ", n), s)
	if *ledgerPair >= 0 {
		r.t.Logf("%s%s", s, listing(r.t, out.ops, s.plan))
	}
}

// with draws one more fault, of an operation from a number on.
func (s ledgerScenario) with(random *rand.Rand, ops []trace, from int) ledgerScenario {
	at := from + random.IntN(len(ops)-from)
	faults := ops[at].op.ledgerFaults()
	s.plan = s.plan.with(at, faults[random.IntN(len(faults))])
	return s
}

// clean returns the operations of a scenario without a fault.
func (r *ledgerRun) clean(s ledgerScenario) []trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cleanOps == nil {
		r.cleanOps = map[ledgerScenario][]trace{}
	}
	if r.cleanOps[s] == nil {
		r.cleanOps[s] = s.run(r.t).ops
	}
	return r.cleanOps[s]
}
