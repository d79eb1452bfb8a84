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

// overlap creates a second key, makes requests use it, and revokes the first key when no
// request uses that any more.
type overlap struct{ w *work }

// create creates the second key and saves it as pending.
func (o overlap) create(ctx context.Context) error {
	w := o.w
	w.enter(StageIssue)
	agent := w.calls.agentOf(w.hold.rec)
	by, err := w.calls.manager(ctx, agent)
	if err != nil {
		return w.fail(StageIssue, err, nothingChanged, "")
	}
	a, err := w.calls.issue(ctx, by, agent, w.hold.rec.Intent.Key)
	switch {
	case err != nil:
		return err
	case a.Outcome.made():
		k, ok := w.issued(a)
		if !ok {
			return w.noKey(a)
		}
		return o.persist(ctx, k)
	case a.Outcome == Unauthorized:
		return w.dropFor(ctx, w.fail(StageIssue, a.Err, "Nothing was created",
			"The current key or the owner credential was refused; put a valid one into the environment or the option that gives the initial key"))
	case a.Outcome == Refused && w.policy.Strategy == Automatic && !w.recovered:
		return o.changeToInPlace(ctx)
	case a.Outcome == Failed, a.Outcome == Refused && w.hold.rec.Intent.Unknown:
		if err := o.beginUndo(ctx); err != nil {
			return err
		}
		return o.undone(ctx, w.fail(StageIssue, a.Err, "Nothing was left behind; the current key is live", ""))
	case a.Outcome == Refused:
		return w.dropFor(ctx, w.fail(StageIssue, a.Err, "Nothing was created; the current key is live",
			"Set RotationPolicy.Owner to a credential that may create keys, or use InPlace"))
	default:
		return w.fail(StageIssue, a.Err,
			"A key may have been created, and the current key is live; the next attempt asks for the new one again with the same idempotency key", "")
	}
}

// changeToInPlace changes the strategy that was chosen automatically, if the platform does
// not let the key create another key.
func (o overlap) changeToInPlace(ctx context.Context) error {
	next := o.w.hold.rec.Clone()
	next.Intent.Strategy, next.Intent.Key, next.Intent.Stage = InPlace.String(), wire.NewUUID(), string(StagePrepare)
	err := o.w.unsaved(StagePrepare, o.w.hold.save(ctx, next), nothingChanged)
	if err == nil {
		o.w.strategy = InPlace
	}
	return err
}

// persist saves the new key. If the store refuses it, nothing is lost: the next attempt
// gets the same response with the same idempotency key. The key is not revoked, because the
// response would then contain a dead key.
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
		"The new key was created but not saved, and the current key is live; the next attempt gets the new one again with the same idempotency key", fixStore)
}

// promote verifies the pending key, makes it the current key, and makes requests use it.
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
		return o.undone(ctx, w.fail(StageVerify, err, "The platform rejects the key that it issued; the current key is live", ""))
	case verdict != Alive:
		return w.fail(StageVerify, err, "The new key is saved but not yet in use; the current key is live", "")
	}
	w.enter(StagePromote)
	before := w.adopter.handover.InUse()
	next := w.hold.rec.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Previous, next.Current, next.Pending = next.Current, next.Pending, record.StoredKey{}
	next.Generation, next.Intent.Stage = next.Intent.Generation, string(StageRevoke)
	next.Intent.Grace, next.Intent.GraceEnd = w.policy.Grace, wallNow().Add(w.policy.Grace)
	if err := w.hold.save(ctx, next); err != nil {
		return w.unsaved(StagePromote, err, "The new key is saved and verified but not yet in use; the current key is live")
	}
	w.promotedAt = time.Now()
	if w.adopter.changeOver(ctx, next) {
		w.replaced = before
	}
	return nil
}

// stillLive says what is known while the previous key is still live.
const stillLive = "The new key is in use; the old one is still live, and the next attempt revokes it"

// revoke waits until no request uses the previous key, and then revokes it.
func (o overlap) revoke(ctx context.Context) error {
	w := o.w
	w.enter(StageRevoke)
	if w.adopter.stillOn(w.hold.rec.Previous) && !w.adopter.changeOver(ctx, w.hold.rec) {
		return w.fail(StageRevoke, errors.New("agrenting: requests could not be switched to the new key"),
			"The new key is saved; the old one is live and in use, and the next attempt revokes it", "")
	}
	o.retire(ctx, w.replaced)
	waited := w.waited
	if !w.promotedAt.IsZero() {
		waited = time.Since(w.promotedAt)
	}
	if left := graceLeft(w.hold.rec.Intent, w.policy.Grace, waited); left > 0 {
		if err := o.awaitGrace(ctx, left); err != nil || w.hold.rec.Intent == nil {
			return err
		}
	}
	if g := w.adopter.handover.InUse(); !g.IsZero() && g.Credential.Equal(w.hold.rec.Previous.Credential) {
		// The previous key was used again because the new key was not known everywhere.
		w.adopter.changeOver(ctx, w.hold.rec)
		o.retire(ctx, g)
	}
	if w.hold.rec.Previous.IsZero() {
		return o.revoked(ctx)
	}
	verdict, err := w.calls.verdict(ctx, w.hold.rec.Current.Credential)
	if left := youngFor - time.Since(w.promotedAt); verdict == Dead && !w.promotedAt.IsZero() && left > 0 {
		// Parts of the platform may not know the new key yet.
		if serr := renew.Sleep(ctx, left); serr != nil {
			return serr
		}
		verdict, err = w.calls.verdict(ctx, w.hold.rec.Current.Credential)
	}
	switch {
	case verdict == Dead:
		return o.giveBack(ctx, err)
	case verdict != Alive:
		return w.fail(StageRevoke, err, stillLive, "")
	}
	a, err := w.calls.revokeKey(ctx, w.hold.rec.Previous)
	reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil:
		return o.revoked(ctx)
	case errors.Is(reason, ErrNotKnown): // the next attempt would not know it either
	case err != nil || !w.refusedForGood(a) || w.hold.rec.Intent.Attempts < w.policy.MaxAttempts:
		return w.fail(StageRevoke, reason, stillLive, "")
	}
	// The platform does not permit the revocation, and the intent would block all later
	// rotations.
	old := w.hold.rec.Previous
	if err := w.finish(ctx); err != nil {
		return err
	}
	return w.fail(StageRevoke, reason, "The new key is in use; the old one, with the ID "+secret.Clean(old.ID)+" and the fingerprint "+
		old.Credential.Fingerprint()+", is still live, and the platform refuses to revoke it",
		"Revoke it in the dashboard; to avoid this, set RotationPolicy.Owner")
}

