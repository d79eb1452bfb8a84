package rotation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// fault is what goes wrong with one operation.
type fault uint8

const (
	noFault fault = iota
	// The process dies before the operation, or after it took effect.
	crashBefore
	crashAfter
	// A second process begins to rotate.
	secondJoins
	// The process is stopped, before the operation or after it, while another one
	// rotates once or twice.
	stopBefore
	stopAfter
	stopBefore2
	stopAfter2
	// The operation fails, or there is no response, before or after it took effect.
	failBefore
	failAfter
	// The store reports a conflict for a save that took effect.
	conflict
	// The response to a call that took effect was cut off.
	truncated
	// The platform fails and remembers that under the idempotency key, or a gateway
	// says so of a call that took effect.
	failed5xx
	failedAfter
	// The response to a call that took effect, or to a question, is replaced: by a 401
	// although the caller is alive, or by a refusal in the platform's format.
	denied
	forbidden
	// The call and three repetitions of it have no response, before or after they took
	// effect, or a gateway says that the platform failed although they did.
	unreached4
	unanswered4
	gateway4
	// From here on, the store refuses, no call gets through, or no response comes back,
	// until the process is repaired.
	refuse
	cutOff
	mute
	// The record is deleted, replaced by an earlier one, cut in half, or emptied
	// before the operation.
	deleted
	rolledBack
	rolledBackFirst
	cutInHalf
	emptied
	// The process loads an earlier record, once or for 3 s.
	outdated
	outdatedLong
	// The store reports success and does not keep what was saved.
	lostSave
	// From here on, the store is gone for all processes, until it is repaired.
	gone
	// The wall clocks of all processes are set, see clocks.
	dayForward
	dayBack
)

var faultNames = [...]string{
	noFault: "none", crashBefore: "crash before", crashAfter: "crash after", secondJoins: "a second process joins",
	stopBefore: "stopped before, another rotates once", stopAfter: "stopped after, another rotates once",
	stopBefore2: "stopped before, another rotates twice", stopAfter2: "stopped after, another rotates twice",
	failBefore: "fails before", failAfter: "fails after", conflict: "succeeds and reports a conflict", truncated: "response cut off",
	failed5xx: "5xx that is remembered", failedAfter: "5xx although it took effect",
	denied: "401 although the caller is alive", forbidden: "403 although it took effect",
	unreached4: "not reached four times", unanswered4: "no response four times", gateway4: "5xx four times although it took effect",
	refuse: "the store refuses from here on", cutOff: "cut off from here on", mute: "no responses from here on",
	deleted: "the record is deleted", rolledBack: "the record is rolled back", rolledBackFirst: "the record is rolled back to the first one",
	cutInHalf: "the record is cut in half", emptied: "the record is emptied", outdated: "loads an earlier record",
	outdatedLong: "loads earlier records for a while", lostSave: "the save is lost", gone: "the store is gone from here on",
	dayForward: "the clock is set a day forward", dayBack: "the clock is set a day back",
}

func (f fault) String() string { return faultNames[f] }

// operation is one operation of a process. Its zero value is a load.
type operation uint8

const (
	opLoad operation = iota
	opSave
	opIssue
	opRotate
	opList
	opRevoke
	opVerify
	opLifeline
)

var operationNames = [...]string{
	opLoad: "load", opSave: "save", opIssue: "issue", opRotate: "rotate in place", opList: "list", opRevoke: "revoke",
	opVerify: "verify", opLifeline: "open lifeline",
}

func (o operation) String() string { return operationNames[o] }

var (
	loadFaults = []fault{crashBefore, failBefore, secondJoins}
	saveFaults = []fault{
		crashBefore, crashAfter, failBefore, failAfter, conflict, refuse, stopBefore, stopAfter, secondJoins,
	}
	verifyFaults = []fault{crashBefore, failBefore, denied, unreached4, cutOff, stopBefore, stopAfter, secondJoins}
	askingFaults = []fault{
		crashBefore, failBefore, truncated, failed5xx, denied, forbidden, unreached4, cutOff, mute, stopBefore, stopAfter, secondJoins,
	}
	callFaults = []fault{
		crashBefore, crashAfter, failBefore, failAfter, truncated, failed5xx, denied, forbidden, unreached4, unanswered4, gateway4, cutOff, mute,
		stopBefore, stopAfter, secondJoins,
	}
	// failingFaults are those of an operation that fails anyway.
	failingFaults = []fault{crashBefore, stopBefore, secondJoins}
)

