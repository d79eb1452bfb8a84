package renew_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

func TestOneFetchServesAllReadersOnFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 20 * time.Millisecond, err: errDown}
		e := s.engine(t)
		began := time.Now()
		for _, err := range herd(100, func(int) error { _, err := e.Get(t.Context()); return err }) {
			require.ErrorIs(t, err, errDown)
		}
		assert.Equal(t, 1, s.count())
		assert.Equal(t, 20*time.Millisecond, time.Since(began), "nobody queues behind another's failure")
	})
}

func TestFailureIsSharedAtOnceUntilRetryAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t)
		_, err := e.Get(t.Context())
		f, ok := errors.AsType[*renew.SourceError](err)
		require.True(t, ok)
		assert.False(t, f.Rejected)
		wait := time.Until(f.RetryAt)
		assert.GreaterOrEqual(t, wait, 500*time.Millisecond)
		assert.LessOrEqual(t, wait, time.Second)

		began := time.Now()
		for range 1000 {
			_, again := e.Get(t.Context())
			require.ErrorIs(t, again, errDown)
		}
		assert.Zero(t, time.Since(began), "readers are not put to sleep")
		assert.Equal(t, 1, s.count())

		advance(wait)
		s.set(func(s *source) { s.err = nil })
		assert.Equal(t, "v2", get(t, e))
	})
}

func TestBackoffDoublesWithJitterUpToItsCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, func(c *renew.Config[string]) { c.MaxBackoff = 10 * time.Second })
		for i, seconds := range []int{1, 2, 4, 8, 10, 10, 10} {
			top := time.Duration(seconds) * time.Second
			_, err := e.Get(t.Context())
			f, ok := errors.AsType[*renew.SourceError](err)
			require.True(t, ok)
			assert.Equal(t, i+1, f.Failures)
			wait := time.Until(f.RetryAt)
			assert.GreaterOrEqual(t, wait, top/2)
			assert.LessOrEqual(t, wait, top)
			advance(wait)
		}
	})
}

func TestTheSourcesOwnRetryTimeIsObeyed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(5 * time.Minute)
		s := &source{err: errDown}
		e := s.engine(t, func(c *renew.Config[string]) { c.RetryAt = func(error) time.Time { return until } })
		for range 299 {
			_, err := e.Get(t.Context())
			require.Error(t, err)
			_, err = e.Renew(t.Context())
			require.Error(t, err, "by hand neither")
			advance(time.Second)
		}
		assert.Equal(t, 1, s.count())
		advance(time.Second)
		_, _ = e.Get(t.Context())
		assert.Equal(t, 2, s.count())
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

		assert.Equal(t, "v1", get(t, e), "the fetch went on without it")
		assert.Equal(t, 300*time.Millisecond, time.Since(began))
		assert.Equal(t, 1, s.count())
	})
}

func TestCancellingTheFirstReaderCostsNobodyAnything(t *testing.T) {
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

func TestCancelledReaderStartsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("given up")
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

func TestFetchHasATimeoutOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) { // ignores its context
			<-release
			return renew.Grant[string]{Value: "late"}, nil
		}
		e := s.engine(t, func(c *renew.Config[string]) { c.Timeout = 3 * time.Second })
		began := time.Now()
		_, err := e.Get(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(began))

		close(release)
		synctest.Wait()
		assert.Equal(t, "late", get(t, e), "what the source gave after all is not wasted")
		assert.Equal(t, 1, s.count())
	})
}

//nolint:paralleltest // it counts the goroutines of the whole process
func TestWindowServesAndRenewsInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t)
		require.Equal(t, "v1", get(t, e))
		advance(77 * time.Second)
		require.Equal(t, "v1", get(t, e))
		require.Equal(t, 1, s.count(), "too early to renew")

		advance(6 * time.Second)
		s.set(func(s *source) { s.delay = 100 * time.Millisecond })
		before, began := runtime.NumGoroutine(), time.Now()
		for _, err := range herd(50, func(int) error {
			l, err := e.Get(t.Context())
			if err == nil && l.Value != "v1" {
				err = errors.New("got " + l.Value)
			}
			return err
		}) {
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(began), "nobody waits in the window")
		assert.LessOrEqual(t, fewestGoroutines()-before, 2, "no goroutine per reader")
		advance(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, "v2", get(t, e))
		assert.Equal(t, 2, s.count())
	})
}

// fewestGoroutines looks more than once: some that have ended are counted for a
// moment.
func fewestGoroutines() int {
	n := runtime.NumGoroutine()
	for range 1000 {
		runtime.Gosched()
		n = min(n, runtime.NumGoroutine())
	}
	return n
}

