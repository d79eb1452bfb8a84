package record

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two observers whose clocks differ by a day, and who see the record at different
// times, agree about a lease: only what they measure themselves counts.
func TestObserversWithDifferentClocksAgree(t *testing.T) {
	t.Parallel()
	m := newMemory()
	a, b := &clock{}, &clock{now: 24 * time.Hour}
	var holder clock
	pass := func(d time.Duration) { a.advance(d); b.advance(d); holder.advance(d) }
	of := Identity{}
	hs, as, bs := slotOf(m, holder.read, of), slotOf(m, a.read, of), slotOf(m, b.read, of)
	held, err := hs.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	left := func() (time.Duration, time.Duration) { return as.Left(mustLoad(t, as)), bs.Left(mustLoad(t, bs)) }
	check := func(want time.Duration) {
		t.Helper()
		x, y := left()
		assert.Equal(t, want, x)
		assert.Equal(t, want, y)
	}
	check(3 * time.Second)
	pass(2 * time.Second)
	check(time.Second)
	require.NoError(t, held.Extend(t.Context()))
	check(3 * time.Second)
	pass(2999 * time.Millisecond)
	check(time.Millisecond)
	pass(time.Millisecond)
	check(0)

	taken, err := bs.Acquire(t.Context(), mustLoad(t, bs), mustLoad(t, bs).Body, terms("b"))
	require.NoError(t, err)
	require.ErrorIs(t, held.Extend(t.Context()), ErrLeaseLost)
	require.ErrorIs(t, held.Check(t.Context()), ErrLeaseLost)
	assert.Equal(t, 3*time.Second, as.Left(mustLoad(t, as)), "the first observer respects the lease that the second wrote")
	require.NoError(t, taken.Release(t.Context(), taken.Entry().Body))
	assert.Zero(t, as.Left(mustLoad(t, as)))
}

func TestTimeWithoutTheStoreDoesNotCount(t *testing.T) {
	t.Parallel()
	m := newMemory()
	var c clock
	s := slotOf(m, c.read, Identity{})
	_, err := slotOf(m, nil, Identity{}).Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	mustLoad(t, s)
	c.advance(time.Second)
	e := mustLoad(t, s)
	require.Equal(t, 2*time.Second, s.Left(e))

	m.before = func(string, string) error { return errStore }
	for range 5 {
		c.advance(time.Hour)
		_, err = s.Load(t.Context())
		require.ErrorIs(t, err, errStore)
	}
	m.before = nil
	assert.Equal(t, 2*time.Second, s.Left(mustLoad(t, s)), "an unreachable store proves nothing")
	c.advance(2 * time.Second)
	assert.Zero(t, s.Left(mustLoad(t, s)))
}

func TestHolderMakesNoCallAfterLeaseEnd(t *testing.T) {
	t.Parallel()
	m := newMemory()
	var c clock
	held, err := slotOf(m, c.read, Identity{}).Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	m.before = func(string, string) error { return errStore }
	c.advance(2999 * time.Millisecond)
	require.NoError(t, held.Check(t.Context()))
	c.advance(time.Millisecond)
	require.ErrorIs(t, held.Check(t.Context()), errStore)
	m.before = nil
	require.NoError(t, held.Check(t.Context()), "it can be extended until another process takes it over")
}

// A lease counts from the moment when its write began.
func TestSlowWriteShortensTheLease(t *testing.T) {
	t.Parallel()
	m := newMemory()
	var c clock
	m.after = func(string, string) error { c.advance(900 * time.Millisecond); return nil }
	held, err := slotOf(m, c.read, Identity{}).Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	saves := m.saveCount()
	c.advance(2100 * time.Millisecond)
	require.NoError(t, held.Check(t.Context()))
	assert.Equal(t, saves+1, m.saveCount(), "the lease had to be extended")
}

func TestSlowStoreLengthensTheLease(t *testing.T) {
	t.Parallel()
	m := newMemory()
	var c clock
	s := slotOf(m, c.read, Identity{})
	mustSave(t, s, Entry[Key]{Body: keyOf(1)})
	m.after = func(string, string) error { c.advance(900 * time.Millisecond); return nil }
	e := mustLoad(t, s)
	p := terms("h")
	p.Patience = 4
	held, err := s.Acquire(t.Context(), e, e.Body, p)
	require.NoError(t, err)
	assert.Equal(t, 3600*time.Millisecond, held.Entry().Lease.Duration)
}

// Errors of a store may hide the holder's own writes, in any number.
func TestHolderRecognizesItsOwnWrites(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		failures int  // of operations in a row, beginning with a save that takes effect
		conflict bool // the save reports a conflict
	}{
		"the response is lost":                        {1, false},
		"a conflict is reported":                      {1, true},
		"the response and the load after it are lost": {2, false},
		"two saves and their loads are lost":          {4, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			s := slotOf(m, nil, Identity{})
			held, err := s.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
			require.NoError(t, err)
			left := tc.failures
			m.after = func(op, _ string) error {
				if left == 0 {
					return nil
				}
				left--
				if tc.conflict && op == "save" {
					return ErrConflict
				}
				return errStore
			}
			next := keyOf(2)
			for n := 0; ; n++ {
				err = held.Save(t.Context(), next)
				if err == nil || n == 3 {
					break
				}
				require.NotErrorIs(t, err, ErrLeaseLost)
			}
			require.NoError(t, err)
			assert.EqualValues(t, 2, mustLoad(t, s).Body.Generation)
			require.NoError(t, held.Release(t.Context(), next))
		})
	}
}

