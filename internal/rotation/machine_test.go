package rotation

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

var machineNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// storedKey is a key named by a number.
func storedKey(n int) record.StoredKey {
	return record.StoredKey{Credential: apiKey(fmt.Sprintf("%s_%04d", modelPrefix, n)), ID: fmt.Sprintf("key-%d", n)}
}

// stateOf is a record with an intent that another attempt has begun.
func stateOf(s Strategy, stage Stage, change func(*record.Key)) record.Key {
	rec := record.Key{
		Generation: 1, Current: storedKey(1),
		Intent: &record.Intent{
			Key: "intent", Strategy: s.String(), Stage: string(stage), From: storedKey(1).Credential.Fingerprint(),
			Generation: 2, Started: machineNow, Attempts: 1,
		},
	}
	if change != nil {
		change(&rec)
	}
	return rec
}

func withPending(rec *record.Key) { rec.Pending = storedKey(2) }

func withPrevious(rec *record.Key) {
	rec.Generation, rec.Previous, rec.Current = 2, storedKey(1), storedKey(2)
}

func withCurrent(rec *record.Key) { rec.Generation, rec.Current = 2, storedKey(2) }

func attempted(n int) func(*record.Key) { return func(rec *record.Key) { rec.Intent.Attempts = n } }

func begun(ago time.Duration) func(*record.Key) {
	return func(rec *record.Key) { rec.Intent.Started = machineNow.Add(-ago) }
}

func TestNext(t *testing.T) {
	t.Parallel()
	const maxAttempts = 5
	rest := record.Key{Generation: 1, Current: storedKey(1)}
	resumed := func(f *Facts) { f.Resumed = true }
	rechecked := func(f *Facts) { f.Resumed, f.Rechecked = true, true }
	for name, tc := range map[string]struct {
		rec   record.Key
		facts func(*Facts)
		want  Action
	}{
		"resting":        {rest, nil, Rest},
		"resting, asked": {rest, func(f *Facts) { f.Wanted = true }, Prepare},

		"overlap, issuing":                  {stateOf(Overlap, StageIssue, nil), nil, Create},
		"overlap, issuing, resumed":         {stateOf(Overlap, StageIssue, attempted(maxAttempts)), resumed, Create},
		"overlap, issuing, too often":       {stateOf(Overlap, StageIssue, attempted(maxAttempts+1)), resumed, BeginUndo},
		"overlap, issuing, often, own":      {stateOf(Overlap, StageIssue, attempted(maxAttempts+1)), nil, Create},
		"overlap, issuing, a day ago":       {stateOf(Overlap, StageIssue, begun(24*time.Hour)), resumed, Create},
		"overlap, issuing, in the future":   {stateOf(Overlap, StageIssue, begun(-24*365*time.Hour)), resumed, Create},
		"overlap, issued":                   {stateOf(Overlap, StageVerify, withPending), nil, Promote},
		"overlap, issued, too often":        {stateOf(Overlap, StageVerify, both(withPending, attempted(99))), resumed, Promote},
		"overlap, promoted":                 {stateOf(Overlap, StageRevoke, withPrevious), nil, Revoke},
		"overlap, promoted, too often":      {stateOf(Overlap, StageRevoke, both(withPrevious, attempted(99))), resumed, Revoke},
		"overlap, undoing":                  {stateOf(Overlap, StageForget, nil), nil, Undo},
		"overlap, undoing a pending key":    {stateOf(Overlap, StageForget, withPending), nil, Undo},
		"overlap, revoked":                  {stateOf(Overlap, StageForget, withCurrent), nil, Forget},
		"of a strategy of a later version":  {stateOf(Automatic, StageIssue, nil), nil, Create},
		"in place, begun":                   {stateOf(InPlace, StagePrepare, nil), nil, OpenLifeline},
		"in place, begun, too often":        {stateOf(InPlace, StagePrepare, attempted(99)), resumed, OpenLifeline},
		"in place, issuing":                 {stateOf(InPlace, StageIssue, nil), nil, Replace},
		"in place, issuing, resumed":        {stateOf(InPlace, StageIssue, attempted(maxAttempts)), resumed, Replace},
		"in place, issuing, too often":      {stateOf(InPlace, StageIssue, attempted(maxAttempts+1)), resumed, Recheck},
		"in place, issuing, a day ago":      {stateOf(InPlace, StageIssue, begun(24*time.Hour)), resumed, Replace},
		"in place, issuing, dead":           {stateOf(InPlace, StageIssue, attempted(maxAttempts+1)), rechecked, Replace},
		"in place, issued":                  {stateOf(InPlace, StageVerify, withPending), nil, PromoteInPlace},
		"in place, issued by the owner":     {stateOf(InPlace, StageForget, withPending), nil, PromoteInPlace},
		"in place, issued, too often":       {stateOf(InPlace, StageVerify, both(withPending, attempted(99))), resumed, PromoteInPlace},
		"in place, promoted":                {stateOf(InPlace, StageForget, nil), nil, Forget},
		"in place, promoted, wanted anyway": {stateOf(InPlace, StageForget, nil), func(f *Facts) { f.Wanted = true }, Forget},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := Facts{MaxAttempts: maxAttempts}
			if tc.facts != nil {
				tc.facts(&f)
			}
			assert.Equal(t, tc.want, Next(tc.rec, f))
		})
	}
}

