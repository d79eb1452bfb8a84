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

// calls makes calls of the platform: bounded, repeated while their outcome is not
// final, and only while the lease is held.
type calls struct {
	platform Platform
	keys     Keys
	policy   *Policy
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
func (c *calls) ask(ctx context.Context, by Caller, call func(ctx context.Context) Answer) (Answer, error) {
	a, _, err := c.askFor(ctx, c.policy.patience(), by, call)
	return a, err
}

// askFor is ask, with no attempt begun after patience. more is set if another one
// would have been made. The error says that no further call may be made; the
// outcome of a call is in the answer.
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

// weigh compares a refusal with what the platform says about the caller. If the
// caller is dead, the refusal is about that. A 401 although the caller is alive, or
// any refusal while that is not known, is not the platform's word: the call may have
// taken effect.
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

// issue creates a key. It notes if the outcome of an attempt is unknown, so that a
// key may be live that is in no record.
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

// noteUnknown notes that a key may be live that is in no record. It is saved with the
// next change of the record: if there is none, the next attempt notes it.
func (c *calls) noteUnknown() {
	if c.hold.rec.Intent.Unknown {
		return
	}
	rec := c.hold.rec.Clone()
	rec.Intent.Unknown = true
	c.hold.rec = rec
}

// verify asks about a credential.
func (c *calls) verify(ctx context.Context, cred secret.Credential) (Verdict, error) {
	return verify(ctx, c.platform, c.policy, cred)
}

// verdict asks about a credential until the platform answers, at most askAttempts times.
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

// awaitKnown waits, at most VerifyTimeout, until the platform knows a key that it
// has just issued. lost says that the lease is not held any more.
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

// revokeKey revokes a key by its ID. Whatever the platform says is fine, if the key
// does not authenticate any more.
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
// If it is not known whose keys they are, there is nothing to list.
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
	// Another process may have made keys since the last check.
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

// leftBehind returns the IDs of the live keys that should not be live: those that have
// the mark of a rotation of this record, the successor that a rotation in place has
// lost, and the previous key. The current key may have a mark, too.
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

// ownID returns the ID of the current key. If the list does not have it, no other key
// may be revoked because of the list: it could be the one in use.
func (c *calls) ownID(keys []ListedKey) (id string, ok bool) {
	cur := c.hold.rec.Current
	if slices.ContainsFunc(live(keys), func(k ListedKey) bool { return k.ID != "" && k.ID == cur.ID }) {
		return cur.ID, true
	}
	id = idOf(live(keys), cur.Credential)
	return id, id != ""
}

// lostKey returns the ID of the key that a rotation in place has made and that no
// process has seen; "" if there is none, or in doubt: others may create keys of the
// agent at the same time, and those must not be revoked. It is a live key that
// was not there before and that no other intent has named; a platform may pass the
// name of the old key on to the new one. The platform makes it as it revokes the
// old one; if its list shows when that was, the two times have to agree.
func (c *calls) lostKey(keys []ListedKey) string {
	in, own := c.hold.rec.Intent, c.hold.rec.Current.ID // which may be dead
	if own == "" {
		own = idOf(live(keys), c.hold.rec.Current.Credential)
	}
	if len(in.Known) == 0 || own == "" {
		return ""
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
		return ""
	}
	return found[0]
}

// madeByOneOf reports whether a key may have been created by one of the
// revocations. If nothing is known, it may.
func madeByOneOf(revoked []time.Time, created time.Time) bool {
	const sameMoment = 10 * time.Second
	return len(revoked) == 0 || created.IsZero() ||
		slices.ContainsFunc(revoked, func(t time.Time) bool { return created.Sub(t).Abs() <= sameMoment })
}

// findID looks for the ID of a key of which only the secret is known.
func (c *calls) findID(ctx context.Context, agent string, k record.StoredKey) (string, error) {
	keys, a, err := c.list(ctx, agent)
	if err != nil || a.Outcome != Done {
		return "", errors.Join(err, a.Err)
	}
	return idOf(live(keys), k.Credential), nil
}

const markPrefix = "agrenting-go/"

// mark names the keys that an intent creates, so that one whose response was lost
// can be told from all others. It begins with the series of the record.
func mark(rec record.Key) string { return seriesPrefix(rec) + rec.Intent.Key }

// marked reports whether a name is the mark of an intent of the record: of the one
// under way, or of any other if the record has a series.
func marked(rec record.Key, name string) bool {
	return name == mark(rec) || (rec.Series != "" && strings.HasPrefix(name, seriesPrefix(rec)))
}

// seriesPrefix is what the marks of a record have in common. Records of earlier
// versions have no series.
func seriesPrefix(rec record.Key) string {
	if rec.Series == "" {
		return markPrefix
	}
	return markPrefix + rec.Series + "/"
}