func TestWindowNeverExceedsTheLifetime(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{time.Millisecond, time.Second, time.Minute, 20 * time.Hour, 90 * 24 * time.Hour} {
		for _, window := range []float64{0, 0.2, 0.5, 1, 50} {
			t.Run(fmt.Sprintf("%v of %v", window, life), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &source{life: life}
					e := s.engine(t, func(c *renew.Config[string]) { c.Window = window })
					for range 100 {
						require.Equal(t, "v1", get(t, e))
					}
					l, err := e.Get(t.Context())
					require.NoError(t, err)
					lead := l.Expires.Sub(l.RenewAt)
					assert.LessOrEqual(t, lead, life/2)
					assert.LessOrEqual(t, lead, time.Hour+6*time.Minute)
					assert.Positive(t, lead)
				})
			})
		}
	}
}

func TestRenewalAheadIsSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leads := map[time.Duration]bool{}
		for range 20 {
			s := &source{life: 1000 * time.Second}
			l, err := s.engine(t).Get(t.Context())
			require.NoError(t, err)
			lead := l.Expires.Sub(l.RenewAt)
			assert.InDelta(t, 200, lead.Seconds(), 20)
			leads[lead] = true
		}
		assert.Greater(t, len(leads), 10)
	})
}

func TestFailedRenewalServesUntilTheRealExpiryAndNotLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t, func(c *renew.Config[string]) { c.MaxBackoff = 4 * time.Second })
		began := time.Now()
		require.Equal(t, "v1", get(t, e))
		s.set(func(s *source) { s.err = errDown })
		failed := 0
		for time.Since(began) < 100*time.Second {
			for _, err := range herd(50, func(int) error { _, err := e.Get(t.Context()); return err }) {
				require.NoError(t, err)
			}
			advance(100 * time.Millisecond)
		}
		attempts := s.count() - 1
		assert.GreaterOrEqual(t, attempts, 4)
		assert.LessOrEqual(t, attempts, 13, "one attempt per backoff step")
		for range 10 {
			if _, err := e.Get(t.Context()); err != nil {
				require.ErrorIs(t, err, errDown)
				failed++
			}
		}
		assert.Equal(t, 10, failed, "never past the expiry")
	})
}

func TestOutageAcrossTheExpiryFailsFastAndRecoversWithinOneStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 10 * time.Second}
		e := s.engine(t, func(c *renew.Config[string]) { c.Proactive = true })
		require.Equal(t, "v1", get(t, e))
		s.set(func(s *source) { s.err = errDown })
		advance(12 * time.Second)
		began := time.Now()
		_, err := e.Get(t.Context())
		f, ok := errors.AsType[*renew.SourceError](err)
		require.True(t, ok)
		assert.Zero(t, time.Since(began))
		s.set(func(s *source) { s.err = nil })
		advance(time.Until(f.RetryAt) + time.Millisecond)
		synctest.Wait()
		l := e.Current()
		require.NotNil(t, l, "recovers without traffic")
		assert.Equal(t, uint64(2), l.Generation)
	})
}

func TestNoServingPastARejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		e := s.engine(t)
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		s.set(func(s *source) { s.err = errDown })
		_, err = e.Reject(t.Context(), l.Generation)
		f, ok := errors.AsType[*renew.SourceError](err)
		require.True(t, ok)
		assert.True(t, f.Rejected)
		_, err = e.Get(t.Context())
		require.ErrorIs(t, err, errDown)
	})
}

func TestRejectionByManyCausesOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		refused := 0
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Observe = func(ev renew.Event[string]) {
				if ev.Kind == renew.Refused {
					refused++
				}
			}
		})
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		s.set(func(s *source) { s.delay = 100 * time.Millisecond })
		for _, err := range herd(50, func(i int) error {
			advance(time.Duration(i) * 3 * time.Millisecond) // some come after the renewal
			next, err := e.Reject(t.Context(), l.Generation)
			if err == nil && next.Value != "v2" {
				err = errors.New("got " + next.Value)
			}
			return err
		}) {
			require.NoError(t, err)
		}
		assert.Equal(t, 2, s.count(), "late reports never harm the newer value")
		assert.Equal(t, 1, refused, "it is reported once")
	})
}

func TestReadersWaitForTheRenewalAfterARejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		require.Equal(t, "v1", get(t, e))
		s.set(func(s *source) { s.delay = time.Second })
		go func() { _, _ = e.Reject(t.Context(), 1) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := e.Get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "cancellably")
		assert.Equal(t, "v2", get(t, e))
	})
}

func TestFetchBegunBeforeTheRejectionCannotBringTheValueBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second, value: "old"}
		e := s.engine(t)
		require.Equal(t, "old", get(t, e))
		advance(90 * time.Second)
		// A renewal ahead is under way, and will answer with the old value.
		s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
			advance(time.Second)
			if n == 2 {
				return renew.Grant[string]{Value: "old", Expires: time.Now().Add(time.Hour)}, nil
			}
			return renew.Grant[string]{Value: "new"}, nil
		}
		require.Equal(t, "old", get(t, e))
		synctest.Wait()
		l, err := e.Reject(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, "new", l.Value)
		assert.Equal(t, 3, s.count())
		assert.Equal(t, renew.Query[string]{
			Reason: renew.Rejected, Rejected: "old", HasRejected: true, Current: "old", HasCurrent: true,
		}, s.queries[2])
	})
}

