package renew_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/renew"
)

func TestStatusReportsState(t *testing.T) {
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
		go func() { _, _ = e.Reject(t.Context(), 2, true) }()
		synctest.Wait()
		st := e.Status()
		assert.Equal(t, renew.Lapsed, st.State)
		assert.True(t, st.Fetching)
		assert.Equal(t, 1, st.Waiters)
		s.set(func(s *source) { s.err = errDown })
		advance(1050 * time.Millisecond)
		st = e.Status()
		assert.Equal(t, renew.BackedOff, st.State)
		assert.True(t, st.RetryAt.After(time.Now()))
		assert.True(t, st.Rejected)
		assert.False(t, st.Fetching)
		assert.Equal(t, 1, st.Failures)
		assert.Equal(t, uint64(2), st.Generation.Number)
		require.ErrorIs(t, st.Err, errDown)
		s.set(func(s *source) { s.err = nil })
		advance(time.Second)
		require.Equal(t, renew.Lapsed, e.Status().State, "the pause is over")
		get(t, e)
		advance(100 * time.Second)
		require.Equal(t, renew.Lapsed, e.Status().State, "expired")
	})
}

func TestStatusCountsWaitingReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errDown}
		e := s.engine(t, func(c *renew.Config[string]) { c.Wait = 10 * time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			go func() { _, _ = e.Get(ctx) }()
		}
		synctest.Wait()
		assert.False(t, e.Status().Fetching)
		assert.Equal(t, 2, e.Status().Waiters)
		cancel()
		synctest.Wait()
		assert.Zero(t, e.Status().Waiters)
		go func() { _, _ = e.Get(t.Context()) }()
		synctest.Wait()
		assert.Equal(t, 1, e.Status().Waiters)
		s.set(func(s *source) { s.err = nil })
		advance(10 * time.Second)
		assert.Zero(t, e.Status().Waiters)
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
		_, _ = e.Reject(t.Context(), 3, true)
		_, _ = e.Renew(t.Context())
		_, _ = e.Put(renew.Grant[string]{Value: "x"}, renew.Adopted)
		assert.Equal(t, []string{"1 first", "1 early", "1 expired", "4 rejected", "1 rejected", "1 manual", "1 adopted"}, seen)
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

func TestReasonsHaveNames(t *testing.T) {
	t.Parallel()
	for r := renew.First; r <= renew.Restored; r++ {
		assert.NotEqual(t, "unknown", r.String())
	}
	assert.Equal(t, "unknown", renew.Reason(0).String())
	assert.Equal(t, "unknown", (renew.Restored + 1).String())
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

func TestEvents(t *testing.T) {
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
		_, err = e.Reject(t.Context(), 1, true)
		require.NoError(t, err)
		s.set(func(s *source) { s.value = "b" })
		_, err = e.Renew(t.Context())
		require.NoError(t, err)

		require.Len(t, seen, 5)
		of := func(l *renew.Generation[string]) string {
			if l == nil {
				return ""
			}
			return l.Value
		}
		for i, want := range []struct {
			kind          renew.Kind
			reason        renew.Reason
			current, prev string
			took          time.Duration
			err           error
		}{
			{kind: renew.Renewed, reason: renew.First, current: "a", took: 2 * time.Second},
			{kind: renew.Failed, reason: renew.Manual, current: "a", prev: "a", took: 2 * time.Second, err: errDown},
			{kind: renew.Refused, reason: renew.Rejected, prev: "a"},
			{kind: renew.Confirmed, reason: renew.Rejected, current: "a", prev: "a", took: 2 * time.Second},
			{kind: renew.Renewed, reason: renew.Manual, current: "b", prev: "a", took: 2 * time.Second},
		} {
			ev := seen[i]
			assert.Equal(t, want.kind, ev.Kind, i)
			assert.Equal(t, want.reason, ev.Reason, i)
			assert.Equal(t, want.current, of(ev.Generation), i)
			assert.Equal(t, want.prev, of(ev.Prev), i)
			assert.Equal(t, want.took, ev.Took, i)
			assert.Equal(t, want.err, ev.Err, i)
			assert.Equal(t, want.err != nil, !ev.RetryAt.IsZero(), i)
		}
	})
}

func TestFixedValueIsAlwaysFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := renew.Fixed("v")
		assert.Equal(t, "v", l.Value)
		assert.Equal(t, uint64(1), l.Number)
		assert.Equal(t, renew.First, l.Reason)
		assert.Equal(t, time.Now(), l.Obtained)
		assert.Zero(t, l.Expires)
	})
}