// faults returns what can go wrong with an operation. If an operation changes
// nothing, it makes no difference whether it fails before or after it took effect.
func (o operation) faults() []fault {
	switch o {
	case opLoad:
		return loadFaults
	case opSave:
		return saveFaults
	case opVerify:
		return verifyFaults
	case opList, opLifeline:
		return askingFaults
	default:
		return callFaults
	}
}

// planned is a fault of an operation, by its number over all processes, counted
// from the moment when the first process begins to rotate.
type planned struct {
	at int
	f  fault
}

// plan is what goes wrong, at most two faults.
type plan struct {
	faults [2]planned
	n      int
}

func (p plan) with(at int, f fault) plan {
	p.faults[p.n] = planned{at, f}
	p.n++
	return p
}

func (p plan) String() string {
	parts := make([]string, 0, 2)
	for _, f := range p.faults[:p.n] {
		parts = append(parts, fmt.Sprintf("%d %v", f.at, f.f))
	}
	return strings.Join(parts, "; ")
}

// trace is one operation as it was made.
type trace struct {
	process int
	op      operation
	at      time.Duration
	// failing is set if a lasting fault lets the operation fail anyway.
	failing bool
}

// faults returns what can go wrong with the operation.
func (o trace) faults() []fault {
	if o.failing {
		return failingFaults
	}
	return o.op.faults()
}

// modelWorld is a platform, a store, and processes that live and die.
type modelWorld struct {
	tc       ModelCase
	began    time.Time
	platform *platform
	initial  secret.Credential
	store    memoryStore
	watched  bool // the store reports changes
	clocks   wallClocks
	chatty   bool // a store that fails quotes the record
	policy   Policy
	quick    bool
	dies     bool // the first process dies after the faults
	long     bool // it is repaired late
	repaired int  // operations until it was repaired

	mu        sync.Mutex
	plan      plan
	armed     bool
	ops       []trace
	processes []*process
	problems  []string
	running   int       // work of other processes than the first one and its heir
	idle      sync.Cond // running is 0
}

// newModelWorld returns a world with the default durations of a policy. In a quick
// one they are shorter, in about the same proportions: processes that wait load the
// record less often.
func newModelWorld(tc ModelCase, quick bool) *modelWorld {
	w := &modelWorld{tc: tc, began: time.Now(), quick: quick, policy: Policy{
		Strategy: tc.Strategy, Every: -1, AgentID: modelAgent,
		DrainTimeout: 10 * time.Second, Grace: 3 * time.Second, VerifyTimeout: 15 * time.Second,
		CallTimeout: 8 * time.Second, Lease: 20 * time.Second, RetryEvery: time.Minute, MaxAttempts: 5,
	}}
	w.idle.L = &w.mu
	delay := 700 * time.Millisecond
	if quick {
		w.policy.DrainTimeout, w.policy.Grace, w.policy.VerifyTimeout = 2*time.Second, time.Second, 3*time.Second
		w.policy.CallTimeout, w.policy.Lease, w.policy.MaxAttempts = 1500*time.Millisecond, 4*time.Second, 2
		delay = 100 * time.Millisecond
	}
	if !tc.Slow {
		delay = 0
	}
	w.platform = newPlatform(!tc.Lifeline, delay, w.complain)
	// The initial key has a name that a rotation gave to it long ago: a rotation in
	// place passes names on.
	w.initial = w.platform.newKey(markPrefix + "of another rotation")
	return w
}

func (w *modelWorld) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func (w *modelWorld) clock() time.Duration { return time.Since(w.began) }

// arm lets the plan begin.
func (w *modelWorld) arm(p plan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan, w.armed = p, true
}

// disarm ends the plan and returns what has been recorded.
func (w *modelWorld) disarm() []trace {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	return slices.Clone(w.ops)
}

// recorded returns the operations so far.
func (w *modelWorld) recorded() []trace {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ops)
}

// found returns what was found wrong.
func (w *modelWorld) found() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.problems)
}

// all returns the processes.
func (w *modelWorld) all() []*process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.processes)
}

// count returns how many operations there were so far.
func (w *modelWorld) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ops)
}

