package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// work completes one intent. [Next] decides what to do, and the strategies do it.
//
// A process that was stopped for longer than its lease may continue after another
// process has taken over. So the record's revision fences each write. A call to the
// platform cannot be fenced. Each call is therefore harmless if it comes late: it is a
// repetition with the same idempotency key, or it revokes a key that the record does not
// contain any more.
type work struct {
	policy  *Policy
	keys    Keys
	report  Report
	adopter *adopter
	hold    *hold
	calls   *calls

	began func(intent string) // called with the intent that the work begins

	wanted    bool
	repairs   bool // the current key is dead, and the owner must issue another one
	resumed   bool
	rechecked bool
	strategy  Strategy
	from      string // fingerprint of the key to replace
	recovered bool
	// waited is how long the record had been unchanged before, if the grace of the
	// previous key had begun. promotedAt is when the grace began, if this process has
	// promoted the key.
	waited     time.Duration
	promotedAt time.Time
	// replaced is the generation that was in use before this process changed to the new
	// key. It is zero if another process made the change.
	replaced Generation
	// held is the generation of the requests that wait.
	held Generation
	// pauses counts how often these requests were let through between calls.
	pauses int
}

// do completes the work.
func (w *work) do(ctx context.Context) error {
	defer w.release()
	defer w.hold.stop()
	w.from = w.hold.rec.Current.Credential.Fingerprint()
	var err error
	if in := w.hold.rec.Intent; in != nil {
		w.from, w.resumed = in.From, true
		err = w.takeOver(ctx)
	}
	for err == nil {
		action := Next(w.hold.rec, w.facts())
		if action == Rest {
			return nil
		}
		err = w.perform(ctx, action)
	}
	if !errors.Is(err, record.ErrLeaseLost) && !errors.Is(err, errDropped) {
		w.hold.letGo(ctx)
		switch {
		case isError(err):
		case errors.Is(err, errUnreachable):
			err = w.fail(w.stage(), err, "The record has the progress of the rotation; the next attempt continues from here", fixStore)
		default:
			err = w.fail(w.stage(), err, "The current key is live, or its successor is saved; the next attempt continues from here", "")
		}
	}
	return err
}

// cleanedUp reports whether the intent was created by [cleanup], so that nothing was
// rotated.
func (w *work) cleanedUp(err error) bool {
	return err == nil && w.hold.rec.Current.Credential.Fingerprint() == w.from
}

func (w *work) facts() Facts {
	return Facts{
		Wanted: w.wanted, Resumed: w.resumed, MaxAttempts: w.policy.MaxAttempts, Rechecked: w.rechecked,
	}
}

func (w *work) perform(ctx context.Context, action Action) error {
	switch action {
	case Prepare:
		return w.prepare(ctx)
	case Create:
		return overlap{w}.create(ctx)
	case Promote:
		return overlap{w}.promote(ctx)
	case Revoke:
		return overlap{w}.revoke(ctx)
	case BeginUndo:
		return overlap{w}.beginUndo(ctx)
	case Undo, Forget:
		return w.forget(ctx)
	case OpenLifeline:
		return inPlace{w}.openLifeline(ctx)
	case Replace:
		return inPlace{w}.replace(ctx)
	case PromoteInPlace:
		return inPlace{w}.promote(ctx)
	case Recheck:
		return w.recheck(ctx)
	case Rest:
	}
	return nil
}

// stage returns the stage of the record.
func (w *work) stage() Stage {
	if w.hold.rec.Intent == nil {
		return StagePrepare
	}
	return Stage(w.hold.rec.Intent.Stage)
}

// fail returns the error of a stage.
func (w *work) fail(stage Stage, err error, state, advice string) *Error {
	return &Error{Stage: stage, Strategy: w.strategy, Err: err, State: state, Advice: advice}
}

// unsaved returns the error for a record that could not be saved. If err says that the
// lease was lost, it is returned unchanged.
func (w *work) unsaved(stage Stage, err error, state string) error {
	if err == nil || errors.Is(err, record.ErrLeaseLost) {
		return err
	}
	return w.fail(stage, err, state, fixStore)
}

// enter reports that a stage begins.
func (w *work) enter(s Stage) { w.report.Stage(w.hold.rec, string(s)) }

