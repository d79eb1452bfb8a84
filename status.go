package agrenting

import (
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// State is the state of a client's credential.
type State string

// The states of a credential.
const (
	// StateEmpty: no credential was obtained yet. The first request causes it.
	StateEmpty State = "empty"
	// StateReady: there is a credential, and requests are sent with it. The platform
	// may still reject it; use [Client.Verify] to find out.
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
	// StateClosed: the client was closed.
	StateClosed State = "closed"
)

// Status is a picture of a client at one moment. It contains no secret.
type Status struct {
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
	Kind        Kind
	Generation  uint64
	Fingerprint string
	// Expires is on the local clock; zero when unknown or never.
	Expires time.Time
	// NextRenewal is when the SDK is going to renew; zero if it is not. It may read a
	// key file or a store before that.
	NextRenewal time.Time
	// Fetching reports whether the source is being asked. Waiters is how many requests
	// wait for its answer, without those that wait for the next attempt.
	Fetching bool
	Waiters  int
	// LastError is that of the last renewal, nil after a success; Failures
	// counts failures in a row, RetryAt is when the next attempt is due.
	LastError error
	Failures  int
	RetryAt   time.Time
	// StoreError is why the last operation of the store failed, nil if it did not.
	// Requests continue with what is in memory, and sessions are not shared.
	StoreError error
	// ClockSkew is how far the platform's clock is ahead of this one; zero if that is
	// not known, or less than 2 s.
	ClockSkew time.Duration
	// Rate is what the last answer to [Client.Do] said.
	Rate Rate
}

var engineStates = map[renew.State]State{
	renew.Empty: StateEmpty, renew.Fresh: StateReady, renew.Renewing: StateRenewing,
	renew.Lapsed: StateWaiting, renew.BackedOff: StateFailing, renew.Shut: StateClosed,
}

// Status describes the client now. It makes no request and never waits for one.
func (c *Client) Status() Status {
	s := c.core.creds.status()
	s.Origin = c.transport.origins[0].String()
	s.AgentID = c.transport.agent.id()
	if s.Environment = c.core.env; s.Environment == "" {
		s.Environment = effectiveEnvironment("", c.core.creds.latest())
	}
	if k := c.core.stored; k != nil {
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
	}
	if gen != nil {
		s.Kind, s.Generation, s.Fingerprint = gen.Value.cred.Kind(), gen.Number, gen.Value.cred.Fingerprint()
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
