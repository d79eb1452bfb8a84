package agrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// The tests in this file count what faults of the platform and of gateways cost. Each
// scenario runs with several seeds. Most are about a client that uses sessions.

// limits are what a scenario may cost at most.
type limits struct {
	// renewals are the exchanges after the first one.
	renewals int
	// failed is the share of the requests to good routes that may fail.
	failed float64
	// longest is for the requests to good routes; 0 means 3 s.
	longest time.Duration
}

func (l limits) assert(t *testing.T, r loadResult) {
	t.Helper()
	longest := l.longest
	if longest == 0 {
		longest = 3 * time.Second
	}
	assert.NotEmpty(t, r.outcomes)
	assert.Zero(t, r.lockouts, "lockouts")
	assert.LessOrEqual(t, r.renewals(), l.renewals, "exchanges after the first")
	assert.LessOrEqual(t, float64(r.failed), l.failed*float64(r.requests), "failed requests of %d: %v", r.requests, r.byError)
	assert.LessOrEqual(t, r.longest, longest, "longest request")
	none(t, r.where(func(o outcome) bool { return o.acted > 1 || (o.err == nil && o.acted != 1) }), "requests not acted on once")
}

// limited is a scenario with its limits, and with what else must hold.
type limited struct {
	scenario
	limits
	also func(t *testing.T, r loadResult)
}

func runScenarios(t *testing.T, cases map[string]limited) {
	t.Helper()
	for name, tc := range cases {
		for _, seed := range tc.runsWith() {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				r := tc.run(t, seed)
				tc.assert(t, r)
				if tc.also != nil {
					tc.also(t, r)
				}
			})
		}
	}
}

// runsWith returns the seeds of a scenario. With seed 8, Verify answers three stray 401s
// in a row, if a third of the responses is stray, once among the first fifty. With seed
// 1, it does not.
func (s scenario) runsWith() []uint64 {
	if s.seeds != nil {
		return s.seeds
	}
	random := s.faults.stray > 0 || s.faults.staleNodes > 0
	if !random || sample.Fewer || testing.Short() {
		return []uint64{8}
	}
	return []uint64{8, 1}
}

// none asserts that there are no such outcomes, and shows some.
func none(t *testing.T, such []outcome, what string) {
	t.Helper()
	if len(such) > 0 {
		assert.Fail(t, fmt.Sprintf("%d %s, such as %v", len(such), what, such[:min(3, len(such))]))
	}
}

// storedKey keeps the key in a store, from which it is rotated in place on demand.
func storedKey(opts ...agrenting.Option) func() []agrenting.Option {
	return func() []agrenting.Option {
		return append([]agrenting.Option{
			agrenting.WithStore(agrenting.MemoryStore()),
			agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1, AgentID: "agent-1"}),
		}, opts...)
	}
}

// rotates has the first client rotate its key after 3 s.
func rotates() event {
	return event{3 * time.Second, func(t *testing.T, b *testbed) {
		t.Helper()
		_, err := b.clients[0].Rotate(t.Context())
		assert.NoError(t, err)
	}}
}

func sessionsEndAt(at time.Duration) event {
	return event{at, func(_ *testing.T, b *testbed) { b.platform.end(false) }}
}

func keyDiesAt(at time.Duration) event {
	return event{at, func(_ *testing.T, b *testbed) { b.platform.end(true) }}
}

