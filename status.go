package agrenting

import (
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/session"
)

// State is the state of a client's credential.
type State string

// The states of a credential.
const (
	// StateEmpty: no credential was obtained yet. The first request obtains it.
	StateEmpty State = "empty"
	// StateReady: there is a credential, and requests are sent with it. The platform
	// may still reject it. [Client.Verify] asks.
	StateReady State = "ready"
	// StateRenewing: requests are sent with the credential while it is renewed.
	StateRenewing State = "renewing"
	// StateWaiting: the credential has expired or was rejected, and requests wait for
	// the renewal.
	StateWaiting State = "waiting"
	// StateFailing: the credential has expired or was rejected, and the renewal has
	// failed. Requests wait for the next attempt at RetryAt, or fail with a
	// [*RenewalError]; see [RetryPolicy].
	StateFailing State = "failing"
	// StateRejected: the platform rejects the credential in use, or the key that sessions are
	// obtained with, and the source has no other one. LastError says why. One 401 does not
	// cause this state, unless the credential's own expiry has passed: either the platform
	// calls the credential dead when asked, with three 401s in a row, or it does not say, and
	// has returned 401 to all requests for 10 s. The SDK does not ask about a credential that
	// cannot be replaced. For such a credential, three 401s in a row, only 401s for 10 s, or a
	// 401 to [Client.Verify] cause this state. The state ends when the platform accepts the
	// credential again, or another one is in use. If the platform ([Routes].Verify) has never
	// accepted a credential of this kind, any successful request ends it.
	StateRejected State = "rejected"
	// StateClosed: the client was closed.
	StateClosed State = "closed"
)

// Status describes a client at one moment. Most programs only use [Status.Ready], State, and
// Expires, and serve the rest to their operators. It contains no secret. For example, a client
// with a session has
//
//	{"state":"ready","source":"AGRENTING_API_KEY","origin":"https://agrenting.com","kind":"session",
//	"generation":3,"fingerprint":"sha256:1a2b3c4d5e","expires":"2026-03-01T12:15:00Z",
//	"next_renewal":"2026-03-01T12:12:00Z"}
//
// As JSON and in logs, names are in snake case ("last_error"), errors are text, kinds are
// words ("api_key", "session", "user_token"), durations are strings such as "1.5s", and
// times are in UTC. Empty texts, zero times and durations, errors that are nil, and a key or
// a rate that is not known are left out. The JSON is for probes and monitoring, and cannot
// be decoded into a Status.
type Status struct {
	// State is the state of the credential, such as [StateReady].
	State State
	// Source names where the credential is from: an option or an environment
	// variable, and the source in use if it is known, as in
	// WithCredentialSource: CommandSource("vault").
	Source string
	// Origin is the scheme, host and port that the credential is pinned to.
	Origin string
	// AgentID is the default X-Agent-ID.
	AgentID string
	// Environment is the one that was chosen, or else that of the credential's mark;
	// empty if both are unknown.
	Environment Environment
	// Kind, Generation, and Fingerprint describe the credential in use; zero if there is none.
	// Generation counts the credentials that the client has used, from 1.
	Kind        Kind
	Generation  uint64
	Fingerprint string
	// Expires is when the credential expires, on the local clock; zero if that is not known,
	// or never.
	Expires time.Time
	// NextRenewal is when the SDK renews the credential; zero if it does not. It may read a
	// key file or a store before that.
	NextRenewal time.Time
	// Fetching reports whether the source is being asked. Waiters is how many requests
	// wait for a credential.
	Fetching bool
	Waiters  int
	// LastError is the error of the last renewal, nil after a success. Failures counts
	// failures in a row, and RetryAt is when the next attempt is due. In [StateRejected],
	// LastError names the credential and matches [ErrUnauthorized].
	LastError error
	Failures  int
	RetryAt   time.Time
	// Key describes the API key that a store keeps; zero without one, and before the
	// first load.
	Key KeyStatus
	// Store names the store of the key, or that of the sessions if no store keeps the
	// key: its String method, for example agrenting.FileStore(/var/lib/writer/keys), or its
	// type. Empty without a store.
	Store string
	// StoreError is why the last operation of the store failed, nil if it did not.
	// Requests continue with what is in memory, and sessions are not shared.
	StoreError error
	// ClockSkew is how far the platform's clock is ahead of this one; zero if that is
	// not known, or less than 2 s.
	ClockSkew time.Duration
	// Rate is the rate limit in the last response to [Client.Do].
	Rate Rate
}

