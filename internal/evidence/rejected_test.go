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
func refuse(t *testing.T, h *evidence.History, route evidence.Route) {
	t.Helper()
	h.Refused(route, sending(h))
	h.Judge(t.Context())
	advance(time.Second)
}

func TestRejected(t *testing.T) {
	t.Parallel()
	const unknown, alive, dead = evidence.Unknown, evidence.Alive, evidence.Dead
	refusals := func(n int) func(*testing.T, *evidence.Book, *evidence.History) {
		return func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			for range n {
				refuse(t, h, tasks)
			}
		}
	}
	for name, c := range map[string]struct {
		says []evidence.Verdict
		do   func(*testing.T, *evidence.Book, *evidence.History)
		want bool
	}{
		"nothing known":              {[]evidence.Verdict{dead}, refusals(0), false},
		"one stray 401, alive":       {[]evidence.Verdict{alive}, refusals(1), false},
		"one stray 401, unknown":     {[]evidence.Verdict{unknown}, refusals(1), false},
		"dead":                       {[]evidence.Verdict{dead}, refusals(1), true},
		"401s for 9 s, unknown":      {[]evidence.Verdict{unknown}, refusals(9), false},
		"401s for 12 s, unknown":     {[]evidence.Verdict{unknown}, refusals(12), true},
		"401s for 30 s of one route": {[]evidence.Verdict{alive}, refusals(30), false},
		"two 401s an hour, unknown once": {[]evidence.Verdict{unknown, alive}, func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			refuse(t, h, tasks)
			advance(time.Hour)
			refuse(t, h, tasks)
		}, false},
		"other requests succeed, unknown": {[]evidence.Verdict{unknown}, func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			for range 30 {
				refuse(t, h, tasks)
				success(h, agents)
			}
		}, false},
		"other requests succeed, dead by a route that has accepted no credential": {[]evidence.Verdict{dead}, func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			refuse(t, h, tasks)
			success(h, agents)
		}, false},
		"public requests succeed, dead by a route that has accepted another credential": {[]evidence.Verdict{dead}, func(t *testing.T, b *evidence.Book, h *evidence.History) {
			t.Helper()
			b.Verifies(key("another"))
			refuse(t, h, tasks)
			success(h, agents)
		}, true},
		"public requests succeed, dead, and a route refuses what it had accepted": {[]evidence.Verdict{dead}, func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			success(h, tasks)
			refuse(t, h, tasks)
			success(h, agents)
		}, true},
		"the route that refused it accepts it again": {[]evidence.Verdict{dead}, func(t *testing.T, _ *evidence.Book, h *evidence.History) {
			t.Helper()
			success(h, tasks)
			refuse(t, h, tasks)
			success(h, tasks)
		}, false},
		"verified again": {[]evidence.Verdict{dead}, func(t *testing.T, b *evidence.Book, h *evidence.History) {
			t.Helper()
			refuse(t, h, tasks)
			b.Verifies(key("k1"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t, c.says...)
				h := b.Of(key("k1"), evidence.Given)
				c.do(t, b, h)
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
		h.Refused(tasks, sending(h))
		assert.False(t, isRejected(h))
		assert.Zero(t, a.count())
		advance(5 * time.Second)
		refuse(t, h, tasks)
		assert.True(t, isRejected(h))
	})
}

func TestFixedCredentialIsRejectedWithoutAQuestion(t *testing.T) {
	t.Parallel()
	refused := func(n int, every time.Duration) func(*evidence.History) {
		return func(h *evidence.History) {
			for range n {
				h.Refused(tasks, sending(h))
				advance(every)
			}
		}
	}
	for name, c := range map[string]struct {
		do   func(*evidence.History)
		want bool
	}{
		"one 401":                              {refused(1, time.Hour), false},
		"two 401s":                             {refused(2, time.Second), false},
		"three 401s":                           {refused(3, time.Second), true},
		"only 401s for 10 s":                   {refused(2, 10*time.Second), true},
		"asked by the caller":                  {func(h *evidence.History) { h.Denied() }, true},
		"a route that always refuses":          {func(h *evidence.History) { success(h, agents); refused(9, time.Second)(h) }, false},
		"a route that had accepted it":         {func(h *evidence.History) { success(h, tasks); refused(3, time.Second)(h) }, true},
		"other responses in between":           {func(h *evidence.History) { refused(2, time.Minute)(h); h.Answered(); refused(1, 0)(h) }, false},
		"other responses, asked by the caller": {func(h *evidence.History) { h.Denied(); h.Answered() }, true},
		"a success in between":                 {func(h *evidence.History) { refused(2, time.Second)(h); success(h, agents); refused(2, time.Second)(h) }, false},
		"a success afterwards":                 {func(h *evidence.History) { refused(3, time.Second)(h); h.Denied(); success(h, agents) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, evidence.Dead)
				h := b.Of(key("k1"), evidence.Fixed)
				c.do(h)
				assert.Equal(t, c.want, isRejected(h))
				assert.Equal(t, c.want, h.Report())
				assert.False(t, h.Report(), "it was reported")
				assert.Zero(t, a.count())
			})
		})
	}
}

func TestAskAgain_onlyCounted_endsUnlessConfirmed(t *testing.T) {
	t.Parallel()
	for verdict, want := range map[evidence.Verdict]bool{evidence.Dead: true, evidence.Unknown: false, evidence.Alive: false} {
		synctest.Test(t, func(t *testing.T) {
			b, _ := newBook(t, verdict)
			h := b.Of(key("k1"), evidence.Fixed)
			for range 3 {
				h.Refused(tasks, sending(h))
			}
			require.True(t, isRejected(h))
			advance(time.Minute)
			h.AskAgain(t.Context())
			assert.Equal(t, want, isRejected(h), "%v", verdict)
		})
	}
}

func TestAskAgainEndsARejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := b.Of(key("k1"), evidence.Fixed)
		h.AskAgain(t.Context())
		assert.Zero(t, a.count(), "it is not rejected")
		refuse(t, h, tasks)
		require.Equal(t, 3, a.count())
		for range 40 {
			h.AskAgain(t.Context())
			advance(time.Second)
		}
		assert.Equal(t, 6, a.count(), "once in 30 s")
		assert.True(t, isRejected(h))
		a.say(evidence.Unknown)
		advance(30 * time.Second)
		h.AskAgain(t.Context())
		advance(time.Second)
		r, ok := h.Rejected()
		assert.True(t, ok, "only an acceptance counts")
		assert.Equal(t, evidence.Dead, r.Verdict)
		a.say(evidence.Alive)
		advance(30 * time.Second)
		h.AskAgain(t.Context())
		advance(time.Second)
		assert.False(t, isRejected(h))
	})
}
