package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// calls makes calls to the platform. They are bounded, are repeated while their outcome
// is not final, and are made only while the lease is held.
type calls struct {
	platform Platform
	keys     Keys
	policy   *Policy
	hold     *hold
}

// agentOf returns the ID of the agent that the key of a record belongs to, or "" if it
// is not known.
func (c *calls) agentOf(rec record.Key) string {
	for _, id := range []string{c.policy.AgentID, rec.Agent, c.policy.DefaultAgent} {
		if id != "" {
			return id
		}
	}
	return ""
}

// manager returns the caller that creates, lists, and revokes keys. It waits at
// most sourceTimeout for the source of the owner credential.
func (c *calls) manager(ctx context.Context, agent string) (Caller, error) {
	if !c.keys.HasOwner() {
		return Caller{Credential: c.hold.rec.Current.Credential}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	owner, err := c.keys.Owner(ctx)
	return Caller{Credential: owner, Agent: agent}, err
}

// ask makes a call, and repeats it while its outcome is not final.
func (c *calls) ask(ctx context.Context, by Caller, call func(ctx context.Context) Answer) (Answer, error) {
	a, _, err := c.askFor(ctx, c.policy.patience(), by, call)
	return a, err
}

// askFor is like ask, but begins no attempt after patience has passed. more is set if
// another attempt would have been made. An error means that no further call may be made.
// The outcome of a call is in the answer.
func (c *calls) askFor(ctx context.Context, patience time.Duration, by Caller, call func(ctx context.Context) Answer) (a Answer, more bool, err error) {
	began := time.Now()
	for n := 1; ; n++ {
		if err := c.hold.allowed(ctx); err != nil {
			return Answer{}, false, err
		}
		a = c.weigh(ctx, by, c.once(ctx, call))
		a.repeated = n > 1
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

// weigh compares a refusal with the verdict about the caller. If the caller is dead, the
// refusal is about the caller. If the caller is alive, a 401 does not count as the
// platform's response. If the verdict is unknown, no refusal does. The call may then
// have taken effect.
func (c *calls) weigh(ctx context.Context, by Caller, a Answer) Answer {
	if !a.Outcome.refused() {
		return a
	}
	switch v, _ := c.verify(ctx, by.Credential); {
	case v == Dead:
		a.Outcome = Unauthorized
	case v == Undecided, a.Outcome == Unauthorized:
		a.Outcome, a.Denied = Unknown, true
	}
	return a
}

// issue creates a key. If the outcome of an attempt is unknown, it notes that a live key
// may exist that is not in any record.
func (c *calls) issue(ctx context.Context, by Caller, agent, idempotencyKey string) (Answer, error) {
	name := mark(c.hold.rec)
	a, err := c.ask(ctx, by, func(ctx context.Context) Answer {
		return c.platform.Issue(ctx, by, agent, name, idempotencyKey)
	})
	if err == nil && (a.repeated || !a.Outcome.final()) {
		c.noteUnknown()
	}
	return a, err
}

// noteUnknown notes that a live key may exist that is not in any record. The note is
// saved with the next change of the record. If there is none, the next attempt makes the
// note again.
func (c *calls) noteUnknown() {
	if c.hold.rec.Intent.Unknown {
		return
	}
	rec := c.hold.rec.Clone()
	rec.Intent.Unknown = true
	c.hold.rec = rec
}

// verify asks the platform about a credential.
func (c *calls) verify(ctx context.Context, cred secret.Credential) (Verdict, error) {
	return verify(ctx, c.platform, c.policy, cred)
}

// verdict asks the platform about a credential, at most askAttempts times, until it
// responds.
func (c *calls) verdict(ctx context.Context, cred secret.Credential) (v Verdict, err error) {
	for n := 1; ; n++ {
		v, err = c.verify(ctx, cred)
		if v != Undecided || n == askAttempts {
			return v, err
		}
		if serr := renew.Sleep(ctx, askPause(n)); serr != nil {
			return Undecided, errors.Join(err, serr)
		}
	}
}

// awaitKnown waits until the platform knows a key that it has just issued, but at most
// for VerifyTimeout. lost means that the lease is not held any more.
func (c *calls) awaitKnown(ctx context.Context, cred secret.Credential) (v Verdict, err, lost error) {
	began := time.Now()
	end := began.Add(c.policy.VerifyTimeout)
	for {
		if err := c.hold.allowed(ctx); err != nil {
			return Undecided, nil, err
		}
		v, err := verifyOnce(ctx, c.platform, c.policy, cred)
		p := min(max(time.Since(began)/16, 50*time.Millisecond), time.Second)
		if v == Alive || time.Now().Add(p).After(end) {
			return v, err, nil
		}
		if serr := renew.Sleep(ctx, p); serr != nil {
			return Undecided, serr, nil
		}
	}
}

// revokeKey revokes a key by its ID. It succeeds whenever the key does not authenticate
// any more, whatever the platform says.
func (c *calls) revokeKey(ctx context.Context, k record.StoredKey) (Answer, error) {
	if agent := c.agentOf(c.hold.rec); k.ID == "" && agent != "" {
		k.ID, _ = c.findID(ctx, agent, k)
	}
	a, err := c.revokeID(ctx, k)
	if err != nil || a.Outcome == Done || k.Credential.IsZero() {
		return a, err
	}
	verdict, _ := c.verify(ctx, k.Credential)
	switch {
	case verdict == Dead:
		return Answer{Outcome: Done}, nil
	case verdict == Alive && a.Missing:
		// The key is alive under a different ID than the recorded one.
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
		return Answer{}, fmt.Errorf("%w: its ID or its agent is not known", ErrNotKnown)
	}
	by, err := c.manager(ctx, agent)
	if err != nil {
		return Answer{}, err
	}
	a, err := c.ask(ctx, by, func(ctx context.Context) Answer { return c.platform.Revoke(ctx, by, agent, k.ID) })
	if err == nil && k.Credential.IsZero() && a.Outcome == Refused && a.Missing && !a.NoRoute {
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
	a, err = c.ask(ctx, by, func(ctx context.Context) (a Answer) {
		keys, a = c.platform.List(ctx, by, agent)
		return a
	})
	return keys, a, err
}

// sweep lists the keys of the agent and revokes those that rotations have left behind.
// If the agent is not known, it does nothing.
func (c *calls) sweep(ctx context.Context) (Answer, error) {
	agent := c.agentOf(c.hold.rec)
	if agent == "" {
		return Answer{Outcome: Done}, nil
	}
	keys, a, err := c.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return a, err
	}
	left := c.leftBehind(keys)
	if len(left) == 0 {
		return a, nil
	}
	// Another process may have created keys since the last check.
	if err := c.hold.fence(ctx); err != nil {
		return Answer{}, err
	}
	for _, id := range left {
		if a, err := c.revokeKey(ctx, record.StoredKey{ID: id}); err != nil || a.Outcome != Done {
			return a, err
		}
	}
	return Answer{Outcome: Done}, nil
}

// leftBehind returns the IDs of live keys that should not be live: keys with the mark of
// a rotation of this record, the lost successor of a rotation in place, and the previous
// key. The current key may also have a mark.
func (c *calls) leftBehind(keys []ListedKey) (ids []string) {
	rec := c.hold.rec
	own, ok := c.ownID(keys)
	if !ok {
		return nil
	}
	lost := ""
	if rec.Intent.Unknown {
		lost = c.lostKey(keys)
	}
	previous := rec.Previous.ID
	if previous == "" && !rec.Previous.IsZero() {
		previous = idOf(live(keys), rec.Previous.Credential)
	}
	for _, k := range live(keys) {
		if k.ID != "" && k.ID != own && (marked(rec, k.Name) || k.ID == lost || k.ID == previous) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// ownID returns the ID of the current key. If the list does not contain the current key,
// other keys must not be revoked because of the list: one of them could be the key in
// use.
func (c *calls) ownID(keys []ListedKey) (id string, ok bool) {
	cur := c.hold.rec.Current
	if slices.ContainsFunc(live(keys), func(k ListedKey) bool { return k.ID != "" && k.ID == cur.ID }) {
		return cur.ID, true
	}
	id = idOf(live(keys), cur.Credential)
	return id, id != ""
}

// lostKey returns the ID of the key that a rotation in place has created and that no
// process has received. It returns "" if it finds none, or in case of doubt: other
// programs may create keys of the agent at the same time, and those must not be revoked.
// The lost key is a live key that did not exist before and that no other intent has
// named; a platform may give the new key the name of the old one. The platform creates
// it when it revokes the old key. If its list shows when that happened, the two times
// must agree.
func (c *calls) lostKey(keys []ListedKey) string {
	in, own := c.hold.rec.Intent, c.hold.rec.Current.ID // the current key may be dead
	if own == "" {
		own = idOf(live(keys), c.hold.rec.Current.Credential)
	}
	if len(in.Known) == 0 || own == "" {
		return ""
	}
	var revoked []time.Time // revocation times of keys that were live before
	var names []string      // names of the keys that were live before
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
		return ""
	}
	return found[0]
}

// madeByOneOf reports whether a key may have been created by one of the revocations. If
// nothing is known about them, it may have been.
func madeByOneOf(revoked []time.Time, created time.Time) bool {
	const sameMoment = 10 * time.Second
	return len(revoked) == 0 || created.IsZero() ||
		slices.ContainsFunc(revoked, func(t time.Time) bool { return created.Sub(t).Abs() <= sameMoment })
}

// findID finds the ID of a key of which only the secret is known.
func (c *calls) findID(ctx context.Context, agent string, k record.StoredKey) (string, error) {
	keys, a, err := c.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return "", errors.Join(err, a.Err)
	}
	return idOf(live(keys), k.Credential), nil
}

const markPrefix = "agrenting-go/"

// mark returns the name of the keys that an intent creates. With it, a key whose
// response was lost can be recognized. It begins with the series of the record.
func mark(rec record.Key) string { return seriesPrefix(rec) + rec.Intent.Key }

// marked reports whether a name is the mark of an intent of the record. It may be the
// current intent or, if the record has a series, any other intent.
func marked(rec record.Key, name string) bool {
	return name == mark(rec) || (rec.Series != "" && strings.HasPrefix(name, seriesPrefix(rec)))
}

// seriesPrefix returns the common prefix of the marks of a record. Records of earlier
// versions have no series.
func seriesPrefix(rec record.Key) string {
	if rec.Series == "" {
		return markPrefix
	}
	return markPrefix + rec.Series + "/"
}