// struck returns how many faults there were so far.
func (w *modelWorld) struck() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.plan.faults[:w.plan.n] {
		if f.at < len(w.ops) {
			n++
		}
	}
	return n
}

// next counts an operation and returns what is to go wrong with it.
func (w *modelWorld) next(process int, op operation, failing bool) fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return noFault
	}
	n := len(w.ops)
	w.ops = append(w.ops, trace{process, op, w.clock(), failing})
	for _, f := range w.plan.faults[:w.plan.n] {
		if f.at == n {
			return f.f
		}
	}
	return noFault
}

// record returns what is stored.
func (w *modelWorld) record() (record.Entry[record.Key], error) {
	return record.Keys(record.Config{Store: &w.store, Clock: w.clock}).Load(context.Background())
}

// beside runs f beside the first process and its heir, and awaitOthers waits for all
// that does. A WaitGroup could not be added to while it is waited for.
func (w *modelWorld) beside(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running++
	go func() {
		f()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running--
		if w.running == 0 {
			w.idle.Broadcast()
		}
	}()
}

func (w *modelWorld) awaitOthers() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.running > 0 {
		w.idle.Wait()
	}
}

// end closes everything.
func (w *modelWorld) end() {
	w.mu.Lock()
	w.armed = false
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range w.all() {
		wg.Go(func() {
			if err := p.close(); err != nil && !p.dead() {
				w.complain("closing process %d: %v", p.n, err)
			}
		})
	}
	wg.Wait()
	w.awaitOthers()
}

// squeezed returns JSON without its indentation: half of the time goes into reading
// records.
func squeezed(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for n := 0; n < len(data); n++ {
		if data[n] == '\n' {
			for n+1 < len(data) && data[n+1] == ' ' {
				n++
			}
			continue
		}
		out = append(out, data[n])
	}
	return out
}

// process is one manager with everything that connects it to the world.
type process struct {
	w        *modelWorld
	n        int
	initial  secret.Credential
	manager  *Manager
	handover *fakeHandover

	life   context.Context // its end is the death of the process
	end    context.CancelFunc
	closed func() error

	mu                   sync.Mutex
	cut, muted, refusing bool
	stopped              chan struct{}   // nil, or closed when the process is resumed
	loaded               record.Raw      // as last loaded
	knows                map[string]bool // revisions that it has loaded, and keys that it was given
	outdatedUntil        time.Duration   // until then it loads the record old
	old                  record.Raw
	repeated             fault // of a call that fails several times
	repeatedOp           operation
	repeatedLeft         int
}

// start begins a process that was given a key.
func (w *modelWorld) start(initial secret.Credential) *process {
	p := &process{w: w, initial: initial, handover: &fakeHandover{}}
	p.life, p.end = context.WithCancel(context.Background())
	p.manager = New(Config{
		Policy:   w.policy,
		Store:    record.Keys(record.Config{Store: fakeStore{p}, Clock: w.clock}),
		Platform: fakePlatform{p}, Keys: fakeKeys{p}, Handover: p.handover, Report: fakeReport{},
	})
	p.closed = sync.OnceValue(p.manager.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	p.n = len(w.processes)
	w.processes = append(w.processes, p)
	return p
}

func (p *process) dead() bool { return p.life.Err() != nil }

func (p *process) close() error { return p.closed() }

// kill ends the process: it does nothing any more. Its manager is closed so that
// its goroutines end.
func (p *process) kill() {
	if p.dead() {
		return
	}
	p.end()
	p.w.beside(func() { _ = p.close() })
}

// repair takes the lasting faults away.
func (p *process) repair() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.muted, p.refusing, p.repeatedLeft = false, false, false, 0
}

// again returns the fault of an operation that repeats one that fails several times.
func (p *process) again(op operation) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.repeatedLeft == 0 || p.repeatedOp != op {
		return noFault
	}
	return p.repeated
}

// repeat notes a fault that strikes several times.
func (p *process) repeat(op operation, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case f == unreached4 || f == unanswered4 || f == gateway4:
		if p.repeatedLeft == 0 || p.repeatedOp != op || p.repeated != f {
			p.repeated, p.repeatedOp, p.repeatedLeft = f, op, 4
		}
		p.repeatedLeft--
	case p.repeatedLeft > 0 && p.repeatedOp == op:
		p.repeatedLeft--
	}
}

func (p *process) lasting() (cut, muted, refusing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut, p.muted, p.refusing
}

