package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
)

// prepareInPlace sees to it that the answer of an in-place rotation can be had
// again if it gets lost: by the owner, or by a session. The intent is written
// down already, so that of many processes one buys a session. Where the platform
// grants none, the rotation goes on: a lost answer is rare, a leaked key is not.
// Where it cannot be asked, answers are being lost just now.
func (w *rotationWork) prepareInPlace(ctx context.Context) error {
	next := w.rec.Clone()
	next.Intent.Stage = string(StageIssue)
	err := w.ownersLifeline(ctx, &next)
	if err == nil && next.Intent.Known == nil {
		err = w.sessionLifeline(ctx, &next)
	}
	if err != nil {
		return w.undo(ctx, w.fail(StagePrepare, err, nothingChanged+": a lost answer could not be had again", ""))
	}
	err = w.save(ctx, next)
	if err != nil && !errors.Is(err, record.ErrLeaseLost) {
		return w.fail(StagePrepare, err, nothingChanged, "fix the store")
	}
	return err
}

// ownersLifeline notes which keys there are, so that the owner can tell a new
// one. The error says that the platform could not be asked.
func (w *rotationWork) ownersLifeline(ctx context.Context, next *record.Key) error {
	agent := w.agentID(*next)
	if w.policy.Owner == nil || agent == "" {
		return nil
	}
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		if refused(err) {
			return nil
		}
		return err
	}
	for _, k := range live(keys) {
		next.Intent.Known = append(next.Intent.Known, k.ID)
	}
	if next.Current.ID == "" {
		next.Current.ID = idOf(live(keys), next.Current.Credential)
	}
	return nil
}

// sessionLifeline takes a session of the client's own, or buys one.
func (w *rotationWork) sessionLifeline(ctx context.Context, next *record.Key) error {
	if s := w.inUse(); s != nil && s.cred.c.Exchanged() && w.wasGiven(next.Current.Credential) {
		next.Intent.Lifeline = s.cred.c
		return nil
	}
	s, err := w.buyLifeline(ctx)
	if err != nil {
		if lockout := (*LockoutError)(nil); refused(err) || errors.As(err, &lockout) {
			return nil
		}
		return err
	}
	next.Intent.Lifeline = s.Credential.c
	if next.Agent == "" {
		next.Agent = s.AgentID
	}
	return nil
}

// buyLifeline exchanges the key for a session.
func (w *rotationWork) buyLifeline(ctx context.Context) (s *Session, err error) {
	for n := 1; n <= askAttempts; n++ {
		s, err = w.exchange(ctx)
		if lockout := (*LockoutError)(nil); err == nil || refused(err) || errors.As(err, &lockout) {
			break
		}
		if renew.Sleep(ctx, askPause(n)) != nil {
			break
		}
	}
	return s, err
}

func (w *rotationWork) exchange(ctx context.Context) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, w.policy.CallTimeout)
	defer cancel()
	return w.core.exchange(ctx, Credential{w.rec.Current.Credential})
}

// byLifeline gets the successor of a dead key whose answer was lost: the same
// call again under a credential that is still good, or a new key by the owner.
func (w *rotationWork) byLifeline(ctx context.Context, d direct, cause error) error {
	// Another process may have got it meanwhile, and its successor is alive.
	if err := w.fence(ctx); err != nil {
		return err
	}
	in := w.rec.Intent
	unsure := false
	if s := in.Lifeline; !s.IsZero() {
		d.cred = Credential{s}
		a, err := w.ask(ctx, d)
		if err == nil && a.made() {
			k, err := w.issued(a)
			if err != nil {
				return err
			}
			return w.persistInPlace(ctx, k, StageVerify)
		}
		unsure = err != nil || !refused(a.apiError())
	}
	if w.policy.Owner != nil {
		k, err := w.byOwner(ctx, d)
		if err == nil {
			// A rotated key that nobody has seen is revoked before the intent goes.
			return w.persistInPlace(ctx, k, StageForget)
		}
		if _, ok := errors.AsType[*RotationError](err); ok {
			return err
		}
		cause = errors.Join(cause, err)
		unsure = unsure || !refused(err)
	}
	lost := w.fail(StageIssue, cause, "the present key is dead; if the platform has rotated it, the answer with the new key was lost",
		"create a key in the dashboard and put it into the environment or the option that gives the initial key: it will be adopted; "+
			"to be spared this, set RotationPolicy.Owner")
	if unsure && in.Attempts < w.policy.MaxAttempts {
		lost.Advice = "the next attempt tries the lifeline again"
		return lost
	}
	return w.undo(ctx, lost)
}

// ownersCalls is how many keys the owner is asked for: after a failure the
// platform wants another idempotency key.
const ownersCalls = 3

