package evidence_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// advance waits in virtual time: its callers are in a bubble.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where tests wait

// call is one call of an asker.
type call struct {
	at   time.Duration // since the asker was made
	cred string
}

// asker is a scriptable platform.
type asker struct {
	mu      sync.Mutex
	began   time.Time
	calls   []call
	delay   time.Duration
	verdict func(n int) evidence.Verdict // of the n-th call, from 1
}

func (a *asker) Verdict(ctx context.Context, c secret.Credential) evidence.Verdict {
	a.mu.Lock()
	a.calls = append(a.calls, call{time.Since(a.began), c.Reveal()})
	n, delay, verdict := len(a.calls), a.delay, a.verdict
	a.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return evidence.Unknown
	}
	return verdict(n)
}

func (a *asker) say(verdicts ...evidence.Verdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := len(a.calls)
	a.verdict = func(n int) evidence.Verdict { return verdicts[min(n-first, len(verdicts))-1] }
}

func (a *asker) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

// newBook returns a book whose asker repeats the last of some verdicts.
func newBook(t *testing.T, verdicts ...evidence.Verdict) (*evidence.Book, *asker) {
	t.Helper()
	a := &asker{began: time.Now()}
	a.say(append(verdicts, evidence.Unknown)[:max(1, len(verdicts))]...)
	b := evidence.NewBook(a)
	t.Cleanup(b.Close)
	return b, a
}

func key(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: text})
}

func session(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindSession, Secret: text})
}

var (
	agents = evidence.Route{Method: http.MethodGet, Path: "/api/v1/agents"}
	tasks  = evidence.Route{Method: http.MethodGet, Path: "/api/v1/tasks"}
)

// sending is the time at which a request is sent now, if it matters.
func sending(h *evidence.History) time.Time {
	if h.NeedsTime() {
		return time.Now()
	}
	return time.Time{}
}

// describe returns the facts about a request that is sent now.
func describe(h *evidence.History, path evidence.Route) evidence.Facts {
	var f evidence.Facts
	h.Describe(&f, path, time.Now())
	return f
}

func success(h *evidence.History, path evidence.Route) {
	h.Succeeded(path, sending(h), true, true)
}

func TestCredentialOfUnknownHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(key("k1"), evidence.Given)
		assert.Equal(t, evidence.Facts{Verified: never}, describe(h, agents))
		assert.False(t, h.WasUsed())
		assert.Same(t, h, b.Of(key("k1"), evidence.Issued), "where it is from does not change")
		assert.True(t, describe(b.Of(key("k2"), evidence.Fixed), agents).Fixed)
	})
}

func TestOnlyIssuedCredentialsAreYoungForFourSeconds(t *testing.T) {
	t.Parallel()
	for from, young := range map[evidence.Provenance]bool{evidence.Given: false, evidence.Fixed: false, evidence.Issued: true} {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t)
				h := b.Of(key("k1"), from)
				assert.Equal(t, young, describe(h, agents).Young)
				advance(4*time.Second - 1)
				assert.Equal(t, young, describe(h, agents).Young)
				advance(1)
				assert.False(t, describe(h, agents).Young)
			})
		})
	}
}

// TestAcceptance has what shows that the platform knows a credential.
func TestAcceptance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens  func(t *testing.T, b *evidence.Book, h *evidence.History)
		accepted bool
	}{
		"of a route that has not refused anybody": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			success(h, agents)
		}, false},
		"of a route that has returned 401 before": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			h.Refused(agents, sending(h))
			success(h, agents)
		}, true},
		"of a route that returns 401 afterwards": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			success(h, agents)
			h.Refused(agents, sending(h))
		}, true},
		"of a route that another credential was refused by": {func(_ *testing.T, b *evidence.Book, h *evidence.History) {
			other := b.Of(session("other"), evidence.Issued)
			other.Refused(agents, sending(other))
			success(h, agents)
		}, true},
		"of another route": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			success(h, agents)
			h.Refused(tasks, sending(h))
		}, false},
		"of another credential": {func(_ *testing.T, b *evidence.Book, h *evidence.History) {
			success(b.Of(session("other"), evidence.Issued), agents)
			h.Refused(agents, sending(h))
		}, false},
		"404, 429, 5xx": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			h.Refused(agents, sending(h))
			h.Succeeded(agents, sending(h), false, false)
		}, false},
		"403": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) {
			h.Refused(agents, sending(h))
			h.Succeeded(agents, sending(h), true, false)
		}, true},
		"by Verify": {func(t *testing.T, b *evidence.Book, h *evidence.History) {
			t.Helper()
			b.Verifies(session("s1"))
			assert.Zero(t, describe(h, agents).Verified)
		}, true},
		"of another credential by Verify": {func(_ *testing.T, b *evidence.Book, _ *evidence.History) {
			b.Verifies(session("other"))
		}, false},
		"by another call": {func(_ *testing.T, _ *evidence.Book, h *evidence.History) { h.Accept() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t)
				h := b.Of(session("s1"), evidence.Issued)
				advance(time.Millisecond)
				c.happens(t, b, h)
				assert.Equal(t, !c.accepted, describe(h, agents).Young)
			})
		})
	}
}

func TestRequestSentLaterIsAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(key("k1"), evidence.Given)
		earlier := sending(h)
		advance(time.Second)
		refused := h.Refused(agents, sending(h))
		since := func() bool {
			var f evidence.Facts
			h.Describe(&f, agents, refused)
			return f.AcceptedSince
		}
		assert.False(t, since())
		h.Succeeded(agents, earlier, true, true)
		assert.False(t, since(), "it was sent before")
		h.Succeeded(agents, time.Time{}, true, true)
		assert.False(t, since(), "it is not known when it was sent")
		advance(time.Millisecond)
		h.Succeeded(tasks, sending(h), true, true)
		assert.False(t, since(), "the route may accept everybody")
		h.Succeeded(agents, sending(h), true, true)
		assert.True(t, since())
	})
}

func TestRefusedReturnsLatestSendTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(key("k1"), evidence.Given)
		sent := sending(h)
		advance(time.Second)
		assert.Equal(t, sent, h.Refused(agents, sent))
		assert.Equal(t, time.Now(), h.Refused(agents, time.Time{}))
	})
}

func TestUsedMeansASuccessWithinTheLastSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(key("k1"), evidence.Given)
		h.Succeeded(agents, sending(h), true, false) // 403
		assert.False(t, describe(h, agents).Used)
		success(h, agents)
		assert.True(t, describe(h, agents).Used)
		advance(time.Second - 1)
		assert.True(t, describe(h, agents).Used)
		advance(1)
		assert.False(t, describe(h, agents).Used)
		assert.True(t, h.WasUsed())
	})
}

// TestSuccessesAreSampled has when a success needs to be recorded.
func TestSuccessesAreSampled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(b *evidence.Book, h *evidence.History)
		quiet   bool // after a success
	}{
		"normally": {func(*evidence.Book, *evidence.History) {}, true},
		"after a 401": {func(_ *evidence.Book, h *evidence.History) {
			h.Refused(agents, sending(h))
			advance(10*time.Second - 1)
		}, false},
		"10 s after a 401": {func(_ *evidence.Book, h *evidence.History) {
			h.Refused(agents, sending(h))
			advance(10 * time.Second)
		}, true},
		"after a 401 to another credential": {func(b *evidence.Book, _ *evidence.History) {
			other := b.Of(key("other"), evidence.Given)
			other.Refused(agents, sending(other))
		}, false},
		"a minute after a route refused all resends": {func(b *evidence.Book, _ *evidence.History) {
			b.RefusesAll(agents)
			advance(time.Minute)
		}, true},
		"while a route refuses all resends": {func(b *evidence.Book, _ *evidence.History) {
			b.RefusesAll(agents)
			advance(time.Minute - 1)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t)
				h := b.Of(key("k1"), evidence.Given)
				c.prepare(b, h)
				assert.False(t, h.Quiet(agents))
				assert.Equal(t, time.Now(), sending(h))
				success(h, agents)
				assert.Equal(t, c.quiet, h.Quiet(agents))
				assert.Equal(t, c.quiet, sending(h).IsZero())
				advance(500 * time.Millisecond)
				synctest.Wait()
				assert.False(t, h.Quiet(agents), "the next success is recorded")
			})
		})
	}
}

func TestSuccessesOfYoungCredentialsAreRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(session("s1"), evidence.Issued)
		success(h, agents)
		assert.True(t, h.Quiet(agents), "it is noted that this route has accepted it")
		assert.False(t, h.Quiet(tasks))
		advance(time.Second)
		assert.False(t, h.Quiet(agents), "the next success is recorded")
		advance(4 * time.Second)
		success(h, agents)
		assert.True(t, h.Quiet(agents))
	})
}

func TestA401EndsTheSampling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h, other := b.Of(key("k1"), evidence.Given), b.Of(key("k2"), evidence.Given)
		success(h, agents)
		success(other, agents)
		require.True(t, h.Quiet(agents))
		require.True(t, other.Quiet(agents))
		h.Refused(tasks, sending(h))
		assert.False(t, h.Quiet(agents))
		assert.False(t, other.Quiet(agents))
	})
}

func TestNoHistoryIsQuiet(t *testing.T) {
	t.Parallel()
	var h *evidence.History
	assert.True(t, h.Quiet(agents))
	assert.True(t, sending(h).IsZero())
}

