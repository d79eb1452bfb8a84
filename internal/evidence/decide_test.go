package evidence_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
)

const never = time.Duration(-1)

// doubted are the facts about a request of a good route whose credential may be dead,
// after the pause.
func doubted(change func(*evidence.Facts)) evidence.Facts {
	f := evidence.Facts{Verified: never, MayRenew: true, Paused: true}
	if change != nil {
		change(&f)
	}
	return f
}

// TestDecide has the rows of the table in docs/sessions.md, with both sides of each limit.
func TestDecide(t *testing.T) {
	t.Parallel()
	type facts = evidence.Facts
	for name, c := range map[string]struct {
		facts facts
		want  evidence.Action
	}{
		"0: refusing path, just verified":             {facts{RefusingPath: true}, evidence.Return},
		"0: verified almost 10 s ago":                 {facts{RefusingPath: true, Verified: 10*time.Second - 1}, evidence.Return},
		"0: verified 10 s ago":                        {facts{RefusingPath: true, Verified: 10 * time.Second}, evidence.Ask},
		"0: never verified":                           {facts{RefusingPath: true, Verified: never}, evidence.Ask},
		"0: while rotating":                           {facts{RefusingPath: true, Rotating: true}, evidence.Return},
		"0: young":                                    {facts{RefusingPath: true, Young: true}, evidence.Return},
		"0: newer generation":                         {facts{RefusingPath: true, Newer: true}, evidence.Switch},
		"0: expired":                                  {facts{RefusingPath: true, Expired: true}, evidence.RenewExpired},
		"0: asked, unknown":                           {facts{RefusingPath: true, Verified: never, Verdict: evidence.Unknown}, evidence.Pause},
		"0: asked, unknown, paused":                   {doubted(func(f *facts) { f.RefusingPath, f.Verdict = true, evidence.Unknown }), evidence.RenewDoubted},
		"0: asked, dead":                              {facts{RefusingPath: true, Verified: never, Verdict: evidence.Dead}, evidence.RenewDead},
		"1: newer generation":                         {facts{Newer: true}, evidence.Switch},
		"1: newer generation, everything else is set": {facts{Newer: true, Rotating: true, Expired: true, Young: true, Verdict: evidence.Dead, Paused: true, Resends: 6}, evidence.Switch},
		"2: rotating":                                 {facts{Rotating: true}, evidence.Await},
		"2: rotating, everything else is set":         {facts{Rotating: true, Expired: true, Young: true, Verdict: evidence.Dead, Paused: true, Resends: 6}, evidence.Await},
		"3: expired":                                  {facts{Expired: true, Verified: never}, evidence.RenewExpired},
		"3: expired and young":                        {facts{Expired: true, Young: true}, evidence.RenewExpired},
		"4: young":                                    {facts{Young: true, Verified: never}, evidence.Pause},
		"4: young, paused":                            {facts{Young: true, Verified: never, Paused: true}, evidence.Resend},
		"4: young, resent":                            {facts{Young: true, Verified: never, Paused: true, Waits: 1}, evidence.Ask},
		"4: young, asked":                             {facts{Young: true, Verified: never, Paused: true, Waits: 1, Verdict: evidence.Unknown}, evidence.Resend},
		"4: young, dead":                              {facts{Young: true, Verified: never, Paused: true, Waits: 1, Verdict: evidence.Dead}, evidence.Resend},
		"4: young, resent often":                      {facts{Young: true, Verified: never, Paused: true, Waits: 1000, Resends: 6, Verdict: evidence.Unknown}, evidence.Resend},
		"5: before the pause":                         {facts{Verified: never}, evidence.Pause},
		"5: before the pause, verified":               {facts{}, evidence.Pause},
		"5: after the pause":                          {doubted(nil), evidence.Ask},
		"5: newer generation after the pause":         {doubted(func(f *facts) { f.Newer = true }), evidence.Switch},
		"5: accepted since":                           {doubted(func(f *facts) { f.AcceptedSince = true }), evidence.Resend},
		"5: accepted since, asked":                    {doubted(func(f *facts) { f.AcceptedSince, f.Verdict = true, evidence.Dead }), evidence.Resend},
		"5: accepted since, 5 resends":                {doubted(func(f *facts) { f.AcceptedSince, f.Resends = true, 5 }), evidence.Resend},
		"5: accepted since, 6 resends":                {doubted(func(f *facts) { f.AcceptedSince, f.Resends = true, 6 }), evidence.Ask},
		"5: alive":                                    {doubted(func(f *facts) { f.Verdict = evidence.Alive }), evidence.Resend},
		"5: alive, 5 resends":                         {doubted(func(f *facts) { f.Verdict, f.Resends = evidence.Alive, 5 }), evidence.Resend},
		"5: alive, 6 resends, verified within 1 s":    {doubted(func(f *facts) { f.Verdict, f.Resends, f.Verified = evidence.Alive, 6, time.Second-1 }), evidence.Return},
		"5: alive, 6 resends, verified 1 s ago":       {doubted(func(f *facts) { f.Verdict, f.Resends, f.Verified = evidence.Alive, 6, time.Second }), evidence.AskLast},
		"5: alive, 6 resends, asked last":             {doubted(func(f *facts) { f.Verdict, f.Resends, f.Verified, f.Last = evidence.Alive, 6, time.Second, true }), evidence.GiveUp},
		"5: dead":                                     {doubted(func(f *facts) { f.Verdict = evidence.Dead }), evidence.RenewDead},
		"5: dead, not paused":                         {doubted(func(f *facts) { f.Verdict, f.Paused = evidence.Dead, false }), evidence.RenewDead},
		"5: dead, used within 1 s":                    {doubted(func(f *facts) { f.Verdict, f.Used = evidence.Dead, true }), evidence.RenewDead},
		"5: dead, no renewals left":                   {doubted(func(f *facts) { f.Verdict, f.MayRenew = evidence.Dead, false }), evidence.RenewDead},
		"5: dead, 6 resends":                          {doubted(func(f *facts) { f.Verdict, f.Resends = evidence.Dead, 6 }), evidence.RenewDead},
		"5: unknown":                                  {doubted(func(f *facts) { f.Verdict = evidence.Unknown }), evidence.RenewDoubted},
		"5: unknown, 6 resends":                       {doubted(func(f *facts) { f.Verdict, f.Resends = evidence.Unknown, 6 }), evidence.RenewDoubted},
		"5: unknown, used within 1 s":                 {doubted(func(f *facts) { f.Verdict, f.Used = evidence.Unknown, true }), evidence.Resend},
		"5: unknown, no renewals left":                {doubted(func(f *facts) { f.Verdict, f.MayRenew = evidence.Unknown, false }), evidence.Resend},
		"5: unknown, no renewals left, 6 resends":     {doubted(func(f *facts) { f.Verdict, f.MayRenew, f.Resends = evidence.Unknown, false, 6 }), evidence.AskLast},
		"5: unknown, used within 1 s, 6 resends":      {doubted(func(f *facts) { f.Verdict, f.Used, f.Resends, f.Last = evidence.Unknown, true, 6, true }), evidence.GiveUp},
		"5: unknown, verified within 1 s, 6 resends":  {doubted(func(f *facts) { f.Verdict, f.Used, f.Resends, f.Verified = evidence.Unknown, true, 6, 0 }), evidence.Return},
		"fixed":                          {facts{Fixed: true, Verified: never}, evidence.Return},
		"fixed, used within 1 s":         {facts{Fixed: true, Verified: never, Used: true}, evidence.Pause},
		"fixed, used within 1 s, paused": {facts{Fixed: true, Verified: never, Used: true, Paused: true}, evidence.Resend},
		"fixed, used before the pause":   {facts{Fixed: true, Verified: never, Paused: true}, evidence.Resend},
		"fixed, 1 resend":                {facts{Fixed: true, Verified: never, Used: true, Paused: true, Resends: 1}, evidence.Resend},
		"fixed, 2 resends":               {facts{Fixed: true, Verified: never, Used: true, Paused: true, Resends: 2}, evidence.Return},
		"fixed, 2 resends, not paused":   {facts{Fixed: true, Verified: never, Used: true, Resends: 2}, evidence.Return},
		"fixed, refusing path":           {facts{Fixed: true, Verified: never, Used: true, RefusingPath: true}, evidence.Return},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, evidence.Decide(c.facts))
		})
	}
}