// whileStopped has another process rotate n times, while no other operation of
// this one gets through.
func (p *process) whileStopped(n int) {
	resumed := make(chan struct{})
	p.mu.Lock()
	p.stopped = resumed
	p.mu.Unlock()
	other := p.w.start(p.w.initial)
	for range n {
		for try := 0; try < 4 && other.rotate() != nil && !other.dead(); try++ {
			pass(time.Minute)
		}
	}
	p.mu.Lock()
	p.stopped = nil
	p.mu.Unlock()
	close(resumed)
}

func (p *process) awaitResumed() {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

// join begins a process that rotates, too.
func (w *modelWorld) join() {
	p := w.start(w.initial)
	w.beside(func() {
		for range 5 {
			if err := p.rotate(); err == nil || p.dead() || errors.Is(err, ErrClosed) {
				return
			}
			pass(time.Minute)
		}
	})
}

// call makes a request of the caller, as the root does: with the key in use, and
// with its successor if it was rejected.
func (p *process) call() error {
	var rejected secret.Credential
	for {
		k, reason, err := p.manager.Choose(p.life, rejected)
		if err != nil {
			p.check(err)
			known, ok := p.manager.Remembered(rejected)
			if !ok {
				return err
			}
			k = known
		}
		p.handover.put(k.Credential)
		switch {
		case p.w.platform.accepts(k.Credential):
			return nil
		case !rejected.IsZero():
			return fmt.Errorf("the platform refuses the key %s (%v)", k.Credential.Reveal(), reason) //nolint:err113 // a test
		}
		rejected = k.Credential
	}
}

// rotate rotates once.
func (p *process) rotate() error {
	res, err := p.manager.Rotate(p.life)
	switch {
	case err != nil:
		p.check(err)
		if _, ok := errors.AsType[*Error](err); !ok && !p.dead() && !errors.Is(err, ErrClosed) {
			p.w.complain("process %d: an error of another type: %T %v", p.n, err, err)
		}
		return err
	case res == nil:
		p.w.complain("Rotate returned neither a result nor an error")
	case res.From == "" || res.To == "" || res.From == res.To || res.Generation < 2:
		p.w.complain("process %d: Rotate returned %+v", p.n, *res)
	}
	return nil
}

// check holds an error against the rules.
func (p *process) check(err error) {
	if strings.Contains(err.Error(), modelPrefix) {
		p.w.complain("process %d: the error contains a secret: %v", p.n, err)
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && (e.State == "" || e.Err == nil || e.Stage == ""):
		p.w.complain("process %d: an error without state, stage or cause: %+v", p.n, *e)
	case ok && strings.Contains(e.State+e.Advice, modelPrefix):
		p.w.complain("process %d: the state or advice contains a secret: %s; %s", p.n, e.State, e.Advice)
	}
}

var errModel = errors.New("model: connection lost")

// operate applies a fault to an operation. do performs it.
func (p *process) operate(ctx context.Context, op operation, do func(fault)) (fault, error) {
	if p.dead() {
		<-ctx.Done()
		return noFault, ctx.Err()
	}
	p.awaitResumed()
	if err := ctx.Err(); err != nil {
		return noFault, err
	}
	call := op != opLoad && op != opSave
	cut, _, refusing := p.lasting()
	again := p.again(op)
	f := p.w.next(p.n, op, (call && cut) || (op == opSave && refusing) || again != noFault)
	if f == noFault {
		f = again
	}
	p.repeat(op, f)
	switch f {
	case crashBefore:
		p.kill()
		<-ctx.Done()
		return f, ctx.Err()
	case secondJoins:
		p.w.join()
	case stopBefore:
		p.whileStopped(1)
	case stopBefore2:
		p.whileStopped(2)
	case failBefore, unreached4:
		return f, errModel
	case dayForward, dayBack:
		p.w.clocks.set(f)
	case cutOff, mute, refuse:
		p.mu.Lock()
		p.cut, p.muted, p.refusing = p.cut || f == cutOff, p.muted || f == mute, p.refusing || f == refuse
		p.mu.Unlock()
	default:
	}
	cut, muted, refusing := p.lasting()
	if (call && cut) || (op == opSave && refusing) {
		return f, errModel
	}
	do(f)
	switch f {
	case crashAfter:
		p.kill()
		<-ctx.Done()
		return f, ctx.Err()
	case stopAfter:
		p.whileStopped(1)
	case stopAfter2:
		p.whileStopped(2)
	default:
	}
	switch {
	case f == failAfter, f == unanswered4, call && muted:
		return f, errModel
	case f != stopAfter && f != stopAfter2 && ctx.Err() != nil:
		return f, ctx.Err() // it stood still for longer than it wanted to wait
	}
	return f, nil // it may have stood still after the operation
}

// fakeStore is the store as one process sees it.
type fakeStore struct{ p *process }

func (s fakeStore) Load(ctx context.Context, name string) (raw record.Raw, err error) {
	var loaded error
	if _, err := s.p.operate(ctx, opLoad, func(f fault) { raw, loaded = s.p.load(ctx, name, f) }); err != nil {
		return record.Raw{}, s.p.quoting(err, nil)
	}
	if s.p.seenBefore(raw) && s.p.w.quick {
		pass(quickPoll)
	}
	return raw, loaded
}

// quickPoll is how long a store of a quick world takes to respond to a process that asks
// again for what it has already got, so that processes that wait ask less often.
const quickPoll = 600 * time.Millisecond

// seenBefore notes what the process has loaded, and reports whether it has loaded
// that before.
func (p *process) seenBefore(raw record.Raw) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.loaded
	p.loaded = raw
	return before.Revision == raw.Revision && raw.Revision != ""
}

