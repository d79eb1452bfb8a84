package rotation

import (
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// Strategy is a way to replace a key.
type Strategy uint8

// The strategies. The zero value chooses.
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

// StrategyNamed returns the strategy of a record. One that this version does not
// know counts as Overlap, which leaves the key in use alone.
func StrategyNamed(name string) Strategy {
	if name == InPlace.String() {
		return InPlace
	}
	return Overlap
}

// Stage is a step of a rotation, as records name it.
type Stage string

// The stages in their order.
const (
	StagePrepare Stage = "prepare"
	StageIssue   Stage = "issue"
	StagePersist Stage = "persist"
	StageVerify  Stage = "verify"
	StagePromote Stage = "promote"
	StageRevoke  Stage = "revoke"
	StageForget  Stage = "forget"
)

// Policy says how and when keys are rotated. All defaults have been applied. The
// root's RotationPolicy documents the fields.
type Policy struct {
	Strategy       Strategy
	Every          time.Duration // not positive: only on demand
	AgentID, KeyID string
	DrainTimeout   time.Duration
	Grace          time.Duration
	VerifyTimeout  time.Duration
	CallTimeout    time.Duration
	Lease          time.Duration
	RetryEvery     time.Duration
	MaxAttempts    int
	// DefaultAgent is the client's agent, used if neither AgentID nor the record
	// names one.
	DefaultAgent string
}

// Recommended is the age at which the platform recommends to rotate a key
// (platform documentation, "Authentication": every 90 days).
const Recommended = 90 * 24 * time.Hour

const (
	// plainRecheck is how often a store that cannot be watched is loaded while there is
	// traffic.
	plainRecheck = time.Second
	// askAttempts is how often a call is made whose outcome is not final.
	askAttempts = 4
	// saveAttempts is how often a record with a new key is saved. Requests may wait for
	// that, so no attempt begins after the CallTimeout of the first.
	saveAttempts = 4
	// maxHold is for how long after the first call another one is made while
	// requests wait. A live key continues to be used; for a dead one, requests have to
	// wait for the successor.
	maxHold = 2 * time.Second
	// idempotencyKept is how long the platform answers a repeated call with the
	// first answer (platform documentation, "Idempotency": 24 h), less a margin.
	idempotencyKept = 23 * time.Hour
	// maxAskPause bounds the pause between two attempts of a call.
	maxAskPause = 2 * time.Second
)

func askPause(n int) time.Duration { return renew.Doubled(100*time.Millisecond, maxAskPause, n) }

// verifyPause is the pause after the n-th refusal of a credential that is asked about.
func verifyPause(n int) time.Duration {
	return renew.Doubled(50*time.Millisecond, 100*time.Millisecond, n)
}

func savePause(n int) time.Duration { return renew.Doubled(50*time.Millisecond, time.Second, n) }

// patience bounds all attempts of a call together.
func (p *Policy) patience() time.Duration {
	return askAttempts * (p.CallTimeout + max(maxAskPause, p.CallTimeout))
}

// maxCreatedOff is how far from the local clock the creation of a key may be that
// was issued just now, or, by a repeated call, up to a day ago.
const maxCreatedOff = 48 * time.Hour

// wallNow is the time for a record, by the wall clock alone: it advances while a
// machine sleeps, and other processes know no other.
func wallNow() time.Time { return time.Now().Round(0) }
