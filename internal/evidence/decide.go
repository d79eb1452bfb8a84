package evidence

import "time"

// Verdict is what the platform says about a credential when asked.
type Verdict uint8

// The verdicts.
const (
	Unasked Verdict = iota // the platform was not asked because of this 401
	Unknown                // the response says nothing about the credential
	Alive
	Dead
)

// Facts describes what is known about a request that got a 401, and about its
// credential. For example, Facts{Verified: -1, Expired: true} describes an expired
// credential.
type Facts struct {
	// Fixed is set if the credential cannot be replaced.
	Fixed bool
	// RefusingPath is set if the path has refused all resends of a request and has
	// accepted no request since then. It is not set if the credential is known to be dead.
	RefusingPath bool
	// Newer is set if another generation is in use, and Rotating if a rotation is
	// replacing the credential.
	Newer, Rotating bool
	// Expired is set if the credential's own expiry has passed.
	Expired bool
	// Young is set if parts of the platform may not know the credential yet.
	Young bool
	// Verified is the time since the platform last accepted the credential when it was
	// asked. It is negative if the platform never did.
	Verified time.Duration
	// AcceptedSince is set if the platform accepted a request that was sent after this
	// one.
	AcceptedSince bool
	// Used is set if a request with the credential succeeded within the last second.
	Used bool
	// MayRenew is set if an unknown verdict may cause a renewal.
	MayRenew bool

	// Verdict is what the platform said when it was asked because of this 401. Paused
	// is set after the pause that precedes a resend.
	Verdict Verdict
	Paused  bool
	// Waits counts the resends of the request while its credential was young. Resends
	// counts all other resends. Last is set if the platform was asked after the last
	// resend.
	Waits, Resends int
	Last           bool
}

// Action is what to do about a 401.
type Action uint8

// The actions.
const (
	Return       Action = iota + 1 // give the 401 to the caller
	GiveUp                         // like Return, or the error of the last renewal if there is one
	Switch                         // resend with the newer generation
	Await                          // wait for the end of the rotation, then resend
	RenewExpired                   // renew, since the credential has expired
	RenewDead                      // renew, since the credential is dead
	RenewDoubted                   // renew, since the credential may be dead
	Pause                          // wait, then decide again
	Ask                            // ask the platform about the credential, then decide again
	AskLast                        // like Ask, after the last resend
	Resend                         // resend with the same credential
)

const (
	// maxResends bounds how often a request is resent with a credential that may be
	// alive, and maxFixedResends if it cannot be replaced.
	maxResends, maxFixedResends = 6, 2
	// refusingFor is how long an acceptance by Verify explains the 401 of a path that
	// refuses all requests. lastWord is the same for any other path.
	refusingFor, lastWord = 10 * time.Second, time.Second
)

// Decide returns what to do next. The rows are those of docs/sessions.md. The first
// row that matches applies.
func Decide(f Facts) Action {
	switch {
	case f.Fixed:
		return decideFixed(f)
	case f.RefusingPath && !f.Newer && !f.Expired && f.verifiedWithin(refusingFor): // row 0
		return Return
	case f.RefusingPath && !f.Newer && !f.Expired && f.Verdict == Unasked:
		return Ask
	case f.Newer: // row 1
		return Switch
	case f.Rotating: // row 2
		return Await
	case f.Expired: // row 3
		return RenewExpired
	case !f.Paused && (f.Young || f.Verdict != Dead):
		return Pause
	case f.Young && f.Waits > 0 && f.Verdict == Unasked: // row 4
		return Ask
	case f.Young:
		return Resend
	default: // row 5
		return f.decideDoubted()
	}
}

func (f Facts) verifiedWithin(d time.Duration) bool { return f.Verified >= 0 && f.Verified < d }

// decideDoubted decides after the pause about a credential that is not young.
func (f Facts) decideDoubted() Action {
	switch {
	case f.AcceptedSince && f.Resends < maxResends:
		return Resend
	case f.Verdict == Unasked:
		return Ask
	case f.Verdict == Dead:
		return RenewDead
	case f.Verdict == Unknown && f.MayRenew && !f.Used:
		return RenewDoubted
	case f.Resends < maxResends && (!f.RefusingPath || f.Resends == 0):
		return Resend
	case f.verifiedWithin(lastWord):
		return Return
	case !f.Last:
		return AskLast
	default:
		return GiveUp
	}
}

// decideFixed decides about a credential that cannot be replaced.
func decideFixed(f Facts) Action {
	switch {
	case f.RefusingPath || f.Resends >= maxFixedResends:
		return Return
	case f.Paused:
		return Resend
	case f.Used:
		return Pause
	default:
		return Return
	}
}
