package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// rotator owns the key of a client that has a KeyStore: it is the source of
// the key (rotation_source.go), it knows when the key is due
// (rotation_schedule.go), and it rotates it.
type rotator struct {
	core   *core
	store  KeyStore
	seed   CredentialSource // nil: none
	noSeed error            // where one was looked for, when there is none
	policy RotationPolicy
	auto   bool          // rotate by itself
	owner  string        // random name of this process in leases
	inUse  func() *stamp // nil when there is none
	adopt  func(ctx context.Context, k StoredKey, reason renew.Reason) error

	ctx     context.Context //nolint:containedctx // of the work that no caller waits for, ended by close
	cancel  context.CancelFunc
	closing chan struct{} // closed at the beginning of close
	wg      sync.WaitGroup

	mu       sync.Mutex
	flight   *rotationFlight
	unsaved  *KeyRecord   // holds a key that the store has refused so far
	saving   bool         // somebody is trying to save it
	last     KeyRecord    // as last seen
	given    Credential   // the key that was last given out
	stamped  *stamp       // the key that was last stamped
	seen     []Credential // of the latest records, see withoutKeys
	instead  substitute   // for what a store has that cannot be written
	stale    *stamp       // in use since before a key that sessions could not be changed over to
	timer    *time.Timer
	failed   int       // attempts in a row
	endedAt  time.Time // of the last attempt
	lastErr  error
	watching bool
	watched  bool          // the store tells of changes, and has not failed to
	news     chan struct{} // closed at the next change that the store tells of
	storeErr error         // of the last attempt to reach the store
	oldNote  string
	closed   bool
}

type rotationFlight struct {
	done   chan struct{}
	byHand bool
	res    *Rotation
	err    error
}

func newRotator(c *core, store KeyStore, seed CredentialSource) *rotator {
	p := RotationPolicy{Every: -1}
	if c.cfg.rotation != nil {
		p = *c.cfg.rotation
	}
	r := &rotator{
		core: c, store: store, seed: seed, policy: p.withDefaults(store), owner: newUUID(),
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
				f.err = panicked("what the rotation called", p)
			}
		}()
		f.res, f.err = r.run(r.ctx, byHand)
	})
	return f
}

func (r *rotator) finished(f *rotationFlight) {
	r.mu.Lock()
	r.flight = nil
	rec, closed := r.last, r.closed
	r.lastErr, r.endedAt = f.err, time.Now()
	if f.err != nil {
		r.failed++
	} else {
		r.failed = 0
	}
	r.mu.Unlock()
	if f.err != nil && !errors.Is(f.err, ErrClosed) {
		r.core.emitRotation(slog.LevelError, EventRotationFailed, stageOf(f.err), rec, f.err)
	}
	if !closed {
		r.schedule(rec)
		if f.err == nil {
			r.mu.Lock()
			rec = r.last
			r.mu.Unlock()
			_ = r.takeUp(r.ctx, rec) // what was told of meanwhile
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
	var first KeyRecord
	var holder string
	waited := false
	for pause := time.Millisecond; ; pause = min(2*pause, watchedPoll) {
		news := r.awaitNews()
		rec, rev, err := r.load(ctx, Credential{})
		if err != nil {
			return nil, loadFailed(err, waited)
		}
		if first.Current.IsZero() {
			first = rec
		}
		switch {
		case rec.Intent != nil && r.heldByOther(rec.Intent):
			waited = true
			if holder != rec.Intent.Owner {
				holder = rec.Intent.Owner
				r.core.emitRotation(slog.LevelDebug, EventRotating, waiting, rec, nil)
			}
			_ = r.takeUp(ctx, rec) // or when it has ended
			if err := r.pause(ctx, pause, news, r.closing); err != nil {
				return nil, ErrClosed
			}
			continue
		case waited && rec.Intent == nil && rec.Generation > first.settled():
			return r.adopted(ctx, first, rec, began), nil
		case rec.Intent == nil && !byHand && !r.due(rec):
			return nil, nil //nolint:nilnil // nothing to do is no rotation and no error
		}
		if err := r.core.admit(rec.Current.Credential); err != nil { // the work would send it
			return nil, &RotationError{Stage: StagePrepare, Strategy: r.policy.Strategy, Err: err, State: "no credential was sent anywhere, and nothing was changed"}
		}
		w := &rotationWork{rotator: r, rec: rec, rev: rev, recovered: rec.Intent != nil}
		err = w.do(ctx)
		switch {
		case errors.Is(err, errLostLease):
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
func (r KeyRecord) settled() uint64 {
	if r.Intent != nil && r.Generation == r.Intent.Generation {
		return r.Generation - 1
	}
	return r.Generation
}

// held reports whether somebody is at work on an intent.
func (r *rotator) held(in *Intent) bool {
	if in.Owner == r.owner {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.flight != nil
	}
	return r.heldByOther(in)
}

// maxLease guards against a lease written under a wrong clock, which would be
// respected for ever.
const maxLease = time.Hour

func (r *rotator) heldByOther(in *Intent) bool {
	return in.Owner != r.owner && time.Now().Before(in.Lease) && r.believes(in.Lease)
}

// believes reports whether a lease may have been written under a clock that is
// right. The longest are for the wait before a revocation.
func (r *rotator) believes(lease time.Time) bool {
	longest := max(maxLease, 4*r.policy.Lease) + r.policy.Grace + r.policy.DrainTimeout
	return lease.Before(time.Now().Add(longest))
}

// adopted takes over the key that another process has rotated to. When the
// sessions cannot be changed over now, they will be by the next look at the
// store.
func (r *rotator) adopted(ctx context.Context, first, rec KeyRecord, began time.Time) *Rotation {
	if err := r.takeUp(ctx, rec); err != nil {
		r.core.storeFailed("adopt", err)
	}
	res := &Rotation{
		From: first.Current.Credential.Fingerprint(), To: rec.Current.Credential.Fingerprint(),
		Generation: rec.Generation, Strategy: r.policy.Strategy, Took: time.Since(began), Adopted: true,
	}
	if in := first.Intent; in != nil {
		res.From, res.Strategy = in.From, in.Strategy
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
