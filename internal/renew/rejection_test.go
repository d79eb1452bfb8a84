package renew_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/renew"
)

func TestNoServingPastARejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: time.Hour}
		e := s.engine(t)
		l, err := e.Get(t.Context())
		require.NoError(t, err)
		s.set(func(s *source) { s.err = errDown })
		_, err = e.Reject(t.Context(), l.Number, true)
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
			next, err := e.Reject(t.Context(), l.Number, true)
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
		go func() { _, _ = e.Reject(t.Context(), 1, true) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := e.Get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "cancellably")
		assert.Equal(t, "v2", get(t, e))
	})
}

func TestFetchBegunBeforeRejectionIsDiscarded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second, value: "old"}
		e := s.engine(t)
		require.Equal(t, "old", get(t, e))
		advance(90 * time.Second)
		// A renewal ahead is under way, and will respond with the old value.
		s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
			advance(time.Second)
			if n == 2 {
				return renew.Grant[string]{Value: "old", Expires: time.Now().Add(time.Hour)}, nil
			}
			return renew.Grant[string]{Value: "new"}, nil
		}
		require.Equal(t, "old", get(t, e))
		synctest.Wait()
		l, err := e.Reject(t.Context(), 1, true)
		require.NoError(t, err)
		assert.Equal(t, "new", l.Value)
		assert.Equal(t, 3, s.count())
		assert.Equal(t, renew.Query[string]{
			Reason: renew.Rejected, Rejected: "old", HasRejected: true, Proven: true, Current: "old", HasCurrent: true,
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
				l, err := e.Reject(ctx, 1, true)
				require.NoError(t, err)
				assert.Equal(t, c.want, l.Value)
				assert.Equal(t, 1+len(c.answers), s.count())
			})
		})
	}
}

func TestInsistingSourceIsAskedAfterPause(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ proven, costly, held bool }{
		"doubted":                  {held: true},
		"doubted, costly":          {costly: true, held: true},
		"dead, costly":             {proven: true, costly: true, held: true},
		"dead, asking is for free": {proven: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const reports = 20
				s := &source{value: "same"}
				var kinds []renew.Kind
				e := s.engine(t, func(cfg *renew.Config[string]) {
					cfg.Costly = c.costly
					cfg.Observe = func(ev renew.Event[string]) { kinds = append(kinds, ev.Kind) }
				})
				require.Equal(t, "same", get(t, e))
				for range reports {
					l, err := e.Reject(t.Context(), 1, c.proven)
					require.NoError(t, err)
					require.Equal(t, uint64(1), l.Number)
					require.Equal(t, "same", get(t, e), "other readers continue to use it")
				}
				if c.held {
					assert.Equal(t, 2, s.count())
					assert.Equal(t, []renew.Kind{renew.Renewed, renew.Refused, renew.Confirmed}, kinds)
				} else {
					assert.Equal(t, 1+reports, s.count())
				}
				advance(2 * time.Second)
				s.set(func(s *source) { s.value = "new" })
				l, err := e.Reject(t.Context(), 1, c.proven)
				require.NoError(t, err)
				assert.Equal(t, "new", l.Value)
			})
		})
	}
}

// A source that continues to insist is asked at intervals that double.
func TestInsistingSourceIsAskedLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "same"}
		e := s.engine(t, func(cfg *renew.Config[string]) { cfg.Costly = true })
		get(t, e)
		for range 600 { // a minute
			_, err := e.Reject(t.Context(), 1, true)
			require.NoError(t, err)
			advance(100 * time.Millisecond)
		}
		assert.LessOrEqual(t, s.count(), 12)
		assert.GreaterOrEqual(t, s.count(), 6)
	})
}

// The pause after failed renewals ahead does not delay the successor of a dead value by more
// than the first step.
func TestDeadValueOfFailingSourceIsReplacedSoon(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		proven bool
		want   string
		took   time.Duration
	}{"dead": {true, "v8", 150 * time.Millisecond}, "doubted": {false, "v1", 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				e := s.engine(t, func(cfg *renew.Config[string]) { cfg.Costly, cfg.Wait = true, 10*time.Second })
				get(t, e)
				s.set(func(s *source) { s.err = errDown })
				for range 6 {
					_, err := e.Renew(t.Context())
					require.Error(t, err)
				}
				pause := time.Until(e.Status().RetryAt)
				require.Greater(t, pause, 2*time.Second)
				advance(100 * time.Millisecond)
				s.set(func(s *source) { s.err = nil })
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				l, err := e.Reject(ctx, 1, c.proven)
				require.NoError(t, err)
				assert.Equal(t, c.want, l.Value)
				assert.Equal(t, c.took, time.Since(began))
			})
		})
	}
}

func TestSourceGetsRejectedValueUntilReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t, func(c *renew.Config[string]) { c.Window = -1 })
		get(t, e)
		advance(100 * time.Second)
		get(t, e)
		s.set(func(s *source) { s.err = errDown })
		_, err := e.Reject(t.Context(), 2, true)
		require.Error(t, err)
		advance(time.Until(e.Status().RetryAt))
		s.set(func(s *source) { s.err = nil })
		require.Equal(t, "v4", get(t, e))
		_, err = e.Renew(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []renew.Query[string]{
			{Reason: renew.First},
			{Reason: renew.Expired, Current: "v1", HasCurrent: true},
			{Reason: renew.Rejected, Current: "v2", HasCurrent: true, Rejected: "v2", HasRejected: true, Proven: true},
			{Reason: renew.Rejected, Current: "v2", HasCurrent: true, Rejected: "v2", HasRejected: true, Proven: true},
			{Reason: renew.Manual, Current: "v4", HasCurrent: true},
		}, s.queries)
	})
}

func TestRejectionBeforeAnythingWasFetchedFetches(t *testing.T) {
	t.Parallel()
	s := &source{}
	l, err := s.engine(t).Reject(t.Context(), 1, true)
	require.NoError(t, err)
	assert.Equal(t, "v1", l.Value)
}

// The pause after a failure is for fetches without waiting readers, unless the source
// has asked for it.
func TestRejectionAsksAtOnceExceptDuringSourcePause(t *testing.T) {
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
					_, err = e.Reject(t.Context(), 1, true)
					f, ok := errors.AsType[*renew.SourceError](err)
					require.True(t, ok)
					assert.True(t, f.Rejected)
				}
				assert.Equal(t, tc.fetches, s.count(), "and then there is a pause for all")
			})
		})
	}
}

func TestPutAndRejectDuringFetchKeepFetchResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second}
		e := s.engine(t)
		go func() { _, _ = e.Get(t.Context()) }()
		synctest.Wait()
		l, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
		require.NoError(t, err)
		l, err = e.Reject(t.Context(), l.Number, true)
		require.NoError(t, err)
		require.NotNil(t, l)
		assert.Equal(t, "v1", l.Value)
		assert.Equal(t, 1, s.count())
	})
}

// TestLateAnswer lets a renewal overrun its timeout, and respond after what has
// happened since.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	refused := func(ctx context.Context, s *source, e *renew.Engine[string]) {
		s.set(func(s *source) { s.err = errDown })
		_, _ = e.Reject(ctx, 1, true)
	}
	for name, c := range map[string]struct {
		answer    string
		err       error
		meanwhile func(context.Context, *source, *renew.Engine[string])
		want      string // in use after the response; "" means nothing
	}{
		"replaces a rejected value": {answer: "late", meanwhile: refused, want: "late"},
		"replaces an expired value": {answer: "late", want: "late", meanwhile: func(_ context.Context, s *source, _ *renew.Engine[string]) {
			s.set(func(s *source) { s.err = errDown })
			advance(10 * time.Second)
		}},
		"cannot bring a rejected value back": {answer: "old", meanwhile: refused},
		"is not taken when it is an error":   {err: errDown, meanwhile: refused},
		"does not replace a newer value": {answer: "late", want: "new", meanwhile: func(ctx context.Context, _ *source, e *renew.Engine[string]) {
			_, _ = e.Reject(ctx, 1, true)
		}},
		"does not precede a fetch on its way": {answer: "late", want: "new", meanwhile: func(ctx context.Context, s *source, e *renew.Engine[string]) {
			s.set(func(s *source) { s.delay = time.Second })
			go func() { _, _ = e.Reject(ctx, 1, true) }()
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
