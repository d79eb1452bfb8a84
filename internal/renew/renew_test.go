package renew_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// advance waits in virtual time: its callers are in a bubble.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where tests wait

var errDown = errors.New("the source is down")

// source is a scriptable source of numbered tokens.
type source struct {
	mu      sync.Mutex
	fetches int
	delay   time.Duration
	life    time.Duration // 0: no expiry
	err     error
	value   string // fixed value; "" numbers them
	queries []renew.Query[string]
	fetch   func(ctx context.Context, n int) (renew.Grant[string], error)
}

func (s *source) Fetch(ctx context.Context, q renew.Query[string]) (renew.Grant[string], error) {
	s.mu.Lock()
	s.fetches++
	n, delay, fetch := s.fetches, s.delay, s.fetch
	s.queries = append(s.queries, q)
	s.mu.Unlock()
	if fetch != nil {
		return fetch(ctx, n)
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return renew.Grant[string]{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return renew.Grant[string]{}, s.err
	}
	g := renew.Grant[string]{Value: fmt.Sprintf("v%d", n)}
	if s.value != "" {
		g.Value = s.value
	}
	if s.life > 0 {
		g.Expires = time.Now().Add(s.life)
	}
	return g, nil
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

func (s *source) set(f func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *source) engine(t *testing.T, mod ...func(*renew.Config[string])) *renew.Engine[string] {
	t.Helper()
	cfg := renew.Config[string]{Fetch: s.Fetch, Same: func(a, b string) bool { return a == b }}
	for _, m := range mod {
		m(&cfg)
	}
	e := renew.New(cfg)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

func get(t *testing.T, e *renew.Engine[string]) string {
	t.Helper()
	l, err := e.Get(t.Context())
	require.NoError(t, err)
	return l.Value
}

// herd makes n concurrent readers and returns what each got.
func herd(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

func TestOneFetchServesAllReadersOnSuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 20 * time.Millisecond}
		e := s.engine(t)
		for _, err := range herd(100, func(int) error { _, err := e.Get(t.Context()); return err }) {
			require.NoError(t, err)
		}
		assert.Equal(t, 1, s.count())
	})
}

func TestReaderLeavesAtItsOwnDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 300 * time.Millisecond}
		e := s.engine(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := e.Get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Millisecond, time.Since(began))
		assert.Zero(t, e.Status().Waiters)

		assert.Equal(t, "v1", get(t, e), "the fetch continued without it")
		assert.Equal(t, 300*time.Millisecond, time.Since(began))
		assert.Equal(t, 1, s.count())
	})
}

func TestCanceledFirstReaderDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 60 * time.Millisecond}
		e := s.engine(t)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { _, err := e.Get(ctx); first <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				l, err := e.Get(t.Context())
				if assert.NoError(t, err) {
					assert.Equal(t, "v1", l.Value)
				}
			})
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		wg.Wait()
		assert.Equal(t, 1, s.count())
	})
}

func TestCanceledReaderStartsNoFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("canceled by the caller")
		cancel(cause)
		_, err := e.Get(ctx)
		require.ErrorIs(t, err, cause)
		synctest.Wait()
		assert.Zero(t, s.count())
	})
}

func TestFetchCarriesNoValuesOfAnyReader(t *testing.T) {
	t.Parallel()
	type key struct{}
	s := &source{}
	s.fetch = func(ctx context.Context, _ int) (renew.Grant[string], error) {
		assert.Nil(t, ctx.Value(key{}), "one request's values must not steer a credential that all share")
		return renew.Grant[string]{Value: "v"}, nil
	}
	_, err := s.engine(t).Get(context.WithValue(t.Context(), key{}, 1))
	require.NoError(t, err)
}

func TestPutDiscardsEarlierFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second}
		e := s.engine(t)
		waited := make(chan string)
		go func() {
			l, err := e.Get(t.Context())
			assert.NoError(t, err)
			waited <- l.Value
		}()
		synctest.Wait()
		l, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
		require.NoError(t, err)
		assert.Equal(t, "put", l.Value)
		assert.Equal(t, "put", <-waited)
		assert.Equal(t, "put", get(t, e))
	})
}

func TestCloseEndsFetchesAndReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the bubble fails if a goroutine stays
		s := &source{delay: time.Hour, life: time.Hour}
		e := s.engine(t, func(c *renew.Config[string]) { c.Proactive = true; c.Timeout = 2 * time.Hour })
		done := make(chan error)
		go func() { _, err := e.Get(t.Context()); done <- err }()
		synctest.Wait()
		require.NoError(t, e.Close())
		require.ErrorIs(t, <-done, renew.ErrClosed)
		for _, call := range []func() error{
			func() error { _, err := e.Get(t.Context()); return err },
			func() error { _, err := e.Renew(t.Context()); return err },
			func() error { _, err := e.Reject(t.Context(), 1, true); return err },
			func() error { _, err := e.Put(renew.Grant[string]{}, renew.Adopted); return err },
		} {
			require.ErrorIs(t, call(), renew.ErrClosed)
		}
		synctest.Wait()
		assert.Equal(t, 1, s.count(), "the source is not asked any more")
		assert.Equal(t, renew.Shut, e.Status().State)
		require.NoError(t, e.Close(), "twice does no harm")
	})
}

func TestClosedEngineDoesNotAskSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		get(t, e)
		require.NoError(t, e.Close())
		_, err := e.Reject(t.Context(), 1, true)
		require.ErrorIs(t, err, renew.ErrClosed)
		synctest.Wait()
		assert.Equal(t, 1, s.count())
	})
}

func TestCloseSaysWhenASourceIgnoresItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			<-release
			return renew.Grant[string]{Value: "late"}, nil
		}
		e := renew.New(renew.Config[string]{Fetch: s.Fetch, Same: func(a, b string) bool { return a == b }})
		go func() { _, _ = e.Get(t.Context()) }()
		synctest.Wait()
		began := time.Now()
		require.ErrorContains(t, e.Close(), "ignored the end of its context for 5s")
		assert.Equal(t, 5*time.Second, time.Since(began))
		close(release)
		synctest.Wait()
		assert.Nil(t, e.Current(), "what comes after all is not taken any more")
	})
}

func TestFreshValueReadDoesNotAllocate(t *testing.T) { //nolint:paralleltest // counts allocations
	s := &source{life: time.Hour}
	e := s.engine(t)
	get(t, e)
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := e.Get(ctx); err != nil {
			t.Error(err)
		}
	}))
}

// TestInvariantsUnderConcurrency lets everything happen at once; the race
// detector and the invariants are the judges.
func TestInvariantsUnderConcurrency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		s := &source{}
		s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
			assert.Equal(t, int32(1), running.Add(1), "one fetch at a time")
			defer running.Add(-1)
			advance(3 * time.Millisecond)
			if n%5 == 0 {
				return renew.Grant[string]{}, errDown
			}
			return renew.Grant[string]{Value: strconv.Itoa(n), Expires: time.Now().Add(50 * time.Millisecond)}, nil
		}
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Proactive = true
			c.MinBackoff, c.MaxBackoff = time.Millisecond, 4*time.Millisecond
		})
		_ = herd(32, func(i int) error {
			var last uint64
			for j := range 300 {
				l, err := e.Get(t.Context())
				if err == nil {
					assert.GreaterOrEqual(t, l.Number, last, "generations never go back")
					assert.True(t, time.Now().Before(l.Expires), "never past the expiry")
					last = l.Number
					if (i+j)%97 == 0 {
						_, _ = e.Reject(t.Context(), l.Number, true)
					}
				}
				advance(time.Millisecond)
			}
			return nil
		})
	})
}

func BenchmarkGet(b *testing.B) {
	s := &source{life: time.Hour}
	e := renew.New(renew.Config[string]{Fetch: s.Fetch, Same: func(a, b string) bool { return a == b }})
	defer e.Close()
	ctx := b.Context()
	if _, err := e.Get(ctx); err != nil {
		b.Fatal(err)
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = e.Get(ctx)
		}
	})
}

func TestReadersEndedByCloseGetPutValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := renew.New(renew.Config[string]{
			Fetch: func(ctx context.Context, _ renew.Query[string]) (renew.Grant[string], error) {
				<-ctx.Done()
				return renew.Grant[string]{}, ctx.Err()
			},
			Same: func(a, b string) bool { return a == b },
		})
		got := make(chan error, 1)
		go func() {
			l, err := e.Get(t.Context())
			if err == nil && l.Value != "put" {
				err = errors.New(l.Value)
			}
			got <- err
		}()
		synctest.Wait()
		_, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Manual)
		require.NoError(t, err)
		require.NoError(t, e.Close())
		require.NoError(t, <-got)
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		require.NoError(t, renew.Sleep(t.Context(), time.Hour))
		assert.Equal(t, time.Hour, time.Since(began))

		cause := errors.New("shutdown")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		require.ErrorIs(t, renew.Sleep(ctx, time.Hour), cause)
		assert.Equal(t, time.Hour+time.Second, time.Since(began))
	})
}
