package agrenting

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// marker names the keys that an intent creates, so that one whose answer was
// lost can be told from everybody else's.
func marker(in *record.Intent) string { return markerPrefix + in.Key }

const markerPrefix = "agrenting-go/"

// issueBeside creates a second key and saves it as Pending.
func (w *rotationWork) issueBeside(ctx context.Context) error {
	w.stage(StageIssue)
	in := w.rec.Intent
	agent := w.agentID(w.rec)
	cred, asAgent, err := w.manager(ctx, agent)
	if err != nil {
		return w.fail(StageIssue, err, nothingChanged, "")
	}
	a, err := w.ask(ctx, direct{
		method: http.MethodPost, path: w.core.keysPath(agent), body: map[string]string{"name": marker(in)},
		cred: cred, agentID: asAgent, idemKey: in.Key,
	})
	if err == nil && a.status < http.StatusInternalServerError && !a.made() && !refused(a.apiError()) {
		err = a.apiError()
	}
	if err != nil {
		return w.fail(StageIssue, err, "a key may have been created; the next attempt asks for it again by the same idempotency key, the present key is live", "")
	}
	switch {
	case a.made():
		k, err := w.issued(a)
		if err != nil {
			return err
		}
		return w.persistPending(ctx, k)
	case a.status == http.StatusUnauthorized:
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "nothing was created",
			"the present key or the owner's credential is refused; put a valid one into the environment or the option that gives the initial key"))
	case a.status >= http.StatusInternalServerError:
		if err := w.beginUndo(ctx); err != nil {
			return err
		}
		return w.undone(ctx, w.fail(StageIssue, a.apiError(), "nothing was left behind, the present key is live", ""))
	case w.policy.Strategy == 0 && !w.recovered:
		return w.changeToInPlace(ctx)
	default:
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "nothing was created, the present key is live",
			"set RotationPolicy.Owner to a credential that may create keys, or use InPlace"))
	}
}

// changeToInPlace is for the automatic choice, when the platform does not let
// the key create another.
func (w *rotationWork) changeToInPlace(ctx context.Context) error {
	next := w.rec.Clone()
	next.Intent.Strategy, next.Intent.Key, next.Intent.Stage = InPlace.String(), wire.NewUUID(), string(StagePrepare)
	err := w.save(ctx, next)
	if err != nil && !errors.Is(err, record.ErrLeaseLost) {
		return w.fail(StagePrepare, err, nothingChanged, "fix the store")
	}
	return err
}

// persistPending saves the new key. If the store refuses, nothing is lost: the
// next attempt gets the same answer by the same idempotency key. It is not
// revoked, since then that answer would name a dead key.
func (w *rotationWork) persistPending(ctx context.Context, k record.StoredKey) error {
	w.stage(StagePersist)
	var err error
	for n := range saveAttempts {
		next := w.rec.Clone()
		next.Pending, next.Intent.Stage = k, string(StageVerify)
		err = w.save(ctx, next)
		if errors.Is(err, record.ErrLeaseLost) {
			w.disown(ctx, k)
		}
		if err == nil || errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		if serr := renew.Sleep(ctx, renew.Doubled(minSavePause, maxSavePause, n+1)); serr != nil {
			break
		}
	}
	return w.fail(StagePersist, err,
		"the new key was created and not saved; the next attempt gets it again by the same idempotency key, the present key is live", "fix the store")
}

// disown revokes a key that came too late: another process has taken the lease
// over and given the intent up, perhaps before the call that made the key had
// arrived. While the intent is there, and not being undone, whoever works on it
// gets the same key by the same idempotency key.
func (w *rotationWork) disown(ctx context.Context, k record.StoredKey) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askAttempts*w.attempt())
	defer cancel()
	e, err := w.read(ctx, secret.Credential{})
	rec := e.Body
	if err != nil || rec.Knows(k.Credential) {
		return
	}
	if in := rec.Intent; in != nil && in.Key == w.rec.Intent.Key && (w.strategy == InPlace || in.Stage != string(StageForget)) {
		return
	}
	if w.strategy == InPlace && rec.Current.Credential.Fingerprint() == w.from {
		return // the record's key is dead, and this one may be all there is
	}
	late := &rotationWork{rotator: w.rotator, rec: rec, strategy: w.strategy}
	if err := late.revokeKey(ctx, k); err != nil {
		w.core.emitRotation(slog.LevelError, EventRotationFailed, string(StageForget), rec, late.fail(StageForget, err,
			"a key with the id "+secret.Clean(k.ID)+" came after its rotation had been given up; it is live, and not in use",
			"revoke it in the dashboard"))
	}
}

// promote verifies the pending key, makes it the current one, and changes over.
func (w *rotationWork) promote(ctx context.Context) error {
	w.stage(StageVerify)
	if err := w.awaitKnown(ctx, w.rec.Pending.Credential); err != nil {
		if !errors.Is(err, ErrUnauthorized) {
			if errors.Is(err, record.ErrLeaseLost) {
				return err
			}
			return w.fail(StageVerify, err, "the new key is saved and not yet in use; the present key is live", "")
		}
		if uerr := w.beginUndo(ctx); uerr != nil {
			return uerr
		}
		return w.undone(ctx, w.fail(StageVerify, err, "the platform does not know the key that it issued; the present key is live", ""))
	}
	w.stage(StagePromote)
	replaced := w.inUse()
	next := w.rec.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Previous, next.Current, next.Pending = next.Current, next.Pending, record.StoredKey{}
	next.Generation, next.Intent.Stage = next.Intent.Generation, string(StageRevoke)
	next.Intent.GraceEnd = wallNow().Add(w.policy.Grace)
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(StagePromote, err, "the new key is saved and verified, not yet in use; the present key is live", "fix the store")
	}
	if w.changeOver(ctx) {
		w.replaced = replaced
	}
	return nil
}