func (s fakeStore) Save(ctx context.Context, name string, data []byte, previous string) (revision string, err error) {
	var saved error
	f, err := s.p.operate(ctx, opSave, func(f fault) { revision, saved = s.p.save(ctx, name, data, previous, f) })
	switch {
	case err != nil:
		return "", s.p.quoting(err, data)
	case f == conflict:
		return "", record.ErrConflict
	}
	return revision, saved
}

func (s fakeStore) Watch(ctx context.Context, name string) iter.Seq2[record.Raw, error] {
	if !s.p.w.watched {
		return nil
	}
	return s.p.watch(ctx, name)
}

// quoting returns an error of the store, which may quote the record that was to be
// saved, or the one that was loaded before. A process can only redact what it knows.
func (p *process) quoting(err error, data []byte) error {
	if !p.w.chatty || !errors.Is(err, errModel) {
		return err
	}
	if data == nil {
		p.mu.Lock()
		data = p.loaded.Data
		p.mu.Unlock()
	}
	return fmt.Errorf("%w: row %q", err, data)
}

// fakePlatform is the platform as one process sees it.
type fakePlatform struct{ p *process }

// call makes a call.
func (f fakePlatform) call(ctx context.Context, op operation, do func(fail bool) Answer) Answer {
	var a Answer
	what, err := f.p.operate(ctx, op, func(what fault) {
		if what == failed5xx && (op != opIssue && op != opRotate) {
			a = refusal(Failed) // nothing is remembered
			return
		}
		a = do(what == failed5xx)
	})
	switch {
	case err != nil:
		return Answer{Err: err}
	case what == truncated && a.Outcome == Done:
		return Answer{Outcome: Truncated, Err: errTruncated, Raw: secret.New(`{"data":`), Sent: a.Sent}
	case what == failedAfter, what == gateway4:
		return refusal(Failed)
	case what == denied:
		return refusal(Unauthorized)
	case what == forbidden:
		return refusal(Refused)
	}
	if !a.Key.Credential.IsZero() {
		f.p.learn(a.Key.Credential.Reveal())
	}
	return a
}

var errTruncated = errors.New("model: the response was cut off")

func (f fakePlatform) Issue(ctx context.Context, by Caller, agent, name, idempotencyKey string) Answer {
	f.p.checkAgent(agent)
	return f.call(ctx, opIssue, func(fail bool) Answer { return f.p.w.platform.issue(by, name, idempotencyKey, fail) })
}

func (f fakePlatform) RotateInPlace(ctx context.Context, by Caller, idempotencyKey string) Answer {
	if h := f.p.handover; by.Credential.Kind() == secret.KindAPIKey && h.serves(by.Credential) && !h.isHeld() && !f.p.dead() {
		f.p.w.complain("process %d replaces the key in place while requests use it", f.p.n)
	}
	return f.call(ctx, opRotate, func(fail bool) Answer { return f.p.w.platform.rotateInPlace(by, idempotencyKey, fail) })
}