func TestStrayRefusalsCauseNoExchange(t *testing.T) {
	t.Parallel()
	runScenarios(t, map[string]limited{
		"a third": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		"a third, as pages": {
			scenario: scenario{faults: imperfections{stray: 1. / 3, strayPages: true}},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		"a twentieth": {
			scenario: scenario{faults: imperfections{stray: 0.05}},
			limits:   limits{renewals: 1},
		},
		"a twentieth, as pages": {
			scenario: scenario{faults: imperfections{stray: 0.05, strayPages: true}},
			limits:   limits{renewals: 1},
		},
	})
}

func TestStaleNodeFailsNoRequest(t *testing.T) {
	t.Parallel()
	sessionEnds := []event{sessionsEndAt(5 * time.Second)}
	cases := map[string]limited{}
	for of, stale := range map[string]imperfections{
		"node per request":             {},
		"node per connection":          {perConnection: true},
		"kept-alive connections to it": {keptAlive: true},
	} {
		stale.staleNodes, stale.staleSession, stale.staleKey = 1, 3*time.Second, 3*time.Second
		short, ending := stale, stale
		short.ttl, ending.endsSessions = 6*time.Second, true
		cases["session ends early, "+of] = limited{
			scenario: scenario{faults: stale, events: sessionEnds}, limits: limits{renewals: 1},
		}
		cases["rotated key, "+of] = limited{scenario: scenario{faults: stale, options: storedKey(), events: []event{rotates()}}}
		if stale.keptAlive {
			continue
		}
		cases["first session, "+of] = limited{scenario: scenario{faults: stale}}
		cases["session expires, "+of] = limited{scenario: scenario{faults: short}, limits: limits{renewals: 2}}
		cases["rotated key, with sessions, "+of] = limited{
			scenario: scenario{faults: stale, options: storedKey(agrenting.WithSession()), events: []event{rotates()}},
			limits:   limits{renewals: 3},
		}
		cases["rotated key, which ends sessions, "+of] = limited{
			scenario: scenario{faults: ending, options: storedKey(agrenting.WithSession()), events: []event{rotates()}},
			limits:   limits{renewals: 3},
		}
	}
	runScenarios(t, cases)
}

func TestSlowPropagationFailsNoRequest(t *testing.T) {
	t.Parallel()
	sessions, key := imperfections{session: 500 * time.Millisecond}, imperfections{key: 2 * time.Second}
	short, keyEnds := sessions, key
	short.ttl, keyEnds.endsSessions = 6*time.Second, true
	both, bothEnds := key, keyEnds
	both.session, bothEnds.session = sessions.session, sessions.session
	rotated := func(faults imperfections, options ...agrenting.Option) scenario {
		return scenario{faults: faults, options: storedKey(options...), events: []event{rotates()}}
	}
	// The request waits for the key, and then for the session.
	waitsTwice := limits{renewals: 3, longest: 3200 * time.Millisecond}
	runScenarios(t, map[string]limited{
		"first session": {scenario: scenario{faults: sessions}},
		"session ends early": {
			scenario: scenario{faults: sessions, events: []event{sessionsEndAt(5 * time.Second)}}, limits: limits{renewals: 1},
		},
		"session expires":                      {scenario: scenario{faults: short}, limits: limits{renewals: 2}},
		"rotated key":                          {scenario: rotated(key)},
		"rotated key, with sessions":           {scenario: rotated(key, agrenting.WithSession()), limits: limits{renewals: 3}},
		"rotated key, which ends sessions":     {scenario: rotated(keyEnds, agrenting.WithSession()), limits: limits{renewals: 3}},
		"rotated key and session":              {scenario: rotated(both, agrenting.WithSession()), limits: waitsTwice},
		"rotated key and session, which ended": {scenario: rotated(bothEnds, agrenting.WithSession()), limits: waitsTwice},
	})
}

func TestRefusingRouteDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	// Once a request has got its 401, further ones with the same method get theirs at once.
	atOnce := func(t *testing.T, r loadResult) {
		t.Helper()
		known, later := map[string]time.Duration{}, 0
		slow := r.where(func(o outcome) bool {
			since, ok := known[o.method]
			if o.refused && !ok {
				known[o.method] = o.ended()
			}
			if !o.refused || !ok || o.began < since {
				return false
			}
			later++
			return o.took >= 50*time.Millisecond || o.sends != 1
		})
		none(t, slow, "requests that were not refused at once")
		assert.NotZero(t, later)
		other := r.where(func(o outcome) bool { return o.refused && kindOf(o.err) != "401" })
		none(t, other, "requests that did not get their 401")
	}
	runScenarios(t, map[string]limited{
		"a tenth of the requests": {scenario: scenario{refused: 0.1}, limits: limits{renewals: 1}, also: atOnce},
		"all requests":            {scenario: scenario{refused: 1}, limits: limits{renewals: 1}, also: atOnce},
	})
}

