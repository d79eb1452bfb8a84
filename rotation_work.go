package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// rotationWork takes one intent to its end. What is done next follows from the
// record alone, so a process that takes a dead one's work over does the same
// as one that never died.
type rotationWork struct {
	*rotator
	rec       KeyRecord
	rev       Revision
	from      string
	strategy  Strategy
	recovered bool
	// replaced is the generation in use before this process changed over; nil
	// when another process did.
	replaced *stamp
}

// errIntentDropped says that an unfinished rotation could only be undone.
var errIntentDropped = errors.New("agrenting: an unfinished rotation was undone")

// idempotencyKept is how long the platform answers a repeated call with the
// first answer (platform documentation, "Idempotency": 24 h), less a margin.
const idempotencyKept = 23 * time.Hour

func (w *rotationWork) do(ctx context.Context) error {
	w.from = w.rec.Current.Credential.Fingerprint()
	var err error
	if w.rec.Intent == nil {
		err = w.prepare(ctx)
	} else {
		err = w.takeOver(ctx)
	}
	for err == nil && w.rec.Intent != nil {
		w.strategy = w.rec.Intent.Strategy
		switch {
		case w.rec.Intent.Stage == StageForget:
			err = w.forget(ctx)
		case w.rec.Intent.Stage == StageRevoke:
			err = w.revoke(ctx)
		case !w.rec.Pending.IsZero():
			err = w.promote(ctx)
		case w.rec.Intent.Strategy == InPlace:
			err = w.issueInPlace(ctx)
		default:
			err = w.issueBeside(ctx)
		}
	}
	if err != nil && !errors.Is(err, errLostLease) && !errors.Is(err, errIntentDropped) {
		w.letGo(ctx)
		if _, ok := errors.AsType[*RotationError](err); !ok {
			err = w.fail(StagePrepare, err, "", "")
		}
	}
	return err
}

// fail makes the error of a stage.
func (w *rotationWork) fail(stage Stage, err error, state, advice string) *RotationError {
	return &RotationError{Stage: stage, Strategy: w.strategy, Err: err, State: state, Advice: advice}
}

// save writes the record and extends the lease. A conflict means that the
// lease was lost.
func (w *rotationWork) save(ctx context.Context, rec KeyRecord) error {
	if rec.Intent != nil {
		rec.Intent.Lease = time.Now().Add(w.policy.Lease)
	}
	rev, err := w.store.Save(ctx, rec, w.rev)
	if errors.Is(err, ErrConflictingWrite) {
		return errLostLease
	}
	if err != nil {
		return err
	}
	w.rec, w.rev = rec, rev
	w.rotator.mu.Lock()
	w.rotator.last = rec
	w.rotator.mu.Unlock()
	return nil
}

// letGo gives the lease back, so that the next attempt need not wait for it.
func (w *rotationWork) letGo(ctx context.Context) {
	if w.rec.Intent == nil || ctx.Err() != nil {
		return
	}
	rec := w.rec.clone()
	rec.Intent.Lease = time.Now()
	rec.Intent.Owner = ""
	if rev, err := w.store.Save(ctx, rec, w.rev); err == nil {
		w.rec, w.rev = rec, rev
		w.rotator.mu.Lock()
		w.rotator.last = rec
		w.rotator.mu.Unlock()
	}
}

// extend makes sure that the lease outlasts what is about to be done.
func (w *rotationWork) extend(ctx context.Context, d time.Duration) error {
	if w.rec.Intent == nil || time.Until(w.rec.Intent.Lease) > d {
		return nil
	}
	rec := w.rec.clone()
	rec.Intent.Lease = time.Now().Add(d + w.policy.Lease)
	rev, err := w.store.Save(ctx, rec, w.rev)
	if errors.Is(err, ErrConflictingWrite) {
		return errLostLease
	}
	if err != nil {
		return w.fail(w.rec.Intent.Stage, err, "", "")
	}
	w.rec, w.rev = rec, rev
	return nil
}

func (w *rotationWork) stage(s Stage) {
	w.core.emitRotation(slog.LevelDebug, EventRotating, string(s), w.rec, nil)
}