func both(changes ...func(*record.Key)) func(*record.Key) {
	return func(rec *record.Key) {
		for _, change := range changes {
			change(rec)
		}
	}
}

// simulated is a record, and the keys of the agent by their numbers on a platform
// that does what it is asked for.
type simulated struct {
	rec  record.Key
	keys int          // ever created
	live map[int]bool // and not revoked
	// marked is the key that the intent has created, and successor the one that has
	// replaced the current key in place; 0 if there is none.
	marked, successor int
	lost              int // a successor that the owner has not got
}

func (s simulated) clone() simulated {
	live := map[int]bool{}
	for k := range s.live {
		live[k] = true
	}
	s.rec, s.live = s.rec.Clone(), live
	return s
}

func create(s *simulated) int {
	s.keys++
	s.live[s.keys] = true
	return s.keys
}

func numberOf(k record.StoredKey) (n int) {
	_, _ = fmt.Sscanf(k.ID, "key-%d", &n)
	return n
}

// effects returns the ways in which an action can end: the last one is that it was
// done, those before it that the process died after a call and before it had saved
// what came of it.
func (s simulated) effects(a Action, strategy Strategy) (all []simulated) {
	n := s.clone()
	died := func() { all = append(all, n.clone()) }
	in := n.rec.Intent
	switch a {
	case Prepare:
		stage := StageIssue
		if strategy == InPlace {
			stage = StagePrepare
		}
		n.rec.Intent = &record.Intent{
			Key: "intent", Strategy: strategy.String(), Stage: string(stage), From: n.rec.Current.Credential.Fingerprint(),
			Generation: n.rec.Generation + 1, Started: machineNow,
		}
		n.marked, n.successor, n.lost = 0, 0, 0
	case Create:
		if n.marked == 0 { // else the idempotency key gives it again
			n.marked = create(&n)
		}
		died()
		n.rec.Pending, in.Stage = storedKey(n.marked), string(StageVerify)
	case Promote:
		n.rec.Previous, n.rec.Current, n.rec.Pending = n.rec.Current, n.rec.Pending, record.StoredKey{}
		n.rec.Generation, in.Stage = in.Generation, string(StageRevoke)
	case Revoke:
		delete(n.live, numberOf(n.rec.Previous))
		died()
		n.rec.Previous = record.StoredKey{}
		unswept := n.clone() // since the keys could not be listed
		unswept.rec.Intent.Stage = string(StageForget)
		all = append(all, unswept)
		n.rec.Intent = nil
	case BeginUndo:
		in.Stage = string(StageForget)
	case Undo:
		delete(n.live, numberOf(n.rec.Pending))
		died()
		delete(n.live, n.marked)
		died()
		n.rec.Intent, n.rec.Pending = nil, record.StoredKey{}
	case OpenLifeline:
		in.Stage = string(StageIssue)
	case Replace:
		if n.live[numberOf(n.rec.Current)] {
			n.successor = create(&n)
			delete(n.live, numberOf(n.rec.Current))
		}
		died()
		byOwner := n.clone() // who does not get the successor
		byOwner.lost = n.successor
		byOwner.rec.Pending, byOwner.rec.Intent.Stage = storedKey(create(&byOwner)), string(StageForget)
		byOwner.rec.Intent.Unknown = true
		all = append(all, byOwner)
		if s.live[numberOf(s.rec.Current)] { // a gateway has said that the key is dead
			misled := s.clone()
			misled.rec.Pending, misled.rec.Intent.Stage = storedKey(create(&misled)), string(StageForget)
			misled.rec.Intent.Unknown = true
			all = append(all, misled)
		}
		n.rec.Pending, in.Stage = storedKey(n.successor), string(StageForget)
	case PromoteInPlace:
		n.rec = promoted(n.rec)
	case Forget:
		delete(n.live, n.lost)
		died()
		delete(n.live, numberOf(n.rec.Previous))
		died()
		n.rec.Intent, n.rec.Previous = nil, record.StoredKey{}
	case Recheck:
		if n.live[numberOf(n.rec.Current)] {
			n.rec.Intent, n.rec.Pending = nil, record.StoredKey{}
		}
	case Rest:
	}
	return append(all, n)
}