// youngFor is how long parts of the platform may refuse a new key after it was first
// accepted.
const youngFor = 4 * time.Second

// giveBack makes the previous key the current one again, because the new one has died. For
// example, another process has revoked the new key because the store had lost its record.
func (o overlap) giveBack(ctx context.Context, cause error) error {
	w := o.w
	switch verdict, _ := w.calls.verdict(ctx, w.hold.rec.Previous.Credential); verdict {
	case Alive:
	case Dead:
		if err := w.finish(ctx); err != nil {
			return err
		}
		return w.fail(StageRevoke, cause, "The new key is dead, and so is the previous one", "")
	default:
		return w.fail(StageRevoke, cause, "The new key is dead; the next attempt checks whether the previous one is live", "")
	}
	next := w.hold.rec.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Current, next.Previous = next.Previous, record.StoredKey{}
	next.Generation++
	next.Intent.Stage, next.Intent.Generation = string(StageForget), next.Generation+1
	if err := w.hold.save(ctx, next); err != nil {
		return w.unsaved(StageRevoke, err, "The new key is dead; the previous one is live, and will be used again after the next attempt")
	}
	w.adopter.changeOver(ctx, next)
	return o.undone(ctx, w.fail(StageRevoke, cause, "The new key is dead; the previous one is live and in use again", ""))
}

// awaitGrace waits, without the lease, while the previous key stays live for other
// processes. If one of them finishes the rotation in that time, the record has no intent
// afterwards.
func (o overlap) awaitGrace(ctx context.Context, left time.Duration) error {
	w := o.w
	intent, generation := w.hold.rec.Intent.Key, w.hold.rec.Generation
	w.hold.letGo(ctx)
	if err := renew.Sleep(ctx, left); err != nil {
		return err
	}
	e, err := w.hold.ledger.load(ctx, secret.Credential{})
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

// revoked revokes the keys that rotations have left behind, and ends this rotation. The
// record is saved at the same time: a process that takes over earlier finds that the
// previous key is dead.
func (o overlap) revoked(ctx context.Context) error {
	next := o.w.hold.rec.Clone()
	next.Previous, next.Intent.Stage = record.StoredKey{}, string(StageForget)
	o.w.hold.rec = next
	return o.w.forget(ctx)
}

// graceSeen bounds how long a process must have seen the record unchanged after the grace
// has ended by the wall clock.
const graceSeen = 3 * time.Second

// graceLeft returns how long the previous key stays live. It depends only on the record, so
// the grace does not start again when another process takes over the rotation. A wall clock
// may be wrong in either direction. So the grace ends when the record has been unchanged
// for the whole grace, and not before it has been unchanged for a moment.
func graceLeft(in *record.Intent, grace, unchanged time.Duration) time.Duration {
	if in.GraceEnd.IsZero() {
		return grace
	}
	if in.Grace > 0 {
		grace = in.Grace
	}
	left := time.Until(in.GraceEnd)
	return min(max(left, min(grace, graceSeen)-unchanged), grace-unchanged)
}

// retire waits for the requests of a generation that is not in use any more.
func (o overlap) retire(ctx context.Context, g Generation) {
	if !g.IsZero() && g.Handle != o.w.adopter.handover.InUse().Handle {
		o.w.drain(ctx, o.w.adopter.handover.Retire(g))
	}
}

// beginUndo notes that the keys of the intent must be revoked. After that, no process asks
// for such a key again, so a late revocation does not hit a key in use.
func (o overlap) beginUndo(ctx context.Context) error {
	next := o.w.hold.rec.Clone()
	next.Intent.Stage = string(StageForget)
	return o.w.unsaved(StageForget, o.w.hold.save(ctx, next), "A key that is not in use may have been created; the current key is live")
}

// undone undoes the intent. err is the reason.
func (o overlap) undone(ctx context.Context, err error) error {
	if uerr := o.w.forget(ctx); !errors.Is(uerr, errDropped) {
		return uerr
	}
	return err
}
