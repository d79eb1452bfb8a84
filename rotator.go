package agrenting

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// rotator owns the key of a client that has a KeyStore: it is the source of
// the key, and it rotates it.
type rotator struct {
	core   *core
	store  KeyStore
	seed   CredentialSource // nil: none
	policy RotationPolicy
	auto   bool          // rotate by itself
	owner  string        // random name of this process in leases
	inUse  func() *stamp // nil when there is none
	adopt  func(ctx context.Context, k StoredKey, reason renew.Reason) error

	ctx    context.Context //nolint:containedctx // of the work that no caller waits for, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	flight  *rotationFlight
	unsaved *KeyRecord // holds a key that the store has refused so far
	last    KeyRecord  // as last seen
	timer   *time.Timer
	failed  int // attempts in a row
	lastErr error
	retryAt time.Time // no attempt by itself before
	watched sync.Once
	oldNote string
	closed  bool
}

type rotationFlight struct {
	done chan struct{}
	res  *Rotation
	err  error
}

func newRotator(c *core, store KeyStore, seed CredentialSource) *rotator {
	p := RotationPolicy{Every: -1}
	if c.cfg.rotation != nil {
		p = *c.cfg.rotation
	}
	r := &rotator{core: c, store: store, seed: seed, policy: p.withDefaults(store), owner: newUUID()}
	r.auto = r.policy.Every > 0
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// storeRecheck is how often a store that does not tell of changes is looked at
// while there is traffic.
const storeRecheck = time.Second

// Credential implements [CredentialSource].
func (r *rotator) Credential(ctx context.Context) (Credential, error) {
	k, _, err := r.choose(ctx, Credential{})
	return k.Credential, err
}

// Refresh implements [Refresher].
func (r *rotator) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	k, _, err := r.choose(ctx, rejected)
	return k.Credential, err
}

// fetch is the engine's source where the key itself authenticates requests.
func (r *rotator) fetch(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error) {
	var rejected Credential
	if q.HasRejected {
		rejected = q.Rejected.cred
	}
	k, reason, err := r.choose(ctx, rejected)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	return r.grant(k, q.HasCurrent, reason)
}

func (r *rotator) grant(k StoredKey, known bool, reason renew.Reason) (renew.Grant[*stamp], error) {
	s, err := r.core.stamp(k.Credential)
	if err != nil {
		return renew.Grant[*stamp]{}, err
	}
	g := renew.Grant[*stamp]{Value: s, Recheck: storeRecheck}
	if known {
		g.Reason = reason
	}
	return g, nil
}

// pollStore is the longest pause between two looks at a record in which another
// process is rotating.
const pollStore = 25 * time.Millisecond

