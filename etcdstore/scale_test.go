package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
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

// The modelled etcd: the time that an operation takes, its latency, and the time
// until the next watcher gets a change.
const (
	writeEvery   = 100 * time.Microsecond // 10,000 in a second
	readEvery    = 20 * time.Microsecond  // 50,000
	writeLatency = 4 * time.Millisecond
	readLatency  = time.Millisecond
	watchLatency = time.Millisecond
	fanOut       = 10 * time.Microsecond
)

// modelled is a store in virtual time.
type modelled struct {
	agrenting.Store // in memory

	mu                  sync.Mutex
	readFree, writeFree time.Time
	reads, writes       int
	perSecond           map[int64]int
	changed             map[string]chan struct{} // by name
	watchers            int
}

func newModelled() *modelled {
	return &modelled{Store: agrenting.MemoryStore(), perSecond: map[int64]int{}, changed: map[string]chan struct{}{}}
}

func (m *modelled) operation(ctx context.Context, free *time.Time, count *int, every, latency time.Duration) error {
	m.mu.Lock()
	now := time.Now()
	if free.Before(now) {
		*free = now
	}
	*free = free.Add(every)
	wait := free.Sub(now) + latency
	*count++
	m.perSecond[now.Unix()]++
	m.mu.Unlock()
	return pauseFor(ctx, wait)
}

func (m *modelled) read(ctx context.Context) error {
	return m.operation(ctx, &m.readFree, &m.reads, readEvery, readLatency)
}

func (m *modelled) write(ctx context.Context) error {
	return m.operation(ctx, &m.writeFree, &m.writes, writeEvery, writeLatency)
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

func (m *modelled) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if err := m.read(ctx); err != nil {
		return agrenting.Record{}, err
	}
	return m.Store.Load(ctx, name)
}

func (m *modelled) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if err := m.write(ctx); err != nil {
		return "", err
	}
	rev, err := m.Store.Save(ctx, name, data, previous)
	if err == nil {
		m.mu.Lock()
		if c, ok := m.changed[name]; ok {
			close(c)
			delete(m.changed, name)
		}
		m.mu.Unlock()
	}
	return rev, err
}

// change returns a channel that is closed by the next change of a record.
func (m *modelled) change(name string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed[name] == nil {
		m.changed[name] = make(chan struct{})
	}
	return m.changed[name]
}

func (m *modelled) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		m.mu.Lock()
		place := m.watchers
		m.watchers++
		m.mu.Unlock()
		for seen, first := agrenting.Revision(""), true; ctx.Err() == nil; first = false {
			changed := m.change(name)
			rec, err := m.Store.Load(ctx, name)
			if (first || rec.Revision != seen) && !yield(rec, err) {
				return
			}
			seen = rec.Revision
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			_ = pauseFor(ctx, watchLatency+time.Duration(place)*fanOut)
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
}

func newReplicas(t *testing.T, o fleetOptions) *replicas {
	t.Helper()
	srv := agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithLogLimit(1_000_000),
		agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1 << 30}))
	r := &replicas{srv: srv, store: newModelled()}
	r.agent = srv.NewAgent(srv.NewUser("owner"), agrentingtest.AgentConfig{Name: "fleet"})
	key := srv.NewKey(r.agent.ID)
	transports := make([]http.RoundTripper, addresses)
	for i := range transports {
		transports[i] = srv.TransportFrom(fmt.Sprintf("192.0.2.%d", i+1))
	}
	p := o.policy
	p.AgentID, p.KeyID = r.agent.ID, key.ID
	for i := range o.n {
		opts := []agrenting.Option{
			agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(transports[i%addresses]),
			agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithObserver(r.observe),
		}
		if o.keys {
			opts = append(opts, agrenting.WithStore(r.store), agrenting.WithRotation(p))
		}
		switch {
		case o.sessions:
			opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{Store: r.store}))
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
		r.mu.Lock()
		all := slices.Clone(r.adopted)
		r.mu.Unlock()
		res.adopted = len(all)
		if len(all) > 0 {
			slices.Sort(all)
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
	require.NoError(t, replaceTables(path, b.String()))
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

const beginTables, endTables = "<!-- tables -->\n", "<!-- end of tables -->\n"

// replaceTables puts the tables between their marks.
func replaceTables(path, tables string) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		old, err = []byte(beginTables+endTables), nil
	}
	if err != nil {
		return err
	}
	head, rest, _ := strings.Cut(string(old), beginTables)
	_, tail, _ := strings.Cut(rest, endTables)
	return os.WriteFile(path, []byte(head+beginTables+"\n"+tables+"\n"+endTables+tail), 0o644)
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