func TestEarlySessionEndCausesOneExchange(t *testing.T) {
	t.Parallel()
	exactly := func(n int) func(*testing.T, loadResult) {
		return func(t *testing.T, r loadResult) {
			t.Helper()
			assert.Equal(t, n, r.renewals(), "exchanges after the first")
		}
	}
	// The second session ends 5 ms after the first request with it was accepted.
	secondEnds := event{6 * time.Second, func(_ *testing.T, b *testbed) {
		b.platform.end(false)
		for b.platform.usedSessions() < 2 {
			sdktest.Advance(time.Millisecond)
		}
		sdktest.Advance(5 * time.Millisecond)
		b.platform.end(false)
	}}
	runScenarios(t, map[string]limited{
		"after 7 s": {
			scenario: scenario{events: []event{sessionsEndAt(7 * time.Second)}},
			limits:   limits{renewals: 1, longest: time.Second}, also: exactly(1),
		},
		"after 100 ms": {
			scenario: scenario{events: []event{sessionsEndAt(100 * time.Millisecond)}},
			limits:   limits{renewals: 1, longest: time.Second}, also: exactly(1),
		},
		"twice, the second one after some milliseconds": {
			scenario: scenario{events: []event{secondEnds}},
			limits:   limits{renewals: 2, longest: time.Second}, also: exactly(2),
		},
	})
}

// shortSessions are for sessions that end every second.
func shortSessions() []agrenting.Option {
	return []agrenting.Option{agrenting.WithSession(agrenting.SessionPolicy{MaxExchanges: 1000})}
}

func TestRequestsWaitOutAnOutage(t *testing.T) {
	t.Parallel()
	const firstStep, lasts = 250 * time.Millisecond, 2 * time.Second
	// A pause of one step follows each failed attempt. The first step is 250 ms, and each
	// further one is twice as long.
	perStep := func(from time.Duration) func(*testing.T, loadResult) {
		return func(t *testing.T, r loadResult) {
			t.Helper()
			first := slices.IndexFunc(r.exchanges, func(c exchangeCall) bool { return !c.ok })
			require.NotEqual(t, -1, first, "an exchange has failed")
			step := firstStep
			for i := first + 1; i < len(r.exchanges); i++ {
				c := r.exchanges[i]
				assert.GreaterOrEqual(t, c.at-r.exchanges[i-1].at, step/2, "pause after %d failures", i-first)
				if c.ok {
					assert.LessOrEqual(t, c.at-(from+lasts), step+step/4+exchangeTime, "recovery after %d failures", i-first)
					return
				}
				step *= 2
			}
			assert.Fail(t, "no exchange has succeeded after the outage")
		}
	}
	cases := map[string]limited{}
	for _, from := range []time.Duration{2600 * time.Millisecond, 3 * time.Second} {
		cases[fmt.Sprintf("from %v", from)] = limited{
			scenario: scenario{
				faults:  imperfections{ttl: time.Second, outage: interval{from, from + lasts}, unlimited: true},
				options: shortSessions,
			},
			// The outage, and the step after the fourth failure.
			limits: limits{renewals: 16, longest: lasts + 8*firstStep*5/4}, also: perStep(from),
		}
	}
	runScenarios(t, cases)
}

func TestWaitForARenewalRespectsDeadlines(t *testing.T) {
	t.Parallel()
	const deadline = 10 * time.Millisecond
	failed := 0
	short := event{0, func(t *testing.T, b *testbed) {
		t.Helper()
		for b.platform.since() < 9*time.Second {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			_, err := b.clients[0].Do(ctx, http.MethodGet, goodPaths[0], nil, nil)
			cancel()
			assert.LessOrEqual(t, time.Since(began), deadline)
			if err != nil {
				failed++
				assert.Contains(t, []string{"deadline", "RenewalError"}, kindOf(err))
			}
			sdktest.Advance(deadline)
		}
	}}
	r := scenario{
		faults:  imperfections{ttl: time.Second, outage: interval{3 * time.Second, 5 * time.Second}, unlimited: true},
		options: shortSessions, events: []event{short},
	}.run(t, 0)
	assert.Zero(t, r.failed, "requests that have time: %v", r.byError)
	assert.Greater(t, failed, 10, "requests that have no time")
}

