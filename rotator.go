package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// keyEntry is the key record with its lease and revision.
type keyEntry = record.Entry[record.Key]

// rotator owns the key of a client that has a store for it: it is the source of
// the key (rotation_source.go), it knows when the key is due
// (rotation_schedule.go), and it rotates it.
type rotator struct {
	core   *core
	slot   *record.Slot[record.Key]
	seed   CredentialSource // nil: none
	noSeed error            // where one was looked for, when there is none
	policy RotationPolicy
	auto   bool          // rotate by itself
	holder string        // random name of this process in leases
	inUse  func() *stamp // nil when there is none
	adopt  func(ctx context.Context, k record.StoredKey, reason renew.Reason) error

	ctx     context.Context //nolint:containedctx // of the work that no caller waits for, ended by close
	cancel  context.CancelFunc
	closing chan struct{} // closed at the beginning of close
	wg      sync.WaitGroup

	mu       sync.Mutex
	flight   *rotationFlight
	unsaved  *record.Key         // holds a key that the store has refused so far
	saving   bool                // somebody is trying to save it
	last     keyEntry            // as last seen
	given    secret.Credential   // the key that was last given out
	stamped  *stamp              // the key that was last stamped
	seen     []secret.Credential // of the latest records, see withoutKeys
	instead  substitute          // for what a store has that cannot be written
	stale    *stamp              // in use since before a key that sessions could not be changed over to
	timer    *time.Timer
	failed   int       // attempts in a row
	endedAt  time.Time // of the last attempt
	lastErr  error
	watching bool
	watched  bool          // the store tells of changes, and has not failed to
	news     chan struct{} // closed at the next change that the store tells of
	storeErr error         // of the last attempt to reach the store
	oldNote  string
	begun    string // the intent that this process has worked on last
	closed   bool
}

type rotationFlight struct {
	done   chan struct{}
	byHand bool
	res    *Rotation
	err    error
}

