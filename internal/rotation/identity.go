package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// MismatchError means that the key in the store belongs to a different agent than the key
// that this client was given or has used so far, or that this cannot be ruled out.
type MismatchError struct {
	// Stored and Configured are the IDs of the agents. They are empty if the platform
	// does not say which agent a key belongs to.
	Stored, Configured string
}

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("agrenting: the stored key belongs to agent %q, and this client's to agent %q", e.Stored, e.Configured)
}

func isForeign(err error) bool {
	_, ok := errors.AsType[*MismatchError](err)
	return ok
}

// identity makes sure that a client never acts with the key of another agent, for example
// because two programs were given the same store. Keys of the same lineage or of the same
// agent may replace each other. Only the platform knows which agent a key belongs to: it
// says so when the key is exchanged.
type identity struct {
	platform Platform
	keys     Keys
	policy   *Policy

	made   sync.Once           // makes turn, which most clients never need
	turn   chan struct{}       // has room for the one call that may use the fields below
	agents map[question]answer // what the platform has said
	failed error               // the error of the last call, kept until the time in until
	until  time.Time

	failures int // consecutive ones
}

func newIdentity(p Platform, k Keys, policy *Policy) *identity {
	return &identity{platform: p, keys: k, policy: policy}
}

// relates reports whether two records belong to the same history, as far as they show.
func relates(a, b record.Key) bool {
	if a.IsZero() || b.IsZero() || a.Lineage == "" || b.Lineage == "" || a.Lineage == b.Lineage {
		return true
	}
	return a.Agent != "" && a.Agent == b.Agent
}

// check refuses a record that belongs to another agent than the newest known record or,
// if no record is known, than the initial key. It returns the record, extended by what it
// has learned.
func (i *identity) check(ctx context.Context, known, rec record.Key) (learned record.Key, err error) {
	if !known.IsZero() {
		if relates(known, rec) {
			return rec, nil
		}
		learned, err = i.compare(ctx, liveKey(known), known.Agent, rec)
		if errors.Is(err, errDeadRecord) {
			err = &MismatchError{Configured: known.Agent}
		}
		return learned, err
	}
	if !i.keys.HasInitial() {
		return rec, nil
	}
	c, err := initialKey(ctx, i.keys)
	if err != nil || c.Problem() != "" {
		return rec, nil //nolint:nilerr // without it, there is nothing to compare
	}
	learned, err = i.compare(ctx, c, "", rec)
	if errors.Is(err, errDeadRecord) { // its agent is not known, so no part of it is used
		return record.Key{
			Lineage: record.LineageOf(c), Series: record.NewSeries(), Generation: rec.Generation + 1,
			Current: record.StoredKey{Credential: c, ID: i.policy.KeyID, Created: wallNow(), Expires: c.Expires()},
		}, nil
	}
	return learned, err
}

var errDeadRecord = errors.New("agrenting: the key of the record is dead, and its agent is not known. Set WithAgentID")

// compare refuses a record if its agent is not the agent of a key.
func (i *identity) compare(ctx context.Context, c secret.Credential, mine string, rec record.Key) (learned record.Key, err error) {
	fingerprint := c.Fingerprint()
	if rec.Knows(c) || rec.Lineage == record.LineageOf(c) || slices.Contains(rec.Kin, fingerprint) {
		return rec, nil
	}
	if err := i.keys.Admit(liveKey(rec)); err != nil {
		return rec, err
	}
	i.made.Do(func() { i.turn = make(chan struct{}, 1) })
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return rec, context.Cause(ctx)
	}
	for _, configured := range []string{i.policy.AgentID, i.policy.DefaultAgent} {
		if mine == "" {
			mine = configured
		}
	}
	theirs := rec.Agent
	if theirs == "" {
		if v, _ := verify(ctx, i.platform, i.policy, liveKey(rec)); v == Dead {
			return rec, errDeadRecord
		}
		if theirs, err = i.whose(ctx, liveKey(rec), mine); err != nil {
			return rec, err
		}
	}
	if mine == "" {
		if mine, err = i.whose(ctx, c, theirs); err != nil {
			return rec, err
		}
	}
	if mine == "" || mine != theirs {
		return rec, &MismatchError{Stored: theirs, Configured: mine}
	}
	rec = rec.Clone()
	rec.Agent = theirs
	rec.Kin = append(rec.Kin[max(0, len(rec.Kin)+1-maxKin):], fingerprint)
	return rec, nil
}

// maxKin bounds how many other keys of the same agent a record names.
const maxKin = 8

// liveKey returns the key of a record that may be live.
func liveKey(rec record.Key) secret.Credential {
	if replaced(rec) {
		return rec.Pending.Credential
	}
	return rec.Current.Credential
}

// The pauses between failing calls double, because the authenticate endpoint allows only a few calls.
const (
	whosePause    = 3 * time.Second
	maxWhosePause = time.Minute
)

// question asks which agent a key belongs to. likely is the agent to try first; it may be
// empty.
type question struct{ fingerprint, likely string }

// answer is the agent that the platform has named, or "". It is valid until a given time,
// or for good if that is zero.
type answer struct {
	agent string
	until time.Time
}

// whose returns the ID of the agent that a key belongs to, or "" if the platform does not
// say. If the list of the likely agent's keys contains the key, it is that agent.
// Otherwise, the key is exchanged to find out. A dead key is asked about again after a
// pause, because parts of the platform may not know a new key yet.
func (i *identity) whose(ctx context.Context, c secret.Credential, likely string) (string, error) {
	q := question{c.Fingerprint(), likely}
	if a, ok := i.agents[q]; ok && (a.until.IsZero() || time.Now().Before(a.until)) {
		return a.agent, nil
	}
	if i.failed != nil && time.Now().Before(i.until) {
		return "", &PausedError{At: i.until, Err: i.failed}
	}
	ctx, cancel := context.WithTimeout(ctx, i.policy.CallTimeout)
	defer cancel()
	agent, a := "", Answer{}
	if likely != "" {
		var keys []ListedKey
		if keys, a = i.platform.List(ctx, Caller{Credential: c}, likely); a.Outcome == Done && idOf(live(keys), c) != "" {
			agent = likely
		}
	}
	if agent == "" {
		_, agent, a = i.platform.OpenLifeline(ctx, c)
	}
	err, until := failed(a, nil), time.Time{}
	if err == nil {
		i.failures = 0
	} else {
		i.failures++
		until = time.Now().Add(renew.Doubled(whosePause, maxWhosePause, i.failures))
		if v, _ := verify(ctx, i.platform, i.policy, c); v == Dead {
			err = nil // no agent can use the key
		}
	}
	if err == nil {
		if i.agents == nil {
			i.agents = map[question]answer{}
		}
		i.agents[q], i.failed = answer{agent, until}, nil
		return agent, nil
	}
	i.failed, i.until = fmt.Errorf("agrenting: cannot determine the agent of the stored key: %w. Set WithAgentID", err), until
	return "", i.failed
}
