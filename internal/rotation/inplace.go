package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// inPlace has the platform replace the key. The platform revokes the old key at the
// moment at which it issues the new one. Requests wait from before the call until the new
// key is in use.
type inPlace struct{ w *work }

// openLifeline makes sure that the response to a rotation in place can be fetched again
// if it is lost: by the owner, or with a session. The intent is already saved, so only
// one of many processes opens a session. If the platform does not grant a session, the
// rotation continues, because a lost response is rare and a leaked key is urgent. If the
// platform cannot be reached, the rotation stops, because a response is then likely to be
// lost.
func (p inPlace) openLifeline(ctx context.Context) error {
	w := p.w
	next := w.hold.rec.Clone()
	next.Intent.Stage = string(StageIssue)
	a, err := p.noteKnown(ctx, &next)
	if err == nil && (a.Outcome == Done || w.refusedForGood(a)) && next.Intent.Known == nil {
		a, err = p.takeSession(ctx, &next)
	}
	reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil, err == nil && w.refusedForGood(a):
		return w.unsaved(StagePrepare, w.hold.save(ctx, next), nothingChanged)
	case a.Denied: // the number of attempts is limited
		return w.fail(StagePrepare, reason, nothingChanged+". The key was not replaced, because a lost response could not be fetched again", "")
	default:
		return w.dropFor(ctx, w.fail(StagePrepare, reason, nothingChanged+". The key was not replaced, because a lost response could not be fetched again", ""))
	}
}

// noteKnown notes which keys exist, so that the owner can recognize a new one.
func (p inPlace) noteKnown(ctx context.Context, next *record.Key) (Answer, error) {
	w := p.w
	agent := w.calls.agentOf(*next)
	if !w.keys.HasOwner() || agent == "" {
		return Answer{Outcome: Done}, nil
	}
	keys, a, err := w.calls.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return a, err
	}
	for _, k := range live(keys) {
		next.Intent.Known = append(next.Intent.Known, k.ID)
	}
	if next.Current.ID == "" {
		next.Current.ID = idOf(live(keys), next.Current.Credential)
	}
	return a, nil
}

// takeSession uses the current session, or opens one.
func (p inPlace) takeSession(ctx context.Context, next *record.Key) (Answer, error) {
	w := p.w
	key := next.Current.Credential
	if g := w.adopter.handover.InUse(); !g.IsZero() && g.Credential.Exchanged() && w.adopter.handover.Serves(key) {
		next.Intent.Lifeline = g.Credential
		return Answer{Outcome: Done}, nil
	}
	var agent string
	a, err := w.calls.ask(ctx, Caller{Credential: key}, func(ctx context.Context) (a Answer) {
		next.Intent.Lifeline, agent, a = w.calls.platform.OpenLifeline(ctx, key)
		return a
	})
	if err == nil && a.Outcome == Done && next.Agent == "" {
		next.Agent = agent
	}
	return a, err
}

// replace makes new requests wait, waits for the requests on the wire, and has the
// platform replace the key.
func (p inPlace) replace(ctx context.Context) error {
	w := p.w
	w.enter(StageIssue)
	in := w.hold.rec.Intent
	if err := w.hold.allowed(ctx); err != nil {
		return err
	}
	p.holdRequests(ctx)
	by := Caller{Credential: w.hold.rec.Current.Credential}
	a, more, err := w.calls.askFor(ctx, maxHold, by, func(ctx context.Context) Answer {
		return w.calls.platform.RotateInPlace(ctx, by, in.Key)
	})
	switch {
	case err != nil:
		return err
	case a.Outcome.made():
		if k, ok := w.issued(a); ok {
			return p.persist(ctx, k)
		}
		if v, _ := w.calls.verify(ctx, by.Credential); v != Dead {
			return w.noKey(a)
		}
		return p.byLifeline(ctx, a)
	case a.Outcome == Unauthorized:
		return p.byLifeline(ctx, a)
	default:
		return p.unsure(ctx, a, more)
	}
}

// unsure handles a call that failed. Whether the key is still alive decides. A refusal
// does not decide, because it may come from a gateway that has not passed on the
// platform's response. If more calls may help, the next call is made after a pause, and
// requests continue during the pause.
func (p inPlace) unsure(ctx context.Context, a Answer, more bool) error {
	w := p.w
	verdict, _ := w.calls.verify(ctx, w.hold.rec.Current.Credential)
	switch {
	case verdict == Dead:
		return p.byLifeline(ctx, a)
	case verdict == Alive && more && w.pauses < askAttempts-1:
		w.pauses++
		w.release()
		return renew.Sleep(ctx, max(maxAskPause, min(a.RetryAfter, w.policy.CallTimeout)))
	case verdict == Alive && (a.Outcome == Failed || a.Outcome == Refused):
		// After a failure, the platform requires a different idempotency key.
		return w.dropFor(ctx, w.fail(StageIssue, a.Err, "The key was not rotated and is live", ""))
	case verdict == Alive:
		return w.fail(StageIssue, a.Err, "The current key is live; the next attempt uses the same idempotency key", "")
	default:
		return w.fail(StageIssue, a.Err,
			"It is not known whether the platform has rotated the key; the next attempt finds out with the same idempotency key", "")
	}
}

