package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
)

// scaleEnv names the document that TestScale writes. Without it, the test runs
// with small numbers and writes nothing.
const scaleEnv = "ETCDSTORE_SCALE"

// storeModel describes a store. Its figures are the same for all operations of a kind.
type storeModel struct {
	name string
	// readEvery and writeEvery are the times between two operations that the store
	// completes, such as 100 µs for 10,000 in a second. The latencies are added to them.
	readEvery, writeEvery     time.Duration
	readLatency, writeLatency time.Duration
	readsFirst                bool // a save loads the record before it writes
	// hears is the time until the first watcher hears of a change, and fanOut the time
	// until each further one does. A watcher that polls does not hear of changes.
	hears, fanOut time.Duration
	// poll is the interval at which a watch loads the record, plus or minus a quarter. It
	// also does so when it hears of a change. It is 0 if the store sends the record.
	poll time.Duration
	// perSecond and burst limit the requests of one process. By default, there is no limit.
	perSecond, burst int
	// attempt is how long the first attempt of an operation may take. The model does not
	// repeat operations, so all of them must be shorter.
	attempt     time.Duration
	connections int    // of a replica
	source      string // of the figures
}

var (
	etcdModel = storeModel{
		name:      "`etcdstore`",
		readEvery: 20 * time.Microsecond, writeEvery: 100 * time.Microsecond,
		readLatency: time.Millisecond, writeLatency: 4 * time.Millisecond,
		hears: time.Millisecond, fanOut: 10 * time.Microsecond,
		attempt: 5 * time.Second / 16, connections: 1,
		source: "The figures of the tables above. One gRPC connection carries operations and watches.",
	}
	k8sModel = storeModel{
		name:      "`k8sstore`",
		readEvery: 500 * time.Microsecond, writeEvery: 3 * time.Millisecond,
		readLatency: 5 * time.Millisecond, writeLatency: 15 * time.Millisecond, readsFirst: true,
		hears: 10 * time.Millisecond, fanOut: 50 * time.Microsecond,
		perSecond: 50, burst: 100,
		attempt: 5 * time.Second / 5, connections: 1,
		source: "Speeds are assumptions for one API server, not measured. As in the package, a process makes at most 50 requests " +
			"per second with bursts of 100, a save reads first, and the watch contains the record. HTTP/2 shares one connection. " +
			"Requests that resume a watch, one in about four minutes, are left out.",
	}
	listenModel = storeModel{
		name:      "`pgstore`, `WithListen`",
		readEvery: 100 * time.Microsecond, writeEvery: time.Millisecond,
		readLatency: time.Millisecond, writeLatency: 5 * time.Millisecond,
		hears: time.Millisecond, fanOut: 20 * time.Microsecond,
		poll:    10 * time.Second,
		attempt: 5 * time.Second / 4, connections: 2,
		source: "Latencies are above those measured without fsync on two busy cores: 0.4 ms for a load, 0.5 ms for a save, and " +
			"1.3 ms until the first of 30 watchers has loaded the record. Operations per second and the time of a further watcher " +
			"are assumptions for a server on a separate host. On the busy cores, 16 clients made 1,700 loads a second, and the last watcher had " +
			"the record after 50 ms. As in the package, a watch loads the record after each notification and every 10 s. " +
			"One connection is for LISTEN; concurrent operations may open more than the other one.",
	}
	pollModel = storeModel{
		name:      "`pgstore`, polling",
		readEvery: listenModel.readEvery, writeEvery: listenModel.writeEvery,
		readLatency: listenModel.readLatency, writeLatency: listenModel.writeLatency,
		poll:    time.Second,
		attempt: listenModel.attempt, connections: 1,
		source: "The same server. As in the package, a watch loads the record once a second by default.",
	}
)

// modelled is a store in virtual time.
type modelled struct {
	agrenting.Store // in memory

	model               storeModel
	mu                  sync.Mutex
	readFree, writeFree time.Time
	reads, writes       int
	longest             time.Duration // operation, since the beginning
	perSecond           map[int64]int
	changed             map[string]chan struct{} // by name
	watchers            int
}

func newModelled(model storeModel) *modelled {
	return &modelled{
		Store: agrenting.MemoryStore(), model: model, perSecond: map[int64]int{}, changed: map[string]chan struct{}{},
	}
}

