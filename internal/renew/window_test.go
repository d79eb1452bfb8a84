package renew_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/renew"
)

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
		assert.Zero(t, time.Since(began), "readers do not wait in the window")
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

func TestPastExpiryKeepsValue(t *testing.T) {
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

func TestSourceWithoutSuccessorIsNotAskedInLoop(t *testing.T) {
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

func TestRecheckKeepsGeneration(t *testing.T) {
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
		assert.Equal(t, l.Number, e.Current().Number)
		value = "b"
		advance(11 * time.Second)
		require.Equal(t, "a", get(t, e), "the last valid value is served until then")
		synctest.Wait()
		require.Equal(t, "b", get(t, e))
		assert.Equal(t, l.Number+1, e.Current().Number)
	})
}

func TestRenewOnDemandReplacesExpiredValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
			if s.queries[n-1].Reason == renew.Manual {
				return renew.Grant[string]{Value: "a", Expires: time.Now().Add(time.Hour)}, nil
			}
			return renew.Grant[string]{Value: string(rune('a' + n/2)), Expires: time.Now().Add(time.Hour)}, nil
		}
		e := s.engine(t, func(c *renew.Config[string]) { c.Window = -1 })
		require.Equal(t, "a", get(t, e))
		l, err := e.Renew(t.Context())
		require.NoError(t, err)
		require.Equal(t, "a", l.Value, "it lives, and the source may have no other")
		advance(time.Hour)
		l, err = e.Renew(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "c", l.Value)
		assert.Equal(t, renew.Expired, s.queries[len(s.queries)-1].Reason)
	})
}

func TestRechecksKeepRenewalWindow(t *testing.T) {
	t.Parallel()
	for _, recheck := range []time.Duration{time.Second, 10 * time.Second, 7 * time.Minute} {
		t.Run(recheck.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const life = 2 * time.Hour
				began := time.Now()
				end, early, looks := began.Add(life), time.Time{}, 0
				e := renew.New(renew.Config[string]{
					Same: func(a, b string) bool { return a == b }, Proactive: true, Jitter: func() float64 { return 0.5 },
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
				for time.Since(began) < life*8/10 {
					require.Equal(t, "a", get(t, e))
					advance(recheck)
				}
				synctest.Wait()
				assert.Equal(t, life*8/10, early.Sub(began), "renewed when the window of the whole life begins")
				assert.InDelta(t, int(life*8/10/recheck), looks, 1)
			})
		})
	}
}

// TestRecheckWithoutReaders lets an hour pass in which there are no readers.
func TestRecheckWithoutReaders(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		life    time.Duration
		err     error // of the rechecks
		fetches int   // in the hour
	}{
		"no expiry":                     {},
		"expiry":                        {life: 50 * time.Minute, fetches: 1},
		"no expiry, failing recheck":    {err: errDown},
		"expiry, after failing recheck": {life: 50 * time.Minute, err: errDown, fetches: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
					g := renew.Grant[string]{Value: strconv.Itoa(n), Recheck: time.Second}
					if tc.life > 0 {
						g.Expires = time.Now().Add(tc.life)
					}
					q := s.queries[n-1]
					if q.Reason == renew.Recheck {
						g.Value = q.Current
						return g, tc.err
					}
					return g, nil
				}
				e := s.engine(t, func(c *renew.Config[string]) { c.Proactive = true })
				get(t, e)
				advance(2 * time.Second)
				get(t, e) // is rechecked
				synctest.Wait()
				require.Equal(t, 2, s.count())
				advance(time.Hour)
				synctest.Wait()
				assert.Equal(t, tc.fetches, s.count()-2)
				require.NotNil(t, e.Current())
				n := s.count()
				get(t, e)
				synctest.Wait()
				assert.Equal(t, 1, s.count()-n, "the next reader has the source asked")
			})
		})
	}
}

func TestRefusedValueIsReplacedAfterFailedRecheck(t *testing.T) {
	t.Parallel()
	for name, proven := range map[string]bool{"doubted": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				s.fetch = func(_ context.Context, n int) (renew.Grant[string], error) {
					if n > 1 && n < 5 {
						return renew.Grant[string]{}, errDown
					}
					return renew.Grant[string]{Value: strconv.Itoa(n), Recheck: time.Second}, nil
				}
				e := s.engine(t, func(c *renew.Config[string]) { c.Proactive, c.Costly = true, true })
				require.Equal(t, "1", get(t, e))
				advance(2 * time.Second)
				get(t, e)
				synctest.Wait()
				require.Equal(t, 2, s.count())
				_, _ = e.Reject(t.Context(), 1, proven)
				advance(time.Minute)
				synctest.Wait()
				require.NotNil(t, e.Current())
				assert.Equal(t, "5", e.Current().Value)
			})
		})
	}
}

func TestMovedExpiryHasNewWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour)
		s := &source{}
		s.fetch = func(context.Context, int) (renew.Grant[string], error) {
			return renew.Grant[string]{Value: "a", Expires: end}, nil
		}
		e := s.engine(t, func(c *renew.Config[string]) { c.Jitter = func() float64 { return 0.5 } })
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

func TestNegativeWindowDisablesEarlyRenewal(t *testing.T) {
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
			e := s.engine(t, func(c *renew.Config[string]) { c.Window, c.Jitter = window, func() float64 { return 0.5 } })
			l, err := e.Get(t.Context())
			require.NoError(t, err)
			assert.Equal(t, want, l.Expires.Sub(l.RenewAt))
		}
	})
}

func TestFailedRenewalAfterExpiryFailsReaders(t *testing.T) {
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

func TestPostponedExpiryServesReadersOfFailedFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{life: 100 * time.Second}
		e := s.engine(t)
		get(t, e)
		advance(100 * time.Second)
		s.set(func(s *source) { s.delay, s.err = time.Second, errDown })
		served := make(chan *renew.Generation[string], 1)
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

func TestSmallClockDifferenceIsNotSkew(t *testing.T) {
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
