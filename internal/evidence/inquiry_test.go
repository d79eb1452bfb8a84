package evidence_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
)

// old is a credential of a kind that the platform accepts when asked.
func old(b *evidence.Book) *evidence.History {
	b.Verifies(key("another"))
	return b.Of(key("k1"), evidence.Given)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	const unknown, alive, dead = evidence.Unknown, evidence.Alive, evidence.Dead
	for name, c := range map[string]struct {
		says  []evidence.Verdict
		want  evidence.Verdict
		calls int
	}{
		"three refusals in a row":    {[]evidence.Verdict{dead, dead, dead}, dead, 3},
		"accepted":                   {[]evidence.Verdict{alive}, alive, 1},
		"accepted after one refusal": {[]evidence.Verdict{dead, alive}, alive, 2},
		"accepted after two":         {[]evidence.Verdict{dead, dead, alive}, alive, 3},
		"unknown":                    {[]evidence.Verdict{unknown}, unknown, 1},
		"unknown after one refusal":  {[]evidence.Verdict{dead, unknown}, unknown, 2},
		"unknown after two":          {[]evidence.Verdict{dead, dead, unknown}, unknown, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, c.says...)
				assert.Equal(t, c.want, old(b).Judge(t.Context()))
				require.Len(t, a.calls, c.calls)
				sent := [][2]int64{{0, 0}, {40, 60}, {120, 180}} // milliseconds
				for i, call := range a.calls {
					assert.Equal(t, "k1", call.cred)
					assert.GreaterOrEqual(t, call.at.Milliseconds(), sent[i][0])
					assert.LessOrEqual(t, call.at.Milliseconds(), sent[i][1])
				}
			})
		})
	}
}

// TestVerdictsAreBelieved lists how long each verdict counts before the platform is
// asked again.
func TestVerdictsAreBelieved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verdict evidence.Verdict
		calls   int
		long    time.Duration // 0: for ever
	}{
		"alive":   {evidence.Alive, 1, time.Second},
		"unknown": {evidence.Unknown, 1, time.Second},
		"dead":    {evidence.Dead, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, c.verdict)
				h := old(b)
				require.Equal(t, c.verdict, h.Judge(t.Context()))
				long := c.long
				if long == 0 {
					long = 24 * time.Hour
				}
				advance(long - 1)
				assert.Equal(t, c.verdict, h.Judge(t.Context()))
				assert.Equal(t, c.calls, a.count())
				if c.long > 0 {
					advance(1)
					assert.Equal(t, c.verdict, h.Judge(t.Context()))
					assert.Equal(t, 2*c.calls, a.count())
				}
			})
		})
	}
}

func TestYoungCredentialIsNeverDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		b.Verifies(session("another"))
		h := b.Of(session("s1"), evidence.Issued)
		for range 40 { // 4 s
			assert.Equal(t, evidence.Unknown, h.Judge(t.Context()))
			advance(100 * time.Millisecond)
		}
		assert.Equal(t, 4, a.count(), "asked once a second")
		assert.Equal(t, evidence.Dead, h.Judge(t.Context()))
		assert.Equal(t, 7, a.count())
	})
}

func TestAcceptedCredentialDiesYoung(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t, evidence.Dead)
		b.Verifies(session("another"))
		h := b.Of(session("s1"), evidence.Issued)
		advance(time.Millisecond)
		success(h, agents)
		h.Refused(agents, sending(h))
		assert.Equal(t, evidence.Dead, h.Judge(t.Context()))
	})
}

func TestDeadUntilAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens func(t *testing.T, b *evidence.Book, h *evidence.History, before time.Time)
		dead    bool
	}{
		"nothing": {func(*testing.T, *evidence.Book, *evidence.History, time.Time) {}, true},
		"a success": {func(_ *testing.T, _ *evidence.Book, h *evidence.History, _ time.Time) {
			success(h, agents)
		}, false},
		"a success of a request that was sent before": {func(_ *testing.T, _ *evidence.Book, h *evidence.History, before time.Time) {
			h.Succeeded(agents, before, true, true)
		}, true},
		"a success of another route": {func(_ *testing.T, _ *evidence.Book, h *evidence.History, _ time.Time) {
			success(h, tasks)
		}, true},
		"another call": {func(_ *testing.T, _ *evidence.Book, h *evidence.History, _ time.Time) { h.Accept() }, false},
		"Verify":       {func(_ *testing.T, b *evidence.Book, _ *evidence.History, _ time.Time) { b.Verifies(key("k1")) }, false},
		"another credential": {func(_ *testing.T, b *evidence.Book, _ *evidence.History, _ time.Time) {
			b.Verifies(key("k2"))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, evidence.Dead)
				h := old(b)
				before := h.Refused(agents, sending(h))
				require.Equal(t, evidence.Dead, h.Judge(t.Context()))
				advance(time.Minute)
				a.say(evidence.Alive)
				c.happens(t, b, h, before)
				if c.dead {
					assert.Equal(t, evidence.Dead, h.Judge(t.Context()))
					assert.Equal(t, 3, a.count())
				} else {
					assert.Equal(t, evidence.Alive, h.Judge(t.Context()))
				}
			})
		})
	}
}

// The route of a request that is accepted during an inquiry may accept every caller.
func TestAcceptanceDuringAnInquiryDoesNotOutweighIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := old(b)
		h.Refused(agents, sending(h))
		time.AfterFunc(20*time.Millisecond, func() { success(h, agents) })
		assert.Equal(t, evidence.Dead, h.Judge(t.Context()))
		a.say(evidence.Alive)
		success(h, agents)
		assert.Equal(t, evidence.Dead, h.Judge(t.Context()), "it was sent when the verdict came")
		advance(time.Millisecond)
		success(h, agents)
		assert.Equal(t, evidence.Alive, h.Judge(t.Context()))
	})
}

func TestWaitersShareOneInquiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := old(b)
		got := make(chan evidence.Verdict, 100)
		for i := range cap(got) {
			go func() {
				advance(time.Duration(i) * time.Millisecond)
				got <- h.Judge(t.Context())
			}()
		}
		for range cap(got) {
			assert.Equal(t, evidence.Dead, <-got)
		}
		assert.Equal(t, 3, a.count())
	})
}

func TestCanceledCallerDoesNotEndTheInquiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		h := old(b)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		other := make(chan evidence.Verdict, 1)
		go func() {
			advance(time.Millisecond)
			other <- h.Judge(t.Context())
		}()
		began := time.Now()
		assert.Equal(t, evidence.Unknown, h.Judge(ctx))
		assert.Equal(t, 10*time.Millisecond, time.Since(began))
		assert.Equal(t, evidence.Dead, <-other)
		assert.Equal(t, 3, a.count())
	})
}

func TestInquiryEndsAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		a.delay = time.Hour
		began := time.Now()
		assert.Equal(t, evidence.Unknown, old(b).Judge(t.Context()))
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.Equal(t, 1, a.count())
	})
}

func TestCloseEndsInquiries(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"during a call": time.Hour, "between calls": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // the bubble fails if a goroutine stays
				b, a := newBook(t, evidence.Dead)
				a.delay = delay
				h := old(b)
				got := make(chan evidence.Verdict, 1)
				go func() { got <- h.Judge(t.Context()) }()
				synctest.Wait()
				began := time.Now()
				b.Close()
				assert.Equal(t, evidence.Unknown, <-got)
				assert.Zero(t, time.Since(began))
				calls := a.count()
				advance(time.Minute)
				assert.Equal(t, evidence.Unknown, h.Judge(t.Context()))
				h.Try()
				synctest.Wait()
				assert.Equal(t, calls, a.count(), "no calls after Close")
			})
		})
	}
}

// The route that verifies is an assumption: until it has accepted a credential of the
// kind, it may refuse them all.
func TestUnconfirmedRouteMayCauseTwoRenewalsAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t, evidence.Dead)
		first := b.Of(session("s1"), evidence.Given)
		assert.Equal(t, evidence.Dead, first.Judge(t.Context()))
		assert.Equal(t, evidence.Dead, b.Of(session("s2"), evidence.Given).Judge(t.Context()))
		third := b.Of(session("s3"), evidence.Given)
		assert.Equal(t, evidence.Unknown, third.Judge(t.Context()))
		assert.Equal(t, evidence.Dead, first.Judge(t.Context()), "it stays dead, and counts once")
		b.Verifies(key("k1"))
		assert.Equal(t, evidence.Unknown, third.Judge(t.Context()), "a key is of another kind")
		b.Verifies(session("s4"))
		assert.Equal(t, evidence.Dead, third.Judge(t.Context()))
		assert.Equal(t, evidence.Dead, b.Of(session("s5"), evidence.Given).Judge(t.Context()))
	})
}

func TestDeadVerdictNeedsSecondRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead)
		for range 2 {
			end, ok := b.Of(key("k0"), evidence.Given).RenewUnproven()
			require.True(t, ok)
			end()
		}
		assert.True(t, b.Of(key("k1"), evidence.Given).Confirms(t.Context()))
		a.say(evidence.Unknown)
		assert.False(t, b.Of(key("k2"), evidence.Given).Confirms(t.Context()))
		a.say(evidence.Alive)
		assert.False(t, b.Of(key("k3"), evidence.Given).Confirms(t.Context()))
	})
}

func TestTryLearnsWhetherTheRouteWorks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says  evidence.Verdict
		known bool             // the route has accepted a credential of this kind
		calls int              // of the trial
		then  evidence.Verdict // of a credential that is refused
	}{
		"it accepts":       {says: evidence.Alive, calls: 1, then: evidence.Dead},
		"it refuses":       {says: evidence.Dead, calls: 3, then: evidence.Unknown},
		"it does not say":  {says: evidence.Unknown, calls: 1, then: evidence.Unknown},
		"it is known well": {says: evidence.Alive, known: true, then: evidence.Dead},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, a := newBook(t, c.says)
				for range 2 {
					require.True(t, b.UseUnproven())
				}
				if c.known {
					b.Verifies(session("another"))
				}
				h := b.Of(session("s1"), evidence.Given)
				for range 3 {
					h.Try()
				}
				advance(time.Second)
				synctest.Wait()
				assert.Equal(t, c.calls, a.count())
				a.say(evidence.Dead)
				assert.Equal(t, c.then, b.Of(session("s2"), evidence.Given).Judge(t.Context()))
			})
		})
	}
}

// A trial is not a response to a 401 that comes later.
func TestTrialIsNotAVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Alive)
		h := b.Of(session("s1"), evidence.Given)
		h.Try()
		synctest.Wait()
		a.say(evidence.Dead)
		assert.Equal(t, evidence.Dead, h.Judge(t.Context()))
	})
}

func TestVerifiedIsTheTimeSinceVerifyAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Alive)
		h := b.Of(key("k1"), evidence.Given)
		h.Judge(t.Context())
		assert.Zero(t, describe(h, agents).Verified)
		a.say(evidence.Unknown)
		advance(3 * time.Second)
		h.Judge(t.Context())
		assert.Equal(t, 3*time.Second, describe(h, agents).Verified)
		success(h, agents)
		h.Accept()
		assert.Equal(t, 3*time.Second, describe(h, agents).Verified, "only Verify counts")
	})
}
