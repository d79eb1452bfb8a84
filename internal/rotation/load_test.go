package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// TestAThousandRotationsFailNoRequestOf64Workers rotates as fast as possible while 64 workers
// send requests, one in five with a body that exists only once. After 100 rotations, the load
// continues on another platform: it lists revoked keys, too, and so each rotation takes longer
// than the one before.
func TestAThousandRotationsFailNoRequestOf64Workers(t *testing.T) { //nolint:tparallel // each has the processors for itself
	t.Parallel()
	const rotations = 100
	platforms := 10
	if sample.Fewer && !*rotation.Every {
		platforms = 1
	}
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} { //nolint:paralleltest // one after the other, see above
		for n := range platforms {
			t.Run(fmt.Sprint(s, n), func(t *testing.T) { rotateUnderLoad(t, s, rotations) })
		}
	}
}

func rotateUnderLoad(t *testing.T, s agrenting.Strategy, rotations int) {
	t.Helper()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithLogLimit(100))
	store := agrenting.MemoryStore()
	c := w.Client(store, agrenting.RotationPolicy{Strategy: s, Every: -1})
	require.NoError(t, w.Call(c))
	sent, stop := w.PacedLoad(c, 64, true)
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
	assert.Equal(t, uint64(rotations)+1, w.OneLiveKey(store).Generation) // #nosec G115 -- a small number
	assert.EqualValues(t, rotations, w.Server.Stats().KeysRevoked)
	assert.Zero(t, w.Server.Stats().Unauthorized, "no request has met a dead key")
	t.Logf("%d requests over %d rotations", calls, rotations)
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
	defer func() { _ = sdktest.ReadBody(req) }()
	if err := renew.Sleep(req.Context(), pause); err != nil {
		return nil, err
	}
	return served(d.srv, req), nil
}

// lateStore takes its time to save.
type lateStore struct {
	agrenting.Store
	save time.Duration
}

func (s *lateStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if err := renew.Sleep(ctx, s.save); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, data, prev)
}

// TestGateIsReleasedAfterRotation measures on virtual
// time. What a request waits for in an in-place rotation is bounded by the
// requests on the wire, at most the DrainTimeout, the call that rotates, the
// look at the new key, and two writes of the store. In an overlap it waits for
// nothing.
func TestGateIsReleasedAfterRotation(t *testing.T) {
	t.Parallel()
	const (
		rotate, verify, others = 300 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond
		save, drain            = 25 * time.Millisecond, 5 * time.Second
	)
	for name, tc := range map[string]struct {
		strategy agrenting.Strategy
		slow     bool // a request is on the wire for longer than anybody waits
		most     time.Duration
	}{
		"overlap":                       {agrenting.Overlap, false, 0},
		"overlap, with a slow request":  {agrenting.Overlap, true, 0},
		"in place":                      {agrenting.InPlace, false, others + rotate + verify + 2*save},
		"in place, with a slow request": {agrenting.InPlace, true, drain + rotate + verify + 2*save},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				base := &fixedDelays{srv: w.Server, rotate: rotate, verify: verify, others: others}
				store := &lateStore{Store: agrenting.MemoryStore(), save: save}
				c := w.Client(store, agrenting.RotationPolicy{Strategy: tc.strategy, DrainTimeout: drain, Every: -1, Grace: -1},
					agrenting.WithTransport(base), agrenting.WithTimeout(0))
				require.NoError(t, w.Call(c))
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				var wg sync.WaitGroup
				for i := range 64 {
					wg.Go(func() {
						sdktest.Advance(time.Duration(i) * 7 * time.Millisecond)
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
						_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil, agrenting.CallHeader("X-Slow", "1"))
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
				sdktest.Advance(time.Second)
				rotations := 5
				if sample.Fewer {
					rotations = 2
				}
				for range rotations {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
					sdktest.Advance(time.Second)
				}
				stop()
				wg.Wait()
				assert.LessOrEqual(t, base.longest, tc.most)
				if tc.strategy == agrenting.InPlace {
					assert.GreaterOrEqual(t, base.longest, rotate, "requests were held at all")
				}
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

// TestBackToBackRotationsFailNoRequest has half of the processes
// use sessions, which become invalid with the key that they were obtained with. Requests meet one dead
// credential after the other.
func TestBackToBackRotationsFailNoRequest(t *testing.T) { //nolint:tparallel // each has the processors for itself
	t.Parallel()
	rotations := 60
	if sample.Fewer && !*rotation.Every {
		rotations = 20
	}
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} { //nolint:paralleltest // one after the other, see above
		t.Run(s.String(), func(t *testing.T) {
			w := sdktest.NewRotationWorld(t, agrentingtest.WithLogLimit(100), agrentingtest.WithSessionsEndingWithKey())
			store, sessions := agrenting.MemoryStore(), sdktest.NewFailingStore()
			var clients []*agrenting.Client
			var sent func() int64
			var stops []func() (calls, failed int64)
			for i := range 8 {
				p := agrenting.RotationPolicy{Strategy: s, Every: -1, Grace: 20 * time.Millisecond}
				var opts []agrenting.Option
				if i%2 == 1 {
					opts = append(opts, agrenting.WithSession(agrenting.SessionPolicy{Store: sessions}))
				}
				c := w.Client(store, p, opts...)
				require.NoError(t, w.Call(c))
				var stop func() (calls, failed int64)
				sent, stop = w.PacedLoad(c, 8, false)
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
			w.OneLiveKey(store)
			t.Logf("%d requests, %d of them met a dead credential", calls, w.Server.Stats().Unauthorized)
		})
	}
}
