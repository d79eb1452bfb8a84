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

const wait = 10 * time.Second

func waiting(c *renew.Config[string]) { c.Wait = wait }

func TestReadersWaitOutAFailure(t *testing.T) {
	t.Parallel()
	for name, demand := range map[string]func(context.Context, *source, *renew.Engine[string]) (*renew.Generation[string], error){
		"of the first fetch": func(ctx context.Context, _ *source, e *renew.Engine[string]) (*renew.Generation[string], error) {
			return e.Get(ctx)
		},
		"after a rejection": func(ctx context.Context, s *source, e *renew.Engine[string]) (*renew.Generation[string], error) {
			s.set(func(s *source) { s.err = nil })
			if _, err := e.Get(ctx); err != nil {
				return nil, err
			}
			s.set(func(s *source) { s.err = errDown })
			return e.Reject(ctx, 1, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{err: errDown}
				e := s.engine(t, waiting)
				began := time.Now()
				time.AfterFunc(2*time.Second, func() { s.set(func(s *source) { s.err = nil }) })
				l, err := demand(t.Context(), s, e)
				require.NoError(t, err)
				assert.NotEmpty(t, l.Value)
				assert.GreaterOrEqual(t, time.Since(began), 2*time.Second)
				assert.LessOrEqual(t, time.Since(began), 4*time.Second, "within one step of the recovery")
			})
		})
	}
}

func TestWaitingReadersCauseOneAttemptPerStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts []time.Duration
		began := time.Now()
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			attempts = append(attempts, time.Since(began))
			// After 3 s the next attempt is at 7 s at the latest, whatever the jitter.
			// Readers wait for 10 s.
			if time.Since(began) < 3*time.Second {
				return renew.Grant[string]{}, errDown
			}
			return renew.Grant[string]{Value: "new"}, nil
		}
		e := s.engine(t, waiting)
		for _, err := range herd(100, func(i int) error {
			advance(time.Duration(i) * 20 * time.Millisecond) // some join between attempts
			_, err := e.Get(t.Context())
			return err
		}) {
			require.NoError(t, err)
		}
		step := 250 * time.Millisecond
		for i := 1; i < len(attempts); i++ {
			pause := attempts[i] - attempts[i-1]
			assert.GreaterOrEqual(t, pause, step/2, "attempt %d", i)
			assert.LessOrEqual(t, pause, step+time.Millisecond, "attempt %d", i)
			step *= 2
		}
		assert.LessOrEqual(t, len(attempts), 7)
	})
}

// TestReadersFailAtOnce has each reason not to wait for the next attempt.
func TestReadersFailAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config  func(*renew.Config[string])
		before  time.Duration // the source has been failing for that long
		timeout time.Duration // of the reader's context; 0 for none
		within  time.Duration // when the reader fails, at the latest
	}{
		"without waiting":                      {config: func(c *renew.Config[string]) { c.Wait = 0 }},
		"negative wait":                        {config: func(c *renew.Config[string]) { c.Wait = -1 }},
		"permanent failure":                    {config: func(c *renew.Config[string]) { c.Permanent = func(error) bool { return true } }},
		"source that has failed for too long":  {before: wait},
		"next attempt after the wait":          {config: pausing(wait + time.Second)},
		"next attempt after the deadline":      {config: pausing(time.Second), timeout: 500 * time.Millisecond},
		"next attempt long after the deadline": {config: pausing(time.Hour), timeout: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{err: errDown}
				e := s.engine(t, waiting, func(cfg *renew.Config[string]) {
					if c.config != nil {
						c.config(cfg)
					}
				})
				if c.before > 0 {
					_, err := e.Get(t.Context())
					require.ErrorIs(t, err, errDown)
					advance(c.before)
				}
				ctx := t.Context()
				if c.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.timeout)
					defer cancel()
				}
				fetches := s.count()
				for range 10 {
					began := time.Now()
					_, err := e.Get(ctx)
					f, ok := errors.AsType[*renew.SourceError](err)
					require.True(t, ok, "%v", err)
					assert.Zero(t, time.Since(began))
					assert.True(t, f.RetryAt.After(time.Now()))
				}
				assert.LessOrEqual(t, s.count(), fetches+1)
			})
		})
	}
}

// pausing is a source that asks for a pause.
func pausing(d time.Duration) func(*renew.Config[string]) {
	return func(c *renew.Config[string]) {
		c.RetryAt = func(error) time.Time { return time.Now().Add(d) }
	}
}