func TestFetchBegunBeforeTheRejection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []string
		want    string
	}{
		"is enough when it brings another value":           {[]string{"new"}, "new"},
		"is repeated once when the source insists":         {[]string{"old", "old"}, "old"},
		"is repeated once when the source has another one": {[]string{"old", "new"}, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{life: 100 * time.Second, value: "old"}
				e := s.engine(t)
				require.Equal(t, "old", get(t, e))
				advance(90 * time.Second)
				s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
					advance(time.Second)
					return renew.Grant[string]{Value: c.answers[(n-2)%len(c.answers)]}, nil
				}
				require.Equal(t, "old", get(t, e))
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				l, err := e.Reject(ctx, 1)
				require.NoError(t, err)
				assert.Equal(t, c.want, l.Value)
				assert.Equal(t, 1+len(c.answers), s.count())
			})
		})
	}
}

func TestSourceThatInsistsIsBelievedForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "same"}
		var kinds []renew.Kind
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Observe = func(ev renew.Event[string]) { kinds = append(kinds, ev.Kind) }
		})
		require.Equal(t, "same", get(t, e))
		for range 1000 {
			l, err := e.Reject(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, uint64(1), l.Generation)
			require.Equal(t, "same", get(t, e), "others go on")
		}
		assert.Equal(t, 2, s.count())
		assert.Equal(t, []renew.Kind{renew.Renewed, renew.Refused, renew.Confirmed}, kinds)
		advance(2 * time.Second)
		s.set(func(s *source) { s.value = "new" })
		l, err := e.Reject(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, "new", l.Value)
	})
}

func TestRejectionsThatRenewalDoesNotMendAreHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		began := time.Now()
		for time.Since(began) < 10*time.Minute { // a route that always refuses
			next, err := e.Reject(t.Context(), l.Generation)
			require.NoError(t, err)
			if next.Generation != l.Generation {
				for range 50 {
					e.Vain(next.Generation)
				}
			}
			l = next
			advance(10 * time.Millisecond)
		}
		assert.LessOrEqual(t, s.count(), 25)
		e.Mended(l.Generation + 1)
		next, err := e.Reject(t.Context(), l.Generation)
		require.NoError(t, err)
		assert.NotEqual(t, l.Generation, next.Generation, "a renewal that helped ends the pause")
	})
}

func TestPanicOfTheSourceIsAnError(t *testing.T) {
	t.Parallel()
	for name, explode := range map[string]func(){
		"the source panicked: boom":      func() { panic("boom") },
		"the source ended its goroutine": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
					if n == 1 {
						explode()
					}
					return renew.Grant[string]{Value: "fine"}, nil
				}
				e := s.engine(t)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := e.Get(ctx)
				require.ErrorContains(t, err, name)
				advance(time.Second)
				assert.Equal(t, "fine", get(t, e))
			})
		})
	}
}

func TestTheIssuersClockDecidesAboutExpiry(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-time.Hour, -time.Minute, -2 * time.Second, 0, 2 * time.Second, time.Minute, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
					issuer := time.Now().Add(skew).Truncate(time.Second)
					return renew.Grant[string]{Value: strconv.Itoa(n), Issued: issuer, Expires: issuer.Add(10 * time.Minute)}, nil
				}
				e := s.engine(t)
				require.Equal(t, "1", get(t, e))
				advance(7 * time.Minute)
				require.Equal(t, "1", get(t, e))
				assert.Equal(t, 1, s.count())
				assert.Equal(t, skew, e.Status().Skew)
				advance(3*time.Minute + time.Second)
				require.Equal(t, "2", get(t, e))
			})
		})
	}
}

func TestExpiryThatHasPassedAlreadyDoesNotCostTheValue(t *testing.T) {
	t.Parallel()
	for _, ago := range []time.Duration{0, time.Hour} {
		t.Run(ago.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				s.fetch = func(context.Context, int) (renew.Grant[string], error) {
					return renew.Grant[string]{Value: "v", Expires: time.Now().Add(-ago)}, nil
				}
				e := s.engine(t, func(c *renew.Config[string]) { c.Proactive = true })
				for range 1000 {
					require.Equal(t, "v", get(t, e))
					advance(time.Minute)
				}
				assert.Equal(t, 1, s.count())
			})
		})
	}
}

func TestProactiveRenewalNeedsNoTraffic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		e := s.engine(t, func(c *renew.Config[string]) { c.Proactive = true })
		require.Equal(t, "v1", get(t, e))
		for range 100 {
			advance(time.Hour)
			synctest.Wait()
			require.NotNil(t, e.Current())
			require.True(t, time.Now().Before(e.Current().Expires))
		}
		assert.InDelta(t, 126, s.count(), 8, "one fetch for each lifetime less its window")
	})
}