// flags are the facts that are set or not.
func flags(f *evidence.Facts) []*bool {
	return []*bool{
		&f.Fixed, &f.RefusingPath, &f.Newer, &f.Rotating, &f.Expired, &f.Young, &f.AcceptedSince, &f.Used, &f.MayRenew,
		&f.Paused, &f.Last,
	}
}

var (
	ages     = []time.Duration{never, 0, time.Second - 1, time.Second, 10*time.Second - 1, 10 * time.Second, time.Hour}
	verdicts = []evidence.Verdict{evidence.Unasked, evidence.Unknown, evidence.Alive, evidence.Dead}
)

// invariants are what must hold for each decision.
var invariants = map[string]func(f evidence.Facts, a evidence.Action) bool{
	"there is an action": func(_ evidence.Facts, a evidence.Action) bool {
		return a >= evidence.Return && a <= evidence.Resend
	},
	"a renewal of the dead needs the verdict": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.RenewDead || (f.Verdict == evidence.Dead && !f.Young)
	},
	"a doubtful renewal needs an unknown verdict, and permission": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.RenewDoubted || (f.Verdict == evidence.Unknown && f.MayRenew && !f.Used && !f.Young && f.Paused)
	},
	"a renewal without asking needs the expiry": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.RenewExpired || f.Expired
	},
	"the 401 is returned after six resends, except by row 0": func(f evidence.Facts, a evidence.Action) bool {
		if a != evidence.Return || f.Fixed {
			return true
		}
		rowZero := f.RefusingPath && f.Verified >= 0 && f.Verified < 10*time.Second
		return rowZero || (exhausted(f) && f.Verified >= 0 && f.Verified < time.Second)
	},
	"decisions are final only after the last question": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.GiveUp || (exhausted(f) && f.Last)
	},
	"a fixed credential is never asked about or replaced": func(f evidence.Facts, a evidence.Action) bool {
		return !f.Fixed || a == evidence.Return || a == evidence.Pause || a == evidence.Resend
	},
	"a fixed credential is resent twice": func(f evidence.Facts, a evidence.Action) bool {
		return !f.Fixed || a != evidence.Resend || f.Resends < 2
	},
	"a credential that is not young is resent six times": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.Resend || f.Young || f.Resends < 6
	},
	"a newer generation is used": func(f evidence.Facts, a evidence.Action) bool {
		return f.Fixed || f.Newer == (a == evidence.Switch)
	},
	"the end of a rotation is waited for": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.Await || f.Rotating
	},
	"a resend follows a pause, unless the credential is dead": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.Resend || f.Paused || f.Verdict == evidence.Dead
	},
	"no pause follows another": func(f evidence.Facts, a evidence.Action) bool {
		return a != evidence.Pause || !f.Paused
	},
	"a question is asked once": func(f evidence.Facts, a evidence.Action) bool {
		return (a != evidence.Ask || f.Verdict == evidence.Unasked) && (a != evidence.AskLast || !f.Last)
	},
}

