package stampede

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/agrenting/agrenting-go/bench/internal/peer"
)

// sample is one call by one caller.
type sample struct {
	at      time.Duration // since the start of the load
	took    time.Duration
	outcome outcome
}

type outcome uint8

const (
	good         outcome = iota
	unauthorized         // a 401 reached the caller
	late                 // the caller's deadline passed
	failed               // any other failure
)

// Tally summarizes the calls of a load, such as Tally{Calls: 20000, Slow: 12}.
// Most callers only read Calls, P999, and Failures.
type Tally struct {
	Calls        int `json:"calls"`
	Unauthorized int `json:"unauthorized"`
	Late         int `json:"late"`
	Failed       int `json:"failed"`
	// Slow is the number of calls that took longer than 80 ms, because they waited
	// for an exchange.
	Slow int `json:"slow"`
	// Percentiles of the duration of all calls, including failed ones.
	P50  time.Duration `json:"p50"`
	P99  time.Duration `json:"p99"`
	P999 time.Duration `json:"p999"`
	Max  time.Duration `json:"max"`
}

const slow = 80 * time.Millisecond

// stuck is the minimum duration of a call that waited for longer than an exchange.
const stuck = 250 * time.Millisecond

// Failures returns the number of calls that failed, for any reason.
func (t Tally) Failures() int { return t.Unauthorized + t.Late + t.Failed }

func tally(samples []sample) Tally {
	t := Tally{Calls: len(samples)}
	if len(samples) == 0 {
		return t
	}
	took := make([]time.Duration, 0, len(samples))
	for _, s := range samples {
		took = append(took, s.took)
		switch s.outcome {
		case unauthorized:
			t.Unauthorized++
		case late:
			t.Late++
		case failed:
			t.Failed++
		case good:
		}
		if s.took > slow {
			t.Slow++
		}
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[min(len(took)-1, int(math.Ceil(q*float64(len(took))))-1)] }
	t.P50, t.P99, t.P999, t.Max = at(0.5), at(0.99), at(0.999), took[len(took)-1]
	return t
}

// after removes the samples that began before d.
func after(samples []sample, d time.Duration) []sample {
	return slices.DeleteFunc(slices.Clone(samples), func(s sample) bool { return s.at < d })
}

// crowd is a group of callers. Each pauses and makes a call, repeatedly.
type crowd struct {
	peer     *peer.Peer
	url      string
	workers  int
	deadline time.Duration // for each call; 0 means no deadline
}

// Callers pause for a random time between these two before each call.
const (
	minPause = 20 * time.Millisecond
	maxPause = 60 * time.Millisecond
)

func between(lo, hi time.Duration) time.Duration {
	return lo + rand.N(hi-lo) // #nosec G404 -- load, not secrets
}

// run runs the crowd for a duration and returns the samples.
func (c *crowd) run(ctx context.Context, d time.Duration) []sample {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	header := http.Header{"Accept": {"application/json"}}
	all := make([][]sample, c.workers)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range c.workers {
		wg.Go(func() {
			wait := between(0, maxPause) // prevents callers from starting at the same time
			for pause(ctx, wait) == nil {
				start := time.Now()
				o := c.call(ctx, header)
				all[i] = append(all[i], sample{at: start.Sub(begin), took: time.Since(start), outcome: o})
				wait = between(minPause, maxPause)
			}
		})
	}
	wg.Wait()
	return slices.Concat(all...)
}

// call makes one call. It may outlive the load, so that the end of the load does
// not count as a failure.
func (c *crowd) call(ctx context.Context, header http.Header) outcome {
	limit := 20 * time.Second
	if c.deadline > 0 {
		limit = c.deadline
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	resp, err := c.peer.Call(ctx, http.MethodGet, c.url, header, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	var refused gophercloud.ErrUnexpectedResponseCode
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
		return good
	case err == nil && resp.StatusCode == http.StatusUnauthorized,
		errors.As(err, &refused) && refused.Actual == http.StatusUnauthorized:
		return unauthorized
	case ctx.Err() != nil:
		return late
	default:
		return failed
	}
}

// scene is one peer with one server.
type scene struct {
	server *server
	crowd  *crowd
	close  func()
}

// warmTime is how long the server holds a request that warms up a connection.
const warmTime = 400 * time.Millisecond

// warm opens a connection for each caller, one after the other, and leaves them
// idle in the pool. Otherwise, hundreds of callers that start at the same time
// would all dial at once, and the result would show how long the kernel takes to
// accept connections.
func warm(ctx context.Context, base http.RoundTripper, url string, n int) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			if errs[i] = pause(ctx, time.Duration(i)*warmTime/time.Duration(2*n)); errs[i] != nil {
				return
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+pathWarm, http.NoBody)
			if err != nil {
				errs[i] = err
				return
			}
			resp, err := base.RoundTrip(req)
			if err != nil {
				errs[i] = err
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			errs[i] = resp.Body.Close()
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stage builds a peer with a separate server and makes one call, so that the first
// exchange of a peer is not counted.
func stage(ctx context.Context, b peer.Builder, set settings, early time.Duration, workers int, deadline time.Duration) (*scene, error) {
	s, err := newServer(ctx, set)
	if err != nil {
		return nil, err
	}
	// The pool is as large as the crowd, and there is no proxy, because connections
	// are not measured here.
	base := &http.Transport{MaxIdleConns: 2 * workers, MaxIdleConnsPerHost: 2 * workers, IdleConnTimeout: time.Minute}
	if err := warm(ctx, base, s.url, workers+8); err != nil {
		s.close()
		return nil, err
	}
	p, err := b.Build(peer.Config{Base: base, URL: s.url, Exchange: s.exchange(base), Early: early})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", b.Name, err)
	}
	sc := &scene{
		server: s,
		crowd:  &crowd{peer: p, url: s.url + pathResource, workers: workers},
		close: func() {
			p.Close()
			base.CloseIdleConnections()
			s.close()
		},
	}
	if o := sc.crowd.call(ctx, http.Header{}); o != good {
		sc.close()
		return nil, fmt.Errorf("%s: the first call failed", b.Name)
	}
	sc.crowd.deadline = deadline
	s.reset()
	return sc, nil
}
