package agrenting_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

const (
	workers = 32
	// pauseBetween is the longest pause of a worker between two requests.
	pauseBetween = 150 * time.Millisecond
	// pauseAfterFailure is the pause of a worker whose request has failed.
	pauseAfterFailure = time.Second
)

var goodPaths = []string{
	"/api/v1/agents", "/api/v1/agents/agent-1", "/api/v1/tasks", "/api/v1/tasks/17", "/api/v1/hirings", "/api/v1/ledger",
	"/api/v1/disputes", "/api/v1/reviews",
}

// scenario is what workers do for some time, and what happens in the meantime.
type scenario struct {
	faults imperfections
	// options are those of the clients; nil means WithSession.
	options func() []agrenting.Option
	// clients share the workers and the options; 0 means one.
	clients int
	// lasts is for how long new requests are made; 0 means 10 s.
	lasts time.Duration
	// refused is the share of requests to the route that refuses every caller.
	refused float64
	// methods are chosen at random; nil means three GETs and a POST.
	methods []string
	events  []event
	// seeds replace those that all scenarios run with.
	seeds []uint64
}

// event happens some time after the start.
type event struct {
	at time.Duration
	do func(*testing.T, *testbed)
}

// testbed is a platform and its clients, inside a bubble.
type testbed struct {
	platform *imperfectPlatform
	clients  []*agrenting.Client
}

// outcome is what a request of a worker has come to.
type outcome struct {
	method      string
	refused     bool          // the route refuses every caller
	began, took time.Duration // began is since the start
	sends       int
	acted       int // how often the platform acted on the request
	err         error
}

func (o outcome) String() string {
	return fmt.Sprintf("%s at %v: %s after %v and %d sends", o.method, o.began, kindOf(o.err), o.took, o.sends)
}

func (o outcome) ended() time.Duration { return o.began + o.took }

// loadResult counts. requests, failed, byError and longest are about the good routes.
type loadResult struct {
	requests, failed int
	byError          map[string]int
	longest          time.Duration
	outcomes         []outcome // of all routes, in the order in which they ended

	exchanges []exchangeCall
	verifies  []time.Duration
	lockouts  int
}

// renewals is the number of exchanges after the first one.
func (r loadResult) renewals() int { return max(0, len(r.exchanges)-1) }

func (r loadResult) String() string {
	return fmt.Sprintf("%d requests, %d failed %v, longest %v; %d exchanges after the first, %d calls of Verify, %d lockouts",
		r.requests, r.failed, r.byError, r.longest, r.renewals(), len(r.verifies), r.lockouts)
}

// during counts the exchanges and the calls of Verify in an interval.
func (r loadResult) during(i interval) (exchanges, verifies int) {
	for _, c := range r.exchanges {
		if i.has(c.at) {
			exchanges++
		}
	}
	for _, at := range r.verifies {
		if i.has(at) {
			verifies++
		}
	}
	return exchanges, verifies
}

// where returns the outcomes that match.
func (r loadResult) where(match func(outcome) bool) []outcome {
	return slices.DeleteFunc(slices.Clone(r.outcomes), func(o outcome) bool { return !match(o) })
}

// kindOf names the kind of an error.
func kindOf(err error) string {
	api, isAPI := errors.AsType[*agrenting.APIError](err)
	_, isRenewal := errors.AsType[*agrenting.RenewalError](err)
	switch {
	case err == nil:
		return "none"
	case isRenewal:
		return "RenewalError"
	case isAPI:
		return strconv.Itoa(api.StatusCode)
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	default:
		return err.Error()
	}
}

// callKey is the context key of a *loadCall, in which the platform counts.
type callKey struct{}

// loadCall is a request of a worker: how often it was sent, and how often the platform
// acted on it.
type loadCall struct{ sends, acted atomic.Int32 }

// run makes the load in a bubble.
func (s scenario) run(t *testing.T, seed uint64) (r loadResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &testbed{platform: newImperfectPlatform(s.faults, seed)}
		opts := []agrenting.Option{agrenting.WithSession()}
		if s.options != nil {
			opts = s.options()
		}
		for range max(1, s.clients) {
			b.clients = append(b.clients, b.client(t, opts...))
		}
		r = s.against(t, b, seed)
	})
	t.Logf("seed %d: %v", seed, r)
	return r
}

// client makes a client of the platform with its first key.
func (b *testbed) client(t *testing.T, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(b.platform),
		agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func (s scenario) against(t *testing.T, b *testbed, seed uint64) loadResult {
	t.Helper()
	lasts := s.lasts
	if lasts == 0 {
		lasts = 10 * time.Second
	}
	var running sync.WaitGroup
	for _, e := range s.events {
		running.Go(func() {
			sdktest.Advance(e.at)
			e.do(t, b)
		})
	}
	var mu sync.Mutex
	var all []outcome
	for i := range workers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(2+i)))
			sdktest.Advance(upTo(r, roundTrip))
			for b.platform.since() < lasts {
				o := s.request(t, b, b.clients[i%len(b.clients)], r)
				mu.Lock()
				all = append(all, o)
				mu.Unlock()
				if o.err != nil {
					sdktest.Advance(pauseAfterFailure)
				}
				sdktest.Advance(upTo(r, pauseBetween))
			}
		})
	}
	running.Wait()
	return b.result(all)
}

func upTo(r *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(r.Float64() * float64(d))
}

// request makes one request of a worker.
func (s scenario) request(t *testing.T, b *testbed, c *agrenting.Client, r *rand.Rand) outcome {
	t.Helper()
	methods := s.methods
	if methods == nil {
		methods = []string{http.MethodGet, http.MethodGet, http.MethodGet, http.MethodPost}
	}
	path, method := goodPaths[r.IntN(len(goodPaths))], methods[r.IntN(len(methods))]
	o := outcome{method: method, refused: r.Float64() < s.refused, began: b.platform.since()}
	if o.refused {
		path = refusingPath
	}
	var in any
	if hasBody(method) {
		in = json.RawMessage(loadBody)
	}
	var call loadCall
	_, o.err = c.Do(context.WithValue(t.Context(), callKey{}, &call), method, path, in, nil)
	o.took = b.platform.since() - o.began
	o.sends, o.acted = int(call.sends.Load()), int(call.acted.Load())
	return o
}

// result counts what has happened.
func (b *testbed) result(all []outcome) loadResult {
	p := b.platform
	p.mu.Lock()
	defer p.mu.Unlock()
	r := loadResult{
		outcomes: all, byError: map[string]int{}, lockouts: p.lockouts,
		exchanges: slices.Clone(p.exchanges), verifies: slices.Clone(p.verifies),
	}
	for _, o := range all {
		if o.refused {
			continue
		}
		r.requests++
		r.longest = max(r.longest, o.took)
		if o.err != nil {
			r.failed++
			r.byError[kindOf(o.err)]++
		}
	}
	return r
}