func TestSourceWithoutASuccessorIsNotAskedInALoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(100 * time.Second)
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			return renew.Grant[string]{Value: "cached", Expires: end}, nil
		}
		e := s.engine(t)
		for time.Now().Before(end) {
			require.Equal(t, "cached", get(t, e))
			advance(10 * time.Millisecond)
		}
		assert.LessOrEqual(t, s.count(), 25)
	})
}

func TestRecheckAsksInTheBackgroundAndKeepsTheGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		value := "a"
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			return renew.Grant[string]{Value: value, Recheck: 10 * time.Second}, nil
		}
		e := s.engine(t)
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		for range 5 {
			advance(11 * time.Second)
			require.Equal(t, "a", get(t, e))
			synctest.Wait()
		}
		assert.Equal(t, 6, s.count())
		assert.Equal(t, renew.Recheck, s.queries[1].Reason)
		assert.Equal(t, l.Generation, e.Current().Generation)
		value = "b"
		advance(11 * time.Second)
		require.Equal(t, "a", get(t, e), "the last good one is served meanwhile")
		synctest.Wait()
		require.Equal(t, "b", get(t, e))
		assert.Equal(t, l.Generation+1, e.Current().Generation)
	})
}

func TestLooksAtTheSourceDoNotNarrowTheWindow(t *testing.T) {
	t.Parallel()
	for _, recheck := range []time.Duration{time.Second, 10 * time.Second, 7 * time.Minute} {
		t.Run(recheck.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const life = 2 * time.Hour
				began := time.Now()
				end, early, looks := began.Add(life), time.Time{}, 0
				e := renew.New(renew.Config[string]{
					Same: func(a, b string) bool { return a == b }, Proactive: true, Spread: func() float64 { return 0.5 },
					Fetch: func(_ context.Context, q renew.Query[string]) (renew.Grant[string], error) {
						if q.Reason == renew.Early {
							early = time.Now()
							return renew.Grant[string]{Value: "b"}, nil
						}
						looks++
						return renew.Grant[string]{Value: "a", Expires: end, Recheck: recheck}, nil
					},
				})
				defer func() { assert.NoError(t, e.Close()) }()
				require.Equal(t, "a", get(t, e))
				advance(life)
				synctest.Wait()
				assert.Equal(t, life*8/10, early.Sub(began), "renewed when the window of the whole life begins")
				assert.InDelta(t, int(life*8/10/recheck), looks, 1)
			})
		})
	}
}

func TestAnEndThatMovesHasAWindowOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour)
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			return renew.Grant[string]{Value: "a", Expires: end}, nil
		}
		e := s.engine(t, func(c *renew.Config[string]) { c.Spread = func() float64 { return 0.5 } })
		lead := func() time.Duration {
			l, err := e.Renew(t.Context())
			require.NoError(t, err)
			return l.Expires.Sub(l.RenewAt)
		}
		assert.Equal(t, 12*time.Minute, lead())
		advance(30 * time.Minute)
		assert.Equal(t, 12*time.Minute, lead(), "the same end")
		end = time.Now().Add(2 * time.Hour)
		assert.Equal(t, 24*time.Minute, lead(), "the source has prolonged it")
	})
}

func TestPutDiscardsTheFetchThatBeganBefore(t *testing.T) {
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

func TestRenewByHandReportsItsFailureWhileReadersAreServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		e := s.engine(t)
		require.Equal(t, "v1", get(t, e))
		l, err := e.Renew(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "v2", l.Value)
		s.set(func(s *source) { s.err = errDown })
		_, err = e.Renew(t.Context())
		require.ErrorIs(t, err, errDown)
		assert.Equal(t, "v2", get(t, e))
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
			func() error { _, err := e.Reject(t.Context(), 1); return err },
			func() error { _, err := e.Put(renew.Grant[string]{}, renew.Adopted); return err },
		} {
			require.ErrorIs(t, call(), renew.ErrClosed)
		}
		synctest.Wait()
		assert.Equal(t, 1, s.count(), "nobody asks the source any more")
		assert.Equal(t, renew.Shut, e.Status().State)
		require.NoError(t, e.Close(), "twice does no harm")
	})
}

func TestClosedEngineAsksTheSourceForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		get(t, e)
		require.NoError(t, e.Close())
		_, err := e.Reject(t.Context(), 1)
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

