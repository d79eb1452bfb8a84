package agrenting

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// marker names the keys that an intent creates, so that one whose answer was
// lost can be told from everybody else's.
func (in *Intent) marker() string { return "agrenting-go/" + in.Key }

// issueBeside creates a second key and saves it as Pending.
func (w *rotationWork) issueBeside(ctx context.Context) error {
	w.stage(StageIssue)
	in := w.rec.Intent
	agent := w.agentID(w.rec.Current)
	cred, asAgent, err := w.manager(ctx, agent)
	if err != nil {
		return w.fail(StageIssue, err, "nothing was changed, the key is live", "")
	}
	a, err := w.ask(ctx, direct{
		method: http.MethodPost, path: w.core.keysPath(agent), body: map[string]string{"name": in.marker()},
		cred: cred, agentID: asAgent, idemKey: in.Key,
	})
	if err != nil {
		return w.fail(StageIssue, err, "a key may have been created; the next attempt asks for it again by the same idempotency key, the present key is live", "")
	}
	switch {
	case a.ok():
		k, err := w.issued(a)
		if err != nil {
			return err
		}
		return w.persistPending(ctx, k)
	case a.status == http.StatusUnauthorized:
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "nothing was created",
			"the present key or the owner's credential is refused; put a valid one into the environment or the option that seeds the store"))
	case a.status >= http.StatusInternalServerError:
		if err := w.sweepMarked(ctx); err != nil {
			return w.fail(StageIssue, a.apiError(), "a key may have been created, and will be looked for by the next attempt; the present key is live", "")
		}
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "nothing was left behind, the present key is live", ""))
	case w.policy.Strategy == 0 && !w.recovered:
		return w.changeToInPlace(ctx, agent)
	default:
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "nothing was created, the present key is live",
			"set RotationPolicy.Owner to a credential that may create keys, or use InPlace"))
	}
}

// changeToInPlace is for the automatic choice, when the platform does not let
// the key create another.
func (w *rotationWork) changeToInPlace(ctx context.Context, agent string) error {
	next := w.rec.clone()
	next.Intent.Strategy, next.Intent.Key = InPlace, newUUID()
	w.lifelines(ctx, &next, agent)
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return nil
}

func (w *rotationWork) persistPending(ctx context.Context, k StoredKey) error {
	w.stage(StagePersist)
	next := w.rec.clone()
	next.Pending, next.Intent.Stage = k, StageVerify
	var err error
	for n := range 4 { // an answer that is lost here costs an extra call only
		if err = w.save(ctx, next); err == nil || errors.Is(err, errLostLease) {
			return err
		}
		if serr := sleep(ctx, renew.Doubled(50*time.Millisecond, time.Second, n+1)); serr != nil {
			break
		}
	}
	state := "the new key was created and not saved; the next attempt gets it again by the same idempotency key, the present key is live"
	if k.ID != "" && w.revokeKey(ctx, k) == nil {
		state = "the new key was created, could not be saved, and was revoked; the present key is live"
	}
	return w.fail(StagePersist, err, state, "mend the key store")
}

// promote verifies the pending key, makes it the current one, and changes over.
func (w *rotationWork) promote(ctx context.Context) error {
	w.stage(StageVerify)
	if err := w.awaitKnown(ctx, w.rec.Pending.Credential); err != nil {
		if !errors.Is(err, ErrUnauthorized) {
			return w.fail(StageVerify, err, "the new key is saved and not yet in use; the present key is live", "")
		}
		if w.rec.Pending.ID != "" {
			_ = w.revokeKey(ctx, w.rec.Pending)
		}
		return w.undo(ctx, w.fail(StageVerify, err, "the platform does not know the key that it issued; the present key is live", ""))
	}
	w.stage(StagePromote)
	replaced := w.inUse()
	next := w.rec.clone()
	next.Ancestors = next.remember(next.Current.Credential.Fingerprint())
	next.Previous, next.Current, next.Pending = next.Current, next.Pending, StoredKey{}
	next.Generation, next.Intent.Stage = next.Intent.Generation, StageRevoke
	if err := w.save(ctx, next); err != nil {
		if errors.Is(err, errLostLease) {
			return err
		}
		return w.fail(StagePromote, err, "the new key is saved and verified, not yet in use; the present key is live", "")
	}
	w.replaced = replaced
	w.changeOver(ctx)
	return nil
}

// revoke waits until nobody uses the previous key any more, and revokes it.
func (w *rotationWork) revoke(ctx context.Context) error {
	w.stage(StageRevoke)
	if err := w.extend(ctx, w.policy.DrainTimeout+w.policy.Grace+5*w.policy.CallTimeout); err != nil {
		return err
	}
	if s := w.replaced; s != nil && s.gate != nil && s != w.inUse() {
		drained := s.gate.shut()
		s.gate.pass() // those who come late take the new key
		w.await(ctx, drained)
	}
	if w.policy.Grace > 0 {
		if err := sleep(ctx, w.policy.Grace); err != nil {
			return err
		}
	}
	if err := w.revokeKey(ctx, w.rec.Previous); err != nil {
		return w.fail(StageRevoke, err, "the new key is in use; the old one is still live, and will be revoked by the next attempt", "")
	}
	next := w.rec.clone()
	next.Intent.Stage = StageForget
	return w.end(ctx, next)
}