var engineStates = map[renew.State]State{
	renew.Empty: StateEmpty, renew.Fresh: StateReady, renew.Renewing: StateRenewing,
	renew.Lapsed: StateWaiting, renew.BackedOff: StateFailing, renew.Shut: StateClosed,
}

// Status describes the client now. It makes no request and never waits for one.
func (c *Client) Status() Status {
	s := c.core.creds.status()
	s.Store = c.core.cfg.storeName
	s.Origin = c.transport.origins[0].String()
	s.AgentID = c.transport.agent.id()
	if s.Environment = c.core.env; s.Environment == "" {
		s.Environment = effectiveEnvironment("", c.core.creds.latest())
	}
	if k := c.core.stored; k != nil {
		s.Key = keyStatus(k.manager.Status())
		s.StoreError = publicRotation(k.manager.StoreError())
	}
	if src := c.core.sessions; src != nil && s.StoreError == nil {
		s.StoreError = src.StoreError()
	}
	if r := c.core.rate.Load(); r != nil {
		s.Rate = *r
	}
	return s
}

func (k *credentialCache) status() Status {
	s := Status{Source: k.sourceName(), State: StateReady}
	var gen *generation
	if k.engine == nil {
		if gen = k.fixed.Load(); gen == nil {
			s.State = StateClosed
			return s
		}
		s.Expires = gen.Value.cred.Expires()
		k.reject(&s, gen)
	} else {
		e := k.engine.Status()
		gen = e.Generation
		s.State, s.Fetching, s.Waiters = engineStates[e.State], e.Fetching, e.Waiters
		s.Failures, s.RetryAt, s.ClockSkew = e.Failures, e.RetryAt, e.Skew
		if e.Err != nil {
			s.LastError = k.sourceError(e.Err)
		}
		if gen != nil {
			s.Expires, s.NextRenewal = gen.Expires, gen.RenewAt
		}
		switch {
		case s.State == StateClosed:
		case session.IsRefused(e.Err) && e.State != renew.Fresh && e.State != renew.Renewing:
			s.State = StateRejected
		case e.State == renew.Fresh || e.State == renew.Renewing || e.Insisted:
			k.reject(&s, gen)
		}
	}
	if gen != nil {
		s.Kind, s.Generation, s.Fingerprint = gen.Value.cred.Kind(), gen.Number, gen.Value.cred.Fingerprint()
	}
	return s
}

// reject completes a status if the platform rejects the credential in use.
func (k *credentialCache) reject(s *Status, gen *generation) {
	if gen == nil {
		return
	}
	r, ok := gen.Value.history.Rejected()
	if !ok {
		return
	}
	why := "and confirmed this when asked"
	switch {
	case r.Expired:
		why = "which has expired at " + gen.Value.cred.Expires().UTC().Format(time.RFC3339)
	case r.Verdict == evidence.Unasked:
		why = "for all requests since " + r.Since.UTC().Format(time.RFC3339)
	case r.Verdict != evidence.Dead:
		why = "for all requests since " + r.Since.UTC().Format(time.RFC3339) + ", and its verify route gives no clear response"
	}
	err := fmt.Errorf("%w: the platform rejects the %v %s from %s, %s. Replace it with a valid one",
		ErrUnauthorized, gen.Value.cred.Kind(), gen.Value.cred.Fingerprint(), k.name, why)
	if s.LastError != nil {
		err = fmt.Errorf("%w. The last renewal failed, too: %w", err, s.LastError)
	}
	s.State, s.LastError = StateRejected, err
}

func keyStatus(m rotation.Status) KeyStatus {
	key := m.Key.Credential
	if key.IsZero() {
		return KeyStatus{}
	}
	s := KeyStatus{
		Fingerprint: key.Fingerprint(), Generation: m.Generation, Created: m.Key.Created, Expires: m.Key.Expires,
		Due: m.Due, Overdue: m.Overdue, Rotating: m.Running, LastRotation: m.Last, LastError: publicRotation(m.Err),
		Failures: m.Failures, RetryAt: m.RetryAt,
	}
	if !s.Created.IsZero() {
		s.Age = time.Since(s.Created)
	}
	return s
}

// latest is the newest credential, the zero one when there is none.
func (k *credentialCache) latest() Credential {
	gen := k.fixed.Load()
	if k.engine != nil {
		gen = k.engine.Status().Generation
	}
	if gen == nil {
		return Credential{}
	}
	return gen.Value.cred
}
