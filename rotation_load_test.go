package agrenting

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
)

// TestAThousandRotationsFailNoRequestOf64Workers rotates as fast as it goes
// while 64 workers send requests, one in five with a body that exists only once.
func TestAThousandRotationsFailNoRequestOf64Workers(t *testing.T) { //nolint:tparallel // each has the processors for itself
	t.Parallel()
	rotations := 1000
	if raceEnabled && !*every {
		rotations = 200
	}
	for _, s := range []Strategy{Overlap, InPlace} { //nolint:paralleltest // one after the other, see above
		t.Run(s.String(), func(t *testing.T) {
			w := newRotationWorld(t, agrentingtest.WithLogLimit(100))
			store := MemoryStore()
			c := w.client(store, RotationPolicy{Strategy: s, Every: -1})
			require.NoError(t, w.call(c))
			sent, stop := w.pacedLoad(c, 64, true)
			for n := range rotations {
				for sent() <= int64(n) { // there is load
					require.NoError(t, renew.Sleep(t.Context(), time.Millisecond))
				}
				if _, err := c.Rotate(t.Context()); !assert.NoError(t, err, "rotation %d", n) {
					break
				}
			}
			calls, failed := stop()
			assert.Zero(t, failed)
			assert.Equal(t, uint64(rotations)+1, w.oneLiveKey(store).Generation)
			assert.EqualValues(t, rotations, w.srv.Stats().KeysRevoked)
			assert.Zero(t, w.srv.Stats().Unauthorized, "no request has met a dead key")
			t.Logf("%d requests over %d rotations", calls, rotations)
		})
	}
}

// pacedLoad is load whose workers pause, so that rotations are not mostly waits
// for a processor, and whose requests cost the platform little. Some of them have
// bodies that can be sent only once, if asked for.
func (w *rotationWorld) pacedLoad(c *Client, workers int, bodies bool) (sent func() int64, stop func() (calls, failed int64)) {
	var calls, failed atomic.Int64
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := i; renew.Sleep(ctx, 15*time.Millisecond) == nil; n++ {
				method, path, in := http.MethodGet, "/api/v1/hirings/pending", any(nil)
				if bodies && n%5 == 0 { // a body that can be sent only once
					method, path = http.MethodPost, "/api/v1/tasks"
					in = struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + w.agent.ID + `","task_type":"test"}`)}
				}
				calls.Add(1)
				_, err := c.Do(context.WithoutCancel(ctx), method, path, in, nil, CallHeader("Content-Type", "application/json"))
				if err != nil {
					failed.Add(1)
					w.t.Error(err)
				}
			}
		})
	}
	return calls.Load, func() (int64, int64) {
		cancel()
		wg.Wait()
		return calls.Load(), failed.Load()
	}
}

// fixedDelays is a platform where everything takes its time, and that measures
// how long requests were kept back before they were sent.
type fixedDelays struct {
	srv                    *agrentingtest.Server
	rotate, verify, others time.Duration
	mu                     sync.Mutex
	longest                time.Duration
}

type enteredKey struct{}

func (d *fixedDelays) RoundTrip(req *http.Request) (*http.Response, error) {
	if began, ok := req.Context().Value(enteredKey{}).(time.Time); ok {
		d.mu.Lock()
		d.longest = max(d.longest, time.Since(began))
		d.mu.Unlock()
	}
	pause := d.others
	switch {
	case strings.HasSuffix(req.URL.Path, "/rotate-key"):
		pause = d.rotate
	case strings.HasSuffix(req.URL.Path, "/pending"):
		pause = d.verify
	case req.Header.Get("X-Slow") != "":
		pause = time.Hour
	}
	defer func() { _ = swallow(req) }()
	if err := renew.Sleep(req.Context(), pause); err != nil {
		return nil, err
	}
	return served(d.srv, req), nil
}

// lateStore takes its time to save.
type lateStore struct {
	Store
	save time.Duration
}

func (s *lateStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if err := renew.Sleep(ctx, s.save); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, data, prev)
}

