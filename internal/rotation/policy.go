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
	// askAttempts is how often a call is made whose outcome is not final.
	askAttempts = 4
	// saveAttempts is how often a record is saved that has a new key. Requests may
	// wait meanwhile, so no attempt begins after the CallTimeout of the first.
	saveAttempts = 4
	// maxHold is for how long after the first call another one is made while
	// requests wait. A key that is alive can be used meanwhile; for one that is not,
	// requests have to wait for the successor.
	maxHold = 2 * time.Second
	// idempotencyKept is how long the platform answers a repeated call with the
	// first answer (platform documentation, "Idempotency": 24 h), less a margin.
	idempotencyKept = 23 * time.Hour
	// maxAskPause bounds the pause between two attempts of a call.
	maxAskPause = 2 * time.Second
)

func askPause(n int) time.Duration  { return renew.Doubled(100*time.Millisecond, maxAskPause, n) }
func savePause(n int) time.Duration { return renew.Doubled(50*time.Millisecond, time.Second, n) }

// patience bounds all attempts of a call together.
func (p Policy) patience() time.Duration {
	return askAttempts * (p.CallTimeout + max(maxAskPause, p.CallTimeout))
}