// holdRequests makes new requests wait, and waits for the requests on the wire.
func (p inPlace) holdRequests(ctx context.Context) {
	if g := p.w.adopter.handover.InUse(); p.w.held.IsZero() && !g.IsZero() {
		p.w.held = g
		p.w.drain(ctx, p.w.adopter.handover.Hold(g)...)
	}
}

// persist saves the successor of a dead key. The record also names the step after the
// promotion: StageForget, or StageVerify if that step is omitted, because the agent is
// not known and its keys cannot be listed.
func (p inPlace) persist(ctx context.Context, k record.StoredKey) error {
	p.w.enter(StagePersist)
	then := StageVerify
	if p.w.calls.agentOf(p.w.hold.rec) != "" {
		then = StageForget
	}
	return p.saveDead(ctx, func(rec record.Key) record.Key {
		rec.Pending, rec.Intent.Stage = k, string(then)
		return rec
	})
}

// promote makes the successor of a dead key the current key. It does so even if the
// platform does not know the key within VerifyTimeout, because it is the only live key.
func (p inPlace) promote(ctx context.Context) error {
	w := p.w
	w.enter(StageVerify)
	if _, _, lost := w.calls.awaitKnown(ctx, w.hold.rec.Pending.Credential); lost != nil {
		return lost
	}
	w.enter(StagePromote)
	if err := p.saveDead(ctx, promoted); err != nil {
		return err
	}
	p.changeOver(ctx)
	if w.hold.rec.Intent == nil {
		w.enter(StageForget)
	}
	return nil
}

// changeOver makes requests use the new key, and lets them continue. If a new session takes
// longer than maxHold, they continue with the old one, provided that it is alive.
func (p inPlace) changeOver(ctx context.Context) {
	w := p.w
	short, cancel := context.WithTimeout(ctx, maxHold)
	defer cancel()
	if !w.adopter.changeOver(short, w.hold.rec) && short.Err() != nil && !w.held.IsZero() {
		if v, _ := w.calls.verify(ctx, w.held.Credential); v != Alive {
			w.adopter.changeOver(ctx, w.hold.rec)
		}
	}
	w.release()
}

// saveDead saves a change of a record of which the key is dead. If the store refuses the
// change, the process continues with the new key in memory, because that key exists
// nowhere else.
func (p inPlace) saveDead(ctx context.Context, change func(record.Key) record.Key) error {
	w := p.w
	var err error
	for n, began := 1, time.Now(); n <= saveAttempts && time.Since(began) < w.policy.CallTimeout; n++ {
		err = w.hold.save(ctx, change(w.hold.rec.Clone()))
		if errors.Is(err, record.ErrLeaseLost) {
			if w.hold.regain(ctx) {
				continue
			}
			if p.orphaned(ctx) {
				break
			}
			if k := change(w.hold.rec.Clone()).Pending; !k.IsZero() {
				w.disown(ctx, k)
			}
			return err // the process that took over gets the same key, because it uses the same idempotency key
		}
		if err == nil {
			return nil
		}
		if renew.Sleep(ctx, savePause(n)) != nil {
			break
		}
	}
	rec := change(w.hold.rec.Clone())
	if !rec.Pending.IsZero() {
		if _, _, lost := w.calls.awaitKnown(ctx, rec.Pending.Credential); lost != nil && ctx.Err() == nil {
			w.report.StoreFailed("save", lost)
		}
		if rec = promoted(rec); rec.Intent != nil && !rec.Intent.Unknown {
			rec.Intent = nil // the next rotation revokes the keys that others have left behind
		}
	}
	w.hold.rec = rec
	w.hold.ledger.keep(rec, err)
	p.changeOver(ctx)
	e := w.fail(StagePersist, err, "The old key is dead; the new one is in use, but only in the memory of this process",
		"Fix the store, or save what NewCredential of this error returns; the SDK keeps trying to save it")
	e.New = rec.Current.Credential
	return e
}

// orphaned reports whether the record, after another process took over the lease,
// contains neither the successor of the dead key nor unfinished work that finds it. It
// also returns true if the store cannot be reached. The key is then kept until the store
// can be loaded.
func (p inPlace) orphaned(ctx context.Context) bool {
	e, err := p.w.hold.ledger.load(context.WithoutCancel(ctx), secret.Credential{})
	rec := e.Body
	return err != nil || (rec.Current.Credential.Fingerprint() == p.w.from && rec.Pending.IsZero() &&
		(rec.Intent == nil || rec.Intent.Key != p.w.hold.rec.Intent.Key))
}
