// Package stampede runs many callers during the moments at which credentials end: expiry,
// early revocation, an outage of the token endpoint, and deadlines shorter than an
// exchange. All traffic stays on loopback, and every run is limited in time and in the
// number of callers.
package stampede

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/peer"
)

// Options configure a run, such as Options{Workers: 200, Segment: 4 * time.Second,
// Rounds: 3}. Most callers only set these three fields.
type Options struct {
	// Workers is the number of callers. Segment is how long they make calls in one load.
	Workers int
	Segment time.Duration
	// Rounds is how many times this SDK runs with and without expiry, in turn.
	Rounds int
	// OnlyOurs skips the peers.
	OnlyOurs bool
	// NoOutage skips the outages, which take half a minute for this SDK alone.
	NoOutage bool
	// Progress receives progress messages. If it is nil, there are none.
	Progress io.Writer
}

// Durations of the experiments. Exchanges are slow and sessions are short.
const (
	exchangeTime = 100 * time.Millisecond
	shortLife    = time.Second
	longLife     = 24 * time.Hour
	warmUp       = 300 * time.Millisecond
	deadline     = 50 * time.Millisecond
	slowResource = 500 * time.Millisecond
	outage       = 2 * time.Second
	// windowLife is the lifetime of a session with a last fifth that is long enough for an
	// outage.
	windowLife = 15 * time.Second
	// outageBegin is when an outage begins that sessions of shortLife do not survive.
	// outageAfter is how long the load continues after the outage.
	outageBegin = 1500 * time.Millisecond
	outageAfter = 4 * time.Second
)

// early returns the last fifth of a lifetime, for peers that accept a time of renewal.
func early(life time.Duration) time.Duration { return life / 5 }

// Expiry is the result of a load across expiries, such as 200 callers with sessions of 1
// s. Most callers only read PerExpiry and Tally.
type Expiry struct {
	Name string `json:"name"`
	// PerExpiry is the number of exchanges for each needed exchange, such as 1.0.
	PerExpiry float64 `json:"per_expiry"`
	Exchanges int     `json:"exchanges"`
	Refused   int     `json:"refused"`
	Tally     Tally   `json:"tally"`
	Ours      bool    `json:"ours"`
}

// Revocation is the result of a load during which the server ends all sessions early.
// Most callers only read Exchanges and Tally, such as 1 exchange without failed calls.
type Revocation struct {
	Name      string `json:"name"`
	Slow      bool   `json:"slow"` // the resource takes 500 ms
	Exchanges int    `json:"exchanges"`
	Refused   int    `json:"refused"`
	Tally     Tally  `json:"tally"` // of the calls that ended after the revocation
	Ours      bool   `json:"ours"`
}

// Deadline is the result of a load with a deadline for each call that is half the
// duration of an exchange. Most callers only read Served, such as 0.95, and Tally.
type Deadline struct {
	Name      string  `json:"name"`
	Exchanges int     `json:"exchanges"`
	Served    float64 `json:"served"` // share of the calls that succeeded in the second half
	Tally     Tally   `json:"tally"`
	Ours      bool    `json:"ours"`
}

// Outage is the result of a load during which the token endpoint responds with 503 for
// two seconds. Most callers only read Recovery, such as 300 ms, and Tally.
type Outage struct {
	Name string `json:"name"`
	// Across is true if sessions of 1 s ended during the outage and all callers made calls.
	// Otherwise, the session outlived the outage and an eighth of the callers made calls.
	Across   bool  `json:"across"`
	Attempts int   `json:"attempts"` // number of exchanges during the outage
	Tally    Tally `json:"tally"`
	// Recovery is the time from the end of the outage to the end of the last call that
	// failed or was stuck.
	Recovery time.Duration `json:"recovery"`
	Ours     bool          `json:"ours"`
}

// Result has the results of all experiments, such as those of 200 Workers. Most callers
// only read Expiries and Outages, or call Checks and Text.
type Result struct {
	Workers int           `json:"workers"`
	Took    time.Duration `json:"took"`
	// Without and With are the results of this SDK without and with expiries, which run in
	// turn.
	Without Expiry `json:"without"`
	With    Expiry `json:"with"`
	// Ratios has the ratio of the p99.9 with expiries to that without, one for each round.
	Ratios      []float64    `json:"ratios"`
	Expiries    []Expiry     `json:"expiries"`
	Revocations []Revocation `json:"revocations"`
	Deadlines   []Deadline   `json:"deadlines"`
	Outages     []Outage     `json:"outages"`
}

// ours is this SDK. oursBehind is the same without renewal ahead of the expiry.
var (
	ours       = peer.Builder{Name: "agrenting", Build: peer.OursClient}
	oursBehind = peer.Builder{Name: "agrenting, never ahead", Build: peer.OursBehind}
)