func (m *modelled) operation(ctx context.Context, free *time.Time, count *int, every, latency time.Duration) error {
	m.mu.Lock()
	now := time.Now()
	if free.Before(now) {
		*free = now
	}
	*free = free.Add(every)
	wait := free.Sub(now) + latency
	m.longest = max(m.longest, wait)
	*count++
	m.perSecond[now.Unix()]++
	m.mu.Unlock()
	return pauseFor(ctx, wait)
}

func (m *modelled) read(ctx context.Context) error {
	return m.operation(ctx, &m.readFree, &m.reads, m.model.readEvery, m.model.readLatency)
}

func (m *modelled) write(ctx context.Context) error {
	return m.operation(ctx, &m.writeFree, &m.writes, m.model.writeEvery, m.model.writeLatency)
}

// totals are the reads, the writes, and the most of both in a second.
func (m *modelled) totals() (reads, writes, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	top := 0
	for _, n := range m.perSecond {
		top = max(top, n)
	}
	return m.reads, m.writes, top
}

func (m *modelled) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads, m.writes = 0, 0
	clear(m.perSecond)
}

// process returns the store of one more process.
func (m *modelled) process() *process { return &process{modelled: m} }

// process is a modelled store as one process uses it.
type process struct {
	*modelled

	limiter sync.Mutex
	refills time.Time // when the limiter has all of its tokens
}

// admit waits for a token of the limiter.
func (p *process) admit(ctx context.Context) error {
	if p.model.perSecond == 0 {
		return nil
	}
	every := time.Second / time.Duration(p.model.perSecond)
	p.limiter.Lock()
	now := time.Now()
	if p.refills.Before(now) {
		p.refills = now
	}
	p.refills = p.refills.Add(every)
	wait := p.refills.Sub(now) - time.Duration(p.model.burst)*every
	p.limiter.Unlock()
	if wait <= 0 {
		return nil
	}
	return pauseFor(ctx, wait)
}

// request makes one request, such as modelled.read, when the limiter admits it.
func (p *process) request(ctx context.Context, send func(context.Context) error) error {
	if err := p.admit(ctx); err != nil {
		return err
	}
	return send(ctx)
}

func (p *process) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if err := p.request(ctx, p.read); err != nil {
		return agrenting.Record{}, err
	}
	return p.Store.Load(ctx, name)
}

func (p *process) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if p.model.readsFirst {
		if err := p.request(ctx, p.read); err != nil {
			return "", err
		}
	}
	if err := p.request(ctx, p.write); err != nil {
		return "", err
	}
	rev, err := p.Store.Save(ctx, name, data, previous)
	if err == nil {
		p.mu.Lock()
		if c, ok := p.changed[name]; ok {
			close(c)
			delete(p.changed, name)
		}
		p.mu.Unlock()
	}
	return rev, err
}

// change returns a channel that is closed by the next change of a record. It is nil if the
// store reports no changes.
func (m *modelled) change(name string) <-chan struct{} {
	if m.model.hears == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed[name] == nil {
		m.changed[name] = make(chan struct{})
	}
	return m.changed[name]
}

func (p *process) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		p.mu.Lock()
		place := p.watchers
		p.watchers++
		p.mu.Unlock()
		load := p.Store.Load // the record that the store sends
		if p.model.poll > 0 {
			load = p.Load
		}
		for seen, first := agrenting.Revision(""), true; ctx.Err() == nil; first = false {
			changed := p.change(name)
			rec, err := load(ctx, name)
			if ctx.Err() != nil || ((first || rec.Revision != seen) && !yield(rec, err)) {
				return
			}
			seen = rec.Revision
			var due <-chan time.Time
			if p.model.poll > 0 {
				due = time.After(p.model.poll*3/4 + rand.N(p.model.poll/2))
			}
			select {
			case <-changed:
				_ = pauseFor(ctx, p.model.hears+time.Duration(place)*p.model.fanOut)
			case <-due:
			case <-ctx.Done():
			}
		}
	}
}

// replicas is a fleet in virtual time, behind a few addresses.
type replicas struct {
	srv     *agrentingtest.Server
	agent   *agrentingtest.Agent
	store   *modelled
	clients []*agrenting.Client

	mu      sync.Mutex
	adopted []time.Duration
	since   time.Time
}

const addresses = 4

type fleetOptions struct {
	n              int
	keys, sessions bool // in the store
	policy         agrenting.RotationPolicy
	model          storeModel // default: etcdModel
}