func (f fakePlatform) List(ctx context.Context, by Caller, agent string) (keys []ListedKey, a Answer) {
	f.p.checkAgent(agent)
	a = f.call(ctx, opList, func(bool) (a Answer) {
		keys, a = f.p.w.platform.list(by)
		return a
	})
	if a.Outcome != Done {
		keys = nil
	}
	return keys, a
}

func (f fakePlatform) Revoke(ctx context.Context, by Caller, agent, id string) Answer {
	f.p.checkAgent(agent)
	return f.call(ctx, opRevoke, func(bool) Answer { return f.p.w.platform.revoke(by, id) })
}

func (f fakePlatform) Verify(ctx context.Context, c secret.Credential) (v Verdict, err error) {
	_, err = f.p.operate(ctx, opVerify, func(what fault) {
		if v = Dead; f.p.w.platform.accepts(c) && what != denied {
			v = Alive
		}
	})
	switch {
	case err != nil:
		return Undecided, err
	case v == Dead:
		return Dead, errRefused
	}
	return v, nil
}

func (f fakePlatform) OpenLifeline(ctx context.Context, key secret.Credential) (s secret.Credential, agent string, a Answer) {
	a = f.call(ctx, opLifeline, func(bool) (a Answer) {
		s, a = f.p.w.platform.openLifeline(key)
		return a
	})
	if a.Outcome != Done {
		return secret.Credential{}, "", a
	}
	return s, modelAgent, a
}

func (p *process) checkAgent(agent string) {
	if agent != modelAgent {
		p.w.complain("process %d makes a call for the agent %q", p.n, agent)
	}
}

// fakeKeys are the keys that a process is given.
type fakeKeys struct{ p *process }

func (k fakeKeys) Initial(context.Context) (secret.Credential, error) { return k.p.initial, nil }

func (k fakeKeys) Owner(context.Context) (secret.Credential, error) {
	return secret.NewCredential(secret.Material{Kind: secret.KindUserToken, Secret: ownerSecret}), nil
}

func (k fakeKeys) HasOwner() bool                { return k.p.w.tc.Owner }
func (k fakeKeys) HasInitial() bool              { return true }
func (k fakeKeys) Admit(secret.Credential) error { return nil }

// fakeHandover is what the requests of a process use. Requests drain at once.
type fakeHandover struct {
	mu    sync.Mutex
	inUse Generation
	held  map[any]bool
}

var drained = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (h *fakeHandover) InUse() Generation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse
}

func (h *fakeHandover) Serves(key secret.Credential) bool { return h.serves(key) }

func (h *fakeHandover) serves(key secret.Credential) bool { return h.InUse().Credential.Equal(key) }

func (h *fakeHandover) put(c secret.Credential) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.inUse.Credential.Equal(c) {
		h.inUse = Generation{Credential: c, Handle: new(int)}
	}
}

func (h *fakeHandover) Adopt(_ context.Context, key record.StoredKey, _ renew.Reason) error {
	h.put(key.Credential)
	return nil
}

func (h *fakeHandover) Hold(g Generation) []<-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		h.held = map[any]bool{}
	}
	h.held[g.Handle] = true
	return []<-chan struct{}{drained}
}

func (h *fakeHandover) Release(g Generation, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, g.Handle)
}

func (h *fakeHandover) Retire(Generation) <-chan struct{} { return drained }

func (h *fakeHandover) isHeld() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held) > 0
}

type fakeReport struct{}

func (fakeReport) Stage(record.Key, string)          {}
func (fakeReport) Waiting(record.Key, time.Duration) {}
func (fakeReport) Rotated(record.Key, string)        {}
func (fakeReport) Failed(record.Key, error)          {}
func (fakeReport) Old(record.Key)                    {}
func (fakeReport) StoreFailed(string, error)         {}

// listing returns the operations, one a line, with the planned faults.
func listing(t *testing.T, ops []trace, p plan) string {
	t.Helper()
	var b strings.Builder
	for n, op := range ops {
		fmt.Fprintf(&b, "\n    %3d  %9v  process %d  %v", n, op.at.Round(time.Millisecond), op.process, op.op)
		for _, f := range p.faults[:p.n] {
			if f.at == n {
				fmt.Fprintf(&b, "  <- %v", f.f)
			}
		}
	}
	return b.String()
}
