package rotation

import "github.com/agrenting/agrenting-go/internal/record"

// The state of a key is in its record, so a process that takes over does the same as one
// that has not died. Each row says what the record contains, which keys are live, what
// comes next, what a crash leaves behind, and who finishes it. A client finishes an
// interrupted rotation when it starts, when its key is rejected, or when its timer
// fires.
//
// | state | record says | live keys | next | a crash leaves behind | picked up by |
// |---|---|---|---|---|---|
// | resting | no intent | current | prepare, when due or asked | nothing | - |
// | overlap, issuing | overlap, issue, no pending key | current, perhaps a marked one | create a second key with the intent's mark | perhaps a marked key | any client, once the lease has ended: the idempotency key gives it again |
// | overlap, issued | overlap, verify, pending key | current and pending | verify pending, promote it, change over | two live keys, both in the record | any client, once the lease has ended |
// | overlap, promoted | overlap, revoke, previous key | current, and previous until revoked | drain, wait for the grace, revoke previous and marked keys, drop the intent | two live keys, both in the record | the same process after the grace; any client 2 s later, or once the lease has ended |
// | overlap, revoked | overlap, forget, the intent's generation | current, perhaps marked ones | revoke marked keys, drop the intent | perhaps a marked key | any client, once the lease has ended: the mark is in the list of keys |
// | overlap, undoing | overlap, forget, the generation before | current, perhaps pending or marked ones | revoke pending and marked keys, drop the intent | perhaps a marked key | any client, once the lease has ended: the mark is in the list of keys |
// | store set back | overlap, revoke, the generation before, perhaps a previous key | current, perhaps previous and marked ones | wait 5 s for processes that know a newer record, revoke previous and marked keys, drop the intent | perhaps a previous and a marked key | any client, once the lease has ended |
// | in place, begun | in place, prepare, no pending key | current | note the agent's keys, or open a lifeline | nothing | any client, once the lease has ended |
// | in place, issuing | in place, issue, no pending key | current, or its unknown successor | keep requests waiting, replace the key | perhaps a dead key and an unknown one | any client, once the lease has ended: by idempotency key, lifeline or owner |
// | in place, issued | in place, verify or forget, pending key | pending | verify pending, promote it, let requests continue | the only live key, in the record | any client, once the lease has ended |
// | in place, promoted | in place, forget, no pending key | current, perhaps a lost one | revoke the lost key, marked ones, and previous, drop the intent | perhaps a lost key | any client, once the lease has ended: the known keys are in the record |
//
// The table ends here.

// Action is what a rotation does next.
type Action uint8

// The actions.
const (
	// Rest: there is nothing to do.
	Rest Action = iota
	// Prepare writes a new intent.
	Prepare
	// Create has the platform create a second key.
	Create
	// Promote verifies the pending key of an overlap and makes it the current one.
	Promote
	// Revoke revokes the previous key.
	Revoke
	// BeginUndo notes that keys that the intent has created must be revoked.
	BeginUndo
	// Undo revokes it, and all that other rotations have left behind, and drops the
	// intent.
	Undo
	// OpenLifeline makes sure that a lost response can be fetched again.
	OpenLifeline
	// Replace has the platform replace the key in place.
	Replace
	// PromoteInPlace makes the successor of a dead key the current one.
	PromoteInPlace
	// Forget revokes what this rotation and others have left behind, and drops the
	// intent.
	Forget
	// Recheck asks whether the current key is alive: the intent is exhausted, and
	// is dropped if so.
	Recheck
)

// Facts are what is known in addition to the record, such as Facts{Wanted: true,
// MaxAttempts: 5}. Most programs only set these two fields.
type Facts struct {
	// Wanted is set if a rotation is due or was asked for.
	Wanted bool
	// Resumed is set if an earlier attempt has begun the intent.
	Resumed bool
	// MaxAttempts is how often an intent is resumed before it is exhausted.
	MaxAttempts int
	// Rechecked is set once Recheck has not found the current key alive.
	Rechecked bool
}

// Next returns what comes next. It is a pure function: the whole course of a
// rotation is in it.
func Next(rec record.Key, f Facts) Action {
	in := rec.Intent
	if in == nil {
		if f.Wanted {
			return Prepare
		}
		return Rest
	}
	stage, issued := Stage(in.Stage), !rec.Pending.IsZero()
	if StrategyNamed(in.Strategy) == InPlace {
		switch {
		case issued:
			return PromoteInPlace
		case stage == StagePrepare:
			return OpenLifeline
		case stage == StageForget:
			return Forget
		case exhausted(in, f) && !f.Rechecked:
			return Recheck
		default:
			return Replace
		}
	}
	switch {
	case stage == StageForget && reached(rec):
		return Forget
	case stage == StageForget:
		return Undo
	case stage == StageRevoke:
		return Revoke
	case issued:
		return Promote
	case exhausted(in, f):
		return BeginUndo
	default:
		return Create
	}
}

// exhausted reports whether an intent was tried too often. Its age does not matter: a
// clock may be wrong, and an idempotency key that the platform has forgotten does no
// harm. It makes another key with the same mark, or none, since the current key is dead.
func exhausted(in *record.Intent, f Facts) bool {
	return f.Resumed && Stage(in.Stage) == StageIssue && in.Attempts > f.MaxAttempts
}

// reached reports whether the key that the intent leads to is the current one.
func reached(rec record.Key) bool { return rec.Generation == rec.Intent.Generation }

// replaced reports whether the current key is known to be dead: the platform has
// put the pending one in its place.
func replaced(rec record.Key) bool {
	return rec.Intent != nil && StrategyNamed(rec.Intent.Strategy) == InPlace && !rec.Pending.IsZero()
}

// baseGeneration is the generation that a rotation under way started from.
func baseGeneration(rec record.Key) uint64 {
	if rec.Intent != nil && reached(rec) {
		return rec.Generation - 1
	}
	return rec.Generation
}

// promoted is the record with its pending key in place of one that is dead. The
// intent stays only if something may be left to be revoked. If the outcome of a call was
// unknown, the previous key is not dead for certain.
func promoted(rec record.Key) record.Key {
	next := rec.Clone()
	next.Ancestors = next.Remember(next.Current.Credential.Fingerprint())
	next.Generation = next.Intent.Generation
	previous := next.Current
	next.Current, next.Previous, next.Pending = next.Pending, record.StoredKey{}, record.StoredKey{}
	switch {
	case Stage(next.Intent.Stage) != StageForget:
		next.Intent = nil
	case next.Intent.Unknown:
		next.Previous = previous
	}
	return next
}