func TestRouteRefusingAllResends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens  func(t *testing.T, h *evidence.History)
		refusing bool
	}{
		"nothing":                  {func(*testing.T, *evidence.History) {}, true},
		"a day":                    {func(*testing.T, *evidence.History) { advance(24 * time.Hour) }, true},
		"another 401":              {func(_ *testing.T, h *evidence.History) { h.Refused(agents, sending(h)) }, true},
		"a 404":                    {func(_ *testing.T, h *evidence.History) { h.Succeeded(agents, sending(h), false, false) }, true},
		"success of another route": {func(_ *testing.T, h *evidence.History) { success(h, tasks) }, true},
		"a success":                {func(_ *testing.T, h *evidence.History) { success(h, agents) }, false},
		"a 403":                    {func(_ *testing.T, h *evidence.History) { h.Succeeded(agents, sending(h), true, false) }, false},
		"the credential dies":      {func(t *testing.T, h *evidence.History) { t.Helper(); h.Judge(t.Context()) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, _ := newBook(t, evidence.Dead)
				h := b.Of(key("k1"), evidence.Given)
				require.False(t, describe(h, agents).RefusingPath)
				b.RefusesAll(agents)
				require.True(t, describe(h, agents).RefusingPath)
				assert.False(t, describe(h, tasks).RefusingPath)
				c.happens(t, h)
				assert.Equal(t, c.refusing, describe(h, agents).RefusingPath)
			})
		})
	}
}

func numbered(n int) evidence.Route {
	name := string([]byte{'a' + byte(n/26), 'a' + byte(n%26)})
	return evidence.Route{Method: http.MethodGet, Path: "/" + name}
}

func TestTheLast64RoutesAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(key("k1"), evidence.Given)
		for n := range 64 {
			b.RefusesAll(numbered(n))
			advance(time.Millisecond)
		}
		for n := range 64 {
			require.True(t, describe(h, numbered(n)).RefusingPath, "%d", n)
		}
		h.Refused(numbered(0), sending(h)) // used again
		advance(time.Millisecond)
		b.RefusesAll(numbered(64))
		assert.True(t, describe(h, numbered(0)).RefusingPath)
		assert.False(t, describe(h, numbered(1)).RefusingPath, "used the longest time ago")
		for n := 2; n <= 64; n++ {
			assert.True(t, describe(h, numbered(n)).RefusingPath, "%d", n)
		}
	})
}

func TestTheLast8CredentialsAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		var histories []*evidence.History
		for n := range 8 {
			histories = append(histories, b.Of(key(strconv.Itoa(n)), evidence.Given))
		}
		assert.Same(t, histories[0], b.Of(key("0"), evidence.Given), "used again")
		b.Of(key("8"), evidence.Given)
		assert.Same(t, histories[0], b.Of(key("0"), evidence.Given))
		assert.Same(t, histories[2], b.Of(key("2"), evidence.Given))
		assert.NotSame(t, histories[1], b.Of(key("1"), evidence.Given), "used the longest time ago")
	})
}

func TestTwoUnprovenRenewalsAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		for range 2 {
			require.True(t, b.MayRenewUnproven())
			require.True(t, b.UseUnproven())
			advance(10 * time.Second)
		}
		assert.False(t, b.MayRenewUnproven())
		assert.False(t, b.UseUnproven())
		advance(40*time.Second - 1)
		assert.False(t, b.UseUnproven(), "refused attempts do not count")
		advance(1)
		assert.True(t, b.UseUnproven())
		assert.False(t, b.UseUnproven())
		advance(10 * time.Second)
		assert.True(t, b.UseUnproven())
	})
}

// TestBookUnderConcurrency lets everything happen at once, for the race detector.
func TestBookUnderConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, a := newBook(t, evidence.Dead, evidence.Alive, evidence.Unknown)
		a.delay = time.Millisecond
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for n := range 50 {
					h := b.Of(session(strconv.Itoa(n/4%10)), evidence.Issued)
					path := numbered((i + n) % 80)
					sent := sending(h)
					switch (i + n) % 7 {
					case 0:
						h.Refused(path, sent)
					case 1:
						h.Judge(t.Context())
					case 2:
						b.RefusesAll(path)
					case 3:
						b.Verifies(key("k1"))
						h.Try()
					case 4:
						h.Accept()
						b.UseUnproven()
					default:
						success(h, path)
					}
					describe(h, path)
					advance(time.Millisecond)
				}
			})
		}
		wg.Wait()
	})
}

// A client that reports refusals alone was accepted if it comes again.
func TestLentCredentialIsAcceptedAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBook(t)
		h := b.Of(session("s1"), evidence.Issued)
		h.Lend()
		h.Lend()
		assert.True(t, describe(h, agents).Young)
		h.Refused(agents, sending(h))
		h.Lend()
		h.Lend()
		assert.True(t, describe(h, agents).Young, "it was refused in between")
		h.Lend()
		assert.False(t, describe(h, agents).Young)
	})
}