// byOwner has the owner fetch the lost answer, or issue another key. It asks
// for the rotation again only when the list shows that it did happen, since the
// owner's call might otherwise rotate somebody else's key of the agent.
func (w *rotationWork) byOwner(ctx context.Context, d direct) (record.StoredKey, error) {
	in := w.rec.Intent
	agent := w.agentID(w.rec)
	if agent == "" {
		return record.StoredKey{}, fmt.Errorf("%w: RotationPolicy.AgentID is needed for the owner to act", ErrInvalidOption)
	}
	owner, err := w.ownersCredential(ctx)
	if err != nil {
		return record.StoredKey{}, err
	}
	lost, err := w.lostKey(ctx, agent)
	if err != nil && !refused(err) {
		return record.StoredKey{}, err
	}
	d.cred, d.agentID = owner, agent
	if lost != "" {
		a, err := w.ask(ctx, d)
		switch {
		case err != nil:
			return record.StoredKey{}, err
		case a.made():
			return w.issued(a)
		case a.pending():
			return record.StoredKey{}, a.apiError()
		}
	}
	d.path, d.body = w.core.keysPath(agent), map[string]string{"name": marker(in)}
	for n := 1; ; n++ {
		d.idemKey = in.Key + "-again-" + strconv.Itoa(n)
		a, err := w.ask(ctx, d)
		switch {
		case err != nil:
			return record.StoredKey{}, err
		case a.made():
			return w.issued(a)
		case n == ownersCalls, a.pending(), a.status < http.StatusInternalServerError:
			return record.StoredKey{}, a.apiError()
		}
	}
}

// forget revokes what a lost rotation has left, and ends it.
func (w *rotationWork) forget(ctx context.Context) error {
	const state = "the new key is in use; one that nobody knows may be live"
	agent := w.agentID(w.rec)
	lost, err := w.lostKey(ctx, agent)
	if err == nil && lost != "" {
		// The list may show what another process has made meanwhile.
		if err := w.fence(ctx); err != nil {
			return err
		}
		err = w.revokeKey(ctx, record.StoredKey{ID: lost})
	}
	if err == nil {
		err = w.sweepMarked(ctx)
	}
	switch {
	case err == nil:
		return w.end(ctx, w.rec.Clone())
	case refused(err):
		// Nothing will be different tomorrow.
		if eerr := w.end(ctx, w.rec.Clone()); eerr != nil {
			return eerr
		}
		return w.fail(StageForget, err, state, "look for keys of the agent in the dashboard that nobody uses")
	default:
		return w.fail(StageForget, err, state+", and will be looked for by the next attempt", "")
	}
}

// lostKey is the id of the key that an in-place rotation has made and nobody
// has seen, empty when there is none, or in doubt: somebody else may create
// keys of the agent at the same time, and those are not ours to touch. It is a
// live key that was not there before and that no other intent has named; a
// platform may hand the name of the old key on to the new one. It makes that as it
// revokes the old one; where its list shows when that was, the two times have to
// agree.
func (w *rotationWork) lostKey(ctx context.Context, agent string) (string, error) {
	if len(w.rec.Intent.Known) == 0 {
		return "", nil
	}
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return "", err
	}
	own, ok := w.ownID(keys)
	if !ok {
		return "", nil
	}
	var found []string
	deaths, names := w.deaths(keys), w.namesBefore(keys)
	for _, k := range live(keys) {
		known := k.ID == "" || k.ID == own || slices.Contains(w.rec.Intent.Known, k.ID)
		others := strings.HasPrefix(k.Name, markerPrefix) && !slices.Contains(names, k.Name)
		if !known && !others && deaths.near(k.Created) {
			found = append(found, k.ID)
		}
	}
	if len(found) != 1 {
		return "", nil
	}
	return found[0], nil
}

// deaths are the times at which keys were revoked that had been live before the
// rotation.
type deaths []time.Time

func (w *rotationWork) deaths(keys []Key) (d deaths) {
	for _, k := range keys {
		if !k.Revoked.IsZero() && slices.Contains(w.rec.Intent.Known, k.ID) {
			d = append(d, k.Revoked)
		}
	}
	return d
}

// namesBefore are the names of the keys that were live before the rotation.
func (w *rotationWork) namesBefore(keys []Key) (names []string) {
	for _, k := range keys {
		if slices.Contains(w.rec.Intent.Known, k.ID) {
			names = append(names, k.Name)
		}
	}
	return names
}

// near reports whether a key may have been created by one of the revocations;
// where nothing is known, it may.
func (d deaths) near(created time.Time) bool {
	const sameMoment = 10 * time.Second
	return len(d) == 0 || created.IsZero() ||
		slices.ContainsFunc(d, func(t time.Time) bool { return created.Sub(t).Abs() <= sameMoment })
}
