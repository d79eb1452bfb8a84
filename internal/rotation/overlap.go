package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// overlap creates a second key, changes over, and revokes the first one when no
// request uses it any more.
type overlap struct{ w *work }

// create creates the second key and saves it as pending.
func (o overlap) create(ctx context.Context) error {
	w := o.w
	w.enter(StageIssue)
	in := w.hold.rec.Intent
	agent := w.calls.agentOf(w.hold.rec)
	by, err := w.calls.manager(ctx, agent)
	if err != nil {
		return w.fail(StageIssue, err, nothingChanged, "")
	}
	a, err := w.calls.ask(ctx, func(ctx context.Context) Answer {
		return w.calls.platform.Issue(ctx, by, agent, mark(in), in.Key)
	})
	switch {
	case err != nil:
		return err
	case a.Outcome.made():
		k, err := w.issued(a)
		if err != nil {
			return err
		}
		return o.persist(ctx, k)
	case a.Outcome == Unauthorized:
		return w.dropFor(ctx, w.fail(StageIssue, a.Err, "nothing was created",
			"the present key or the owner credential is refused; put a valid one into the environment or the option that gives the initial key"))
	case a.Outcome == Failed:
		if err := o.beginUndo(ctx); err != nil {
			return err
		}
		return o.undone(ctx, w.fail(StageIssue, a.Err, "nothing was left behind, the present key is live", ""))
	case a.Outcome == Refused && w.policy.Strategy == Automatic && !w.recovered:
		return o.changeToInPlace(ctx)
	case a.Outcome == Refused:
		return w.dropFor(ctx, w.fail(StageIssue, a.Err, "nothing was created, the present key is live",
			"set RotationPolicy.Owner to a credential that may create keys, or use InPlace"))
	default:
		return w.fail(StageIssue, a.Err,
			"a key may have been created; the next attempt asks for it again with the same idempotency key, the present key is live", "")
	}
}

// changeToInPlace is for the automatic choice, if the platform does not let the
// key create another.
func (o overlap) changeToInPlace(ctx context.Context) error {
	next := o.w.hold.rec.Clone()
	next.Intent.Strategy, next.Intent.Key, next.Intent.Stage = InPlace.String(), wire.NewUUID(), string(StagePrepare)
	err := o.w.unsaved(StagePrepare, o.w.hold.save(ctx, next), nothingChanged)
	if err == nil {
		o.w.strategy = InPlace
	}
	return err
}

// persist saves the new key. If the store refuses, nothing is lost: the next
// attempt gets the same answer with the same idempotency key. The key is not
// revoked, since then that answer would name a dead key.
func (o overlap) persist(ctx context.Context, k record.StoredKey) error {
	w := o.w
	w.enter(StagePersist)
	var err error
	for n := range saveAttempts {
		next := w.hold.rec.Clone()
		next.Pending, next.Intent.Stage = k, string(StageVerify)
		err = w.hold.save(ctx, next)
		if errors.Is(err, record.ErrLeaseLost) {
			w.disown(ctx, k)
		}
		if err == nil || errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		if renew.Sleep(ctx, savePause(n+1)) != nil {
			break
		}
	}
	return w.fail(StagePersist, err,
		"the new key was created and not saved; the next attempt gets it again with the same idempotency key, the present key is live", fixStore)
}

// promote verifies the pending key, makes it the current one, and changes over.
func (o overlap) promote(ctx context.Context) error {
	w := o.w
	w.enter(StageVerify)
	verdict, err, lost := w.calls.awaitKnown(ctx, w.hold.rec.Pending.Credential)
	switch {
	case lost != nil:
		return lost
	case verdict == Dead:
		if uerr := o.beginUndo(ctx); uerr != nil {
			return uerr
		}
		return o.undone(ctx, w.fail(StageVerify, err, "the platform does not know the key that it issued; the present key is live", ""))
	case verdict != Alive:
		return w.fail(StageVerify, err, "the new key is saved and not yet in use; the present key is live", "")
	}
	w.enter(StagePromote)
	before := w.adopter.handover.InUse()
	next := w.hold.rec.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Previous, next.Current, next.Pending = next.Current, next.Pending, record.StoredKey{}
	next.Generation, next.Intent.Stage = next.Intent.Generation, string(StageRevoke)
	next.Intent.GraceEnd = wallNow().Add(w.policy.Grace)
	if err := w.hold.save(ctx, next); err != nil {
		return w.unsaved(StagePromote, err, "the new key is saved and verified, not yet in use; the present key is live")
	}
	if w.adopter.changeOver(ctx, next) {
		w.replaced = before
	}
	return nil
}

// What is known while the previous key is still live.
const stillLive = "the new key is in use; the old one is still live, and will be revoked by the next attempt"