type subject struct {
	peer.Builder
	ours bool
}

func subjects(o *Options) []subject {
	all := []subject{{Builder: ours, ours: true}}
	if o.OnlyOurs {
		return all
	}
	for _, b := range []peer.Builder{
		{Name: "cloud auth, async", Build: peer.CloudQuiet},
		{Name: "cloud auth, sync", Build: peer.CloudSync},
		{Name: "x/oauth2", Build: peer.OAuth2},
		{Name: "ghinstallation", Build: peer.GitHub},
		{Name: "azcore bearer", Build: peer.AzureBearer},
		{Name: "gophercloud", Build: peer.Gophercloud},
	} {
		all = append(all, subject{Builder: b})
	}
	return all
}

// Run runs all experiments.
func Run(ctx context.Context, o Options) (*Result, error) {
	begin := time.Now()
	r := &Result{Workers: o.Workers}
	for _, step := range []func(context.Context, *Options, *Result) error{
		turns, expiries, revocations, deadlines, outages,
	} {
		if err := step(ctx, &o, r); err != nil {
			return nil, err
		}
	}
	r.Took = time.Since(begin)
	return r, nil
}

func (o *Options) say(format string, args ...any) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, format+"\n", args...)
	}
}

// across runs a crowd for one segment and removes the samples from its start.
func across(ctx context.Context, o *Options, b peer.Builder, life time.Duration) ([]sample, counts, error) {
	runtime.GC()
	sc, err := stage(ctx, b, settings{life: life, exchange: exchangeTime}, early(life), o.Workers, 0)
	if err != nil {
		return nil, counts{}, err
	}
	defer sc.close()
	samples := after(sc.crowd.run(ctx, o.Segment+warmUp), warmUp)
	return samples, sc.server.reset(), ctx.Err()
}

func expiryOf(name string, ours bool, samples []sample, c counts) Expiry {
	return Expiry{
		Name: name, Ours: ours, Exchanges: c.Exchanges, Refused: c.Refused,
		PerExpiry: float64(c.Exchanges) / float64(max(1, c.Exchanges-c.Extra)), Tally: tally(samples),
	}
}

// turns runs this SDK without and with expiries in turn, so that other work of the
// machine affects both in the same way.
func turns(ctx context.Context, o *Options, r *Result) error {
	var samples [2][]sample
	var sums [2]counts
	var ratios []float64
	for round := range o.Rounds {
		o.say("expiry: ours without and across expiries, round %d of %d", round+1, o.Rounds)
		var tail [2]time.Duration
		for turn := range 2 {
			which := (turn + round) % 2
			life := longLife
			if which == 1 {
				life = shortLife
			}
			s, c, err := across(ctx, o, ours, life)
			if err != nil {
				return err
			}
			tail[which] = tally(s).P999
			samples[which] = append(samples[which], s...)
			sums[which].Exchanges += c.Exchanges
			sums[which].Extra += c.Extra
			sums[which].Refused += c.Refused
		}
		ratios = append(ratios, float64(tail[1])/float64(tail[0]))
	}
	r.Without = expiryOf("agrenting, no expiry", true, samples[0], sums[0])
	r.With = expiryOf("agrenting", true, samples[1], sums[1])
	r.Ratios = ratios
	return nil
}

func expiries(ctx context.Context, o *Options, r *Result) error {
	floor := peer.Builder{Name: "floor, no expiry", Build: peer.Least}
	o.say("expiry: %s", floor.Name)
	s, c, err := across(ctx, o, floor, longLife)
	if err != nil {
		return err
	}
	r.Expiries = append(r.Expiries, expiryOf(floor.Name, false, s, c), r.Without, r.With)
	for _, sub := range subjects(o) {
		if sub.ours {
			continue
		}
		o.say("expiry: %s", sub.Name)
		s, c, err := across(ctx, o, sub.Builder, shortLife)
		if err != nil {
			return err
		}
		r.Expiries = append(r.Expiries, expiryOf(sub.Name, false, s, c))
	}
	return nil
}

func revocations(ctx context.Context, o *Options, r *Result) error {
	const before = 700 * time.Millisecond
	for _, delay := range []time.Duration{0, slowResource} {
		for _, sub := range subjects(o) {
			o.say("revocation, resource of %v: %s", delay, sub.Name)
			runtime.GC()
			set := settings{life: time.Hour, exchange: exchangeTime, resource: delay}
			sc, err := stage(ctx, sub.Builder, set, early(time.Hour), o.Workers, 0)
			if err != nil {
				return err
			}
			t := time.AfterFunc(before, sc.server.revoke)
			samples := sc.crowd.run(ctx, before+time.Second+2*delay)
			t.Stop()
			c := sc.server.reset()
			sc.close()
			ended := after(shift(samples), before)
			r.Revocations = append(r.Revocations, Revocation{
				Name: sub.Name, Ours: sub.ours, Slow: delay > 0, Exchanges: c.Exchanges, Refused: c.Refused, Tally: tally(ended),
			})
		}
	}
	return ctx.Err()
}