func TestStatusTellsTheState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t)
		assert.Equal(t, renew.Empty, e.Status().State)
		get(t, e)
		assert.Equal(t, renew.Fresh, e.Status().State)
		advance(90 * time.Second)
		s.set(func(s *source) { s.delay = time.Second })
		get(t, e)
		assert.Equal(t, renew.Renewing, e.Status().State)
		advance(2 * time.Second)
		assert.Equal(t, renew.Fresh, e.Status().State)
		go func() { _, _ = e.Reject(t.Context(), 2) }()
		synctest.Wait()
		st := e.Status()
		assert.Equal(t, renew.Lapsed, st.State)
		assert.True(t, st.Fetching)
		assert.Equal(t, 1, st.Waiters)
		s.set(func(s *source) { s.err = errDown })
		advance(1500 * time.Millisecond)
		st = e.Status()
		assert.Equal(t, renew.BackedOff, st.State)
		assert.True(t, st.RetryAt.After(time.Now()))
		assert.True(t, st.Rejected)
		assert.False(t, st.Fetching)
		assert.Equal(t, 1, st.Failures)
		assert.Equal(t, uint64(2), st.Lease.Generation)
		require.ErrorIs(t, st.Err, errDown)
		s.set(func(s *source) { s.err = nil })
		advance(time.Second)
		require.Equal(t, renew.Lapsed, e.Status().State, "the pause is over")
		get(t, e)
		advance(100 * time.Second)
		require.Equal(t, renew.Lapsed, e.Status().State, "expired")
	})
}

func TestEventsAreInOrderWithTheirReasons(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		var seen []string
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Observe = func(ev renew.Event[string]) { seen = append(seen, fmt.Sprint(ev.Kind, " ", ev.Reason)) }
		})
		get(t, e)
		advance(90 * time.Second)
		get(t, e)
		synctest.Wait()
		advance(100 * time.Second)
		get(t, e)
		_, _ = e.Reject(t.Context(), 3)
		_, _ = e.Renew(t.Context())
		_, _ = e.Put(renew.Grant[string]{Value: "x"}, renew.Adopted)
		assert.Equal(t, []string{"1 first", "1 early", "1 expired", "4 rejected", "1 rejected", "1 manual", "1 adopted"}, seen)
	})
}

func TestReadingAFreshValueAllocatesNothing(t *testing.T) { //nolint:paralleltest // counts allocations
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
					assert.GreaterOrEqual(t, l.Generation, last, "generations never go back")
					assert.True(t, time.Now().Before(l.Expires), "never past the expiry")
					last = l.Generation
					if (i+j)%97 == 0 {
						_, _ = e.Reject(t.Context(), l.Generation)
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

func TestWhoWaitsForAFetchThatCloseEndsGetsWhatWasPutMeanwhile(t *testing.T) {
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

func TestTheDefaultsAreThoseOfTheDocumentation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		s.fetch = func(ctx context.Context, _ int) (renew.Grant[string], error) {
			<-ctx.Done()
			return renew.Grant[string]{}, ctx.Err()
		}
		e := s.engine(t)
		began := time.Now()
		for range 20 {
			_, err := e.Get(t.Context())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 30*time.Second, time.Since(began), "the timeout")
			wait := time.Until(e.Status().RetryAt)
			require.LessOrEqual(t, wait, time.Minute, "the longest pause")
			advance(wait)
			began = time.Now()
		}
	})
}

func TestDoublingStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 35: time.Minute, 1000: time.Minute,
	} {
		assert.Equal(t, want, renew.Doubled(time.Second, time.Minute, n), n)
	}
}

func TestBackoffStartsAnewAfterASuccess(t *testing.T) {
	t.Parallel()
	for name, succeed := range map[string]func(*testing.T, *source, *renew.Engine[string]){
		"of a fetch": func(t *testing.T, _ *source, e *renew.Engine[string]) { t.Helper(); get(t, e) },
		"that brings the rejected value again": func(t *testing.T, s *source, e *renew.Engine[string]) {
			t.Helper()
			s.set(func(s *source) { s.value = "v1" })
			get(t, e)
		},
		"from outside": func(t *testing.T, _ *source, e *renew.Engine[string]) {
			t.Helper()
			_, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				e := s.engine(t)
				get(t, e)
				s.set(func(s *source) { s.err = errDown })
				_, err := e.Reject(t.Context(), 1)
				require.Error(t, err)
				for range 4 {
					advance(time.Until(e.Status().RetryAt))
					_, err := e.Get(t.Context())
					require.Error(t, err)
				}
				require.Equal(t, 5, e.Status().Failures)

				advance(time.Until(e.Status().RetryAt))
				s.set(func(s *source) { s.err = nil })
				succeed(t, s, e)
				st := e.Status()
				require.NoError(t, st.Err)
				assert.Zero(t, st.Failures)
				assert.Zero(t, st.RetryAt)

				s.set(func(s *source) { s.err = errDown })
				_, err = e.Renew(t.Context())
				require.Error(t, err)
				assert.Equal(t, 1, e.Status().Failures)
				assert.LessOrEqual(t, time.Until(e.Status().RetryAt), time.Second)
			})
		})
	}
}