func (s simulated) String() string {
	text := fmt.Sprint(s.rec.Generation, numberOf(s.rec.Current), numberOf(s.rec.Pending), numberOf(s.rec.Previous), s.live, s.marked, s.successor, s.lost)
	if in := s.rec.Intent; in != nil {
		text += fmt.Sprint(" ", in.Strategy, " ", in.Stage, " ", in.Attempts, " ", in.Unknown)
	}
	return text
}

// TestEveryStateLeadsToRest explores every record that actions can lead to, with a
// crash at any time, and follows the machine from there: it comes to rest with one
// live key, which is the current one.
func TestEveryStateLeadsToRest(t *testing.T) {
	t.Parallel()
	const maxAttempts = 2
	first := simulated{rec: record.Key{Generation: 1, Current: storedKey(1)}, keys: 1, live: map[int]bool{1: true}}
	for _, strategy := range []Strategy{Overlap, InPlace} {
		seen, todo := map[string]simulated{}, []simulated{first}
		for len(todo) > 0 {
			s := todo[0]
			todo = todo[1:]
			if _, ok := seen[s.String()]; ok || s.rec.Generation > 2 {
				continue
			}
			seen[s.String()] = s
			// What a process does that has begun the intent, and one that resumes it.
			actions := []Action{Next(s.rec, Facts{Wanted: s.rec.Intent == nil, MaxAttempts: maxAttempts})}
			if in := s.rec.Intent; in != nil && in.Attempts <= maxAttempts {
				s = s.clone()
				s.rec.Intent.Attempts++
				todo = append(todo, s)
				actions = append(actions,
					Next(s.rec, Facts{Resumed: true, MaxAttempts: maxAttempts}),
					Next(s.rec, Facts{Resumed: true, MaxAttempts: maxAttempts, Rechecked: true}))
			}
			for _, a := range actions {
				todo = append(todo, s.effects(a, strategy)...)
			}
		}
		assert.Greater(t, len(seen), 10, "%s", strategy)
		for name, s := range seen {
			for _, f := range []Facts{
				{},
				{Wanted: true},
				{Resumed: true},
			} {
				f.MaxAttempts = maxAttempts
				end, taken := s.follow(f, strategy)
				assert.LessOrEqual(t, len(taken), 10, "%s, %s, %+v: it does not come to rest: %v", strategy, name, f, taken)
				assert.Nil(t, end.rec.Intent, "%s, %s", strategy, name)
				assert.True(t, end.rec.Pending.IsZero() && end.rec.Previous.IsZero(), "%s, %s: %v", strategy, name, end)
				assert.Equal(t, map[int]bool{numberOf(end.rec.Current): true}, end.live, "%s, %s: %v", strategy, name, taken)
			}
		}
	}
}

// follow does what the machine says, on a platform where nothing goes wrong.
func (s simulated) follow(f Facts, strategy Strategy) (end simulated, taken []Action) {
	for len(taken) < 20 {
		a := Next(s.rec, f)
		if a == Rest {
			return s, taken
		}
		taken = append(taken, a)
		all := s.effects(a, strategy)
		s = all[len(all)-1]
		f.Rechecked = f.Rechecked || a == Recheck
		f.Wanted = f.Wanted && a != Prepare
	}
	return s, taken
}

// The machine has no goroutine, no I/O, and no clock.
func TestMachineIsPure(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "machine.go", nil, 0)
	require.NoError(t, err)
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		assert.Equal(t, "github.com/agrenting/agrenting-go/internal/record", path)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt, *ast.SendStmt, *ast.SelectStmt:
			t.Errorf("a %T", n)
		}
		return true
	})
}