func TestReadersFailAfterTheWait(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"source that fails": 0, "source that hangs": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{err: errDown}
				e := s.engine(t, waiting)
				began := time.Now()
				time.AfterFunc(time.Second, func() { s.set(func(s *source) { s.delay = delay }) })
				_, err := e.Get(t.Context())
				f, ok := errors.AsType[*renew.SourceError](err)
				require.True(t, ok, "%v", err)
				require.ErrorIs(t, err, errDown)
				assert.Positive(t, f.Failures)
				assert.LessOrEqual(t, time.Since(began), wait)
				assert.Greater(t, time.Since(began), wait/4)
			})
		})
	}
}

func TestWaitingReaderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("canceled")
	for name, delay := range map[string]time.Duration{"between attempts": 0, "during an attempt": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{err: errDown}
				e := s.engine(t, waiting)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Millisecond, func() { s.set(func(s *source) { s.delay = delay }) })
				time.AfterFunc(740*time.Millisecond, func() { cancel(cause) })
				began := time.Now()
				_, err := e.Get(ctx)
				require.ErrorIs(t, err, cause)
				assert.Equal(t, 740*time.Millisecond, time.Since(began))
			})
		})
	}
}

func TestShortDeadlineIsRespectedWhileOthersWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, waiting)
		done := make(chan error, 1)
		go func() { _, err := e.Get(t.Context()); done <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := e.Get(ctx)
		require.Error(t, err)
		assert.LessOrEqual(t, time.Since(began), 10*time.Millisecond)
		s.set(func(s *source) { s.err = nil })
		require.NoError(t, <-done)
	})
}

func TestWaitingReadersGetPutValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, waiting)
		done := make(chan *renew.Generation[string], 1)
		go func() {
			l, err := e.Get(t.Context())
			assert.NoError(t, err)
			done <- l
		}()
		advance(time.Second)
		synctest.Wait()
		began := time.Now()
		_, err := e.Put(renew.Grant[string]{Value: "put"}, renew.Adopted)
		require.NoError(t, err)
		assert.Equal(t, "put", (<-done).Value)
		assert.Zero(t, time.Since(began))
	})
}

func TestCloseEndsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, waiting)
		done := make(chan error, 1)
		go func() { _, err := e.Get(t.Context()); done <- err }()
		advance(time.Second)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, e.Close())
		require.ErrorIs(t, <-done, renew.ErrClosed)
		assert.Zero(t, time.Since(began))
	})
}

// Renew reports the outcome of one attempt: the caller decides whether to wait.
func TestRenewDoesNotWaitForFurtherAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, waiting)
		began := time.Now()
		_, err := e.Renew(t.Context())
		require.ErrorIs(t, err, errDown)
		assert.Zero(t, time.Since(began))
	})
}

func TestDoubtedValueIsServed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(*source)
		want    string // for the reader that reported the doubt
		later   string
	}{
		"until there is another one": {func(s *source) { s.delay = time.Second }, "v2", "v2"},
		"if the attempt fails":       {func(s *source) { s.delay, s.err = time.Second, errDown }, "v1", "v1"},
		"if the source insists":      {func(s *source) { s.delay, s.value = time.Second, "v1" }, "v1", "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				e := s.engine(t, waiting)
				get(t, e)
				s.set(c.prepare)
				done := make(chan *renew.Generation[string], 1)
				go func() {
					l, err := e.Reject(t.Context(), 1, false)
					assert.NoError(t, err)
					done <- l
				}()
				synctest.Wait()
				began := time.Now()
				assert.Equal(t, "v1", get(t, e), "other readers do not wait")
				assert.Zero(t, time.Since(began))
				require.NotNil(t, e.Current())
				assert.Equal(t, c.want, (<-done).Value)
				assert.Equal(t, time.Second, time.Since(began), "one attempt")
				assert.Equal(t, c.later, get(t, e))
				assert.Equal(t, 2, s.count())
				assert.False(t, s.queries[1].Proven)
				assert.True(t, s.queries[1].HasRejected)
			})
		})
	}
}

func TestDeadDoubtedValueIsNotServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t)
		get(t, e)
		s.set(func(s *source) { s.err = errDown })
		l, err := e.Reject(t.Context(), 1, false)
		require.NoError(t, err)
		require.Equal(t, "v1", l.Value)
		_, err = e.Reject(t.Context(), 1, true)
		require.ErrorIs(t, err, errDown)
		assert.Nil(t, e.Current())
	})
}

