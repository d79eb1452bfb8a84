package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// advance lets virtual time pass.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // callers are in a bubble

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestNilGateIsAlwaysOpen(t *testing.T) {
	t.Parallel()
	var g *Gate
	assert.True(t, g.Enter())
	g.Leave()
	assert.False(t, g.Over())
}

func TestGateShutsDrainsAndOpens(t *testing.T) {
	t.Parallel()
	g := new(Gate)
	require.True(t, g.Enter())
	require.True(t, g.Enter())
	assert.Equal(t, 2, g.inside())
	drained := g.Shut()
	assert.False(t, g.Enter(), "closed to newcomers")
	assert.Equal(t, 2, g.inside(), "a refused request does not count")
	g.Leave()
	assert.False(t, isClosed(drained))
	g.Leave()
	assert.True(t, isClosed(drained))
	assert.False(t, g.Over(), "it may open again")
	g.Open()
	assert.True(t, g.Enter())
	assert.Equal(t, 1, g.inside())
	g.Leave()
	assert.True(t, isClosed(g.Shut()), "no request was inside")
}

func TestShutTwiceReturnsTheSameDrain(t *testing.T) {
	t.Parallel()
	g := new(Gate)
	require.True(t, g.Enter())
	first, second := g.Shut(), g.Shut()
	assert.False(t, isClosed(second))
	g.Leave()
	assert.True(t, isClosed(first))
	assert.True(t, isClosed(second))
	assert.True(t, isClosed(g.Shut()), "drained already")
	g.Open()
	g.Open()
	assert.True(t, g.Enter(), "opening twice is opening once")
}

func TestPassIsFinal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Gate)
		g.Pass()
		assert.False(t, g.Over(), "an open gate has no waiters")
		g.Shut()
		waited := make(chan error, 1)
		go func() { waited <- g.Wait(t.Context()) }()
		advance(time.Hour)
		require.Empty(t, waited)
		g.Pass()
		require.NoError(t, <-waited)
		assert.True(t, g.Over())
		assert.False(t, g.Enter(), "its generation is over")
		require.NoError(t, g.Wait(t.Context()), "a late request does not wait")
		g.Pass()
		g.Open()
		assert.True(t, g.Enter(), "a gate that has passed on can be opened")
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Gate)
		drained := g.Shut()
		reason := errors.New("had enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
		defer cancel()
		require.False(t, g.Enter())
		require.ErrorIs(t, g.Wait(ctx), reason)
		assert.Zero(t, g.inside())
		assert.True(t, isClosed(drained))
		g.Open()
		require.NoError(t, g.Wait(t.Context()))
	})
}

func TestOpenWakesWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Gate)
		for range 3 {
			g.Shut()
			require.False(t, g.Enter())
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			waited := make(chan error, 1)
			go func() { waited <- g.Wait(ctx) }()
			synctest.Wait()
			g.Open()
			require.NoError(t, <-waited)
			cancel()
			require.True(t, g.Enter())
			assert.False(t, g.Over())
			drained := g.Shut()
			assert.False(t, isClosed(drained), "a request is inside")
			g.Leave()
			assert.True(t, isClosed(drained))
			g.Open()
		}
	})
}

func TestGateCountsUnderContention(t *testing.T) {
	t.Parallel()
	g := new(Gate)
	var inside, shut atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if !g.Enter() {
					_ = g.Wait(ctx)
					continue
				}
				inside.Add(1)
				if shut.Load() == 2 {
					t.Error("a request is inside a drained gate")
				}
				inside.Add(-1)
				g.Leave()
			}
		})
	}
	for range 2000 {
		drained := g.Shut()
		shut.Store(1)
		<-drained
		if n := inside.Load(); n != 0 {
			t.Errorf("%d inside a drained gate", n)
		}
		shut.Store(0)
		g.Open()
	}
	stop()
	wg.Wait()
	assert.Zero(t, g.inside())
}

func TestSetHoldsNewAndRecentGates(t *testing.T) {
	t.Parallel()
	var s Set
	before := s.New()
	require.True(t, before.Enter())
	drained := s.Hold()
	require.Len(t, drained, 1)
	assert.False(t, isClosed(drained[0]))
	assert.False(t, before.Enter())
	assert.False(t, s.New().Enter(), "made while the set holds")
	assert.Empty(t, s.Hold(), "they are shut already")
	before.Leave()
	assert.True(t, isClosed(drained[0]))
	s.Release()
	assert.True(t, before.Enter())
	assert.True(t, s.New().Enter())
}

// A rotation passes the gate of the dead key, and then releases the set that holds
// it.
func TestReleasedSetKeepsRetiredGateShut(t *testing.T) {
	t.Parallel()
	var s Set
	g := s.New()
	s.Hold()
	g.Pass()
	s.Release()
	assert.True(t, g.Over())
	assert.False(t, g.Enter(), "its key is dead")
}