// prepare writes the intent down before anything is done.
func (w *rotationWork) prepare(ctx context.Context) error {
	const nothing = "nothing was changed, the key is live"
	cur := w.rec.Current
	w.strategy = w.policy.Strategy
	if cur.Credential.Kind() != KindAPIKey {
		return w.fail(StagePrepare, fmt.Errorf("%w: the platform rotates API keys, and this is a %s", ErrInvalidCredential, cur.Credential.Kind()),
			nothing, "create and revoke user tokens by Client.Tokens")
	}
	next := w.rec.clone()
	agent := w.agentID(cur)
	if w.strategy != InPlace && cur.ID == "" && agent != "" {
		next.Current.ID = w.findID(ctx, agent, cur)
	}
	if next.Current.AgentID == "" {
		next.Current.AgentID = agent
	}
	beside := agent != "" && next.Current.ID != ""
	switch {
	case w.strategy == 0 && beside:
		w.strategy = Overlap
	case w.strategy == 0:
		w.strategy = InPlace
	case w.strategy == Overlap && agent == "":
		return w.fail(StagePrepare, fmt.Errorf("%w: it is not known whose key this is", ErrInvalidOption), nothing, "set RotationPolicy.AgentID")
	case w.strategy == Overlap && !beside:
		return w.fail(StagePrepare, fmt.Errorf("%w: the platform's id of the key is not known, so it could not be revoked", ErrInvalidOption),
			nothing, "set RotationPolicy.KeyID, or use InPlace for this rotation")
	}
	next.Intent = &Intent{
		Key: newUUID(), Strategy: w.strategy, Stage: StageIssue, From: w.from,
		Generation: w.rec.Generation + 1, Owner: w.owner, Started: time.Now(),
	}
	if w.strategy == InPlace {
		w.lifelines(ctx, &next, agent)
	}
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, errLostLease) {
			return err
		}
		return w.fail(StagePrepare, err, nothing, "")
	}
	w.stage(StagePrepare)
	return nil
}

// takeOver continues a rotation that another process, or an earlier attempt,
// has not finished.
func (w *rotationWork) takeOver(ctx context.Context) error {
	next := w.rec.clone()
	in := next.Intent
	w.strategy = in.Strategy
	in.Owner = w.owner
	in.Attempts++
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, errLostLease) {
			return err
		}
		return w.fail(in.Stage, err, "an unfinished rotation could not be taken over", "")
	}
	issuing := w.rec.Pending.IsZero() && w.rec.Intent.Stage == StageIssue
	worn := w.rec.Intent.Attempts > w.policy.MaxAttempts || time.Since(w.rec.Intent.Started) > idempotencyKept
	if !issuing || !worn {
		return nil
	}
	// The old idempotency key leads nowhere any more. Undo what it may have
	// left behind; a new intent can begin afresh.
	if w.strategy == Overlap {
		if err := w.sweepMarked(ctx); err != nil {
			return w.fail(StageIssue, err, "a key that an earlier attempt may have created could not be looked for", "")
		}
		return w.drop(ctx)
	}
	if err := w.verify(ctx, w.rec.Current.Credential); err == nil {
		return w.drop(ctx)
	}
	return nil // the key is dead: its successor must be found, however old the intent
}

// drop deletes the intent without a result.
func (w *rotationWork) drop(ctx context.Context) error {
	next := w.rec.clone()
	next.Intent, next.Pending = nil, StoredKey{}
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
func (w *rotationWork) issued(a *directAnswer) (StoredKey, error) {
	k, ok := findIssued(a.env.data, APIKey)
	if !ok {
		e := w.fail(StageIssue, fmt.Errorf("%w: the platform says that it has issued a key, but none was found in its answer", ErrMalformedResponse),
			"the new key is in the answer, under a name that the SDK does not know",
			"RawAnswer of this error has the answer; save the key from it")
		e.raw = secret.New(string(a.raw))
		return StoredKey{}, e
	}
	out := StoredKey{Credential: k.Credential, ID: k.ID, AgentID: k.AgentID, Created: k.Created, Expires: k.Expires}
	if out.Created.IsZero() || time.Since(out.Created).Abs() > 48*time.Hour {
		out.Created = time.Now()
	}
	if out.AgentID == "" {
		out.AgentID = w.agentID(w.rec.Current)
	}
	return out, nil
}

// changeOver lets requests use the current key from now on.
func (w *rotationWork) changeOver(ctx context.Context) {
	if err := w.adopt(ctx, w.rec.Current, renew.Manual); err != nil && ctx.Err() == nil {
		// Sessions could not be renewed: the old one serves on until its end.
		w.core.storeFailed("adopt", err)
		w.replaced = nil
	}
}

// end deletes the intent, and what only it needed.
func (w *rotationWork) end(ctx context.Context, next KeyRecord) error {
	next.Intent, next.Previous = nil, StoredKey{}
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, errLostLease) {
			return err
		}
		return w.fail(StageForget, err, "the new key is in use and the old one is dead; only the note about it could not be deleted", "")
	}
	w.stage(StageForget)
	return nil
}

// await waits for requests on the wire, bounded.
func (w *rotationWork) await(ctx context.Context, drained <-chan struct{}) {
	t := time.NewTimer(w.policy.DrainTimeout)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
	case <-ctx.Done():
	}
}
