package rotation

import (
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// Strategy is a way to replace a key.
type Strategy uint8

// The strategies. The zero value selects one automatically.
const (
	Automatic Strategy = iota
	Overlap
	InPlace
)

// String returns the strategy in lower case, as records name it.
func (s Strategy) String() string {
	switch s {
	case Overlap:
		return "overlap"
	case InPlace:
		return "in place"
	default:
		return "automatic"
	}
}

// StrategyNamed returns the strategy of a record. A strategy that this version does not
// know counts as Overlap, which does not affect the key in use.
func StrategyNamed(name string) Strategy {
	if name == InPlace.String() {
		return InPlace
	}
	return Overlap
}

// Stage is a step of a rotation, as records name it.
type Stage string

// The stages, in their order.
const (
	StagePrepare Stage = "prepare"
	StageIssue   Stage = "issue"
	StagePersist Stage = "persist"
	StageVerify  Stage = "verify"
	StagePromote Stage = "promote"
	StageRevoke  Stage = "revoke"
	StageForget  Stage = "forget"
)

// Policy says how and when keys are rotated. All defaults have been applied, such as
// Every: 90 * 24 * time.Hour. The root's RotationPolicy documents the fields. Most
// programs only set its Store and Every.
type Policy struct {
	Strategy       Strategy
	Every          time.Duration // if not positive, keys are rotated only on demand
	AgentID, KeyID string
	DrainTimeout   time.Duration
	Grace          time.Duration
	VerifyTimeout  time.Duration
	CallTimeout    time.Duration
	Lease          time.Duration
	RetryEvery     time.Duration
	MaxAttempts    int
	// DefaultAgent is the client's agent. It is used if neither AgentID nor the record
	// names one.
	DefaultAgent string
}

// Recommended is the age after which the platform recommends to rotate a key (platform
// documentation, "Authentication": every 90 days).
const Recommended = 90 * 24 * time.Hour

const (
	// plainRecheck is how often a store that cannot be watched is loaded while there is
	// traffic.
	plainRecheck = time.Second
	// askAttempts is how often a call without a final outcome is made.
	askAttempts = 4
	// saveAttempts is how often a record with a new key is saved. Requests may wait for
	// that, so no attempt begins later than CallTimeout after the first.
	saveAttempts = 4
	// maxHold is how long after the first call another call is made while requests
	// wait. If the key is live, it then continues to be used. If it is dead, requests
	// have to wait for its successor. It also limits how long requests wait for a new
	// session while the old one is valid.
	maxHold = 2 * time.Second
	// idempotencyKept is how long the platform repeats its first response for an
	// idempotency key (platform documentation, "Idempotency": 24 h), less a margin.
	idempotencyKept = 23 * time.Hour
	// maxAskPause bounds the pause between two attempts of a call.
	maxAskPause = 2 * time.Second
)

func askPause(n int) time.Duration { return renew.Doubled(100*time.Millisecond, maxAskPause, n) }

// verifyPause returns the pause after the n-th refusal of a credential.
func verifyPause(n int) time.Duration {
	return renew.Doubled(50*time.Millisecond, 100*time.Millisecond, n)
}

func savePause(n int) time.Duration { return renew.Doubled(50*time.Millisecond, time.Second, n) }

// patience returns the time limit for all attempts of a call together.
func (p *Policy) patience() time.Duration {
	return askAttempts * (p.CallTimeout + max(maxAskPause, p.CallTimeout))
}

// maxCreatedOff is how far from the local clock the creation time of a key may be. The
// key was issued just now or, in the case of a repeated call, up to a day ago.
const maxCreatedOff = 48 * time.Hour

// wallNow returns the time for a record, by the wall clock only. That clock advances
// while a machine sleeps, and it is the only one that other processes know.
func wallNow() time.Time { return time.Now().Round(0) }
