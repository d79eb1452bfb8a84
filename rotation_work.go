package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// rotationWork takes one intent to its end. What is done next follows from the
// record alone, so a process that takes a dead one's work over does the same
// as one that never died.
//
// Whoever was stopped for longer than its lease may go on where it stood, while
// another one has taken over. So each write is fenced by the record's revision,
// and what cannot be fenced, a call of the platform, is one that does no harm
// when it comes late: a repetition under the same idempotency key, or the
// revocation of a key that the record has given up already.
type rotationWork struct {
	*rotator
	// entry is the record that the work begins with, held the lease once it was
	// acquired, stopKeeping ends its extension. rec is the record as last written.
	entry       keyEntry
	held        *record.Held[record.Key]
	stopKeeping func()
	waited      time.Duration // for how long entry had been unchanged
	rec         record.Key
	from        string
	strategy    Strategy
	recovered   bool
	// replaced is the generation in use before this process changed over; nil
	// when another process did.
	replaced *stamp
	// shut is the generation whose gate is closed.
	shut *stamp
	// pauses is how often it was opened for a pause between calls.
	pauses int
}

// errIntentDropped says that an unfinished rotation could only be undone.
var errIntentDropped = errors.New("agrenting: an unfinished rotation was undone")

// idempotencyKept is how long the platform answers a repeated call with the
// first answer (platform documentation, "Idempotency": 24 h), less a margin.
const idempotencyKept = 23 * time.Hour

func (w *rotationWork) do(ctx context.Context) error {
	defer w.reopen()
	defer func() {
		if w.held != nil {
			w.stopKeeping()
		}
	}()
	w.from = w.rec.Current.Credential.Fingerprint()
	var err error
	if w.rec.Intent == nil {
		err = w.prepare(ctx)
	} else {
		w.from = w.rec.Intent.From
		err = w.takeOver(ctx)
	}
	for err == nil && w.rec.Intent != nil {
		err = w.step(ctx)
	}
	if err != nil && !errors.Is(err, record.ErrLeaseLost) && !errors.Is(err, errIntentDropped) {
		w.letGo(ctx)
		if _, ok := errors.AsType[*RotationError](err); !ok {
			err = w.fail(w.stageNow(), err, "the present key is live, or its successor is saved; the next attempt goes on from here", "")
		}
	}
	return err
}

// step does what the record says is next.
func (w *rotationWork) step(ctx context.Context) error {
	in := w.rec.Intent
	w.strategy = strategyNamed(in.Strategy)
	overlap := w.strategy != InPlace
	stage := Stage(in.Stage)
	switch {
	case overlap && stage == StageForget:
		return w.undoBeside(ctx)
	case overlap && stage == StageRevoke:
		return w.revoke(ctx)
	case overlap && !w.rec.Pending.IsZero():
		return w.promote(ctx)
	case overlap:
		return w.issueBeside(ctx)
	case !w.rec.Pending.IsZero():
		return w.promoteInPlace(ctx)
	case stage == StagePrepare:
		return w.prepareInPlace(ctx)
	case stage == StageForget:
		return w.forget(ctx)
	default:
		return w.issueInPlace(ctx)
	}
}

func (w *rotationWork) stageNow() Stage {
	if w.rec.Intent == nil {
		return StagePrepare
	}
	return Stage(w.rec.Intent.Stage)
}

// fail makes the error of a stage.
func (w *rotationWork) fail(stage Stage, err error, state, advice string) *RotationError {
	return &RotationError{Stage: stage, Strategy: w.strategy, Err: err, State: state, Advice: advice}
}

// save writes the record and extends the lease, or acquires it. It does not
// respect the end of ctx: what is known by now must not be lost because the
// client is closed.
func (w *rotationWork) save(ctx context.Context, rec record.Key) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.policy.CallTimeout)
	defer cancel()
	err := w.put(ctx, rec)
	err = w.withoutKeys(err, rec)
	if errors.Is(err, record.ErrLeaseLost) {
		w.reached("save", nil)
		return err
	}
	w.reached("save", err)
	if err != nil {
		return err
	}
	w.rec = rec
	e := w.entry
	if w.held != nil {
		e = w.held.Entry()
	}
	w.mu.Lock()
	w.last = e
	w.mu.Unlock()
	return nil
}

// put writes the record: under the lease, acquiring it, or giving it up with the
// intent.
func (w *rotationWork) put(ctx context.Context, rec record.Key) error {
	switch {
	case w.held == nil && rec.Intent == nil:
		return w.write(ctx, w.entry, rec)
	case w.held == nil:
		terms := record.Terms{Holder: w.holder, Duration: w.policy.Lease, Every: w.policy.Lease / 4}
		held, err := w.slot.Acquire(ctx, w.entry, rec, terms)
		if errors.Is(err, ErrConflictingWrite) {
			return fmt.Errorf("%w: %w", record.ErrLeaseLost, err)
		}
		if err == nil {
			w.held, w.stopKeeping = held, held.Keep(w.ctx)
		}
		return err
	case rec.Intent == nil:
		return w.release(ctx, rec)
	default:
		return w.held.Save(ctx, rec)
	}
}

