package rotation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
)

// byLifeline gets the successor of a dead key if the response with it was lost, or has no
// key. It repeats the call under a credential that is still valid, or the owner issues a
// new key.
func (p inPlace) byLifeline(ctx context.Context, a Answer) error {
	w := p.w
	// Another process may have received the successor, which is then live.
	if err := w.hold.fence(ctx); err != nil {
		return w.unsaved(w.stage(), err, "Nothing was changed in this step; the next attempt continues from here")
	}
	in := w.hold.rec.Intent
	lost, unsure := p.lost(a), a.Outcome.made()
	if by := (Caller{Credential: in.Lifeline}); !by.Credential.IsZero() {
		a, err := w.calls.ask(ctx, by, func(ctx context.Context) Answer {
			a := w.calls.platform.RotateInPlace(ctx, by, in.Key)
			if a.Outcome == Refused { // the key is dead, so it was rotated all the same
				a.Outcome, a.Denied = Unknown, true
			}
			return a
		})
		if err != nil {
			return err
		}
		if k, ok := w.issued(a); ok {
			return p.persist(ctx, k)
		}
		if a.Outcome.made() {
			lost = p.lost(a)
		}
		unsure = !a.Outcome.refused()
	}
	if w.keys.HasOwner() {
		k, refused, err := p.byOwner(ctx)
		switch {
		case err == nil:
			return p.persist(ctx, k)
		case isError(err), errors.Is(err, record.ErrLeaseLost), errors.Is(err, errUnreachable):
			return err
		}
		lost.Err = errors.Join(lost.Err, err)
		unsure = unsure || !refused
	}
	// With an owner, the intent is kept until the platform has responded: the intent
	// says which keys were known, and so which key is lost. Without an owner, a key
	// that an operator provides is adopted only after the intent is dropped.
	if unsure && (w.keys.HasOwner() || in.Attempts < w.policy.MaxAttempts) {
		if lost.Raw.IsZero() {
			lost.Advice = "The next attempt tries the lifeline again"
		}
		return lost
	}
	lost.Advice = "Create a key in the dashboard and put it into the environment or the option that gives the initial key: it will be adopted; " +
		"to avoid this, set RotationPolicy.Owner"
	if !lost.Raw.IsZero() {
		lost.Advice += "; RawResponse of this error contains what arrived"
	}
	return w.dropFor(ctx, lost)
}

// lost returns the error for a dead key whose successor is not in the response.
func (p inPlace) lost(a Answer) *Error {
	if !a.Outcome.made() {
		return p.w.fail(StageIssue, a.Err, "The current key is dead; if the platform has rotated it, the response with the new key was lost", "")
	}
	e := p.w.noKey(a)
	e.State = "The current key is dead. " + e.State
	return e
}

// ownersCalls is how often the owner is asked for a key. After a failure, the
// platform requires a different idempotency key.
const ownersCalls = 3

// byOwner has the owner fetch the lost response or issue another key. It repeats the
// rotation only if the list shows that the rotation happened and the platform still
// knows the idempotency key. Otherwise, the owner's call might rotate another key of
// the agent.
func (p inPlace) byOwner(ctx context.Context) (k record.StoredKey, refused bool, err error) {
	w := p.w
	in := w.hold.rec.Intent
	agent := w.calls.agentOf(w.hold.rec)
	if agent == "" {
		return k, false, fmt.Errorf("%w: RotationPolicy.AgentID is needed for the owner to act", ErrNotKnown)
	}
	by, err := w.calls.manager(ctx, agent)
	if err != nil {
		return k, false, err
	}
	happened := false
	if len(in.Known) > 0 {
		keys, a, err := w.calls.list(ctx, agent)
		if reason := failed(a, err); reason != nil && (err != nil || !w.refusedForGood(a)) {
			return k, false, reason
		}
		happened = w.calls.lostKey(keys) != ""
	}
	if happened && !forgotten(in) {
		a, err := w.calls.ask(ctx, by, func(ctx context.Context) Answer {
			return w.calls.platform.RotateInPlace(ctx, by, in.Key)
		})
		switch {
		case err != nil:
			return k, false, err
		case a.Outcome == Unknown || a.Outcome == Pending:
			return k, false, a.Err
		}
		if k, ok := w.issued(a); ok {
			return k, false, nil
		}
	}
	// The lost successor may be live. If a gateway has responded in the platform's
	// place, the old key may be live, too.
	w.calls.noteUnknown()
	for n := 1; ; n++ {
		a, err := w.calls.issue(ctx, by, agent, in.Key+"-again-"+strconv.Itoa(n))
		switch {
		case err != nil:
			return k, false, err
		case a.Outcome.made():
			if k, ok := w.issued(a); ok {
				return k, false, nil
			}
			return k, false, p.lost(a)
		case a.Outcome != Failed || n == ownersCalls:
			return k, w.refusedForGood(a), a.Err
		}
	}
}

// forgotten reports whether the platform may have forgotten the idempotency key of an
// intent. If a clock is wrong, the result may be wrong, too. Only the way in which a
// new key is obtained depends on it.
func forgotten(in *record.Intent) bool { return time.Since(in.Started).Abs() > idempotencyKept }