// revoke waits until nobody uses the previous key any more, and revokes it.
func (w *rotationWork) revoke(ctx context.Context) error {
	w.stage(StageRevoke)
	if w.stillOnPrevious() && !w.changeOver(ctx) {
		return w.fail(StageRevoke, errors.New("agrenting: requests could not be changed over to the new key"),
			"the new key is saved; the old one is live and in use, and will be revoked by the next attempt", "")
	}
	w.retire(ctx, w.replaced)
	if left := w.graceLeft(w.rec.Intent, w.waited); left > 0 {
		if err := w.awaitGrace(ctx, left); err != nil || w.rec.Intent == nil {
			return err
		}
	}
	if s := w.inUse(); s != nil && s.cred.c.Equal(w.rec.Previous.Credential) {
		// It was fallen back to while the new key spread.
		w.changeOver(ctx)
		w.retire(ctx, s)
	}
	err := w.revokeKey(ctx, w.rec.Previous)
	if err == nil {
		return w.end(ctx, w.rec.Clone())
	}
	if !refused(err) || w.rec.Intent.Attempts < w.policy.MaxAttempts {
		return w.fail(StageRevoke, err, "the new key is in use; the old one is still live, and will be revoked by the next attempt", "")
	}
	// The platform does not let us, and the intent stands in the way of every
	// rotation to come.
	old := w.rec.Previous
	if eerr := w.end(ctx, w.rec.Clone()); eerr != nil {
		return eerr
	}
	return w.fail(StageRevoke, err, "the new key is in use; the old one, with the id "+secret.Clean(old.ID)+" and the fingerprint "+
		old.Credential.Fingerprint()+", is still live, and the platform refuses to revoke it",
		"revoke it in the dashboard; to be spared this, set RotationPolicy.Owner")
}

// awaitGrace waits without the lease while the previous key stays live for others.
// If another process has finished the rotation by then, w.rec has no intent.
func (w *rotationWork) awaitGrace(ctx context.Context, left time.Duration) error {
	intent := w.rec.Intent.Key
	w.letGo(ctx)
	if err := renew.Sleep(ctx, left); err != nil {
		return err
	}
	e, err := w.read(ctx, secret.Credential{})
	switch {
	case err != nil:
		return w.fail(StageRevoke, err, "the new key is in use; the old one is still live, and will be revoked by the next attempt", "fix the store")
	case e.Body.Intent == nil && e.Body.Generation >= w.rec.Generation:
		w.entry, w.rec = e, e.Body
		return nil
	case e.Body.Intent == nil || e.Body.Intent.Key != intent || w.busy(e) > 0:
		return record.ErrLeaseLost
	}
	w.entry = e
	return w.fence(ctx)
}

// graceLeft is how long the previous key stays live. It depends on the record
// alone, so it does not begin again when the rotation is taken over. A clock may be
// wrong: the grace ends when the record has been unchanged for as long as it was
// to last.
func (r *rotator) graceLeft(in *record.Intent, unchanged time.Duration) time.Duration {
	if in.GraceEnd.IsZero() {
		return r.policy.Grace
	}
	return min(time.Until(in.GraceEnd), max(in.GraceEnd.Sub(in.Started), r.policy.Grace)-unchanged)
}

// stillOnPrevious reports whether this process uses what the previous key
// authenticates, because an earlier attempt could not change over.
func (w *rotationWork) stillOnPrevious() bool {
	s := w.inUse()
	w.mu.Lock()
	defer w.mu.Unlock()
	return s != nil && (s == w.stale || s.cred.c.Equal(w.rec.Previous.Credential))
}

// retire waits for the requests of a generation that is not in use any more.
// Those that come late take the new one.
func (w *rotationWork) retire(ctx context.Context, s *stamp) {
	if s == nil || s.gate == nil || s == w.inUse() {
		return
	}
	drained := s.gate.Shut()
	s.gate.Pass()
	w.await(ctx, drained)
}

// beginUndo writes down that what the intent has created is to be revoked: from
// here on nobody asks for it again, so that a revocation that comes late hits
// nothing that is in use.
func (w *rotationWork) beginUndo(ctx context.Context) error {
	next := w.rec.Clone()
	next.Intent.Stage = string(StageForget)
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(StageForget, err, "a key may have been created that is not in use; the present key is live", "fix the store")
	}
	return nil
}

// undone undoes the intent on account of err.
func (w *rotationWork) undone(ctx context.Context, err error) error {
	if uerr := w.undoBeside(ctx); !errors.Is(uerr, errIntentDropped) {
		return uerr
	}
	return err
}

// undoBeside revokes what the intent has created, and drops it.
func (w *rotationWork) undoBeside(ctx context.Context) error {
	var err error
	if w.rec.Pending.ID != "" {
		err = w.revokeKey(ctx, w.rec.Pending)
	}
	if err == nil {
		err = w.sweepMarked(ctx)
	}
	switch {
	case err == nil:
		return w.drop(ctx)
	case refused(err):
		// The platform will not say otherwise tomorrow, and the intent stands in
		// the way of everything else.
		return w.undo(ctx, w.fail(StageForget, err, "a key named "+marker(w.rec.Intent)+" may be live, and cannot be looked for",
			"look for it in the dashboard and revoke it; to be spared this, set RotationPolicy.Owner"))
	default:
		return w.fail(StageForget, err, "a key that is not in use may be live, and will be looked for by the next attempt; the present key is live", "")
	}
}
