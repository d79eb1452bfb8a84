package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// lifelines sees to it that the answer of an in-place rotation can be had
// again if it gets lost: by the owner, or by a session.
func (w *rotationWork) lifelines(ctx context.Context, next *KeyRecord, agent string) {
	if w.policy.Owner != nil && agent != "" {
		if keys, err := w.listKeys(ctx, agent); err == nil {
			for _, k := range keys {
				next.Intent.Known = append(next.Intent.Known, k.ID)
			}
			return
		}
	}
	// A session of the client's own will do; else one is bought. Without any,
	// rotation goes on: a lost answer is rare, a leaked key is not.
	if s := w.inUse(); s != nil && s.cred.isExchanged() {
		next.Intent.Lifeline = s.cred
		return
	}
	ctx, cancel := context.WithTimeout(ctx, w.policy.CallTimeout)
	defer cancel()
	if s, err := w.core.exchangeAt(ctx, w.core.routes.Authenticate, w.rec.Current.Credential); err == nil {
		next.Intent.Lifeline = s.Credential
		if next.Current.AgentID == "" {
			next.Current.AgentID = s.AgentID
		}
	}
}

// issueInPlace closes the gate, waits for the requests on the wire, and has the
// platform replace the key.
func (w *rotationWork) issueInPlace(ctx context.Context) error {
	w.stage(StageIssue)
	in := w.rec.Intent
	if s := w.inUse(); s != nil && s.gate != nil {
		w.await(ctx, s.gate.shut())
		defer w.reopen(s)
	}
	if err := w.extend(ctx, w.policy.CallTimeout); err != nil {
		return err
	}
	d := direct{method: http.MethodPost, path: w.core.routes.RotateKey, cred: w.rec.Current.Credential, idemKey: in.Key}
	a, err := w.ask(ctx, d)
	if err != nil {
		verr := w.verify(ctx, w.rec.Current.Credential)
		if errors.Is(verr, ErrUnauthorized) {
			return w.byLifeline(ctx, d, err)
		}
		state := "it is not known whether the platform has rotated the key; the next attempt finds out by the same idempotency key"
		if verr == nil {
			state = "the present key is live; the next attempt uses the same idempotency key"
		}
		return w.fail(StageIssue, err, state, "")
	}
	switch {
	case a.ok():
		k, err := w.issued(a)
		if err != nil {
			return err
		}
		return w.persistInPlace(ctx, k)
	case a.status == http.StatusUnauthorized:
		return w.byLifeline(ctx, d, a.apiError())
	case a.status >= http.StatusInternalServerError:
		if errors.Is(w.verify(ctx, w.rec.Current.Credential), ErrUnauthorized) {
			return w.byLifeline(ctx, d, a.apiError())
		}
		// After a failure the platform wants another idempotency key.
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "the key was not rotated", ""))
	default:
		return w.undo(ctx, w.fail(StageIssue, a.apiError(), "the key was not rotated, it is live", ""))
	}
}

// reopen lets requests go on: with the new key if there is one, else with the
// old one.
func (w *rotationWork) reopen(s *stamp) {
	if w.inUse() == s {
		s.gate.open()
		return
	}
	s.gate.pass()
}

// byLifeline gets the successor of a dead key whose answer was lost: the same
// call again under a credential that is still good, or a new key by the owner.
func (w *rotationWork) byLifeline(ctx context.Context, d direct, cause error) error {
	in := w.rec.Intent
	unsure := false
	if s := in.Lifeline; !s.IsZero() {
		d.cred = s
		a, err := w.ask(ctx, d)
		if err == nil && a.ok() {
			k, err := w.issued(a)
			if err != nil {
				return err
			}
			return w.persistInPlace(ctx, k)
		}
		unsure = err != nil || a.status >= http.StatusInternalServerError
	}
	if w.policy.Owner != nil {
		err := w.byOwner(ctx, d)
		if err == nil || errors.Is(err, errLostLease) {
			return err
		}
		if e, ok := errors.AsType[*RotationError](err); ok && e.Stage == StagePersist {
			return err
		}
		cause = errors.Join(cause, err)
		unsure = unsure || !errors.Is(err, ErrForbidden)
	}
	lost := w.fail(StageIssue, cause, "the present key is dead; if the platform has rotated it, the answer with the new key was lost",
		"create a key in the dashboard and put it into the environment or the option that seeds the store: it will be adopted; "+
			"to be spared this, set RotationPolicy.Owner")
	if unsure && in.Attempts < w.policy.MaxAttempts {
		lost.Advice = "the next attempt tries the lifeline again"
		return lost
	}
	return w.undo(ctx, lost)
}

