package renew_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/renew"
)

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
		assert.Equal(t, 20*time.Millisecond, time.Since(began), "readers do not queue behind another reader's failure")
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
		assert.GreaterOrEqual(t, wait, 125*time.Millisecond)
		assert.LessOrEqual(t, wait, 250*time.Millisecond)

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
		for i, millis := range []int{250, 500, 1000, 2000, 4000, 8000, 10000, 10000} {
			top := time.Duration(millis) * time.Millisecond
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
			require.Error(t, err, "a renewal on demand fails, too")
			advance(time.Second)
		}
		assert.Equal(t, 1, s.count())
		advance(time.Second)
		_, _ = e.Get(t.Context())
		assert.Equal(t, 2, s.count())
	})
}

func TestFetchHasSeparateTimeout(t *testing.T) {
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

func TestFailedRenewalKeepsValueUntilExpiry(t *testing.T) {
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

func TestOutageAcrossExpiryFailsFastAndRecovers(t *testing.T) {
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
		assert.Equal(t, uint64(2), l.Number)
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

func TestFailedRenewOnDemandKeepsReadersServed(t *testing.T) {
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

func TestDoublingStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 35: time.Minute, 1000: time.Minute,
	} {
		assert.Equal(t, want, renew.Doubled(time.Second, time.Minute, n), n)
	}
}

func TestBackoffResetsAfterSuccess(t *testing.T) {
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
				_, err := e.Reject(t.Context(), 1, true)
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
				assert.LessOrEqual(t, time.Until(e.Status().RetryAt), 250*time.Millisecond)
			})
		})
	}
}

func TestSourceWithoutRetryTimeUsesBackoff(t *testing.T) {
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

func TestRenewOnDemandRespectsOnlySourcePause(t *testing.T) {
	t.Parallel()
	for name, retryAt := range map[string]func(error) time.Time{
		"of which there is none":   nil,
		"which asks for none":      func(error) time.Time { return time.Time{} },
		"which has already ended":  func(error) time.Time { return time.Now() },
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
