package agrentingtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"time"
)

// WithChaos applies a random fault to a share of all requests, from 0 to 1, as
// [Server.Chaos] does. For example, 5% of the requests:
//
//	srv := agrentingtest.NewServer(agrentingtest.WithChaos(0.05), agrentingtest.WithSeed(7))
//
// It panics if share is out of range.
func WithChaos(share float64) Option {
	checkShare("WithChaos", share)
	return func(c *config) { c.chaos = share }
}

// Chaos applies a random fault from a fixed mix to a share of all requests, from 0 to 1:
//
//	name             of 100  the request
//	stray_401            20  gets a 401 from a gateway, in the platform's envelope
//	page_502             15  gets a 502 and an HTML page from a gateway
//	status_503           15  gets a 503 with Retry-After: 1
//	page_504             10  is served, but gets a 504 and an HTML page
//	drop_before          10  is not served; the connection ends
//	drop_after           10  is served; the connection ends before the response
//	slow                 10  waits for 0.1 to 2 s
//	reset_mid_body       10  is served; the connection ends within 64 bytes of the body
//
// A client that retries the requests that are safe to retry completes all of them under
// this mix, unless several faults in a row exhaust its attempts. A POST without an
// idempotency key is not safe to retry after page_504, drop_after, and reset_mid_body.
//
// A request with a scripted fault gets that fault instead. If the requests arrive in the
// same order, the choices depend only on [WithSeed]. A share of 0 ends the chaos, and
// [Server.ClearFaults] does not. Chaos panics if share is out of range.
func (s *Server) Chaos(share float64) {
	checkShare("Chaos", share)
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	s.script.setChaos(share)
}

// setChaos needs the lock.
func (q *script) setChaos(share float64) {
	switch {
	case share == 0:
		q.chaos = nil
	case q.chaos == nil:
		q.chaos = &chaos{share: share, random: newRandom(q.seed, chaosStream), met: map[string]int{}}
	default:
		q.chaos.share = share
	}
	q.count()
}

func checkShare(caller string, share float64) {
	if !(share >= 0 && share <= 1) { // also for NaN
		panic(fmt.Sprintf("agrentingtest: %s(%v): want a number from 0 to 1", caller, share))
	}
}

// chaosStream separates the random choices of the chaos from those of faults and nodes.
const chaosStream = math.MaxUint64

// chaos draws faults from the mix. The lock of the script protects it.
type chaos struct {
	share  float64
	random *rand.Rand
	met    map[string]int // requests by fault name
}

// chaoticFault is one entry of the mix. draw is a random number from 0 to 1.
type chaoticFault struct {
	name   string
	weight int // out of 100
	fault  func(draw float64) Fault
}

// chaosMix is documented at [Server.Chaos].
var chaosMix = [...]chaoticFault{
	{"stray_401", 20, func(float64) Fault { return Status(http.StatusUnauthorized, "") }},
	{"page_502", 15, func(float64) Fault { return Page(http.StatusBadGateway) }},
	{"status_503", 15, func(float64) Fault { return StatusWithRetryAfter(http.StatusServiceUnavailable, "1") }},
	{"page_504", 10, func(float64) Fault { return Page(http.StatusGatewayTimeout).AfterServing() }},
	{"drop_before", 10, func(float64) Fault { return DropBefore() }},
	{"drop_after", 10, func(float64) Fault { return DropAfter() }},
	{"slow", 10, func(draw float64) Fault {
		return Delay(100*time.Millisecond + time.Duration(draw*float64(1900*time.Millisecond)))
	}},
	{"reset_mid_body", 10, func(draw float64) Fault { return ResetMidBody(int(draw * 64)) }},
}

// next draws three numbers for each request, so the share does not change which fault the
// nth request would get.
func (c *chaos) next() (Fault, bool) {
	meets, which, how := c.random.Float64(), c.random.IntN(100), c.random.Float64()
	if meets >= c.share {
		return Fault{}, false
	}
	for _, m := range chaosMix {
		if which -= m.weight; which < 0 {
			c.met[m.name]++
			return m.fault(how), true
		}
	}
	panic("agrentingtest: the weights of the mix are less than 100")
}