func TestDeadKeyFailsRequestsSoon(t *testing.T) {
	t.Parallel()
	const dies, soon = 7 * time.Second, 500 * time.Millisecond
	for name, tc := range map[string]struct {
		options func() []agrenting.Option
		kinds   []string
	}{
		"with sessions":             {nil, []string{"RenewalError"}},
		"stored key, with sessions": {storedKey(agrenting.WithSession()), []string{"RenewalError"}},
		"stored key":                {storedKey(), []string{"RenewalError", "401"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := scenario{options: tc.options, events: []event{keyDiesAt(dies)}, lasts: dies + time.Minute}.run(t, 0)
			assert.Zero(t, r.lockouts)
			minute := interval{dies, dies + time.Minute}
			exchanges, verifies := r.during(minute)
			assert.LessOrEqual(t, exchanges, 8, "exchanges in the first minute")
			assert.LessOrEqual(t, verifies, 6, "calls of Verify in the first minute")
			after := r.where(func(o outcome) bool { return o.err != nil })
			require.NotEmpty(t, after)
			assert.LessOrEqual(t, after[0].ended(), dies+soon, "the first error")
			other := r.where(func(o outcome) bool {
				return o.began >= dies && (o.took > soon || !slices.Contains(tc.kinds, kindOf(o.err)))
			})
			none(t, other, "requests that did not fail soon with one of "+strings.Join(tc.kinds, ", "))
		})
	}
}

func TestVerifyRouteIsNotNeeded(t *testing.T) {
	t.Parallel()
	// A session that has ended is replaced within a second.
	replaced := func(t *testing.T, r loadResult) {
		t.Helper()
		late := r.where(func(o outcome) bool { return o.err != nil && o.ended() > 8*time.Second })
		none(t, late, "failures more than a second after the session has ended")
		assert.NotZero(t, r.renewals())
	}
	cases := map[string]limited{}
	for name, mode := range map[string]verifyMode{"404": verifyMissing, "401 to sessions": verifyKeysOnly} {
		cases[name+", no other fault"] = limited{scenario: scenario{faults: imperfections{verify: mode}}}
		cases[name+", a third stray"] = limited{
			scenario: scenario{faults: imperfections{verify: mode, stray: 1. / 3}, lasts: 55 * time.Second},
			// A renewal without a verdict may add to the resends.
			limits: limits{renewals: 2, failed: 0.01, longest: 4 * time.Second},
		}
		cases[name+", session ends"] = limited{
			scenario: scenario{faults: imperfections{verify: mode}, events: []event{sessionsEndAt(7 * time.Second)}},
			limits:   limits{renewals: 2, failed: 0.01}, also: replaced,
		}
		cases[name+", refusing route"] = limited{
			scenario: scenario{faults: imperfections{verify: mode}, refused: 0.1},
			limits:   limits{renewals: 2},
		}
	}
	runScenarios(t, cases)
}

func TestWrongFixedKeyFailsAfterOneRoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &testbed{platform: newImperfectPlatform(imperfections{}, 0)}
		c := b.client(t, agrenting.WithCredential(agrenting.APIKey("sk_wrong_0123456789")))
		for range 10 {
			var call loadCall
			began := time.Now()
			_, err := c.Do(context.WithValue(t.Context(), callKey{}, &call), http.MethodGet, goodPaths[0], nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			assert.EqualValues(t, 1, call.sends.Load(), "round trips")
			assert.Less(t, time.Since(began), 2*roundTrip)
		}
		assert.Empty(t, b.result(nil).exchanges)
	})
}

func TestWrongKeyWithSessionsIsVerifiedThreeTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &testbed{platform: newImperfectPlatform(imperfections{}, 0)}
		c := b.client(t, agrenting.WithCredential(agrenting.APIKey("sk_wrong_0123456789")), agrenting.WithSession())
		began := time.Now()
		_, err := c.Do(t.Context(), http.MethodGet, goodPaths[0], nil, nil)
		t.Logf("%v after %v", err, time.Since(began))
		require.Equal(t, "RenewalError", kindOf(err))
		r := b.result(nil)
		assert.LessOrEqual(t, len(r.verifies), 3)
		assert.LessOrEqual(t, len(r.exchanges), 8)
		assert.Zero(t, r.lockouts)
	})
}

func TestProcessesShareTheExchange(t *testing.T) {
	t.Parallel()
	shared := func() []agrenting.Option {
		return []agrenting.Option{agrenting.WithStore(agrenting.MemoryStore()), agrenting.WithSession()}
	}
	runScenarios(t, map[string]limited{
		"session ends": {
			scenario: scenario{options: shared, clients: 2, events: []event{sessionsEndAt(7 * time.Second)}},
			limits:   limits{renewals: 1},
			also: func(t *testing.T, r loadResult) {
				t.Helper()
				assert.Len(t, r.exchanges, 2)
			},
		},
	})
}