// release gives the lease up. It may be acquired again.
func (w *rotationWork) release(ctx context.Context, rec record.Key) error {
	w.stopKeeping()
	err := w.held.Release(ctx, rec)
	if err != nil {
		w.stopKeeping = w.held.Keep(w.ctx)
		return err
	}
	w.entry, w.held = w.held.Entry(), nil
	return nil
}

// letGo gives the lease up after a failure, so that the next attempt need not
// wait for its end.
func (w *rotationWork) letGo(ctx context.Context) {
	if w.held == nil {
		return
	}
	w.stopKeeping()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.policy.CallTimeout)
	defer cancel()
	if w.held.Release(ctx, w.rec) == nil {
		w.mu.Lock()
		w.last = w.held.Entry()
		w.mu.Unlock()
	}
	w.held = nil // or the lease ends by itself
}

// allowed returns nil if the platform may be called: the lease is still held, or
// none is needed.
func (w *rotationWork) allowed(ctx context.Context) error {
	if w.held == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.policy.CallTimeout)
	defer cancel()
	err := w.withoutKeys(w.held.Check(ctx), w.rec)
	if err != nil && !errors.Is(err, record.ErrLeaseLost) {
		return w.fail(w.stageNow(), err, "the store cannot be reached, so the right to rotate may have ended; the next attempt continues from here",
			"fix the store")
	}
	return err
}

// fence makes sure that the lease is still held, by extending it.
func (w *rotationWork) fence(ctx context.Context) error {
	err := w.save(ctx, w.rec.Clone())
	if err != nil && !errors.Is(err, record.ErrLeaseLost) {
		return w.fail(w.stageNow(), err, "nothing was changed in this step; the next attempt continues from here", "fix the store")
	}
	return err
}

func (w *rotationWork) stage(s Stage) {
	w.core.emitRotation(slog.LevelDebug, EventRotating, string(s), w.rec, nil)
}

const nothingChanged = "nothing was changed, the key is live"

// prepare writes the intent down before anything is done.
func (w *rotationWork) prepare(ctx context.Context) error {
	cur := w.rec.Current
	w.strategy = w.policy.Strategy
	if cur.Credential.Kind() != secret.KindAPIKey {
		return w.fail(StagePrepare, fmt.Errorf("%w: the platform rotates API keys, and this is a %s", ErrInvalidCredential, cur.Credential.Kind()),
			nothingChanged, "create and revoke user tokens by Client.Tokens")
	}
	next := w.rec.Clone()
	agent := w.agentID(w.rec)
	if w.strategy != InPlace && cur.ID == "" && agent != "" {
		next.Current.ID, _ = w.findID(ctx, agent, cur)
		if next.Current.ID == "" && w.rec.Generation <= 1 && w.seeded(ctx, cur.Credential) { // the key that RotationPolicy.KeyID is about
			next.Current.ID = w.policy.KeyID
		}
	}
	if next.Agent == "" {
		next.Agent = agent
	}
	beside := agent != "" && next.Current.ID != ""
	switch {
	case w.strategy == 0 && beside:
		w.strategy = Overlap
	case w.strategy == 0:
		w.strategy = InPlace
	case w.strategy == Overlap && agent == "":
		return w.fail(StagePrepare, fmt.Errorf("%w: it is not known whose key this is", ErrInvalidOption),
			nothingChanged, "set RotationPolicy.AgentID")
	case w.strategy == Overlap && !beside:
		advice := "use InPlace for this rotation"
		if w.rec.Generation <= 1 {
			advice = "set RotationPolicy.KeyID, or " + advice
		}
		return w.fail(StagePrepare, fmt.Errorf("%w: the platform's id of the key is not known, so it could not be revoked", ErrInvalidOption),
			nothingChanged, advice)
	}
	next.Intent = &record.Intent{
		Key: wire.NewUUID(), Strategy: w.strategy.String(), Stage: string(StageIssue), From: w.from,
		Generation: w.rec.Generation + 1, Started: wallNow(),
	}
	if w.strategy == InPlace {
		next.Intent.Stage = string(StagePrepare)
	}
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(StagePrepare, err, nothingChanged, "")
	}
	w.mu.Lock()
	w.begun = w.rec.Intent.Key
	w.mu.Unlock()
	w.stage(StagePrepare)
	return nil
}

// seeded reports whether a key may be the one that RotationPolicy.KeyID is about:
// that of the seed, or any where there is no seed.
func (w *rotationWork) seeded(ctx context.Context, c secret.Credential) bool {
	if w.seed == nil {
		return true
	}
	seed, err := w.seed.Credential(ctx)
	return err == nil && seed.c.Equal(c)
}