func TestDoubtDuringTheBackoffCausesNoAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t, waiting)
		get(t, e)
		s.set(func(s *source) { s.err = errDown })
		for range 50 {
			l, err := e.Reject(t.Context(), 1, false)
			require.NoError(t, err)
			require.Equal(t, "v1", l.Value)
		}
		assert.Equal(t, 2, s.count())
	})
}

func TestCanceledDoubtEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t, waiting)
		get(t, e)
		s.set(func(s *source) { s.delay = time.Minute })
		cause := errors.New("canceled")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		_, err := e.Reject(ctx, 1, false)
		require.ErrorIs(t, err, cause)
		assert.Equal(t, "v1", get(t, e))
	})
}

func TestFallBackServesTheValueBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "good"}
		var reasons []renew.Reason
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Observe = func(ev renew.Event[string]) { reasons = append(reasons, ev.Reason) }
		})
		get(t, e)
		_, ok := e.FallBack(1)
		require.False(t, ok, "there is no value before the first one")
		s.set(func(s *source) { s.value = "half" })
		_, err := e.Renew(t.Context())
		require.NoError(t, err)
		_, err = e.Reject(t.Context(), 2, true)
		require.NoError(t, err)

		_, ok = e.FallBack(1)
		require.False(t, ok, "a late report has no effect")
		l, ok := e.FallBack(2)
		require.True(t, ok)
		assert.Equal(t, "good", l.Value)
		assert.Equal(t, renew.Restored, reasons[len(reasons)-1])
		assert.Equal(t, "good", get(t, e))

		_, err = e.Renew(t.Context()) // the source still has it
		require.NoError(t, err)
		assert.Equal(t, "good", get(t, e), "the dead value is not taken again")

		s.set(func(s *source) { s.value = "corrected" })
		_, err = e.Renew(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "corrected", get(t, e))
	})
}

func TestFallBackNeverServes(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*testing.T, *source, *renew.Engine[string]){
		"a rejected value": func(t *testing.T, _ *source, e *renew.Engine[string]) {
			t.Helper()
			_, err := e.Reject(t.Context(), 1, true)
			require.NoError(t, err)
		},
		"a doubted value": func(t *testing.T, _ *source, e *renew.Engine[string]) {
			t.Helper()
			_, err := e.Reject(t.Context(), 1, false)
			require.NoError(t, err)
		},
		"an expired value": func(t *testing.T, _ *source, e *renew.Engine[string]) {
			t.Helper()
			_, err := e.Renew(t.Context())
			require.NoError(t, err)
			advance(time.Hour)
		},
		"after Close": func(t *testing.T, _ *source, e *renew.Engine[string]) {
			t.Helper()
			_, err := e.Renew(t.Context())
			require.NoError(t, err)
			require.NoError(t, e.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{life: time.Hour}
				e := s.engine(t)
				get(t, e)
				prepare(t, s, e)
				_, ok := e.FallBack(2)
				assert.False(t, ok)
			})
		})
	}
}

// An attempt that succeeds at the moment at which a reader is canceled serves that
// reader.
func TestReaderWaitEndingWithOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, func(c *renew.Config[string]) { c.Wait = 10 * time.Second })
		_, err := e.Renew(t.Context())
		require.Error(t, err)
		// The next attempt takes until the end of the wait, and succeeds.
		began := time.Now()
		s.set(func(s *source) {
			s.fetch = func(context.Context, int) (renew.Grant[string], error) {
				advance(time.Until(began.Add(10 * time.Second)))
				return renew.Grant[string]{Value: "v"}, nil
			}
		})
		for _, err := range herd(50, func(int) error {
			_, err := e.Get(t.Context())
			return err
		}) {
			if err != nil {
				require.ErrorIs(t, err, errDown)
			}
		}
		synctest.Wait() // the attempt ends at the same moment
		assert.Equal(t, "v", get(t, e))
	})
}

func TestFallBackKeepsThePauseOfTheSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := s.engine(t, func(c *renew.Config[string]) {
			c.Costly = true
			c.RetryAt = func(error) time.Time { return time.Now().Add(time.Minute) }
		})
		require.Equal(t, "v1", get(t, e))
		_, err := e.Renew(t.Context())
		require.NoError(t, err)
		s.set(func(s *source) { s.err = errDown })
		_, err = e.Reject(t.Context(), 2, true)
		require.Error(t, err)
		l, ok := e.FallBack(2)
		require.True(t, ok)
		require.Equal(t, "v1", l.Value)
		_, err = e.Reject(t.Context(), l.Number, true)
		require.ErrorIs(t, err, errDown, "the source has asked for a pause")
		assert.Equal(t, 3, s.count())
	})
}
