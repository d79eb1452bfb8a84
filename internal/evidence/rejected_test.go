package evidence_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func isRejected(h *evidence.History) bool {
	_, ok := h.Rejected()
	return ok
}

// refuse reports a 401 to a request that is not resent, and waits for what it causes.
func refuse(h *evidence.History, route evidence.Route) {
	h.Refused(route, sending(h))
	h.Question(nil)
	advance(time.Second)
}

func TestRejected(t *testing.T) {
	t.Parallel()
	const unknown, alive, dead = evidence.Unknown, evidence.Alive, evidence.Dead
	refusals := func(n int) func(*evidence.Book, *evidence.History) {
		return func(_ *evidence.Book, h *evidence.History) {
			for range n {
				refuse(h, tasks)
			}
		}
	}
	for name, c := range map[string]struct {
		says []evidence.Verdict
		do   func(*evidence.Book, *evidence.History)
		want bool
	}{
		"nothing known":                  {[]evidence.Verdict{dead}, refusals(0), false},
		"one stray 401, alive":           {[]evidence.Verdict{alive}, refusals(1), false},
		"one stray 401, unknown":         {[]evidence.Verdict{unknown}, refusals(1), false},
		"dead":                           {[]evidence.Verdict{dead}, refusals(1), true},
		"401s for 9 s, unknown":          {[]evidence.Verdict{unknown}, refusals(9), false},
		"401s for 12 s, unknown":         {[]evidence.Verdict{unknown}, refusals(12), true},
		"401s for 30 s of one route":     {[]evidence.Verdict{alive}, refusals(30), false},
		"two 401s an hour, unknown once": {[]evidence.Verdict{unknown, alive}, func(_ *evidence.Book, h *evidence.History) { refuse(h, tasks); advance(time.Hour); refuse(h, tasks) }, false},
		"other requests succeed, unknown": {[]evidence.Verdict{unknown}, func(_ *evidence.Book, h *evidence.History) {
			for range 30 {
				refuse(h, tasks)
				success(h, agents)
			}
		}, false},
		"other requests succeed, dead by a route that has accepted no credential": {[]evidence.Verdict{dead}, func(_ *evidence.Book, h *evidence.History) {
			refuse(h, tasks)
			success(h, agents)
		}, false},
		"public requests succeed, dead by a route that has accepted another credential": {[]evidence.Verdict{dead}, func(b *evidence.Book, h *evidence.History) {
			b.Verifies(key("another"))
			refuse(h, tasks)
			success(h, agents)
		}, true},
		"public requests succeed, dead, and a route refuses what it had accepted": {[]evidence.Verdict{dead}, func(_ *evidence.Book, h *evidence.History) {
			success(h, tasks)
			refuse(h, tasks)
			success(h, agents)
		}, true},
		"the route that refused it accepts it again": {[]evidence.Verdict{dead}, func(_ *evidence.Book, h *evidence.History) {
			success(h, tasks)
			refuse(h, tasks)
			success(h, tasks)
		}, false},
		"verified again": {[]evidence.Verdict{dead}, func(b *evidence.Book, h *evidence.History) {
			refuse(h, tasks)
			b.Verifies(key("k1"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t, c.says...)
				h := b.Of(key("k1"), evidence.Fixed)
				c.do(b, h)
				assert.Equal(t, c.want, isRejected(h))
				assert.False(t, isRejected(b.Of(key("k2"), evidence.Fixed)), "another credential")
			})
		})
	}
	assert.False(t, isRejected(nil), "an anonymous client")
}

func TestExpiredCredentialIsRejectedByItsFirstRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t, evidence.Unknown)
		h := b.Of(secret.NewCredential(secret.Material{Kind: secret.KindSession, Secret: "s1", Expires: time.Now().Add(time.Minute)}), evidence.Fixed)
		h.Refused(tasks, sending(h))
		assert.False(t, isRejected(h))
		success(h, tasks)
		advance(time.Minute)
		assert.False(t, isRejected(h), "a clock may be wrong")
		h.Refused(tasks, sending(h))
		assert.True(t, isRejected(h))
		success(h, tasks)
		assert.False(t, isRejected(h))
	})
}

func TestYoungCredentialIsNotRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := b.Of(session("s1"), evidence.Issued)
		refuse(h, tasks)
		assert.False(t, isRejected(h))
		assert.Zero(t, a.count())
		advance(5 * time.Second)
		refuse(h, tasks)
		assert.True(t, isRejected(h))
	})
}

func TestQuestionAsksSeldom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verdict evidence.Verdict
		calls   int // in a minute of 401s
		died    int
	}{
		"alive":   {evidence.Alive, 6, 0},
		"unknown": {evidence.Unknown, 6, 0},
		"dead":    {evidence.Dead, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, c.verdict)
				h := b.Of(key("k1"), evidence.Fixed)
				died := 0
				for range 600 {
					h.Refused(tasks, time.Time{})
					h.Question(func() { died++ })
					advance(100 * time.Millisecond)
				}
				assert.Equal(t, c.calls, a.count())
				assert.Equal(t, c.died, died)
			})
		})
	}
}

func TestContradictedVerdictIsCheckedOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := b.Of(key("k1"), evidence.Fixed)
		rejected := 0
		for range 120 {
			refuse(h, tasks)
			if isRejected(h) {
				rejected++
			}
			success(h, agents)
		}
		assert.Equal(t, 2, rejected)
		assert.Equal(t, 6, a.count())
	})
}

func TestAskAgainEndsARejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := b.Of(key("k1"), evidence.Fixed)
		h.AskAgain()
		assert.Zero(t, a.count(), "it is not rejected")
		refuse(h, tasks)
		require.Equal(t, 3, a.count())
		for range 40 {
			h.AskAgain()
			advance(time.Second)
		}
		assert.Equal(t, 6, a.count(), "once in 30 s")
		assert.True(t, isRejected(h))
		a.say(evidence.Unknown)
		advance(30 * time.Second)
		h.AskAgain()
		advance(time.Second)
		r, ok := h.Rejected()
		assert.True(t, ok, "only an acceptance counts")
		assert.Equal(t, evidence.Dead, r.Verdict)
		a.say(evidence.Alive)
		advance(30 * time.Second)
		h.AskAgain()
		advance(time.Second)
		assert.False(t, isRejected(h))
	})
}