// prepare saves the intent before anything else is done.
func (w *work) prepare(ctx context.Context) error {
	w.wanted = false
	cur := w.hold.rec.Current
	w.strategy = w.policy.Strategy
	if w.repairs { // the key is dead, so nothing can overlap
		w.strategy = InPlace
	}
	if kind := cur.Credential.Kind(); kind != secret.KindAPIKey {
		return w.fail(StagePrepare, fmt.Errorf("%w, and this is a %s", ErrNotRotatable, kind),
			nothingChanged, "Create and revoke user tokens with Client.Tokens")
	}
	next := w.hold.rec.Clone()
	agent := w.calls.agentOf(w.hold.rec)
	if w.strategy != InPlace && cur.ID == "" && agent != "" {
		next.Current.ID, _ = w.calls.findID(ctx, agent, cur)
		if next.Current.ID == "" && w.hold.rec.Generation <= 1 && isInitial(ctx, w.keys, cur.Credential) {
			next.Current.ID = w.policy.KeyID
		}
	}
	if next.Agent == "" {
		next.Agent = agent
	}
	if next.Series == "" {
		next.Series = record.NewSeries()
	}
	if err := w.choose(agent != "", next.Current.ID != ""); err != nil {
		if w.hold.changed(ctx) {
			return record.ErrLeaseLost // another process has rotated the key, so it was not in the list
		}
		return err
	}
	next.Intent = &record.Intent{
		Key: wire.NewUUID(), Strategy: w.strategy.String(), Stage: string(StageIssue), From: w.from,
		Generation: w.hold.rec.Generation + 1, Started: wallNow(),
	}
	if w.strategy == InPlace {
		next.Intent.Stage = string(StagePrepare)
	}
	if err := w.hold.save(ctx, next); err != nil {
		if errors.Is(err, record.ErrLeaseLost) {
			return err
		}
		return w.fail(StagePrepare, err, nothingChanged, "")
	}
	w.began(next.Intent.Key)
	w.enter(StagePrepare)
	return nil
}

// choose decides the strategy, by what is known about the key.
func (w *work) choose(agentKnown, idKnown bool) error {
	switch {
	case w.strategy == Automatic && agentKnown && idKnown:
		w.strategy = Overlap
	case w.strategy == Automatic:
		w.strategy = InPlace
	case w.strategy == Overlap && !agentKnown:
		return w.fail(StagePrepare, fmt.Errorf("%w: its agent is not known", ErrNotKnown),
			nothingChanged, "Set RotationPolicy.AgentID")
	case w.strategy == Overlap && !idKnown:
		advice := "Use InPlace for this rotation"
		if w.hold.rec.Generation <= 1 {
			advice = "Set RotationPolicy.KeyID, or use InPlace for this rotation"
		}
		return w.fail(StagePrepare, fmt.Errorf("%w: its ID is not known, so it could not be revoked", ErrNotKnown),
			nothingChanged, advice)
	}
	return nil
}

// takeOver continues a rotation that another process or an earlier attempt has not
// finished.
func (w *work) takeOver(ctx context.Context) error {
	next := w.hold.rec.Clone()
	w.strategy = StrategyNamed(next.Intent.Strategy)
	next.Intent.Attempts++
	if w.stage() == StageIssue && (w.strategy == Overlap || w.keys.HasOwner()) {
		next.Intent.Unknown = true // the previous attempt may have created a key
	}
	return w.unsaved(Stage(next.Intent.Stage), w.hold.save(ctx, next), "An unfinished rotation could not be taken over")
}

// recheck drops an exhausted intent if its key is alive. If the key is dead, its
// successor must be found, however old the intent is.
func (w *work) recheck(ctx context.Context) error {
	w.rechecked = true
	if verdict, _ := w.calls.verify(ctx, w.hold.rec.Current.Credential); verdict == Alive {
		return w.drop(ctx)
	}
	return nil
}

// drop deletes the intent without a result.
func (w *work) drop(ctx context.Context) error {
	next := w.hold.rec.Clone()
	next.Intent, next.Pending = nil, record.StoredKey{}
	if err := w.hold.save(ctx, next); err != nil {
		return err
	}
	return errDropped
}

// dropFor deletes the intent. err is the reason.
func (w *work) dropFor(ctx context.Context, err *Error) error {
	if derr := w.drop(ctx); !errors.Is(derr, errDropped) {
		err.Err = errors.Join(err.Err, derr)
	}
	return err
}

// finish deletes the intent and the data that only the intent needed.
func (w *work) finish(ctx context.Context) error {
	next := w.hold.rec.Clone()
	next.Intent, next.Previous = nil, record.StoredKey{}
	if err := w.hold.save(ctx, next); err != nil {
		return w.unsaved(StageForget, err, "The new key is in use and the old one is dead; only the end of the rotation could not be saved")
	}
	w.enter(StageForget)
	return nil
}

// forget revokes the keys that should not be live any more, and ends the intent. These
// are a pending key that must not be used and all keys that this rotation and others
// have left behind. If the list of keys cannot be read, the next rotation revokes them,
// unless a call of this rotation had an unknown outcome.
func (w *work) forget(ctx context.Context) error {
	a, err := Answer{Outcome: Done}, error(nil)
	pending := w.hold.rec.Pending.ID != ""
	if pending {
		a, err = w.calls.revokeKey(ctx, w.hold.rec.Pending)
	}
	if err == nil && a.Outcome == Done {
		pending = false
		a, err = w.calls.sweep(ctx)
	}
	reason := failed(a, err)
	switch {
	case errors.Is(reason, record.ErrLeaseLost), errors.Is(reason, errUnreachable):
		return reason
	case reason == nil, !pending && !w.hold.rec.Intent.Unknown:
		return w.end(ctx)
	case err == nil && w.refusedForGood(a):
		// The intent would block all other work.
		name := mark(w.hold.rec)
		if err := w.end(ctx); err != nil && !errors.Is(err, errDropped) {
			return err
		}
		return w.fail(StageForget, reason, "The current key is in use; an unrecorded key, such as one named "+name+", may also be live",
			"In the dashboard, revoke the agent's keys that are not in use; to avoid this, set RotationPolicy.Owner")
	default:
		return w.fail(StageForget, reason,
			"The current key is in use; an unrecorded key may also be live, and the next attempt searches for it", "")
	}
}