// TestTheGateHoldsRequestsNoLongerThanTheRotationTakes measures on virtual
// time. What a request waits for in an in-place rotation is bounded by the
// requests on the wire, at most the DrainTimeout, the call that rotates, the
// look at the new key, and two writes of the store. In an overlap it waits for
// nothing.
func TestTheGateHoldsRequestsNoLongerThanTheRotationTakes(t *testing.T) {
	t.Parallel()
	const (
		rotate, verify, others = 300 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond
		save, drain            = 25 * time.Millisecond, 5 * time.Second
	)
	for name, tc := range map[string]struct {
		strategy Strategy
		slow     bool // a request is on the wire for longer than anybody waits
		most     time.Duration
	}{
		"overlap":                       {Overlap, false, 0},
		"overlap, with a slow request":  {Overlap, true, 0},
		"in place":                      {InPlace, false, others + rotate + verify + 2*save},
		"in place, with a slow request": {InPlace, true, drain + rotate + verify + 2*save},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				base := &fixedDelays{srv: w.srv, rotate: rotate, verify: verify, others: others}
				store := &lateStore{Store: MemoryStore(), save: save}
				c := w.client(store, RotationPolicy{Strategy: tc.strategy, DrainTimeout: drain, Every: -1, Grace: -1},
					WithTransport(base), WithTimeout(0))
				require.NoError(t, w.call(c))
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				var wg sync.WaitGroup
				for i := range 64 {
					wg.Go(func() {
						advance(time.Duration(i) * 7 * time.Millisecond)
						for ctx.Err() == nil {
							began := context.WithValue(context.WithoutCancel(ctx), enteredKey{}, time.Now())
							_, err := c.Do(began, http.MethodGet, "/api/v1/tasks", nil, nil)
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
				if tc.slow {
					wg.Go(func() {
						_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil, CallHeader("X-Slow", "1"))
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
				advance(time.Second)
				for range 5 {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
					advance(time.Second)
				}
				stop()
				wg.Wait()
				assert.LessOrEqual(t, base.longest, tc.most)
				if tc.strategy == InPlace {
					assert.GreaterOrEqual(t, base.longest, rotate, "requests were held at all")
				}
				w.oneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

// TestRotationsBackToBackByManyProcessesFailNoRequest has half of the processes
// use sessions, which die with the key that bought them. Requests meet one dead
// credential after the other.
func TestRotationsBackToBackByManyProcessesFailNoRequest(t *testing.T) { //nolint:tparallel // each has the processors for itself
	t.Parallel()
	rotations := 60
	if raceEnabled && !*every {
		rotations = 20
	}
	for _, s := range []Strategy{Overlap, InPlace} { //nolint:paralleltest // one after the other, see above
		t.Run(s.String(), func(t *testing.T) {
			w := newRotationWorld(t, agrentingtest.WithLogLimit(100), agrentingtest.WithSessionsDyingWithKey())
			store, sessions := MemoryStore(), newFailingStore()
			var clients []*Client
			var sent func() int64
			var stops []func() (calls, failed int64)
			for i := range 8 {
				p := RotationPolicy{Strategy: s, Every: -1, Grace: 20 * time.Millisecond}
				var opts []Option
				if i%2 == 1 {
					opts = append(opts, WithSession(SessionPolicy{Store: sessions}))
				}
				c := w.client(store, p, opts...)
				require.NoError(t, w.call(c))
				var stop func() (calls, failed int64)
				sent, stop = w.pacedLoad(c, 8, false)
				clients, stops = append(clients, c), append(stops, stop)
			}
			for n := range rotations {
				for sent() <= 8*int64(n) { // each worker has sent one, about
					require.NoError(t, renew.Sleep(t.Context(), time.Millisecond))
				}
				_, err := clients[n*5%len(clients)].Rotate(t.Context())
				require.NoError(t, err)
			}
			var calls, failed int64
			for _, stop := range stops {
				n, bad := stop()
				calls, failed = calls+n, failed+bad
			}
			assert.Zero(t, failed)
			w.oneLiveKey(store)
			t.Logf("%d requests, %d of them met a dead credential", calls, w.srv.Stats().Unauthorized)
		})
	}
}