func newReplicas(t *testing.T, o fleetOptions) *replicas {
	t.Helper()
	srv := agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithLogLimit(1_000_000),
		agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1 << 30}))
	if o.model.name == "" {
		o.model = etcdModel
	}
	r := &replicas{srv: srv, store: newModelled(o.model)}
	r.agent = srv.NewAgent(srv.NewUser("owner"), agrentingtest.AgentConfig{Name: "fleet"})
	key := srv.NewKey(r.agent.ID)
	transports := make([]http.RoundTripper, addresses)
	for i := range transports {
		transports[i] = srv.TransportFrom(fmt.Sprintf("192.0.2.%d", i+1))
	}
	p := o.policy
	p.AgentID, p.KeyID = r.agent.ID, key.ID
	for i := range o.n {
		store := r.store.process()
		opts := []agrenting.Option{
			agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(transports[i%addresses]),
			agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithObserver(r.observe),
		}
		if o.keys {
			opts = append(opts, agrenting.WithStore(store), agrenting.WithRotation(p))
		}
		switch {
		case o.sessions:
			opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		case !o.keys:
			opts = append(opts, agrenting.WithSession())
		}
		c, err := agrenting.New(opts...)
		require.NoError(t, err)
		r.clients = append(r.clients, c)
	}
	return r
}

func (r *replicas) observe(e agrenting.Event) {
	if e.Type != agrenting.EventRenewed || e.Reason != "adopted" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopted = append(r.adopted, e.Time.Sub(r.since))
}

// adoptions are the times until replicas had adopted the key, the shortest first.
func (r *replicas) adoptions() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.adopted))
}

func (r *replicas) close() {
	var wg sync.WaitGroup
	for _, c := range r.clients {
		wg.Go(func() { _ = c.Close() })
	}
	wg.Wait()
	r.srv.Close()
}

// start has every replica make its first request at a random time within the given duration,
// and again when the SDK says so, until it succeeds or an hour is over.
func (r *replicas) start(t *testing.T, spread time.Duration) (served int, last time.Duration) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, c := range r.clients {
		wg.Go(func() {
			_ = pauseFor(ctx, time.Duration(i)*spread/time.Duration(len(r.clients)))
			for ctx.Err() == nil {
				err := fleettest.Call(ctx, c)
				if err == nil {
					mu.Lock()
					served, last = served+1, max(last, time.Since(began))
					mu.Unlock()
					return
				}
				wait := time.Second
				if e, ok := errors.AsType[*agrenting.RenewalError](err); ok {
					wait = max(wait, time.Until(e.RetryAt))
				}
				_ = pauseFor(ctx, wait)
			}
		})
	}
	wg.Wait()
	return served, last
}