func TestHiddenReleaseIsNotALostLease(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := slotOf(m, nil, Identity{})
	held, err := s.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	left := 2
	m.after = func(string, string) error {
		if left == 0 {
			return nil
		}
		left--
		return errStore
	}
	require.ErrorIs(t, held.Release(t.Context(), keyOf(2)), errStore)
	require.NoError(t, held.Release(t.Context(), keyOf(2)))
	assert.Empty(t, mustLoad(t, s).Lease.Holder)
}

func TestStoppedHolderDoesNotOverwrite(t *testing.T) {
	t.Parallel()
	for name, finish := range map[string]bool{"the successor is at work": false, "the successor has finished": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			var c clock
			s := slotOf(m, c.read, Identity{})
			stopped, err := s.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("stopped"))
			require.NoError(t, err)
			other := slotOf(m, c.read, Identity{})
			mustLoad(t, other)
			c.advance(3 * time.Second)
			e := mustLoad(t, other)
			require.Zero(t, other.Left(e))
			next, err := other.Acquire(t.Context(), e, keyOf(5), terms("next"))
			require.NoError(t, err)
			if finish {
				require.NoError(t, next.Release(t.Context(), keyOf(5)))
			}
			for range 2 {
				require.ErrorIs(t, stopped.Save(t.Context(), keyOf(2)), ErrLeaseLost)
			}
			assert.EqualValues(t, 5, mustLoad(t, s).Body.Generation)
		})
	}
}

func TestDeletedRecordIsWrittenAgain(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := slotOf(m, nil, Identity{})
	held, err := s.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
	require.NoError(t, err)
	delete(m.inner.records, KeyName)
	require.NoError(t, held.Save(t.Context(), keyOf(2)))
	assert.EqualValues(t, 2, mustLoad(t, s).Body.Generation)
}

func TestOneOfManyAcquires(t *testing.T) {
	t.Parallel()
	m := newMemory()
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			s := slotOf(m, nil, Identity{})
			_, err := s.Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms(t.Name()))
			if err == nil {
				won.Add(1)
			} else {
				assert.ErrorIs(t, err, ErrConflict)
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, won.Load())
}

func TestKeepExtendsEverySecondUntilItStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		held, err := slotOf(m, nil, Identity{}).Acquire(t.Context(), Entry[Key]{}, keyOf(1), terms("h"))
		require.NoError(t, err)
		stop := held.Keep(t.Context())
		sleepFor(500 * time.Millisecond)
		assert.Equal(t, 1, m.saveCount())
		sleepFor(10 * time.Second)
		assert.Equal(t, 11, m.saveCount())
		stop()
		sleepFor(10 * time.Second)
		assert.Equal(t, 11, m.saveCount())
	})
}

func sleepFor(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestFollowSurvivesStoreFailure(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			m.watched = watched
			s := slotOf(m, nil, Identity{})
			var failing atomic.Bool
			m.before = func(op, _ string) error {
				if op != "save" && failing.Load() {
					return errStore
				}
				return nil
			}
			var mu sync.Mutex
			var seen []uint64
			missing, errs := 0, 0
			done := make(chan struct{})
			ctx, cancel := contextWithCancel(t)
			go func() {
				defer close(done)
				for e, err := range s.Follow(ctx) {
					mu.Lock()
					switch {
					case errors.Is(err, ErrNoRecord):
						missing++
					case err != nil:
						errs++
					case len(seen) == 0 || seen[len(seen)-1] != e.Body.Generation:
						seen = append(seen, e.Body.Generation)
					}
					mu.Unlock()
				}
			}()
			sleepFor(3 * time.Second)
			e := mustSave(t, slotOf(m, nil, Identity{}), Entry[Key]{Body: keyOf(1)})
			sleepFor(3 * time.Second)
			failing.Store(true)
			e.Body.Generation = 2
			mustSaveBlind(t, m, e)
			sleepFor(10 * time.Minute)
			failing.Store(false)
			sleepFor(2 * time.Minute)
			cancel()
			<-done
			assert.Equal(t, []uint64{1, 2}, seen)
			assert.Positive(t, missing)
			assert.Positive(t, errs)
			if watched {
				assert.Less(t, errs, 20, "the pauses grow")
			}
		})
	}
}

func TestAwaitReturnsWhenTheRecordChanges(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			m.watched = watched
			s := slotOf(m, nil, Identity{})
			e := mustSave(t, s, Entry[Key]{Body: keyOf(1)})
			began := time.Now()
			require.NoError(t, s.Await(t.Context(), e, 3*time.Second))
			assert.Equal(t, 3*time.Second, time.Since(began))
			go func() {
				sleepFor(time.Second)
				mustSave(t, slotOf(m, nil, Identity{}), e)
			}()
			began = time.Now()
			require.NoError(t, s.Await(t.Context(), e, time.Minute))
			assert.Less(t, time.Since(began), 4*time.Second)
		})
	}
}