// byOwner has the owner fetch the lost answer, or issue another key. It asks
// for the rotation again only when the list shows that it did happen, since the
// owner's call might otherwise rotate somebody else's key of the agent.
func (w *rotationWork) byOwner(ctx context.Context, d direct) error {
	in := w.rec.Intent
	agent := w.agentID(w.rec.Current)
	if agent == "" {
		return fmt.Errorf("%w: RotationPolicy.AgentID is needed for the owner to act", ErrInvalidOption)
	}
	owner, err := w.policy.Owner.Credential(ctx)
	if err != nil {
		return err
	}
	d.cred, d.agentID = owner, agent
	fresh, lerr := w.appeared(ctx, agent)
	if lerr == nil && len(fresh) > 0 {
		if a, err := w.ask(ctx, d); err == nil && a.ok() {
			k, err := w.issued(a)
			if err != nil {
				return err
			}
			return w.persistInPlace(ctx, k)
		}
	}
	a, err := w.ask(ctx, direct{
		method: http.MethodPost, path: w.core.keysPath(agent), body: map[string]string{"name": in.marker()},
		cred: owner, agentID: agent, idemKey: in.Key + "-again",
	})
	switch {
	case err != nil:
		return err
	case !a.ok():
		return a.apiError()
	}
	k, err := w.issued(a)
	if err != nil {
		return err
	}
	// The rotated key that nobody has seen is revoked before the intent goes.
	next := w.promoted(k)
	next.Intent = w.rec.clone().Intent
	next.Intent.Stage = StageForget
	return w.saveDead(ctx, next)
}

// forget revokes what a lost rotation has left, and ends it.
func (w *rotationWork) forget(ctx context.Context) error {
	agent := w.agentID(w.rec.Current)
	fresh, err := w.appeared(ctx, agent)
	if err != nil {
		return w.fail(StageForget, err, "the new key is in use; one that nobody knows may be live, and will be looked for by the next attempt", "")
	}
	for _, k := range fresh {
		if k.ID == w.rec.Current.ID {
			continue
		}
		if err := w.revokeKey(ctx, StoredKey{ID: k.ID, AgentID: agent}); err != nil {
			return w.fail(StageForget, err, "the new key is in use; one that nobody knows is live, and will be revoked by the next attempt", "")
		}
	}
	return w.end(ctx, w.rec.clone())
}

// promoted is the record with k in place of a key that is dead.
func (w *rotationWork) promoted(k StoredKey) KeyRecord {
	next := w.rec.clone()
	next.Ancestors = next.remember(next.Current.Credential.Fingerprint())
	next.Generation = next.Intent.Generation
	next.Current, next.Previous, next.Pending, next.Intent = k, StoredKey{}, StoredKey{}, nil
	return next
}

// persistInPlace saves the successor of a key that is dead already.
func (w *rotationWork) persistInPlace(ctx context.Context, k StoredKey) error {
	return w.saveDead(ctx, w.promoted(k))
}

// saveDead saves a record whose former key is dead, and changes over. If the
// store refuses, the process goes on with the new key in memory: it exists
// nowhere else.
func (w *rotationWork) saveDead(ctx context.Context, next KeyRecord) error {
	w.stage(StagePersist)
	var err error
	for n := range 4 {
		if err = w.save(ctx, next); err == nil {
			w.changeOver(ctx)
			return nil
		}
		if errors.Is(err, errLostLease) {
			// Whoever took over gets the same key by the same idempotency key.
			return err
		}
		if serr := sleep(ctx, renew.Doubled(50*time.Millisecond, time.Second, n+1)); serr != nil {
			break
		}
	}
	w.keep(next)
	w.rec = next
	w.changeOver(ctx)
	e := w.fail(StagePersist, err, "the old key is dead; the new one is in use, in this process's memory only",
		"mend the key store, or save what NewCredential of this error returns; the SDK keeps trying to save it")
	e.new = next.Current.Credential
	return e
}