func TestSourceThatNamesNoLaterTimeIsLeftToTheBackoff(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func() time.Time{
		"no time":   func() time.Time { return time.Time{} },
		"past time": func() time.Time { return time.Now().Add(-time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{err: errDown}
				e := s.engine(t, func(c *renew.Config[string]) { c.RetryAt = func(error) time.Time { return at() } })
				for range 10 {
					_, err := e.Get(t.Context())
					require.ErrorIs(t, err, errDown)
				}
				assert.Equal(t, 1, s.count())
			})
		})
	}
}

func TestRenewByHandHeedsNoPauseButTheSources(t *testing.T) {
	t.Parallel()
	for name, retryAt := range map[string]func(error) time.Time{
		"of which there is none":   nil,
		"which asks for none":      func(error) time.Time { return time.Time{} },
		"which is over meanwhile":  func(error) time.Time { return time.Now() },
		"which has to be heard of": func(error) time.Time { return time.Now().Add(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				e := s.engine(t, func(c *renew.Config[string]) { c.RetryAt = retryAt })
				l, err := e.Renew(t.Context())
				require.NoError(t, err)
				require.Equal(t, "v1", l.Value)

				s.set(func(s *source) { s.err = errDown })
				_, err = e.Renew(t.Context())
				require.ErrorIs(t, err, errDown)
				_, err = e.Renew(t.Context())
				require.ErrorIs(t, err, errDown)
				if name == "which has to be heard of" {
					assert.Equal(t, 2, s.count())
				} else {
					assert.Equal(t, 3, s.count())
				}
			})
		})
	}
}

func TestSourceIsToldWhatWasRejectedUntilItHasAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t, func(c *renew.Config[string]) { c.Window = -1 })
		get(t, e)
		advance(100 * time.Second)
		get(t, e)
		s.set(func(s *source) { s.err = errDown })
		_, err := e.Reject(t.Context(), 2)
		require.Error(t, err)
		advance(time.Until(e.Status().RetryAt))
		s.set(func(s *source) { s.err = nil })
		require.Equal(t, "v4", get(t, e))
		_, err = e.Renew(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []renew.Query[string]{
			{Reason: renew.First},
			{Reason: renew.Expired, Current: "v1", HasCurrent: true},
			{Reason: renew.Rejected, Current: "v2", HasCurrent: true, Rejected: "v2", HasRejected: true},
			{Reason: renew.Rejected, Current: "v2", HasCurrent: true, Rejected: "v2", HasRejected: true},
			{Reason: renew.Manual, Current: "v4", HasCurrent: true},
		}, s.queries)
	})
}

func TestRejectionBeforeAnythingWasFetchedFetches(t *testing.T) {
	t.Parallel()
	s := &source{}
	l, err := s.engine(t).Reject(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, "v1", l.Value)
}

// The pause after a failure is for looks that nobody waits for, unless the source
// has asked for it.
func TestRejectionAsksAtOnceUnlessTheSourceWantsToBeLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wanted  time.Duration
		fetches int
	}{
		"a pause of the engine":     {fetches: 3},
		"a pause of the source":     {wanted: time.Minute, fetches: 2},
		"a pause that has been had": {wanted: -time.Second, fetches: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{life: time.Hour}
				e := s.engine(t, func(c *renew.Config[string]) {
					c.RetryAt = func(error) time.Time {
						if tc.wanted == 0 {
							return time.Time{}
						}
						return time.Now().Add(tc.wanted)
					}
				})
				get(t, e)
				s.set(func(s *source) { s.err = errDown })
				_, err := e.Renew(t.Context())
				require.Error(t, err)
				for range 5 {
					_, err = e.Reject(t.Context(), 1)
					f, ok := errors.AsType[*renew.SourceError](err)
					require.True(t, ok)
					assert.True(t, f.Rejected)
				}
				assert.Equal(t, tc.fetches, s.count(), "and then there is a pause for all")
			})
		})
	}
}

func TestWithoutAWindowNothingIsRenewedAhead(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{500 * time.Millisecond, 100 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{life: life}
				e := s.engine(t, func(c *renew.Config[string]) { c.Window = -1 })
				end := time.Now().Add(life)
				for time.Now().Before(end) {
					require.Equal(t, "v1", get(t, e))
					advance(life / 100)
				}
				assert.Zero(t, e.Current().RenewAt)
				assert.Equal(t, 1, s.count())
				assert.Equal(t, "v2", get(t, e), "but past its end nothing is served")
			})
		})
	}
}

func TestWindowIsAtMostHalfOfTheLifetime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for window, want := range map[float64]time.Duration{0.1: 10 * time.Second, 0.4: 40 * time.Second, 7: 50 * time.Second} {
			s := &source{life: 100 * time.Second}
			e := s.engine(t, func(c *renew.Config[string]) { c.Window, c.Spread = window, func() float64 { return 0.5 } })
			l, err := e.Get(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, l.Expires.Sub(l.RenewAt))
		}
	})
}