// exchanges counts calls of the authenticate endpoint, the most of one address
// in a minute, and those that were refused.
func (r *replicas) exchanges() (all, worst, refused int) {
	per := map[string]int{}
	for _, q := range r.srv.Requests() {
		if q.Path != "/api/v1/auth/authenticate" {
			continue
		}
		all++
		at := q.RemoteAddr[:strings.LastIndex(q.RemoteAddr, ":")] + strconv.FormatInt(q.ReceivedAt.Unix()/60, 10)
		per[at]++
		worst = max(worst, per[at])
		if q.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	return all, worst, refused
}

type startResult struct {
	n                   int
	shared              bool
	spread              time.Duration
	served              int
	last                time.Duration
	all, worst, refused int
	reads, writes, peak int
}

func simulateStart(t *testing.T, n int, shared bool, spread time.Duration) startResult {
	t.Helper()
	res := startResult{n: n, shared: shared, spread: spread}
	synctest.Test(t, func(t *testing.T) {
		r := newReplicas(t, fleetOptions{n: n, sessions: shared})
		res.served, res.last = r.start(t, spread)
		res.all, res.worst, res.refused = r.exchanges()
		res.reads, res.writes, res.peak = r.store.totals()
		r.close()
	})
	return res
}

type rotateResult struct {
	n                      int
	sessions               bool
	strategy               agrenting.Strategy
	due                    bool
	adopted                int
	median, p99, worst     time.Duration
	exchanges, refused     int
	calls, rotated         int
	reads, writes, peak    int
	failed, worstPerMinute int
}

// simulateRotation has a fleet adopt a key that one of its replicas has rotated,
// on demand or because it was due for all of them at the same time.
func simulateRotation(t *testing.T, n int, sessions, due bool, strategy agrenting.Strategy) rotateResult {
	t.Helper()
	res := rotateResult{n: n, sessions: sessions, due: due, strategy: strategy}
	synctest.Test(t, func(t *testing.T) {
		p := agrenting.RotationPolicy{Strategy: strategy, Every: -1}
		if due {
			p.Every = 20 * time.Minute
		}
		r := newReplicas(t, fleetOptions{n: n, keys: true, sessions: sessions, policy: p})
		served, _ := r.start(t, time.Minute)
		require.Equal(t, n, served)
		_ = pauseFor(t.Context(), time.Minute)
		r.store.reset()
		before := r.srv.Stats()
		r.srv.ResetLog()
		r.mu.Lock()
		r.adopted, r.since = nil, time.Now()
		r.mu.Unlock()
		if due {
			waitDue(t, r)
		} else {
			_, err := r.clients[0].Rotate(t.Context())
			if err != nil {
				res.failed++
			}
		}
		_ = pauseFor(t.Context(), 2*time.Minute)
		after := r.srv.Stats()
		res.rotated = int(after.KeysCreated - before.KeysCreated)
		res.exchanges, res.worstPerMinute, res.refused = r.exchanges()
		res.calls = int(after.Requests - before.Requests)
		res.reads, res.writes, res.peak = r.store.totals()
		all := r.adoptions()
		res.adopted = len(all)
		if len(all) > 0 {
			first := all[0]
			if !due {
				first = 0
			}
			res.median, res.p99, res.worst = all[len(all)/2]-first, all[len(all)*99/100]-first, all[len(all)-1]-first
		}
		r.close()
	})
	return res
}

// waitDue lets the day pass until the key has been rotated.
func waitDue(t *testing.T, r *replicas) {
	t.Helper()
	created := r.srv.Stats().KeysCreated
	for range 60 * 60 {
		if r.srv.Stats().KeysCreated != created {
			return
		}
		_ = pauseFor(t.Context(), time.Second)
	}
	t.Fatal("the key did not become due")
}

type steadyResult struct {
	n, exchanges, worst, reads, writes, peak int
	days                                     float64
}

// simulateSteady lets sessions end and be renewed without traffic.
func simulateSteady(t *testing.T, n int, d time.Duration) steadyResult {
	t.Helper()
	res := steadyResult{n: n, days: d.Hours() / 24}
	synctest.Test(t, func(t *testing.T) {
		r := newReplicas(t, fleetOptions{n: n, sessions: true})
		served, _ := r.start(t, time.Minute)
		require.Equal(t, n, served)
		r.store.reset()
		r.srv.ResetLog()
		_ = pauseFor(t.Context(), d)
		res.exchanges, res.worst, _ = r.exchanges()
		res.reads, res.writes, res.peak = r.store.totals()
		r.close()
	})
	return res
}

// trafficFor is how long replicas are watched while they are busy.
const trafficFor = time.Minute

// simulateTraffic counts what the store gets while every replica is busy.
func simulateTraffic(t *testing.T, n int) (loads float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newReplicas(t, fleetOptions{n: n, keys: true, policy: agrenting.RotationPolicy{Every: -1}})
		_, _ = r.start(t, time.Second)
		r.store.reset()
		ctx, cancel := context.WithTimeout(t.Context(), trafficFor)
		defer cancel()
		var wg sync.WaitGroup
		var failed atomic.Int64
		for _, c := range r.clients {
			wg.Go(func() {
				for ctx.Err() == nil {
					if fleettest.Call(ctx, c) != nil && ctx.Err() == nil {
						failed.Add(1)
					}
					_ = pauseFor(ctx, 500*time.Millisecond)
				}
			})
		}
		wg.Wait()
		assert.Zero(t, failed.Load())
		reads, _, _ := r.store.totals()
		loads = float64(reads) / trafficFor.Seconds()
		r.close()
	})
	return loads
}

type storeResult struct {
	n                  int
	model              storeModel
	rotated, adopted   int
	median, p99, worst time.Duration
	peak               int     // operations of the store in a second, during the rotation
	loads              float64 // of a replica in a minute, under traffic
	longest            time.Duration
	failed             int64
}

// callEvery is the time between two requests of a replica. The fourth finds that the record
// was loaded more than 30 s ago, and loads it again.
const callEvery = 31 * time.Second / 4