// choose gives the key to use: the store's, and in place of one that the
// platform rejected whatever may be its successor. It asks the store first, so
// that a rotation made by another process costs no call of the platform.
func (r *rotator) choose(ctx context.Context, rejected Credential) (StoredKey, renew.Reason, error) {
	r.watched.Do(r.watch)
	for pause := time.Millisecond; ; pause = min(2*pause, pollStore) {
		rec, rev, err := r.load(ctx)
		if err != nil {
			return StoredKey{}, 0, err
		}
		r.schedule(rec)
		if rejected.IsZero() || !rec.Current.Credential.Equal(rejected) {
			return rec.Current, renew.Adopted, nil
		}
		if rec.Intent == nil {
			return r.replaceRejected(ctx, rec, rev)
		}
		// The key was rejected while it is being rotated: its successor is on
		// the way, or somebody has to finish the work of a process that died.
		if !r.held(rec.Intent) {
			if err := r.resume(); err != nil {
				return StoredKey{}, 0, err
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return StoredKey{}, 0, err
		}
	}
}

// resume has an unfinished rotation finished, unless the last attempt has
// failed just now.
func (r *rotator) resume() error {
	r.mu.Lock()
	at, err := r.retryAt, r.lastErr
	r.mu.Unlock()
	if err != nil && time.Now().Before(at) {
		return &pausedError{at: at, err: err}
	}
	if r.start(false) == nil {
		return ErrClosed
	}
	return nil
}

// replaceRejected looks for another key when no rotation explains why the
// current one was rejected.
func (r *rotator) replaceRejected(ctx context.Context, rec KeyRecord, rev Revision) (StoredKey, renew.Reason, error) {
	// While a new key spreads over the platform, the previous one may still do.
	if !rec.Previous.IsZero() && r.verify(ctx, rec.Previous.Credential) == nil {
		return rec.Previous, renew.Adopted, nil
	}
	if r.seed != nil {
		c, err := r.seed.Credential(ctx)
		if err == nil && c.validate() == nil && !rec.knows(c) && r.core.checkKey(c) == nil && r.verify(ctx, c) == nil {
			next := rec.clone()
			next.Ancestors = next.remember(rec.Current.Credential.Fingerprint())
			next.Previous = StoredKey{}
			next.Current = StoredKey{Credential: c, Created: time.Now(), ID: r.policy.KeyID}
			next.Generation++
			_, err := r.store.Save(ctx, next, rev)
			if err == nil {
				r.core.emitRotation(slog.LevelInfo, EventRotated, "a key put there by hand was adopted", next, nil)
				return next.Current, renew.Adopted, nil
			}
			if !errors.Is(err, ErrConflictingWrite) {
				r.core.storeFailed("save", err)
				return next.Current, renew.Adopted, nil
			}
		}
	}
	return rec.Current, renew.Rejected, nil // insists: the caller sees its 401
}

// held reports whether somebody is at work on an intent.
func (r *rotator) held(in *Intent) bool {
	if in.Owner == r.owner {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.flight != nil
	}
	return time.Now().Before(in.Lease)
}

// load reads the record; an empty store is seeded. A key that the store has
// refused comes before what the store holds.
func (r *rotator) load(ctx context.Context) (KeyRecord, Revision, error) {
	rec, rev, err := r.store.Load(ctx)
	if errors.Is(err, ErrNoCredential) {
		rec, rev, err = r.plant(ctx, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unsaved; u != nil && (err != nil || u.Generation > rec.Generation) {
		return u.clone(), rev, nil
	}
	if err == nil {
		r.last = rec
	}
	return rec, rev, err
}

// plant seeds an empty store.
func (r *rotator) plant(ctx context.Context, empty error) (KeyRecord, Revision, error) {
	if r.seed == nil {
		return KeyRecord{}, "", fmt.Errorf("%w; seed it by WithCredential or the environment", empty)
	}
	c, err := r.seed.Credential(ctx)
	if err != nil {
		return KeyRecord{}, "", err
	}
	if err := r.core.checkKey(c); err != nil {
		return KeyRecord{}, "", err
	}
	rec := KeyRecord{Generation: 1, Current: StoredKey{
		Credential: c, ID: r.policy.KeyID, AgentID: r.policy.AgentID, Created: time.Now(), Expires: c.Expires(),
	}}
	rev, err := r.store.Save(ctx, rec, "")
	if errors.Is(err, ErrConflictingWrite) {
		return r.store.Load(ctx)
	}
	return rec, rev, err
}

// Rotate is [Client.Rotate].
func (r *rotator) Rotate(ctx context.Context) (*Rotation, error) {
	f := r.start(true)
	if f == nil {
		return nil, ErrClosed
	}
	select {
	case <-f.done:
		return f.res, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
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
	f := &rotationFlight{done: make(chan struct{})}
	r.flight = f
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		f.res, f.err = r.run(r.ctx, byHand)
		r.mu.Lock()
		r.flight = nil
		r.mu.Unlock()
		r.finished(f)
		close(f.done)
	}()
	return f
}

func (r *rotator) finished(f *rotationFlight) {
	r.mu.Lock()
	rec, closed := r.last, r.closed
	r.lastErr = f.err
	if f.err != nil {
		r.failed++
		r.retryAt = time.Now().Add(renew.Doubled(time.Second, r.policy.RetryEvery, r.failed))
	} else {
		r.failed = 0
	}
	r.mu.Unlock()
	if f.err != nil && !closed {
		r.core.emitRotation(slog.LevelError, EventRotationFailed, stageOf(f.err), rec, f.err)
	}
	if !closed {
		r.schedule(rec)
	}
}

func stageOf(err error) string {
	if e, ok := errors.AsType[*RotationError](err); ok {
		return string(e.Stage)
	}
	return ""
}

// run rotates: it takes the lease, or awaits the one who has it.
func (r *rotator) run(ctx context.Context, byHand bool) (*Rotation, error) {
	began := time.Now()
	var first uint64
	waited := false
	for pause := time.Millisecond; ; pause = min(2*pause, pollStore) {
		rec, rev, err := r.load(ctx)
		if err != nil {
			return nil, &RotationError{Stage: StagePrepare, Err: err, State: "nothing was changed"}
		}
		if first == 0 {
			first = rec.Generation
		}
		switch {
		case rec.Intent != nil && r.heldByOther(rec.Intent):
			waited = true
			if err := sleep(ctx, pause); err != nil {
				return nil, ErrClosed
			}
			continue
		case rec.Generation > first && waited:
			return r.adopted(ctx, rec, began)
		}
		w := &rotationWork{rotator: r, rec: rec, rev: rev, recovered: rec.Intent != nil}
		if rec.Intent == nil && !byHand && !r.due(rec) {
			return nil, nil //nolint:nilnil // nothing to do is no rotation and no error
		}
		err = w.do(ctx)
		switch {
		case errors.Is(err, errLostLease):
			waited = true
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

func (r *rotator) heldByOther(in *Intent) bool {
	return in.Owner != r.owner && time.Now().Before(in.Lease)
}

// adopted takes over the key that another process has rotated to.
func (r *rotator) adopted(ctx context.Context, rec KeyRecord, began time.Time) (*Rotation, error) {
	if err := r.adopt(ctx, rec.Current, renew.Adopted); err != nil {
		return nil, err
	}
	return &Rotation{
		From: rec.Previous.Credential.Fingerprint(), To: rec.Current.Credential.Fingerprint(),
		Generation: rec.Generation, Strategy: r.policy.Strategy, Took: time.Since(began), Adopted: true,
	}, nil
}

// due reports whether the key should be rotated by itself.
func (r *rotator) due(rec KeyRecord) bool {
	at := r.dueAt(rec)
	return !at.IsZero() && !time.Now().Before(at)
}

// dueAt is when the key should be rotated, zero for never. The spread depends
// on the key alone: a restart does not roll the dice again, and all processes
// that share it agree.
func (r *rotator) dueAt(rec KeyRecord) time.Time {
	if !r.auto || rec.Current.IsZero() {
		return time.Time{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(rec.Current.Credential.Fingerprint())) // never fails
	spread := float64(h.Sum64()>>11) / (1 << 53)
	life := r.policy.Every
	if e := rec.Current.Expires; !e.IsZero() {
		life = min(life, max(0, e.Sub(rec.Current.Created)*4/5))
	}
	return rec.Current.Created.Add(life - time.Duration(float64(life)*0.1*spread))
}

// schedule sets the timer for the record: for the day the key is due, or for
// the moment when a lease runs out whose holder may have died.
func (r *rotator) schedule(rec KeyRecord) {
	r.warnOfAge(rec)
	at := r.dueAt(rec)
	if in := rec.Intent; in != nil {
		at = in.Lease
	}
	if at.IsZero() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.flight != nil {
		return
	}
	wait := max(0, time.Until(at))
	if r.failed > 0 {
		wait = max(wait, renew.Doubled(r.policy.RetryEvery, maxRetryEvery, r.failed))
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(wait, func() { r.start(false) })
}

// warnOfAge reports, once per key, that a key is older than the platform
// recommends and nobody is going to rotate it.
func (r *rotator) warnOfAge(rec KeyRecord) {
	if r.auto || rec.Current.Created.IsZero() || time.Since(rec.Current.Created) < DefaultRotationInterval {
		return
	}
	fp := rec.Current.Credential.Fingerprint()
	r.mu.Lock()
	noted := r.oldNote == fp
	r.oldNote = fp
	r.mu.Unlock()
	if !noted {
		r.core.emitRotation(slog.LevelWarn, EventKeyOld, "the key is older than 90 days; rotate it, or set WithRotation", rec, nil)
	}
}

// watch adopts what other processes save, as soon as a store tells of it.
func (r *rotator) watch() {
	w, ok := r.store.(KeyWatcher)
	if !ok {
		return
	}
	r.wg.Go(func() {
		for r.ctx.Err() == nil {
			for rec, err := range w.Watch(r.ctx) {
				if err != nil {
					r.core.storeFailed("watch", err)
					break
				}
				r.noticed(rec)
			}
			if sleep(r.ctx, storeRecheck) != nil {
				return
			}
		}
	})
}

func (r *rotator) noticed(rec KeyRecord) {
	r.mu.Lock()
	stale := rec.Generation <= r.last.Generation || r.flight != nil
	if !stale {
		r.last = rec
	}
	r.mu.Unlock()
	if !stale && !rec.Current.IsZero() {
		_ = r.adopt(r.ctx, rec.Current, renew.Adopted)
	}
}

// keep holds on to a key that the store has refused, and goes on trying to
// save it.
func (r *rotator) keep(rec KeyRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	saving := r.unsaved != nil
	held := rec.clone()
	r.unsaved = &held
	if saving || r.closed {
		return
	}
	r.wg.Go(func() {
		for n := 1; r.trySave(r.ctx) != nil; n++ {
			if sleep(r.ctx, renew.Doubled(time.Second, time.Minute, n)) != nil {
				return
			}
		}
	})
}

// trySave saves what the store has refused.
func (r *rotator) trySave(ctx context.Context) error {
	r.mu.Lock()
	u := r.unsaved
	r.mu.Unlock()
	if u == nil {
		return nil
	}
	rec, rev, err := r.store.Load(ctx)
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return err
	}
	if rec.Generation < u.Generation {
		next := u.clone()
		next.Intent = nil
		if _, err := r.store.Save(ctx, next, rev); err != nil {
			return err
		}
		r.core.emitRotation(slog.LevelInfo, EventRotated, "the key that the store had refused is saved", next, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsaved = nil
	return nil
}

// closeGrace is how long close lets a rotation finish before it ends it; what
// is left then is finished by the next start.
const rotationCloseGrace = 15 * time.Second

func (r *rotator) close() error {
	r.mu.Lock()
	r.closed = true
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
	r.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.trySave(ctx); err != nil {
		return &RotationError{
			Stage: StagePersist, Err: err, new: r.unsaved.Current.Credential,
			State:  "the new key is live and was never saved",
			Advice: "save what NewCredential returns before the process ends: the platform does not show it again",
		}
	}
	return nil
}

// sleep waits, cancellably.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