// revoke waits until no request uses the previous key any more, and revokes it.
func (o overlap) revoke(ctx context.Context) error {
	w := o.w
	w.enter(StageRevoke)
	if w.adopter.stillOn(w.hold.rec.Previous) && !w.adopter.changeOver(ctx, w.hold.rec) {
		return w.fail(StageRevoke, errors.New("agrenting: requests could not be changed over to the new key"),
			"the new key is saved; the old one is live and in use, and will be revoked by the next attempt", "")
	}
	o.retire(ctx, w.replaced)
	if left := graceLeft(w.hold.rec.Intent, w.policy.Grace, w.waited); left > 0 {
		if err := o.awaitGrace(ctx, left); err != nil || w.hold.rec.Intent == nil {
			return err
		}
	}
	if g := w.adopter.handover.InUse(); !g.IsZero() && g.Credential.Equal(w.hold.rec.Previous.Credential) {
		// It was used again while the new key was not known everywhere.
		w.adopter.changeOver(ctx, w.hold.rec)
		o.retire(ctx, g)
	}
	a, err := w.calls.revokeKey(ctx, w.hold.rec.Previous)
	refused, reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil:
		return w.finish(ctx)
	case !refused || w.hold.rec.Intent.Attempts < w.policy.MaxAttempts:
		return w.fail(StageRevoke, reason, stillLive, "")
	}
	// The platform does not permit it, and the intent prevents every later
	// rotation.
	old := w.hold.rec.Previous
	if err := w.finish(ctx); err != nil {
		return err
	}
	return w.fail(StageRevoke, reason, "the new key is in use; the old one, with the ID "+secret.Clean(old.ID)+" and the fingerprint "+
		old.Credential.Fingerprint()+", is still live, and the platform refuses to revoke it",
		"revoke it in the dashboard; to avoid this, set RotationPolicy.Owner")
}

// awaitGrace waits without the lease while the previous key stays live for other
// processes. If one of them has finished the rotation by then, the record has no
// intent.
func (o overlap) awaitGrace(ctx context.Context, left time.Duration) error {
	w := o.w
	intent, generation := w.hold.rec.Intent.Key, w.hold.rec.Generation
	w.hold.letGo(ctx)
	if err := renew.Sleep(ctx, left); err != nil {
		return err
	}
	e, err := w.hold.ledger.read(ctx, secret.Credential{})
	switch in := e.Body.Intent; {
	case err != nil:
		return w.fail(StageRevoke, err, stillLive, fixStore)
	case in == nil && e.Body.Generation >= generation:
		w.hold.entry, w.hold.rec = e, e.Body
		return nil
	case in == nil || in.Key != intent || (e.Lease.Holder != "" && w.hold.ledger.store.Left(e) > 0):
		return record.ErrLeaseLost
	}
	return w.hold.retake(ctx, e)
}

// graceLeft returns for how long the previous key stays live. It depends on the
// record alone, so it does not begin again when the rotation is taken over. A clock
// may be wrong: the grace ends when the record has been unchanged for as long as
// it was to last.
func graceLeft(in *record.Intent, grace, unchanged time.Duration) time.Duration {
	if in.GraceEnd.IsZero() {
		return grace
	}
	return min(time.Until(in.GraceEnd), max(in.GraceEnd.Sub(in.Started), grace)-unchanged)
}

// retire waits for the requests of a generation that is not in use any more.
func (o overlap) retire(ctx context.Context, g Generation) {
	if !g.IsZero() && g.Handle != o.w.adopter.handover.InUse().Handle {
		o.w.drain(ctx, o.w.adopter.handover.Retire(g))
	}
}

// beginUndo writes down that what the intent has created is to be revoked: from
// here on no process asks for it again, so a revocation that comes late hits
// nothing that is in use.
func (o overlap) beginUndo(ctx context.Context) error {
	next := o.w.hold.rec.Clone()
	next.Intent.Stage = string(StageForget)
	return o.w.unsaved(StageForget, o.w.hold.save(ctx, next), "a key may have been created that is not in use; the present key is live")
}

// undone undoes the intent because of err.
func (o overlap) undone(ctx context.Context, err error) error {
	if uerr := o.undo(ctx); !errors.Is(uerr, errDropped) {
		return uerr
	}
	return err
}

// undo revokes what the intent has created, and drops it.
func (o overlap) undo(ctx context.Context) error {
	w := o.w
	a, err := Answer{Outcome: Done}, error(nil)
	if w.hold.rec.Pending.ID != "" {
		a, err = w.calls.revokeKey(ctx, w.hold.rec.Pending)
	}
	if err == nil && a.Outcome == Done {
		a, err = w.calls.sweepMarked(ctx)
	}
	refused, reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil:
		return w.drop(ctx)
	case refused:
		// The platform would refuse it tomorrow, too, and the intent prevents
		// everything else.
		return w.dropFor(ctx, w.fail(StageForget, reason, "a key named "+mark(w.hold.rec.Intent)+" may be live, and cannot be looked for",
			"look for it in the dashboard and revoke it; to avoid this, set RotationPolicy.Owner"))
	default:
		return w.fail(StageForget, reason, "a key that is not in use may be live, and will be looked for by the next attempt; the present key is live", "")
	}
}