// simulateStore counts the loads of a store under traffic. It then has a fleet adopt a key
// that one of its replicas has rotated on demand.
func simulateStore(t *testing.T, n int, model storeModel) storeResult {
	t.Helper()
	res := storeResult{n: n, model: model}
	synctest.Test(t, func(t *testing.T) {
		r := newReplicas(t, fleetOptions{
			n: n, keys: true, model: model, policy: agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var failed atomic.Int64
		for i, c := range r.clients {
			wg.Go(func() {
				_ = pauseFor(ctx, time.Duration(i)*time.Minute/time.Duration(n))
				for ctx.Err() == nil {
					if fleettest.Call(ctx, c) != nil && ctx.Err() == nil {
						failed.Add(1)
					}
					_ = pauseFor(ctx, callEvery)
				}
			})
		}
		_ = pauseFor(ctx, 65*time.Second)
		r.store.reset()
		_ = pauseFor(ctx, trafficFor)
		reads, _, _ := r.store.totals()
		cancel()
		wg.Wait()
		res.loads = float64(reads) / float64(n) / trafficFor.Minutes()

		r.store.reset()
		before := r.srv.Stats().KeysCreated
		r.mu.Lock()
		r.adopted, r.since = nil, time.Now()
		r.mu.Unlock()
		if _, err := r.clients[0].Rotate(t.Context()); err != nil {
			failed.Add(1)
		}
		_ = pauseFor(t.Context(), 20*time.Second)
		res.rotated, res.failed = int(r.srv.Stats().KeysCreated-before), failed.Load()
		_, _, res.peak = r.store.totals()
		if all := r.adoptions(); len(all) > 0 {
			res.adopted, res.median, res.p99, res.worst = len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
		}
		r.close()
		res.longest = r.store.longest
	})
	return res
}

func TestScaleStores(t *testing.T) { //nolint:paralleltest // it wants the machine for itself
	path := os.Getenv(scaleEnv)
	sizes := []int{30}
	if path != "" {
		sizes = []int{100, 1_000, 10_000}
	}
	models := []storeModel{etcdModel, k8sModel, listenModel, pollModel}
	var all []storeResult
	for _, n := range sizes {
		for _, model := range models {
			r := simulateStore(t, n, model)
			t.Logf("%d with %s: %d adopted after %v, %v, %v; %d operations in a second; %.1f loads; longest %v",
				n, model.name, r.adopted, r.median, r.p99, r.worst, r.peak, r.loads, r.longest)
			all = append(all, r)
			assert.Zero(t, r.failed, "no request fails with %s", model.name)
			assert.Equal(t, 1, r.rotated, "one rotation with %s", model.name)
			assert.GreaterOrEqual(t, r.adopted, n-1, "all adopt the key with %s", model.name)
			assert.Less(t, r.longest, model.attempt, "%s would repeat operations, which the model does not", model.name)
			loads := 60 / callEvery.Seconds() / 4
			if model.poll > 0 {
				loads += 60 / model.poll.Seconds()
			}
			assert.InEpsilon(t, loads, r.loads, 0.25, "loads of a replica in a minute with %s", model.name)
			if model.hears == 0 {
				assert.Greater(t, r.worst, model.poll/4, "%s polls", model.name)
			}
		}
	}
	if path == "" {
		return
	}
	var b strings.Builder
	storeTable(&b, all)
	modelTable(&b, models)
	require.NoError(t, replaceTables(path, "stores", b.String()))
}

func TestModelledStoreLimitsOneProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		processes int
		want      time.Duration
	}{
		{"burst", 2, 0},
		{"beyond the burst", 1, 2 * time.Second}, // 100 tokens at once, 100 at 50 a second
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := newModelled(storeModel{perSecond: 50, burst: 100})
				began := time.Now()
				for range tt.processes {
					p := store.process()
					for range 200 / tt.processes {
						_, err := p.Load(t.Context(), "key")
						require.ErrorIs(t, err, agrenting.ErrNoRecord)
					}
				}
				assert.Equal(t, tt.want, time.Since(began))
			})
		})
	}
}