// exhausted reports whether a request was resent often enough.
func exhausted(f evidence.Facts) bool { return f.Resends >= 6 || (f.RefusingPath && f.Resends > 0) }

func TestEveryCombinationOfFacts(t *testing.T) {
	t.Parallel()
	var f evidence.Facts
	set := flags(&f)
	for bits := range 1 << len(set) {
		for i, flag := range set {
			*flag = bits>>i&1 == 1
		}
		for _, f.Verified = range ages {
			for _, f.Verdict = range verdicts {
				for _, f.Waits = range []int{0, 1, 20} {
					for f.Resends = range 8 {
						a := evidence.Decide(f)
						for name, holds := range invariants {
							if !holds(f, a) {
								require.Fail(t, name, "action %d for %+v", a, f)
							}
						}
					}
				}
			}
		}
	}
}

// fate is what one request went through that got a 401 each time.
type fate struct {
	end            evidence.Action
	waits, resends int
	asked          int
	paused         time.Duration
}

const youngFor = 4 * time.Second

// suffer lets a request get a 401 until a decision ends that. The facts that the
// request does not decide come from world, at each step.
func suffer(world func(*evidence.Facts), verdict func() evidence.Verdict) (fate, error) {
	var life fate
	last := false
	for {
		var f evidence.Facts
		for f.Paused = false; ; {
			world(&f)
			f.Young = f.Young && life.paused < youngFor
			f.Waits, f.Resends, f.Last = life.waits, life.resends, last
			a := evidence.Decide(f)
			if a == evidence.Resend {
				if f.Young {
					life.waits++
				} else {
					life.resends++
				}
				break
			}
			switch a {
			case evidence.Pause:
				life.paused += evidence.PauseBefore(life.waits + life.resends)
				f.Paused = true
			case evidence.Ask, evidence.AskLast:
				life.asked++
				f.Verdict = verdict()
				last = last || a == evidence.AskLast
			case evidence.RenewDoubted:
				f.Verdict = evidence.Alive // there is no other
			default:
				life.end = a
				return life, nil
			}
			if life.asked > 100 {
				return life, fmt.Errorf("never ends: %+v, %+v", life, f)
			}
		}
	}
}

