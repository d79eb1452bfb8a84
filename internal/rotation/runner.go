package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Result describes a rotation that has succeeded, such as {From: "sha256:1a2b3c4d5e",
// To: "sha256:6f7a8b9c0d"}. Most programs only read To.
type Result struct {
	// From and To are fingerprints.
	From, To   string
	Generation uint64
	Strategy   Strategy
	Took       time.Duration
	// Recovered is set if another process had begun the rotation but not finished it.
	// Adopted is set if another process made the rotation.
	Recovered, Adopted bool
}

// runner makes one run at a time in this process.
type runner struct {
	policy   *Policy
	platform Platform
	keys     Keys
	report   Report
	ledger   *ledger
	watcher  *watcher
	adopter  *adopter
	schedule *schedule
	tasks    *tasks

	mu       sync.Mutex
	flight   *flight
	begun    string    // the intent that this process has worked on last
	repaired time.Time // when the owner was last asked to replace a dead key
	last     lastRun
}

// cause is the reason for a run. The zero value means the timer.
type cause struct {
	onDemand bool
	// dead is a key that must be replaced because it is dead. The owner issues the new
	// key.
	dead secret.Credential
}

// wants reports whether the key of a record without an intent must be rotated.
func (c cause) wants(rec record.Key, every time.Duration, began time.Time) bool {
	if !c.dead.IsZero() {
		return rec.Current.Credential.Equal(c.dead)
	}
	return c.onDemand || due(rec, every, began)
}

// flight is a run.
type flight struct {
	done  chan struct{}
	cause cause
	res   *Result
	err   error
}

// rotate replaces the key now and waits until that has ended.
func (r *runner) rotate(ctx context.Context) (*Result, error) {
	for {
		f := r.start(cause{onDemand: true})
		if f == nil {
			return nil, ErrClosed
		}
		select {
		case <-f.done:
			if f.cause.onDemand || f.res != nil || f.err != nil {
				return f.res, f.err
			}
			// The timer had started this run, and nothing was due.
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// start joins the run under way, or begins one. On demand, the run rotates the key
// regardless of its age. Otherwise, it does only what is due or unfinished. start
// returns nil after close.
func (r *runner) start(why cause) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		return r.flight
	}
	f := &flight{done: make(chan struct{}), cause: why}
	r.schedule.begun()
	started := r.tasks.start(func(ctx context.Context) {
		f.err = errors.New("agrenting: the rotation's goroutine was ended")
		defer r.finished(ctx, f)
		defer func() {
			if p := recover(); p != nil {
				f.err = secret.PanicError("what the rotation called", p)
			}
		}()
		f.res, f.err = r.run(ctx, why)
	})
	if !started {
		return nil
	}
	r.flight = f
	return f
}

func (r *runner) finished(ctx context.Context, f *flight) {
	r.schedule.ended(f.err)
	r.mu.Lock()
	r.flight = nil
	r.mu.Unlock()
	last := r.ledger.latest()
	r.note(f, last.Body.Generation)
	if f.err != nil && !errors.Is(f.err, ErrClosed) {
		r.report.Failed(last.Body, f.err)
	}
	r.arm(last)
	if f.err == nil && !r.tasks.isShut() {
		_ = r.adopter.takeUp(ctx, r.ledger.latest().Body) // the store may have reported it since
	}
	close(f.done)
}

// running reports whether a run is under way in this process.
func (r *runner) running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flight != nil
}

// arm sets the timer for the next run.
func (r *runner) arm(e entry) { r.schedule.arm(e.Body, r.busy(e)) }

// waitingFor describes the process that is waited for.
type waitingFor struct {
	holder string
	ever   bool // a process was waited for
}

// run rotates the key. It acquires the lease, or waits for the process that holds it.
// Close ends that wait, because this process then has nothing to finish.
func (r *runner) run(ctx context.Context, why cause) (*Result, error) {
	began := time.Now()
	var first record.Key
	var waiting waitingFor
	for p := time.Millisecond; ; p = min(2*p, maxPoll) {
		news := r.watcher.next()
		e, err := r.ledger.load(ctx, secret.Credential{})
		if err != nil {
			return nil, loadFailed(err, waiting.ever)
		}
		if first.Current.IsZero() {
			first = e.Body
		}
		if d := r.wait(&waiting, e, p); d > 0 {
			_ = r.adopter.takeUp(ctx, e.Body) // or when the run has ended
			if err := r.ledger.unreachable(); err != nil {
				return nil, loadFailed(err, true) // the end of a lease cannot be observed
			}
			if pause(ctx, d, news, r.tasks.shutting()) != nil {
				return nil, ErrClosed
			}
			continue
		}
		switch {
		case waiting.ever && e.Body.Intent == nil && e.Body.Generation > baseGeneration(first):
			return r.adopted(ctx, first, e.Body, began), nil
		case e.Body.Intent == nil && !why.wants(e.Body, r.policy.Every, began):
			return nil, nil //nolint:nilnil // nothing to do is neither a rotation nor an error
		}
		if err := r.keys.Admit(e.Body.Current.Credential); err != nil { // the work would send the credential
			return nil, &Error{
				Stage: StagePrepare, Strategy: r.policy.Strategy, Err: err,
				State: "No credential was sent anywhere, and nothing was changed",
			}
		}
		w := r.work(e)
		w.repairs = !why.dead.IsZero()
		err = w.do(ctx)
		switch {
		case errors.Is(err, record.ErrLeaseLost):
			waiting.ever = true
			if pause(ctx, p, news, r.tasks.shutting()) != nil {
				return nil, ErrClosed
			}
		case (errors.Is(err, errDropped) || w.cleanedUp(err)) && why.onDemand:
			// The keys left behind have been revoked. The rotation itself follows.
		case errors.Is(err, errDropped) || w.cleanedUp(err):
			return nil, nil //nolint:nilnil // as above
		case err != nil:
			return nil, err
		default:
			r.report.Rotated(w.hold.rec, w.strategy.String())
			if w.repairs {
				r.mu.Lock()
				r.repaired = time.Now()
				r.mu.Unlock()
			}
			return &Result{
				From: w.from, To: w.hold.rec.Current.Credential.Fingerprint(), Generation: w.hold.rec.Generation,
				Strategy: w.strategy, Took: time.Since(began), Recovered: w.recovered,
			}, nil
		}
	}
}

// wait returns how long to wait for the process that is working on a record, or 0 if
// there is none. When a holder's lease ends, all processes that have waited for it
// continue at the same time, so they pause first.
func (r *runner) wait(waiting *waitingFor, e entry, p time.Duration) time.Duration {
	left := r.busy(e)
	switch {
	case left > 0:
		waiting.ever = true
		if waiting.holder != e.Lease.Holder {
			waiting.holder = e.Lease.Holder
			r.report.Waiting(e.Body, left)
		}
		return min(p, left)
	case waiting.holder != "" && e.Lease.Holder == waiting.holder:
		waiting.holder = ""
		return record.TakeoverPause()
	default:
		return 0
	}
}

func loadFailed(err error, waited bool) error {
	state := "Nothing was changed"
	if waited {
		state = "Another process was rotating the key, and the store cannot be read, so its progress is unknown"
	}
	return &Error{Stage: StagePrepare, Err: err, State: state}
}

// work is the work on a record.
func (r *runner) work(e entry) *work {
	h := &hold{ledger: r.ledger, tasks: r.tasks, policy: r.policy, entry: e, rec: e.Body}
	w := &work{
		policy: r.policy, keys: r.keys, report: r.report, adopter: r.adopter, hold: h,
		calls:  &calls{platform: r.platform, keys: r.keys, policy: r.policy, hold: h},
		wanted: e.Body.Intent == nil, recovered: e.Body.Intent != nil, began: r.works,
	}
	if in := e.Body.Intent; in != nil {
		r.works(in.Key)
		if !in.GraceEnd.IsZero() {
			w.waited = r.ledger.store.Unchanged(e)
		}
	}
	return w
}

// works notes the intent that this process works on.
func (r *runner) works(intent string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = intent
}

// headStart is how much earlier than others the process that began a rotation continues
// when the grace of the previous key has ended.
const headStart = 2 * time.Second

// busy returns how long another process may still be working on a record: it holds the
// lease, or it waits to revoke the previous key and is due to continue.
func (r *runner) busy(e entry) time.Duration {
	if e.Lease.Holder == r.ledger.holder {
		return 0
	}
	left := r.ledger.store.Left(e)
	in := e.Body.Intent
	if left > 0 || e.Lease.Holder != "" || in == nil || Stage(in.Stage) != StageRevoke {
		return left
	}
	r.mu.Lock()
	own := r.begun == in.Key
	r.mu.Unlock()
	if own {
		return 0
	}
	return max(0, graceLeft(in, r.policy.Grace, r.ledger.store.Unchanged(e))+headStart)
}

// atWork reports whether a process is working on an unfinished rotation.
func (r *runner) atWork(e entry) bool {
	if e.Lease.Holder == r.ledger.holder {
		return r.running()
	}
	return r.busy(e) > 0
}

// adopted adopts the key that another process has rotated to. If sessions cannot be
// replaced now, they are replaced at the next load of the store.
func (r *runner) adopted(ctx context.Context, first, rec record.Key, began time.Time) *Result {
	if err := r.adopter.takeUp(ctx, rec); err != nil {
		r.report.StoreFailed("adopt", err)
	}
	res := &Result{
		From: first.Current.Credential.Fingerprint(), To: rec.Current.Credential.Fingerprint(),
		Generation: rec.Generation, Strategy: r.policy.Strategy, Took: time.Since(began), Adopted: true,
	}
	if in := first.Intent; in != nil {
		res.From, res.Strategy = in.From, StrategyNamed(in.Strategy)
	}
	return res
}

// repairPause is the shortest pause between two repairs. If issued keys become invalid
// at once, for example because two programs use copies of one store, another key does
// not help.
const repairPause = time.Minute

var errRepaired = errors.New("agrenting: the key that the owner credential issued less than a minute ago was rejected too. Check whether two programs use copies of one store")

// repair has the owner issue a key in place of a dead one without a known successor.
func (r *runner) repair(dead secret.Credential) error {
	if until, err := r.schedule.pausing(); err != nil {
		return &PausedError{At: until, Err: err}
	}
	r.mu.Lock()
	if next := r.repaired.Add(repairPause); r.flight == nil && time.Now().Before(next) {
		r.mu.Unlock()
		return &PausedError{At: next, Err: errRepaired}
	}
	r.mu.Unlock()
	if r.start(cause{dead: dead}) == nil {
		return ErrClosed
	}
	return nil
}

// awaitFlight waits for the run under way, but only for a limited time.
func (r *runner) awaitFlight(patience time.Duration) {
	r.mu.Lock()
	f := r.flight
	r.mu.Unlock()
	if f == nil {
		return
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-f.done:
	case <-t.C:
	}
}