// refusedForGood reports whether the platform would still refuse a call later. Either
// the platform says so, or something in its place has refused the call in all attempts
// of the intent.
func (w *work) refusedForGood(a Answer) bool {
	return a.Outcome.refused() || (a.Denied && w.hold.rec.Intent.Attempts >= w.policy.MaxAttempts)
}

// end deletes the intent. It returns a result if the key of the intent is in use.
func (w *work) end(ctx context.Context) error {
	if reached(w.hold.rec) {
		return w.finish(ctx)
	}
	return w.drop(ctx)
}

// issued returns the key in a response. ok is false if the response has none.
func (w *work) issued(a Answer) (k record.StoredKey, ok bool) {
	if a.Key.Credential.IsZero() {
		return record.StoredKey{}, false
	}
	k = record.StoredKey{Credential: a.Key.Credential, ID: a.Key.ID}
	k.Created, k.Expires = localTimes(a.Key, a.Sent, w.policy.Every)
	if w.hold.rec.Agent == "" {
		w.hold.rec.Agent = a.Key.AgentID
	}
	return k, true
}

// noKey returns the error for a response in which no key was found, although it says that
// a key was issued.
func (w *work) noKey(a Answer) *Error {
	e := w.fail(StageIssue, fmt.Errorf("%w, although the response says that a key was issued", ErrNoKeyFound),
		"The new key may be in the response, under a name that the SDK does not know",
		"RawResponse of this error contains the response; save the key from it")
	if a.Outcome == Truncated {
		e.State = "The response with the new key is empty or not in the platform's format, as if it had been cut off"
		e.Advice = "The next attempt asks for it again with the same idempotency key; RawResponse of this error contains what arrived"
	}
	e.Raw = a.Raw
	return e
}

// localTimes returns the times of a new key. If the platform's clock is so far from the
// local clock that the key would be due at once or never, the times are moved to the
// local clock. The lifetime of the key, and its age when the response was sent, are the
// same by both clocks.
func localTimes(k IssuedKey, sent time.Time, every time.Duration) (created, expires time.Time) {
	now := wallNow()
	if sent.IsZero() {
		sent = now
	}
	created, expires = k.Created, k.Expires
	if created.IsZero() {
		created = sent
	}
	if every <= 0 {
		every = Recommended
	}
	length := expires.Sub(created)
	if length <= 0 { // the expiry is missing or not credible
		expires = time.Time{}
	} else {
		every = min(every, length)
	}
	if now.Sub(created).Abs() <= min(maxCreatedOff, every/10) {
		return created, expires
	}
	age := sent.Sub(created)
	if age < 0 || age > maxCreatedOff {
		age = 0
	}
	created = now.Add(-age)
	if !expires.IsZero() {
		expires = created.Add(length)
	}
	return created, expires
}

// disown revokes a key that came too late: another process has taken over the lease and
// dropped the intent, perhaps before the call that created the key arrived. As long as
// the intent exists and is not being undone, the process that works on it gets the same
// key with the same idempotency key.
func (w *work) disown(ctx context.Context, k record.StoredKey) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.policy.patience())
	defer cancel()
	e, err := w.hold.ledger.load(ctx, secret.Credential{})
	rec := e.Body
	if err != nil || rec.Knows(k.Credential) {
		return
	}
	if in := rec.Intent; in != nil && in.Key == w.hold.rec.Intent.Key && (w.strategy == InPlace || Stage(in.Stage) != StageForget) {
		return
	}
	if w.strategy == InPlace && rec.Current.Credential.Fingerprint() == w.from {
		return // the record's key is dead, so this key may be the only live one
	}
	late := &calls{platform: w.calls.platform, keys: w.keys, policy: w.policy, hold: &hold{ledger: w.hold.ledger, tasks: w.hold.tasks, policy: w.policy, rec: rec}}
	a, err := late.revokeKey(ctx, k)
	if reason := failed(a, err); reason != nil {
		w.report.Failed(rec, w.fail(StageForget, reason,
			"The key "+secret.Clean(k.ID)+" was received after its rotation had been undone; it is live but not in use",
			"Revoke it in the dashboard"))
	}
}

// drain waits for requests on the wire, in total for at most DrainTimeout.
func (w *work) drain(ctx context.Context, drained ...<-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, w.policy.DrainTimeout)
	defer cancel()
	for _, done := range drained {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// release lets waiting requests continue. They use the new key if there is one, and
// otherwise the old one.
func (w *work) release() {
	if g := w.held; !g.IsZero() {
		w.held = Generation{}
		w.adopter.handover.Release(g, w.hold.rec.Current.Credential.Fingerprint() != w.from)
	}
}
