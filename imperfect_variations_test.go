package agrenting_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go"
)

// The scenarios below vary and combine those of imperfect_test.go.

func TestStrayRefusalsInOtherShapes(t *testing.T) {
	t.Parallel()
	shared := func() []agrenting.Option {
		return []agrenting.Option{agrenting.WithStore(agrenting.MemoryStore()), agrenting.WithSession()}
	}
	runScenarios(t, map[string]limited{
		"half of the responses": {
			scenario: scenario{faults: imperfections{stray: 0.5}},
			limits:   limits{renewals: 3, failed: 0.05},
		},
		"half of the responses, as pages": {
			scenario: scenario{faults: imperfections{stray: 0.5, strayPages: true}},
			limits:   limits{renewals: 2, failed: 0.05},
		},
		"a third, first calls of Verify are stray": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}, seeds: []uint64{2, 5}},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		"a third, HEAD and DELETE": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}, methods: []string{http.MethodHead, http.MethodDelete}},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		"a third, methods with bodies": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}, methods: []string{http.MethodPost, http.MethodPut}},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		// If three stray responses in a row have called the first session dead, the end of
		// its successor is believed late, and those who wait for it then get their 401.
		"a third, and the session ends": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}, events: []event{sessionsEndAt(7 * time.Second)}},
			limits:   limits{renewals: 2, failed: 0.03},
		},
		"a third, two clients": {
			scenario: scenario{faults: imperfections{stray: 1. / 3}, options: shared, clients: 2},
			limits:   limits{renewals: 1, failed: 0.01},
		},
		"a third, and a stale node": {
			scenario: scenario{faults: imperfections{stray: 1. / 3, staleNodes: 1, staleSession: 3 * time.Second}},
			limits:   limits{renewals: 1, failed: 0.02},
		},
	})
}

func TestTwoStaleNodesFailFewRequests(t *testing.T) {
	t.Parallel()
	cases := map[string]limited{}
	for name, faults := range map[string]imperfections{
		"node per request": {}, "node per connection": {perConnection: true}, "kept-alive connections to them": {keptAlive: true},
	} {
		faults.staleNodes, faults.staleSession, faults.staleKey = 2, 3*time.Second, 3*time.Second
		cases["session ends early, "+name] = limited{ // seven stale nodes in a row make a route look as if it refused everyone
			scenario: scenario{faults: faults, events: []event{sessionsEndAt(5 * time.Second)}},
			limits:   limits{renewals: 1, failed: 0.02},
		}
		cases["rotated key, "+name] = limited{
			scenario: scenario{faults: faults, options: storedKey(), events: []event{rotates()}},
			limits:   limits{failed: 0.02},
		}
	}
	runScenarios(t, cases)
}

func TestTwoSessionEndsCauseTwoExchanges(t *testing.T) {
	t.Parallel()
	twice := []event{sessionsEndAt(7 * time.Second), sessionsEndAt(17 * time.Second)}
	exactly := func(t *testing.T, r loadResult) {
		t.Helper()
		assert.Equal(t, 2, r.renewals(), "exchanges after the first")
	}
	lasts := 25 * time.Second
	runScenarios(t, map[string]limited{
		"GET and POST": {
			scenario: scenario{events: twice, lasts: lasts}, limits: limits{renewals: 2, longest: time.Second}, also: exactly,
		},
		"methods with bodies": {
			scenario: scenario{events: twice, lasts: lasts, methods: []string{http.MethodPost, http.MethodPut}},
			limits:   limits{renewals: 2, longest: time.Second}, also: exactly,
		},
		"HEAD": {
			scenario: scenario{events: twice, lasts: lasts, methods: []string{http.MethodHead}},
			limits:   limits{renewals: 2, longest: time.Second}, also: exactly,
		},
		"one route refuses": {
			scenario: scenario{events: twice, lasts: lasts, refused: 0.1}, limits: limits{renewals: 2, longest: time.Second}, also: exactly,
		},
		"slow propagation": {
			scenario: scenario{events: twice, lasts: lasts, faults: imperfections{session: 500 * time.Millisecond}},
			limits:   limits{renewals: 2}, also: exactly,
		},
	})
}

func TestSessionEndDuringOutageFailsNoRequest(t *testing.T) {
	t.Parallel()
	outage := interval{3 * time.Second, 5 * time.Second}
	runScenarios(t, map[string]limited{
		"at its begin": {
			scenario: scenario{faults: imperfections{outage: outage}, events: []event{sessionsEndAt(outage.from)}},
			limits:   limits{renewals: 6, longest: 5 * time.Second},
		},
		"in the middle": {
			scenario: scenario{faults: imperfections{outage: outage}, events: []event{sessionsEndAt(4 * time.Second)}},
			limits:   limits{renewals: 5, longest: 3 * time.Second},
		},
	})
}

func TestFixedKeyIsResentTwiceAtMost(t *testing.T) {
	t.Parallel()
	fixed := func() []agrenting.Option { return nil }
	often := func(t *testing.T, r loadResult) {
		t.Helper()
		none(t, r.where(func(o outcome) bool { return o.sends > 3 }), "requests sent more than three times")
		assert.Empty(t, r.exchanges)
	}
	runScenarios(t, map[string]limited{
		"a third stray":     {scenario: scenario{faults: imperfections{stray: 1. / 3}, options: fixed}, limits: limits{failed: 0.12}, also: often},
		"a twentieth stray": {scenario: scenario{faults: imperfections{stray: 0.05}, options: fixed}, limits: limits{failed: 0.005}, also: often},
		"one route refuses": {scenario: scenario{options: fixed, refused: 0.1}, also: often},
	})
}