func TestScale(t *testing.T) { //nolint:paralleltest // it wants the machine for itself
	path := os.Getenv(scaleEnv)
	sizes := []int{30}
	agents := 40
	if path != "" {
		sizes = []int{100, 1_000, 10_000}
		agents = 200
	}
	var starts []startResult
	var rotations []rotateResult
	var steady []steadyResult
	loads := map[int]float64{}
	for _, n := range sizes {
		for _, spread := range []time.Duration{time.Second, 10 * time.Minute} {
			for _, shared := range []bool{false, true} {
				res := simulateStart(t, n, shared, spread)
				t.Logf("start: %+v", res)
				starts = append(starts, res)
			}
		}
		for _, kind := range []struct {
			sessions, due bool
			strategy      agrenting.Strategy
		}{
			{false, false, agrenting.Overlap},
			{true, false, agrenting.Overlap},
			{false, true, agrenting.Overlap},
			{false, true, agrenting.InPlace},
			{true, true, agrenting.Overlap},
		} {
			res := simulateRotation(t, n, kind.sessions, kind.due, kind.strategy)
			t.Logf("rotation: %+v", res)
			rotations = append(rotations, res)
		}
		st := simulateSteady(t, n, 5*24*time.Hour)
		t.Logf("steady: %+v", st)
		steady = append(steady, st)
		if n <= 1_000 {
			loads[n] = simulateTraffic(t, n)
			t.Logf("traffic: %d replicas make %.0f loads a second", n, loads[n])
		}
	}
	small := starts[1]
	assert.Equal(t, 1, small.all, "one exchange for a fleet that starts at once")
	assert.Equal(t, small.n, small.served)
	for _, r := range rotations {
		assert.Equal(t, 1, r.rotated, "one rotation: %+v", r)
	}
	assert.LessOrEqual(t, steady[0].exchanges, 9, "one exchange for each session")
	perDay := simulateSpread(t, agents)
	t.Logf("rotations a day: %v", perDay)
	if path == "" {
		return
	}
	var b strings.Builder
	startTable(&b, starts)
	rotationTable(&b, rotations)
	steadyTable(&b, steady, loads)
	require.NoError(t, replaceTables(path, "tables", b.String()))
	require.NoError(t, os.WriteFile(strings.TrimSuffix(path, ".md")+".svg", []byte(adoptionChart(rotations)), 0o644))
}

// simulateSpread has agents with one key each rotate by age, and
// counts rotations a day from the day that the first is due.
func simulateSpread(t *testing.T, n int) (perDay []int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithoutRateLimits())
		user := srv.NewUser("owner")
		var clients []*agrenting.Client
		for range n {
			agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "one of many"})
			key := srv.NewKey(agent.ID)
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
				agrenting.WithTransport(srv.Transport()), agrenting.WithCredential(agrenting.APIKey(key.Secret)),
				agrenting.WithStore(agrenting.MemoryStore()),
				agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.Overlap, AgentID: agent.ID, KeyID: key.ID}))
			require.NoError(t, err)
			require.NoError(t, fleettest.Call(t.Context(), c))
			clients = append(clients, c)
		}
		_ = pauseFor(t.Context(), 80*24*time.Hour)
		before := srv.Stats().KeysCreated
		require.Zero(t, before)
		for range 11 {
			_ = pauseFor(t.Context(), 24*time.Hour)
			now := srv.Stats().KeysCreated
			perDay = append(perDay, int(now-before))
			before = now
		}
		for _, c := range clients {
			_ = c.Close()
		}
		srv.Close()
	})
	return perDay
}

func yes(b bool, a, c string) string {
	if b {
		return a
	}
	return c
}

func (r rotateResult) carried() string {
	return yes(r.sessions, "sessions", "the key")
}

func startTable(b *strings.Builder, all []startResult) {
	b.WriteString("### Starting\n\n| replicas | started within | store | exchanges | most of one address in a minute | refused | " +
		"served within the hour | the last of them after | operations of the store |\n|--:|--:|:--|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range all {
		fmt.Fprintf(b, "| %d | %v | %s | %d | %d | %d | %d | %v | %d |\n", r.n, r.spread, yes(r.shared, "shared", "none"),
			r.all, r.worst, r.refused, r.served, r.last.Round(10*time.Millisecond), r.reads+r.writes)
	}
}