func TestRenewalThatFailsPastTheExpiryServesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t)
		get(t, e)
		s.set(func(s *source) { s.delay, s.err = 20*time.Second, errDown })
		advance(90 * time.Second)
		require.Equal(t, "v1", get(t, e), "while the renewal runs")
		advance(15 * time.Second)
		_, err := e.Get(t.Context())
		require.ErrorIs(t, err, errDown)
		assert.Nil(t, e.Current())
	})
}

func TestExpiryThatIsPutOffServesWhoWaitsForAFetchThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t)
		get(t, e)
		advance(100 * time.Second)
		s.set(func(s *source) { s.delay, s.err = time.Second, errDown })
		served := make(chan *renew.Lease[string], 1)
		go func() {
			l, err := e.Get(t.Context())
			assert.NoError(t, err)
			served <- l
		}()
		synctest.Wait()
		_, err := e.Put(renew.Grant[string]{Value: "v1", Expires: time.Now().Add(time.Hour)}, renew.Adopted)
		require.NoError(t, err)
		l := <-served
		require.NotNil(t, l)
		assert.Equal(t, "v1", l.Value)
	})
}

func TestValueThatIsPutAndRejectedDuringAFetchLeavesItsOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second}
		e := s.engine(t)
		go func() { _, _ = e.Get(t.Context()) }()
		synctest.Wait()
		l, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
		require.NoError(t, err)
		l, err = e.Reject(t.Context(), l.Generation)
		require.NoError(t, err)
		require.NotNil(t, l)
		assert.Equal(t, "v1", l.Value)
		assert.Equal(t, 1, s.count())
	})
}

// TestLateAnswer lets a renewal overrun its timeout, and answer after what has
// happened since.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	refused := func(ctx context.Context, s *source, e *renew.Engine[string]) {
		s.set(func(s *source) { s.err = errDown })
		_, _ = e.Reject(ctx, 1)
	}
	for name, c := range map[string]struct {
		answer    string
		err       error
		meanwhile func(context.Context, *source, *renew.Engine[string])
		want      string // in use after the answer; "" means nothing
	}{
		"stands in for a rejected value": {answer: "late", meanwhile: refused, want: "late"},
		"stands in for an expired value": {answer: "late", want: "late", meanwhile: func(_ context.Context, s *source, _ *renew.Engine[string]) {
			s.set(func(s *source) { s.err = errDown })
			advance(10 * time.Second)
		}},
		"cannot bring a rejected value back": {answer: "old", meanwhile: refused},
		"is not taken when it is an error":   {err: errDown, meanwhile: refused},
		"does not replace a newer value": {answer: "late", want: "new", meanwhile: func(ctx context.Context, _ *source, e *renew.Engine[string]) {
			_, _ = e.Reject(ctx, 1)
		}},
		"does not precede a fetch on its way": {answer: "late", want: "new", meanwhile: func(ctx context.Context, s *source, e *renew.Engine[string]) {
			s.set(func(s *source) { s.delay = time.Second })
			go func() { _, _ = e.Reject(ctx, 1) }()
			synctest.Wait()
		}},
		"does not replace what was put": {answer: "late", want: "put", meanwhile: func(_ context.Context, _ *source, e *renew.Engine[string]) {
			_, _ = e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{value: "old", life: 100 * time.Second}
				e := s.engine(t, func(c *renew.Config[string]) { c.Timeout = 5 * time.Second })
				get(t, e)
				advance(90 * time.Second)
				release := make(chan struct{})
				s.set(func(s *source) {
					s.fetch = func(context.Context, int) (renew.Grant[string], error) { // ignores its context
						<-release
						return renew.Grant[string]{Value: c.answer}, c.err
					}
				})
				get(t, e)
				advance(8 * time.Second)
				s.set(func(s *source) { s.fetch, s.value = nil, "new" })
				c.meanwhile(t.Context(), s, e)
				close(release)
				advance(time.Second)
				synctest.Wait()
				l := e.Current()
				if c.want == "" {
					assert.Nil(t, l)
				} else if assert.NotNil(t, l) {
					assert.Equal(t, c.want, l.Value)
				}
			})
		})
	}
}

func TestLessThanTwoSecondsAreNoSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			issuer := time.Now().Add(-1999 * time.Millisecond)
			return renew.Grant[string]{Value: "v", Issued: issuer, Expires: time.Now().Add(time.Minute)}, nil
		}
		e := s.engine(t)
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		assert.Zero(t, e.Status().Skew)
		assert.Equal(t, time.Minute, time.Until(l.Expires))
	})
}

