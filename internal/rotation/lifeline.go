package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
)

// byLifeline gets the successor of a dead key whose response was lost: with the same
// call under a credential that is still good, or a new key from the owner.
func (p inPlace) byLifeline(ctx context.Context, cause error) error {
	w := p.w
	// Another process may have got it meanwhile, and its successor is alive.
	if err := w.hold.fence(ctx); err != nil {
		return w.unsaved(w.stage(), err, "nothing was changed in this step; the next attempt continues from here")
	}
	in := w.hold.rec.Intent
	unsure := false
	if s := in.Lifeline; !s.IsZero() {
		a, err := w.calls.ask(ctx, func(ctx context.Context) Answer {
			return w.calls.platform.RotateInPlace(ctx, Caller{Credential: s}, in.Key)
		})
		switch {
		case err != nil:
			return err
		case a.Outcome.made():
			k, err := w.issued(a)
			if err != nil {
				return err
			}
			return p.persist(ctx, k, StageVerify)
		}
		unsure = !a.Outcome.refused()
	}
	if w.keys.HasOwner() {
		k, refused, err := p.byOwner(ctx)
		switch {
		case err == nil:
			// A rotated key that was never seen is revoked before the intent goes.
			return p.persist(ctx, k, StageForget)
		case isError(err), errors.Is(err, record.ErrLeaseLost), errors.Is(err, errUnreachable):
			return err
		}
		cause = errors.Join(cause, err)
		unsure = unsure || !refused
	}
	lost := w.fail(StageIssue, cause, "the present key is dead; if the platform has rotated it, the response with the new key was lost",
		"create a key in the dashboard and put it into the environment or the option that gives the initial key: it will be adopted; "+
			"to avoid this, set RotationPolicy.Owner")
	// With an owner, the intent is kept until the platform has answered: it says
	// which keys were known, and so which one is lost. Without one, a key that an
	// operator provides is adopted only once the intent is dropped.
	if unsure && (w.keys.HasOwner() || in.Attempts < w.policy.MaxAttempts) {
		lost.Advice = "the next attempt tries the lifeline again"
		return lost
	}
	return w.dropFor(ctx, lost)
}

// ownersCalls is how many keys the owner is asked for: after a failure the platform
// wants another idempotency key.
const ownersCalls = 3

// byOwner has the owner fetch the lost response, or issue another key. It asks for
// the rotation again only if the list shows that it did happen, since the owner's
// call might otherwise rotate another key of the agent.
func (p inPlace) byOwner(ctx context.Context) (k record.StoredKey, refused bool, err error) {
	w := p.w
	in := w.hold.rec.Intent
	agent := w.calls.agentOf(w.hold.rec)
	if agent == "" {
		return k, false, fmt.Errorf("%w: RotationPolicy.AgentID is needed for the owner to act", ErrNotKnown)
	}
	owner, err := w.keys.Owner(ctx)
	if err != nil {
		return k, false, err
	}
	by := Caller{Credential: owner, Agent: agent}
	lost, a, err := p.lostKey(ctx, agent)
	if refused, reason := failed(a, err); reason != nil && !refused {
		return k, false, reason
	}
	if lost != "" {
		a, err := w.calls.ask(ctx, func(ctx context.Context) Answer {
			return w.calls.platform.RotateInPlace(ctx, by, in.Key)
		})
		switch {
		case err != nil:
			return k, false, err
		case a.Outcome == Unknown || a.Outcome == Pending:
			return k, false, a.Err
		case a.Outcome.made():
			k, err = w.issued(a)
			return k, false, err
		}
	}
	for n := 1; ; n++ {
		a, err := w.calls.ask(ctx, func(ctx context.Context) Answer {
			return w.calls.platform.Issue(ctx, by, agent, mark(in), in.Key+"-again-"+strconv.Itoa(n))
		})
		switch {
		case err != nil:
			return k, false, err
		case a.Outcome.made():
			k, err = w.issued(a)
			return k, false, err
		case a.Outcome != Failed || n == ownersCalls:
			return k, a.Outcome.refused(), a.Err
		}
	}
}

// forget revokes what a lost rotation has left behind, and ends it.
func (p inPlace) forget(ctx context.Context) error {
	const state = "the new key is in use; one that no process knows may be live"
	w := p.w
	agent := w.calls.agentOf(w.hold.rec)
	lost, a, err := p.lostKey(ctx, agent)
	if err == nil && a.Outcome == Done && lost != "" {
		// The list may show what another process has made meanwhile.
		if err := w.hold.fence(ctx); err != nil {
			return w.unsaved(w.stage(), err, "nothing was changed in this step; the next attempt continues from here")
		}
		a, err = w.calls.revokeKey(ctx, record.StoredKey{ID: lost})
	}
	if err == nil && a.Outcome == Done {
		a, err = w.calls.sweepMarked(ctx)
	}
	refused, reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil:
		return w.finish(ctx)
	case refused:
		// The platform would refuse it tomorrow, too.
		if err := w.finish(ctx); err != nil {
			return err
		}
		return w.fail(StageForget, reason, state, "look in the dashboard for keys of the agent that are not in use")
	default:
		return w.fail(StageForget, reason, state+", and will be looked for by the next attempt", "")
	}
}

// lostKey returns the ID of the key that a rotation in place has made and that no
// process has seen; "" if there is none, or in doubt: others may create keys of the
// agent at the same time, and those are not ours to touch. It is a live key that
// was not there before and that no other intent has named; a platform may pass the
// name of the old key on to the new one. The platform makes it as it revokes the
// old one; if its list shows when that was, the two times have to agree.
func (p inPlace) lostKey(ctx context.Context, agent string) (string, Answer, error) {
	in := p.w.hold.rec.Intent
	if len(in.Known) == 0 {
		return "", Answer{Outcome: Done}, nil
	}
	keys, a, err := p.w.calls.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return "", a, err
	}
	own, ok := p.w.calls.ownID(keys)
	if !ok {
		return "", a, nil
	}
	var revoked []time.Time // when keys were revoked that had been live before
	var names []string      // of the keys that were live before
	for _, k := range keys {
		if slices.Contains(in.Known, k.ID) {
			names = append(names, k.Name)
			if !k.Revoked.IsZero() {
				revoked = append(revoked, k.Revoked)
			}
		}
	}
	var found []string
	for _, k := range live(keys) {
		known := k.ID == "" || k.ID == own || slices.Contains(in.Known, k.ID)
		others := strings.HasPrefix(k.Name, markPrefix) && !slices.Contains(names, k.Name)
		if !known && !others && madeByOneOf(revoked, k.Created) {
			found = append(found, k.ID)
		}
	}
	if len(found) != 1 {
		return "", a, nil
	}
	return found[0], a, nil
}

// madeByOneOf reports whether a key may have been created by one of the
// revocations. If nothing is known, it may.
func madeByOneOf(revoked []time.Time, created time.Time) bool {
	const sameMoment = 10 * time.Second
	return len(revoked) == 0 || created.IsZero() ||
		slices.ContainsFunc(revoked, func(t time.Time) bool { return created.Sub(t).Abs() <= sameMoment })
}
