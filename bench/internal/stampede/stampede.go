// Package stampede puts many callers around the moments at which credentials
// end: expiry, early revocation, an outage of the token endpoint, and deadlines
// shorter than an exchange. All traffic stays on loopback, and every run is
// bounded in time and in the number of callers.
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

// Options of a run.
type Options struct {
	// Workers is how many callers there are, Segment how long they call.
	Workers int
	Segment time.Duration
	// Rounds is how often our client is looked at with and without expiry, in
	// turn.
	Rounds int
	// OnlyOurs leaves the peers out.
	OnlyOurs bool
	// NoOutage leaves out the outages, which take half a minute for our client alone.
	NoOutage bool
	// Progress is told what is being done; nil for silence.
	Progress io.Writer
}

// Times of the experiments. Exchanges are slow, sessions short.
const (
	exchangeTime = 100 * time.Millisecond
	shortLife    = time.Second
	longLife     = 24 * time.Hour
	warmUp       = 300 * time.Millisecond
	deadline     = 50 * time.Millisecond
	slowResource = 500 * time.Millisecond
	outage       = 2 * time.Second
	// windowLife is a session whose last fifth has room for an outage.
	windowLife = 15 * time.Second
	// outageBegin is when an outage begins that sessions of shortLife do not survive,
	// and outageAfter is how long the load continues after it.
	outageBegin = 1500 * time.Millisecond
	outageAfter = 4 * time.Second
)

// early is the last fifth of a life, for peers who can be told when to renew.
func early(life time.Duration) time.Duration { return life / 5 }

// Expiry is a load across expiries.
type Expiry struct {
	Name string `json:"name"`
	// PerExpiry is how many exchanges were made for one that was needed.
	PerExpiry float64 `json:"per_expiry"`
	Exchanges int     `json:"exchanges"`
	Refused   int     `json:"refused"`
	Tally     Tally   `json:"tally"`
	Ours      bool    `json:"ours"`
}

// Revocation is a load around the moment at which the server ends all sessions
// before their time.
type Revocation struct {
	Name      string `json:"name"`
	Slow      bool   `json:"slow"` // the resource took 500 ms
	Exchanges int    `json:"exchanges"`
	Refused   int    `json:"refused"`
	Tally     Tally  `json:"tally"` // of the calls that ended after it
	Ours      bool   `json:"ours"`
}

// Deadline is a load whose calls have half the time that an exchange takes.
type Deadline struct {
	Name      string  `json:"name"`
	Exchanges int     `json:"exchanges"`
	Served    float64 `json:"served"` // share of calls that succeeded in the last half
	Tally     Tally   `json:"tally"`
	Ours      bool    `json:"ours"`
}

// Outage is a load while the token endpoint answers 503 for two seconds.
type Outage struct {
	Name string `json:"name"`
	// Across is set if sessions of 1 s ended within the outage, and all callers called.
	// Otherwise the session outlived it, and an eighth of the callers called.
	Across   bool  `json:"across"`
	Attempts int   `json:"attempts"` // exchanges during the outage
	Tally    Tally `json:"tally"`
	// Recovery is how long after the outage the last call ended that failed or was
	// stuck.
	Recovery time.Duration `json:"recovery"`
	Ours     bool          `json:"ours"`
}

// Result of all experiments.
type Result struct {
	Workers int           `json:"workers"`
	Took    time.Duration `json:"took"`
	// Without and With are our client without and across expiries, in turn.
	Without Expiry `json:"without"`
	With    Expiry `json:"with"`
	// Ratios of the p99.9 across expiries to that without, one for each round.
	Ratios      []float64    `json:"ratios"`
	Expiries    []Expiry     `json:"expiries"`
	Revocations []Revocation `json:"revocations"`
	Deadlines   []Deadline   `json:"deadlines"`
	Outages     []Outage     `json:"outages"`
}

// ours is our client, oursBehind the same with renewal ahead switched off.
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

// Run makes all experiments.
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

// across lets a crowd call for one segment and leaves out how it began.
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

// turns takes our client without and across expiries in turn, so that whatever
// else the machine does meets both alike.
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

// shift dates calls by their end.
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

// outages runs the clients against a token endpoint that is down for a while. If the
// session outlives the outage, all clients run at the same time with a part of the
// callers. If it does not, they run in turn with all callers.
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

// outlived is an outage in the last fifth of a session, which ends 1.4 s after it.
func outlived(ctx context.Context, o *Options, sub subject) (Outage, error) {
	return outageOf(ctx, sub, windowLife, max(8, o.Workers/8), windowLife-3400*time.Millisecond, 2400*time.Millisecond)
}

// crossed is an outage during which sessions end.
func crossed(ctx context.Context, o *Options, sub subject) (Outage, error) {
	out, err := outageOf(ctx, sub, shortLife, o.Workers, outageBegin, outageAfter)
	out.Across = true
	return out, err
}

// outageOf runs one client. The outage begins at a time of the load, which continues for
// rest after the outage. Sessions that are issued after the outage do not expire, so that
// what happens then is due to the outage.
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

// Median of values; NaN of none.
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