func rotationTable(b *strings.Builder, all []rotateResult) {
	b.WriteString("\n### Rotating\n\n| replicas | requests carry | strategy | begun | rotations | adopted by | half of them after | 99 of 100 | all | " +
		"exchanges | refused | calls of the platform | most operations of the store in a second |\n" +
		"|--:|:--|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range all {
		fmt.Fprintf(b, "| %d | %s | %s | %s | %d | %d | %v | %v | %v | %d | %d | %d | %d |\n", r.n, r.carried(),
			r.strategy, yes(r.due, "when due", "on demand"), r.rotated, min(r.adopted, r.n-1), r.median.Round(100*time.Microsecond),
			r.p99.Round(100*time.Microsecond), r.worst.Round(100*time.Microsecond), r.exchanges, r.refused, r.calls, r.peak)
	}
}

func steadyTable(b *strings.Builder, all []steadyResult, loads map[int]float64) {
	b.WriteString("\n### Five days of sessions of 20 hours\n\n| replicas | exchanges | most of one address in a minute | reads of the store | " +
		"writes | most in a second |\n|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range all {
		fmt.Fprintf(b, "| %d | %d | %d | %d | %d | %d |\n", r.n, r.exchanges, r.worst, r.reads, r.writes, r.peak)
	}
	b.WriteString("\n### Under traffic\n\n| replicas | reads of the store a second |\n|--:|--:|\n")
	for _, r := range all {
		if l, ok := loads[r.n]; ok {
			fmt.Fprintf(b, "| %d | %.0f |\n", r.n, l)
		}
	}
}

func storeTable(b *strings.Builder, all []storeResult) {
	b.WriteString("### Stores\n\n| replicas | store | half of them after | 99 of 100 | all | " +
		"most operations of the store in a second | loads per replica and minute under traffic | connections per replica |\n" +
		"|--:|:--|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range all {
		fmt.Fprintf(b, "| %d | %s | %v | %v | %v | %d | %.1f | %d |\n", r.n, r.model.name, r.median.Round(100*time.Microsecond),
			r.p99.Round(100*time.Microsecond), r.worst.Round(100*time.Microsecond), r.peak, r.loads, r.model.connections)
	}
}

func modelTable(b *strings.Builder, all []storeModel) {
	b.WriteString("\n### Models of the stores\n\n| store | reads a second | writes a second | read | write | " +
		"first watcher hears after | each further one | source |\n|:--|--:|--:|--:|--:|--:|--:|:--|\n")
	for _, m := range all {
		fmt.Fprintf(b, "| %s | %d | %d | %v | %v | %s | %s | %s |\n", m.name, time.Second/m.readEvery, time.Second/m.writeEvery,
			m.readLatency, m.writeLatency, yes(m.hears > 0, m.hears.String(), "–"), yes(m.hears > 0, m.fanOut.String(), "–"), m.source)
	}
}

// replaceTables puts tables between the marks of that name.
func replaceTables(path, name, tables string) error {
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		old, err = []byte(begin+end), nil
	}
	if err != nil {
		return err
	}
	head, rest, _ := strings.Cut(string(old), begin)
	_, tail, _ := strings.Cut(rest, end)
	return os.WriteFile(path, []byte(head+begin+"\n"+tables+"\n"+end+tail), 0o644)
}

// adoptionChart draws when half, and all, of a fleet have a rotated key.
func adoptionChart(all []rotateResult) string {
	const left, top, width, row = 190, 40, 420, 26
	var bars []rotateResult
	for _, r := range all {
		if !r.due {
			bars = append(bars, r)
		}
	}
	scale := func(d time.Duration) float64 { // logarithmic, from 1 ms to 100 s
		return width * max(0.01, math.Log10(max(1, d.Seconds()*1000))/5)
	}
	var b strings.Builder
	height := top + row*len(bars) + 40
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		left+width+90, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n"+
		`<text x="10" y="20" font-size="14">Time until a rotated key is in use: half of the fleet, and all of it</text>`+"\n")
	for i, r := range bars {
		y := top + row*i
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%d, %s</text>`+"\n", left-8, y+14, r.n, r.carried())
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="16" fill="#9ec5e8"/>`+"\n", left, y+2, scale(r.worst))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="16" fill="#2f6fa8"/>`+"\n", left, y+2, scale(r.median))
		fmt.Fprintf(&b, `<text x="%.0f" y="%d">%v</text>`+"\n", left+scale(r.worst)+6, y+14, r.worst.Round(time.Millisecond))
	}
	for i, name := range []string{"1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"} {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#666">%s</text>`+"\n", left+width*i/5, height-14, name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