// shift sets the time of each sample to the end of its call.
func shift(samples []sample) []sample {
	for i := range samples {
		samples[i].at += samples[i].took
	}
	return samples
}

func deadlines(ctx context.Context, o *Options, r *Result) error {
	subs := append([]subject{{Builder: peer.Builder{Name: "floor, no expiry", Build: peer.Least}}}, subjects(o)...)
	subs = append(subs[:2:2], append([]subject{{Builder: oursBehind, ours: true}}, subs[2:]...)...)
	for i, sub := range subs {
		o.say("deadlines: %s", sub.Name)
		life := shortLife
		if i == 0 {
			life = longLife
		}
		runtime.GC()
		sc, err := stage(ctx, sub.Builder, settings{life: life, exchange: exchangeTime}, early(life), o.Workers, deadline)
		if err != nil {
			return err
		}
		samples := after(sc.crowd.run(ctx, o.Segment+warmUp), warmUp)
		c := sc.server.reset()
		sc.close()
		second := tally(after(samples, warmUp+o.Segment/2))
		served := 1 - float64(second.Unauthorized+second.Late+second.Failed)/float64(max(1, second.Calls))
		r.Deadlines = append(r.Deadlines, Deadline{
			Name: sub.Name, Ours: sub.ours, Exchanges: c.Exchanges, Served: served, Tally: tally(samples),
		})
	}
	return ctx.Err()
}

// outages runs the clients with a token endpoint that is down for some time. If the
// session outlives the outage, all clients run at the same time with a part of the
// callers. Otherwise, they run in turn with all callers.
func outages(ctx context.Context, o *Options, r *Result) error {
	if o.NoOutage {
		return nil
	}
	subs := subjects(o)
	found := make([]Outage, 2*len(subs))
	errs := make([]error, len(subs))
	o.say("outage that the session outlives")
	var wg sync.WaitGroup
	for i, sub := range subs {
		wg.Go(func() { found[i], errs[i] = outlived(ctx, o, sub) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, sub := range subs {
		o.say("outage across an expiry: %s", sub.Name)
		runtime.GC()
		var err error
		if found[len(subs)+i], err = crossed(ctx, o, sub); err != nil {
			return err
		}
	}
	r.Outages = found
	return nil
}

// outlived runs an outage in the last fifth of a session, which ends 1.4 s after the
// outage.
func outlived(ctx context.Context, o *Options, sub subject) (Outage, error) {
	return outageOf(ctx, sub, windowLife, max(8, o.Workers/8), windowLife-3400*time.Millisecond, 2400*time.Millisecond)
}

// crossed runs an outage during which sessions end.
func crossed(ctx context.Context, o *Options, sub subject) (Outage, error) {
	out, err := outageOf(ctx, sub, shortLife, o.Workers, outageBegin, outageAfter)
	out.Across = true
	return out, err
}

// outageOf runs one client. The outage begins at the time begin of the load, which
// continues for rest after the outage. Sessions that are issued after the outage do not
// expire, so all later failures are due to the outage.
func outageOf(ctx context.Context, sub subject, life time.Duration, workers int, begin, rest time.Duration) (Outage, error) {
	sc, err := stage(ctx, sub.Builder, settings{life: life, exchange: exchangeTime}, early(life), workers, 0)
	if err != nil {
		return Outage{}, err
	}
	defer sc.close()
	var during counts
	var mu sync.Mutex
	down := time.AfterFunc(begin, func() {
		sc.server.change(func(s *settings) { s.down = true })
		sc.server.reset()
	})
	defer down.Stop()
	up := time.AfterFunc(begin+outage, func() {
		sc.server.change(func(s *settings) { s.down, s.life = false, longLife })
		mu.Lock()
		defer mu.Unlock()
		during = sc.server.reset()
	})
	defer up.Stop()
	samples := sc.crowd.run(ctx, begin+outage+rest)
	mu.Lock()
	defer mu.Unlock()
	res := Outage{Name: sub.Name, Ours: sub.ours, Attempts: during.Exchanges, Tally: tally(samples)}
	for _, s := range samples {
		if ends := s.at + s.took - begin - outage; (s.outcome != good || s.took > stuck) && ends > res.Recovery {
			res.Recovery = ends
		}
	}
	return res, ctx.Err()
}

// Median returns the median of values, or NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Clone(values)
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
