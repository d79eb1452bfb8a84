package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// calls makes calls of the platform: bounded, repeated while their outcome is not
// final, and only while the lease is held.
type calls struct {
	platform Platform
	keys     Keys
	policy   Policy
	hold     *hold
}

// agentOf returns whose key a record has, "" if that is not known.
func (c *calls) agentOf(rec record.Key) string {
	for _, id := range []string{c.policy.AgentID, rec.Agent, c.policy.DefaultAgent} {
		if id != "" {
			return id
		}
	}
	return ""
}

// manager returns who creates, lists and revokes keys.
func (c *calls) manager(ctx context.Context, agent string) (Caller, error) {
	if !c.keys.HasOwner() {
		return Caller{Credential: c.hold.rec.Current.Credential}, nil
	}
	owner, err := c.keys.Owner(ctx)
	return Caller{Credential: owner, Agent: agent}, err
}

// ask makes a call, and repeats it while its outcome is not final.
func (c *calls) ask(ctx context.Context, call func(ctx context.Context) Answer) (Answer, error) {
	a, _, err := c.askFor(ctx, c.policy.patience(), call)
	return a, err
}

// askFor is ask, with no attempt begun after patience. more is set if another one
// would have been made. The error says that no further call may be made; the
// outcome of a call is in the answer.
func (c *calls) askFor(ctx context.Context, patience time.Duration, call func(ctx context.Context) Answer) (a Answer, more bool, err error) {
	began := time.Now()
	for n := 1; ; n++ {
		if err := c.hold.allowed(ctx); err != nil {
			return Answer{}, false, err
		}
		a = c.once(ctx, call)
		if a.Outcome.final() || n == askAttempts {
			return a, false, nil
		}
		p := max(askPause(n), min(a.RetryAfter, c.policy.CallTimeout))
		if time.Since(began)+p > patience {
			return a, true, nil
		}
		if serr := renew.Sleep(ctx, p); serr != nil {
			a.Err = errors.Join(a.Err, serr)
			return a, false, nil
		}
	}
}

func (c *calls) once(ctx context.Context, call func(ctx context.Context) Answer) Answer {
	ctx, cancel := context.WithTimeout(ctx, c.policy.CallTimeout)
	defer cancel()
	return call(ctx)
}

// verify asks about a credential, once.
func (c *calls) verify(ctx context.Context, cred secret.Credential) (Verdict, error) {
	return verify(ctx, c.platform, c.policy, cred)
}

func verify(ctx context.Context, p Platform, policy Policy, cred secret.Credential) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, policy.CallTimeout)
	defer cancel()
	return p.Verify(ctx, cred)
}

// awaitKnown waits, at most VerifyTimeout, until the platform knows a key that it
// has just issued. lost says that the lease is not held any more.
func (c *calls) awaitKnown(ctx context.Context, cred secret.Credential) (v Verdict, err, lost error) {
	end := time.Now().Add(c.policy.VerifyTimeout)
	for n := 1; ; n++ {
		if err := c.hold.allowed(ctx); err != nil {
			return Undecided, nil, err
		}
		v, err := c.verify(ctx, cred)
		p := renew.Doubled(50*time.Millisecond, time.Second, n)
		if v == Alive || time.Now().Add(p).After(end) {
			return v, err, nil
		}
		if serr := renew.Sleep(ctx, p); serr != nil {
			return Undecided, serr, nil
		}
	}
}

// revokeKey revokes a key by its ID. One that is gone already is fine, if it does
// not authenticate any more.
func (c *calls) revokeKey(ctx context.Context, k record.StoredKey) (Answer, error) {
	a, err := c.revokeID(ctx, k)
	if err != nil || a.Outcome == Done || k.Credential.IsZero() || (!a.Missing && a.Outcome != Unauthorized) {
		return a, err
	}
	verdict, _ := c.verify(ctx, k.Credential)
	switch {
	case verdict == Dead:
		return Answer{Outcome: Done}, nil
	case verdict == Alive && a.Missing:
		// It is alive under another ID than the one that we were told.
		id, ferr := c.findID(ctx, c.agentOf(c.hold.rec), k)
		if errors.Is(ferr, record.ErrLeaseLost) {
			return Answer{}, ferr
		}
		if id != "" && id != k.ID {
			k.ID = id
			return c.revokeID(ctx, k)
		}
	}
	return a, nil
}

