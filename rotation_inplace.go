package agrenting

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// saveAttempts is how often a record is saved that carries a new key. Requests
// wait meanwhile, so no attempt begins after the CallTimeout of the first.
const saveAttempts = 4

// maxShut is how long after the first call of the platform another one is made
// while requests wait. A key that is alive by then can do for now; one that is not
// has nobody to wait for but its successor.
const maxShut = 2 * time.Second

// issueInPlace closes the gate, waits for the requests on the wire, and has the
// platform replace the key. The gate stays closed until the new key is in use.
func (w *rotationWork) issueInPlace(ctx context.Context) error {
	w.stage(StageIssue)
	in := w.rec.Intent
	if err := w.allowed(ctx); err != nil {
		return err
	}
	w.closeGate(ctx)
	d := direct{method: http.MethodPost, path: w.core.routes.RotateKey, cred: Credential{w.rec.Current.Credential}, idemKey: in.Key}
	a, hasty, err := w.askFor(ctx, d, maxShut)
	if err == nil && a.pending() {
		err = a.apiError()
	}
	switch {
	case err == nil && a.made():
		k, err := w.issued(a)
		if err != nil {
			return err
		}
		return w.persistInPlace(ctx, k, StageVerify)
	case err == nil && a.status == http.StatusUnauthorized:
		return w.byLifeline(ctx, d, a.apiError())
	default:
		return w.issueUnsure(ctx, d, a, hasty, err)
	}
}

// issueUnsure finds out what has become of a call that failed: whether the key
// is still alive tells. A refusal does not: it may be a gateway's, which has not
// passed on what the platform said. A hasty call is made again after a pause in
// which requests go on.
func (w *rotationWork) issueUnsure(ctx context.Context, d direct, a *directAnswer, hasty bool, err error) error {
	verr := w.verify(ctx, w.rec.Current.Credential)
	if err == nil {
		err = a.apiError()
	}
	switch {
	case errors.Is(verr, ErrUnauthorized):
		return w.byLifeline(ctx, d, err)
	case verr == nil && hasty && w.pauses < askAttempts-1:
		w.pauses++
		return w.pauseOpen(ctx, a)
	case verr == nil && a != nil && (a.status >= http.StatusInternalServerError || refused(err)):
		// After a failure the platform wants another idempotency key.
		return w.undo(ctx, w.fail(StageIssue, err, "the key was not rotated, it is live", ""))
	case verr == nil:
		return w.fail(StageIssue, err, "the present key is live; the next attempt uses the same idempotency key", "")
	default:
		return w.fail(StageIssue, err,
			"it is not known whether the platform has rotated the key; the next attempt finds out by the same idempotency key", "")
	}
}

// pauseOpen lets requests go on with the present key before the next call.
func (w *rotationWork) pauseOpen(ctx context.Context, a *directAnswer) error {
	w.reopen()
	pause := maxAskPause
	if a != nil {
		pause = max(pause, min(a.apiError().RetryAfter, w.policy.CallTimeout))
	}
	return renew.Sleep(ctx, pause)
}

// closeGate keeps new requests back, and waits for those on the wire.
func (w *rotationWork) closeGate(ctx context.Context) {
	if s := w.inUse(); w.shut == nil && s != nil && s.gate != nil {
		w.shut = s
		drained := s.gate.Shut()
		w.await(ctx, append(w.core.gates.Hold(), drained)...)
	}
}

// reopen lets requests go on: with the new key if there is one, else with the
// old one.
func (w *rotationWork) reopen() {
	s := w.shut
	if s == nil {
		return
	}
	w.shut = nil
	replaced := w.rec.Current.Credential.Fingerprint() != w.from
	if replaced && w.inUse() != s {
		s.gate.Pass()
	} else {
		s.gate.Open()
	}
	w.core.gates.Release()
}

// persistInPlace saves the successor of a key that is dead already. What is to
// be done after its promotion goes with it: StageForget, or StageVerify for
// nothing.
func (w *rotationWork) persistInPlace(ctx context.Context, k record.StoredKey, then Stage) error {
	w.stage(StagePersist)
	return w.saveDead(ctx, func(rec record.Key) record.Key {
		rec.Pending, rec.Intent.Stage = k, string(then)
		return rec
	})
}

// promoteInPlace makes the successor of a dead key the current one. Should the
// platform not know it within the VerifyTimeout, it is still the only one.
func (w *rotationWork) promoteInPlace(ctx context.Context) error {
	w.stage(StageVerify)
	if err := w.awaitSpread(ctx, w.rec.Pending.Credential); err != nil {
		return err
	}
	w.stage(StagePromote)
	if err := w.saveDead(ctx, promoted); err != nil {
		return err
	}
	w.changeOver(ctx)
	w.reopen()
	if w.rec.Intent == nil {
		w.stage(StageForget)
	}
	return nil
}

// promoted is the record with its pending key in place of one that is dead. The
// intent stays only where something is left to be swept up.
func promoted(r record.Key) record.Key {
	next := r.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Generation = next.Intent.Generation
	next.Current, next.Previous, next.Pending = next.Pending, record.StoredKey{}, record.StoredKey{}
	if next.Intent.Stage != string(StageForget) {
		next.Intent = nil
	}
	return next
}

// saveDead saves a change of a record whose key is dead. If the store refuses,
// the process goes on with the new key in memory: it exists nowhere else.
func (w *rotationWork) saveDead(ctx context.Context, change func(record.Key) record.Key) error {
	var err error
	for n, began := 1, time.Now(); n <= saveAttempts && time.Since(began) < w.policy.CallTimeout; n++ {
		err = w.save(ctx, change(w.rec.Clone()))
		if errors.Is(err, record.ErrLeaseLost) {
			if w.orphaned(ctx) {
				break
			}
			if k := change(w.rec.Clone()).Pending; !k.IsZero() {
				w.disown(ctx, k)
			}
			return err // the process that took over gets the same key, by the same idempotency key
		}
		if err == nil {
			return nil
		}
		if renew.Sleep(ctx, renew.Doubled(minSavePause, maxSavePause, n)) != nil {
			break
		}
	}
	if w.rec = change(w.rec.Clone()); !w.rec.Pending.IsZero() {
		if werr := w.awaitSpread(ctx, w.rec.Pending.Credential); werr != nil && ctx.Err() == nil {
			w.core.storeFailed("save", werr)
		}
		w.rec = promoted(w.rec)
	}
	w.keep(w.rec)
	w.changeOver(ctx)
	e := w.fail(StagePersist, err, "the old key is dead; the new one is in use, in this process's memory only",
		"fix the store, or save what NewCredential of this error returns; the SDK keeps trying to save it")
	e.new = Credential{w.rec.Current.Credential}
	return e
}

// orphaned reports whether the record, after another process took the lease over,
// has no successor of the dead key and no work under way that finds it. The store
// may also be out of reach; then the key is kept until it can be asked.
func (w *rotationWork) orphaned(ctx context.Context) bool {
	e, err := w.read(context.WithoutCancel(ctx), secret.Credential{})
	rec := e.Body
	return err != nil || (rec.Current.Credential.Fingerprint() == w.from && rec.Pending.IsZero() &&
		(rec.Intent == nil || rec.Intent.Key != w.rec.Intent.Key))
}