func TestHerdThatReportsTheSameVainRenewalCountsAsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		get(t, e)
		for range 50 {
			e.Vain(1)
		}
		assert.True(t, e.Held(1))
		advance(time.Second)
		assert.False(t, e.Held(1))
		e.Vain(1)
		advance(999 * time.Millisecond)
		assert.True(t, e.Held(1), "the next pause is twice as long")
		advance(1001 * time.Millisecond)
		l, err := e.Reject(t.Context(), 1)
		require.NoError(t, err)
		assert.Equal(t, uint64(2), l.Generation)

		e.Mended(2)
		e.Vain(2)
		advance(time.Second)
		assert.False(t, e.Held(2), "a renewal that helped has the pauses begin anew")
	})
}

func TestVainMendedAndLiftConcernTheirGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		e.Vain(1)
		e.Lift(1)
		assert.False(t, e.Held(1), "there is nothing yet")
		get(t, e)
		_, err := e.Renew(t.Context())
		require.NoError(t, err)

		e.Vain(1)
		assert.False(t, e.Held(2), "the report is late")
		e.Vain(2)
		assert.True(t, e.Held(2))
		assert.False(t, e.Held(1))
		e.Lift(1)
		assert.True(t, e.Held(2))
		e.Mended(2)
		assert.True(t, e.Held(2), "what was in vain is no proof to the contrary")
		e.Lift(2)
		assert.False(t, e.Held(2))
		s.set(func(s *source) { s.delay = time.Millisecond })
		go func() { _, _ = e.Reject(t.Context(), 2) }()
		synctest.Wait()
		e.Vain(2)
		advance(time.Millisecond)
		require.Equal(t, "v3", get(t, e))
		assert.False(t, e.Held(3), "the renewal was under way already")
		e.Vain(3)
		_, err = e.Renew(t.Context())
		require.NoError(t, err)
		e.Vain(4)
		advance(1999 * time.Millisecond)
		assert.True(t, e.Held(4), "another one in vain doubles the pause")
	})
}

func TestReasonsHaveNames(t *testing.T) {
	t.Parallel()
	for r := renew.First; r <= renew.Adopted; r++ {
		assert.NotEqual(t, "unknown", r.String())
	}
	assert.Equal(t, "unknown", renew.Reason(0).String())
	assert.Equal(t, "unknown", (renew.Adopted + 1).String())
	assert.Equal(t, "unknown", renew.Reason(255).String())
}

func TestReasonOfTheGrantReplacesTheFetchs(t *testing.T) {
	t.Parallel()
	s := &source{}
	s.fetch = func(context.Context, int) (renew.Grant[string], error) {
		return renew.Grant[string]{Value: "v", Reason: renew.Adopted}, nil
	}
	l, err := s.engine(t).Get(t.Context())
	require.NoError(t, err)
	assert.Equal(t, renew.Adopted, l.Reason)
}

func TestEventsSayWhatHappened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "a", delay: 2 * time.Second}
		var seen []renew.Event[string]
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Observe = func(ev renew.Event[string]) { seen = append(seen, ev) }
		})
		get(t, e)
		s.set(func(s *source) { s.err = errDown })
		_, err := e.Renew(t.Context())
		require.Error(t, err)
		s.set(func(s *source) { s.err = nil })
		advance(time.Until(e.Status().RetryAt))
		_, err = e.Reject(t.Context(), 1)
		require.NoError(t, err)
		s.set(func(s *source) { s.value = "b" })
		_, err = e.Renew(t.Context())
		require.NoError(t, err)

		require.Len(t, seen, 5)
		of := func(l *renew.Lease[string]) string {
			if l == nil {
				return ""
			}
			return l.Value
		}
		for i, want := range []struct {
			kind        renew.Kind
			reason      renew.Reason
			lease, prev string
			took        time.Duration
			err         error
		}{
			{kind: renew.Renewed, reason: renew.First, lease: "a", took: 2 * time.Second},
			{kind: renew.Failed, reason: renew.Manual, lease: "a", prev: "a", took: 2 * time.Second, err: errDown},
			{kind: renew.Refused, reason: renew.Rejected, prev: "a"},
			{kind: renew.Confirmed, reason: renew.Rejected, lease: "a", prev: "a", took: 2 * time.Second},
			{kind: renew.Renewed, reason: renew.Manual, lease: "b", prev: "a", took: 2 * time.Second},
		} {
			ev := seen[i]
			assert.Equal(t, want.kind, ev.Kind, i)
			assert.Equal(t, want.reason, ev.Reason, i)
			assert.Equal(t, want.lease, of(ev.Lease), i)
			assert.Equal(t, want.prev, of(ev.Prev), i)
			assert.Equal(t, want.took, ev.Took, i)
			assert.Equal(t, want.err, ev.Err, i)
			assert.Equal(t, want.err != nil, !ev.RetryAt.IsZero(), i)
		}
	})
}

func TestFixedLeaseIsAlwaysFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := renew.Fixed("v")
		assert.Equal(t, "v", l.Value)
		assert.Equal(t, uint64(1), l.Generation)
		assert.Equal(t, renew.First, l.Reason)
		assert.Equal(t, time.Now(), l.Obtained)
		assert.Zero(t, l.Expires)
	})
}