func newRotator(c *core, store Store, seed CredentialSource) *rotator {
	p := RotationPolicy{Every: -1}
	if c.cfg.rotation != nil {
		p = *c.cfg.rotation
	}
	p = p.withDefaults(store)
	agent := p.AgentID
	if agent == "" {
		agent = c.agent.id()
	}
	r := &rotator{
		core: c, slot: record.Keys(c.recordConfig(store, agent)), seed: seed, policy: p, holder: wire.NewUUID(),
		news: make(chan struct{}), closing: make(chan struct{}),
	}
	r.auto = r.policy.Every > 0
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Rotate is [Client.Rotate].
func (r *rotator) Rotate(ctx context.Context) (*Rotation, error) {
	for {
		f := r.start(true)
		if f == nil {
			return nil, ErrClosed
		}
		select {
		case <-f.done:
			if f.byHand || f.res != nil || f.err != nil {
				return f.res, f.err
			}
			// It was a look that the timer had caused, and nothing was due.
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// start joins the rotation under way in this process, or begins one. byHand
// rotates whatever the age; otherwise only what is due or was left unfinished
// is done.
func (r *rotator) start(byHand bool) *rotationFlight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.flight != nil {
		return r.flight
	}
	f := &rotationFlight{done: make(chan struct{}), byHand: byHand}
	r.flight = f
	r.wg.Go(func() {
		f.err = errors.New("agrenting: the rotation's goroutine was ended")
		defer r.finished(f)
		defer func() {
			if p := recover(); p != nil {
				f.err = secret.PanicError("what the rotation called", p)
			}
		}()
		f.res, f.err = r.run(r.ctx, byHand)
	})
	return f
}

func (r *rotator) finished(f *rotationFlight) {
	r.mu.Lock()
	r.flight = nil
	last, closed := r.last, r.closed
	r.lastErr, r.endedAt = f.err, time.Now()
	if f.err != nil {
		r.failed++
	} else {
		r.failed = 0
	}
	r.mu.Unlock()
	if f.err != nil && !errors.Is(f.err, ErrClosed) {
		r.core.emitRotation(slog.LevelError, EventRotationFailed, stageOf(f.err), last.Body, f.err)
	}
	if !closed {
		r.schedule(last)
		if f.err == nil {
			r.mu.Lock()
			last = r.last
			r.mu.Unlock()
			_ = r.takeUp(r.ctx, last.Body) // what was told of meanwhile
		}
	}
	close(f.done)
}

func stageOf(err error) string {
	if e, ok := errors.AsType[*RotationError](err); ok {
		return string(e.Stage)
	}
	return ""
}

// waiting is the Reason of an EventRotating that is no stage.
const waiting = "waiting"

// run rotates: it takes the lease, or awaits the one who has it. close does not
// wait for another process: there is nothing of ours to be finished.
func (r *rotator) run(ctx context.Context, byHand bool) (*Rotation, error) {
	began := time.Now()
	var first record.Key
	var holder string
	waited := false
	for pause := time.Millisecond; ; pause = min(2*pause, maxPoll) {
		news := r.awaitNews()
		e, err := r.load(ctx, secret.Credential{})
		if err != nil {
			return nil, loadFailed(err, waited)
		}
		rec := e.Body
		if first.Current.IsZero() {
			first = rec
		}
		left := r.busy(e)
		switch {
		case left > 0:
			waited = true
			if holder != e.Lease.Holder {
				holder = e.Lease.Holder
				r.core.emitWaiting(rec, left)
			}
			_ = r.takeUp(ctx, rec) // or when it has ended
			if err := r.pause(ctx, min(pause, left), news, r.closing); err != nil {
				return nil, ErrClosed
			}
			continue
		case holder != "" && e.Lease.Holder == holder:
			// The holder has died. All who have waited for it come now.
			holder = ""
			if err := r.pause(ctx, record.TakeoverPause(), nil, r.closing); err != nil {
				return nil, ErrClosed
			}
			continue
		case waited && rec.Intent == nil && rec.Generation > settled(first):
			return r.adopted(ctx, first, rec, began), nil
		case rec.Intent == nil && !byHand && !r.due(rec):
			return nil, nil //nolint:nilnil // nothing to do is no rotation and no error
		}
		if err := r.core.admit(Credential{rec.Current.Credential}); err != nil { // the work would send it
			return nil, &RotationError{Stage: StagePrepare, Strategy: r.policy.Strategy, Err: err, State: "no credential was sent anywhere, and nothing was changed"}
		}
		w := &rotationWork{rotator: r, entry: e, rec: rec, recovered: rec.Intent != nil, waited: r.slot.Unchanged(e)}
		err = w.do(ctx)
		switch {
		case errors.Is(err, record.ErrLeaseLost):
			waited = true
			if err := r.pause(ctx, pause, news, r.closing); err != nil {
				return nil, ErrClosed
			}
			continue
		case errors.Is(err, errIntentDropped) && byHand:
			continue // what was left behind is cleared away; now the rotation itself
		case errors.Is(err, errIntentDropped):
			return nil, nil //nolint:nilnil // as above
		case err != nil:
			return nil, err
		}
		res := &Rotation{
			From: w.from, To: w.rec.Current.Credential.Fingerprint(), Generation: w.rec.Generation,
			Strategy: w.strategy, Took: time.Since(began), Recovered: w.recovered,
		}
		r.core.emitRotation(slog.LevelInfo, EventRotated, w.strategy.String(), w.rec, nil)
		return res, nil
	}
}

func loadFailed(err error, waited bool) error {
	state := "nothing was changed"
	if waited {
		state = "another process was rotating the key; how far it got is not known"
	}
	return &RotationError{Stage: StagePrepare, Err: err, State: state}
}

// settled is the generation that a rotation under way started from.
func settled(r record.Key) uint64 {
	if r.Intent != nil && r.Generation == r.Intent.Generation {
		return r.Generation - 1
	}
	return r.Generation
}

// busy returns for how long another process may still be at work on the record:
// it holds the lease, or waits to revoke the previous key and is due to go on.
func (r *rotator) busy(e keyEntry) time.Duration {
	if e.Lease.Holder == r.holder {
		return 0
	}
	left := r.slot.Left(e)
	if in := e.Body.Intent; left == 0 && e.Lease.Holder == "" && in != nil && in.Stage == string(StageRevoke) && !r.startedHere(in) {
		left = max(0, r.graceLeft(in, r.slot.Unchanged(e))+graceHeadStart)
	}
	return left
}

// graceHeadStart is what the process that began a rotation has over others when
// the grace of the previous key is over.
const graceHeadStart = 2 * time.Second

// startedHere reports whether this process has worked on an intent.
func (r *rotator) startedHere(in *record.Intent) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun == in.Key
}

// atWork reports whether somebody is at work on an unfinished rotation.
func (r *rotator) atWork(e keyEntry) bool {
	if e.Lease.Holder == r.holder {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.flight != nil
	}
	return r.busy(e) > 0
}

// adopted takes over the key that another process has rotated to. When the
// sessions cannot be changed over now, they will be by the next look at the
// store.
func (r *rotator) adopted(ctx context.Context, first, rec record.Key, began time.Time) *Rotation {
	if err := r.takeUp(ctx, rec); err != nil {
		r.core.storeFailed("adopt", err)
	}
	res := &Rotation{
		From: first.Current.Credential.Fingerprint(), To: rec.Current.Credential.Fingerprint(),
		Generation: rec.Generation, Strategy: r.policy.Strategy, Took: time.Since(began), Adopted: true,
	}
	if in := first.Intent; in != nil {
		res.From, res.Strategy = in.From, strategyNamed(in.Strategy)
	}
	return res
}

// rotationCloseGrace is how long close lets a rotation finish before it ends
// it; what is left then is finished by the next start.
const rotationCloseGrace = 15 * time.Second

func (r *rotator) close() error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	f := r.flight
	r.mu.Unlock()
	if f != nil {
		t := time.NewTimer(rotationCloseGrace)
		select {
		case <-f.done:
		case <-t.C:
		}
		t.Stop()
	}
	r.cancel()
	return errors.Join(r.awaitEnd(), r.saveAtLast())
}

// storeCloseGrace bounds how long close waits for a store that does not heed its
// context.
const storeCloseGrace = 5 * time.Second

func (r *rotator) awaitEnd() error {
	ended := make(chan struct{})
	go func() {
		r.wg.Wait()
		close(ended)
	}()
	t := time.NewTimer(storeCloseGrace)
	defer t.Stop()
	select {
	case <-ended:
		return nil
	case <-t.C:
		return fmt.Errorf("agrenting: the key store ignored the end of its context for %v", storeCloseGrace)
	}
}

// wallNow is the time for a record, by the wall clock alone: it advances while a
// machine sleeps, and other processes know no other.
func wallNow() time.Time { return time.Now().Round(0) }