// takeOver continues a rotation that another process, or an earlier attempt,
// has not finished.
func (w *rotationWork) takeOver(ctx context.Context) error {
	next := w.rec.Clone()
	in := next.Intent
	w.strategy = strategyNamed(in.Strategy)
	in.Attempts++
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(Stage(in.Stage), err, "an unfinished rotation could not be taken over", "fix the store")
	}
	w.mu.Lock()
	w.begun = in.Key
	w.mu.Unlock()
	issuing := w.rec.Pending.IsZero() && w.rec.Intent.Stage == string(StageIssue)
	worn := w.rec.Intent.Attempts > w.policy.MaxAttempts || time.Since(w.rec.Intent.Started) > idempotencyKept
	if !issuing || !worn {
		return nil
	}
	// The old idempotency key leads nowhere any more. Undo what it may have
	// left behind; a new intent can begin afresh.
	if w.strategy == Overlap {
		return w.beginUndo(ctx)
	}
	if err := w.verify(ctx, w.rec.Current.Credential); err == nil {
		return w.drop(ctx)
	}
	return nil // the key is dead: its successor must be found, however old the intent
}

// drop deletes the intent without a result.
func (w *rotationWork) drop(ctx context.Context) error {
	next := w.rec.Clone()
	next.Intent, next.Pending = nil, record.StoredKey{}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return errIntentDropped
}

// undo deletes the intent on account of err.
func (w *rotationWork) undo(ctx context.Context, err error) error {
	if derr := w.drop(ctx); !errors.Is(derr, errIntentDropped) {
		return errors.Join(err, derr)
	}
	return err
}

// issued finds the key in an answer.
func (w *rotationWork) issued(a *directAnswer) (record.StoredKey, error) {
	k, ok := a.issued()
	if !ok {
		e := w.fail(StageIssue, fmt.Errorf("%w: the platform says that it has issued a key, but none was found in its answer", ErrMalformedResponse),
			"the new key is in the answer, under a name that the SDK does not know",
			"RawAnswer of this error has the answer; save the key from it")
		if a.jsonErr != nil {
			e.State = "the answer with the new key is no JSON, as if it had been cut off"
			e.Advice = "the next attempt asks for it again by the same idempotency key; RawAnswer of this error has what came"
		}
		e.raw = secret.New(string(a.raw))
		return record.StoredKey{}, e
	}
	out := record.StoredKey{Credential: k.Credential.c, ID: k.ID}
	out.Created, out.Expires = w.localTimes(k, a.sent())
	if w.rec.Agent == "" {
		w.rec.Agent = k.AgentID
	}
	return out, nil
}

// maxCreatedOff is how far from the local clock the creation of a key may be that
// was issued just now, or, by a repeated call, up to a day ago.
const maxCreatedOff = 48 * time.Hour

// localTimes are the times of a new key. Where the platform's clock is so far from
// ours that the key would be due at once, or never, they are moved onto ours: how
// long the key lives, and how old it was when the answer was sent, hold on either.
func (w *rotationWork) localTimes(k IssuedKey, sent time.Time) (created, expires time.Time) {
	now := wallNow()
	if sent.IsZero() {
		sent = now
	}
	created, expires = k.Created, k.Expires
	if created.IsZero() {
		created = sent
	}
	due := w.policy.Every
	if due < 0 {
		due = DefaultRotationInterval
	}
	length := expires.Sub(created)
	if length <= 0 { // none, or nonsense
		expires = time.Time{}
	} else {
		due = min(due, length)
	}
	if now.Sub(created).Abs() <= min(maxCreatedOff, due/10) {
		return created, expires
	}
	age := sent.Sub(created)
	if age < 0 || age > maxCreatedOff {
		age = 0
	}
	created = now.Add(-age)
	if !expires.IsZero() {
		expires = created.Add(length)
	}
	return created, expires
}

// changeOver lets requests use the current key from now on, and reports whether
// they do. Sessions that cannot be bought now serve on until their end.
func (w *rotationWork) changeOver(ctx context.Context) bool {
	cur := w.rec.Current
	before := w.inUse()
	err := w.change(ctx, cur, renew.Manual)
	if err != nil && ctx.Err() == nil {
		w.core.storeFailed("adopt", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = nil
	if err != nil {
		w.stale = before
	}
	return err == nil
}

// wasGiven reports whether c is the key that a session was bought with last.
func (r *rotator) wasGiven(c secret.Credential) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.given.Equal(c)
}

// end deletes the intent, and what only it needed.
func (w *rotationWork) end(ctx context.Context, next record.Key) error {
	next.Intent, next.Previous = nil, record.StoredKey{}
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(StageForget, err, "the new key is in use and the old one is dead; only the note about it could not be deleted", "fix the store")
	}
	w.stage(StageForget)
	return nil
}

// await waits for requests on the wire, all of them no longer than DrainTimeout.
func (w *rotationWork) await(ctx context.Context, drained ...<-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, w.policy.DrainTimeout)
	defer cancel()
	for _, done := range drained {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}