// limits asserts what holds for every request.
func limits(t *testing.T, life fate, err error) {
	t.Helper()
	require.NoError(t, err)
	assert.LessOrEqual(t, life.resends, 6)
	assert.LessOrEqual(t, life.paused, youngFor+4*time.Second)
	assert.LessOrEqual(t, life.waits, 100)
}

// TestEveryRequestEnds lets each combination of facts last.
func TestEveryRequestEnds(t *testing.T) {
	t.Parallel()
	var lasting evidence.Facts
	set := flags(&lasting)
	for bits := range 1 << len(set) {
		for i, flag := range set {
			*flag = bits>>i&1 == 1
		}
		if lasting.Paused || lasting.Last { // these change
			continue
		}
		for _, age := range ages {
			for _, v := range verdicts[1:] {
				life, err := suffer(func(f *evidence.Facts) {
					paused, verdict := f.Paused, f.Verdict
					*f = lasting
					f.Paused, f.Verdict, f.Verified = paused, verdict, age
				}, func() evidence.Verdict { return v })
				limits(t, life, err)
			}
		}
	}
}

// TestEveryRequestEndsWhateverChanges lets the facts change at random between two
// decisions.
func TestEveryRequestEndsWhateverChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 0))
		life, err := suffer(func(f *evidence.Facts) {
			for _, flag := range []*bool{&f.RefusingPath, &f.Young, &f.AcceptedSince, &f.Used, &f.MayRenew} {
				*flag = r.IntN(2) == 0
			}
			f.Verified = ages[r.IntN(len(ages))]
		}, func() evidence.Verdict { return verdicts[1+r.IntN(3)] })
		limits(t, life, err)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestPausesDoubleUpToTheirLimit(t *testing.T) {
	t.Parallel()
	for n, millis := range []int{50, 100, 200, 300, 300, 300, 300} {
		top := time.Duration(millis) * time.Millisecond
		for range 100 {
			p := evidence.PauseBefore(n)
			assert.GreaterOrEqual(t, p, top*8/10)
			assert.LessOrEqual(t, p, top*12/10)
		}
	}
	assert.LessOrEqual(t, evidence.PauseBefore(1000), 360*time.Millisecond)
}