func (c *calls) revokeID(ctx context.Context, k record.StoredKey) (Answer, error) {
	agent := c.agentOf(c.hold.rec)
	if k.ID == "" || agent == "" {
		return Answer{}, fmt.Errorf("%w: the ID of the key or of its agent is not known", ErrNotKnown)
	}
	by, err := c.manager(ctx, agent)
	if err != nil {
		return Answer{}, err
	}
	a, err := c.ask(ctx, func(ctx context.Context) Answer { return c.platform.Revoke(ctx, by, agent, k.ID) })
	if err == nil && k.Credential.IsZero() && a.Missing && !a.NoRoute {
		a = Answer{Outcome: Done} // another process was faster
	}
	return a, err
}

// list lists the keys of an agent.
func (c *calls) list(ctx context.Context, agent string) (keys []ListedKey, a Answer, err error) {
	by, err := c.manager(ctx, agent)
	if err != nil {
		return nil, Answer{}, err
	}
	a, err = c.ask(ctx, func(ctx context.Context) (a Answer) {
		keys, a = c.platform.List(ctx, by, agent)
		return a
	})
	return keys, a, err
}

// failed returns the error of a call, or of the call that could not be made. refused
// is set if the platform would refuse it again.
func failed(a Answer, err error) (refused bool, reason error) {
	switch {
	case err != nil:
		return false, err
	case a.Outcome == Done:
		return false, nil
	case a.Err == nil:
		return a.Outcome.refused(), errors.New("agrenting: the platform gave no usable answer")
	default:
		return a.Outcome.refused(), a.Err
	}
}

// live returns the keys that are not revoked.
func live(keys []ListedKey) []ListedKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k ListedKey) bool { return !k.Revoked.IsZero() })
}

// sweepMarked revokes keys that the intent has created and whose response was
// lost.
func (c *calls) sweepMarked(ctx context.Context) (Answer, error) {
	agent := c.agentOf(c.hold.rec)
	keys, a, err := c.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return a, err
	}
	own, ok := c.ownID(keys)
	fenced := false
	for _, k := range live(keys) {
		if !ok || k.ID == "" || k.ID == own || k.Name != mark(c.hold.rec.Intent) {
			continue
		}
		if !fenced { // the list may show what another process has made meanwhile
			if err := c.hold.fence(ctx); err != nil {
				return Answer{}, err
			}
			fenced = true
		}
		if a, err := c.revokeKey(ctx, record.StoredKey{ID: k.ID}); err != nil || a.Outcome != Done {
			return a, err
		}
	}
	return Answer{Outcome: Done}, nil
}

// ownID returns the ID of the current key. If it is not known, no other key may be
// revoked because of a list: it could be the one in use.
func (c *calls) ownID(keys []ListedKey) (id string, ok bool) {
	if id = c.hold.rec.Current.ID; id == "" {
		id = idOf(live(keys), c.hold.rec.Current.Credential)
	}
	return id, id != ""
}

// findID looks for the ID of a key of which only the secret is known.
func (c *calls) findID(ctx context.Context, agent string, k record.StoredKey) (string, error) {
	keys, a, err := c.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return "", errors.Join(err, a.Err)
	}
	return idOf(live(keys), k.Credential), nil
}

// idOf returns the ID of the one key that fits, and "" if several do.
func idOf(keys []ListedKey, c secret.Credential) string {
	id := ""
	for _, k := range keys {
		if !k.Fits(c.Reveal()) {
			continue
		}
		if id != "" {
			return ""
		}
		id = k.ID
	}
	return id
}

const markPrefix = "agrenting-go/"

// mark names the keys that an intent creates, so that one whose response was lost
// can be told from all others.
func mark(in *record.Intent) string { return markPrefix + in.Key }
