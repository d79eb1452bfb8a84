package agrenting

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestNoGateIsAlwaysOpen(t *testing.T) {
	t.Parallel()
	var g *gate
	assert.True(t, g.enter())
	g.leave()
	assert.False(t, g.over())
}

func TestAGateClosesDrainsAndOpens(t *testing.T) {
	t.Parallel()
	g := new(gate)
	require.True(t, g.enter())
	require.True(t, g.enter())
	assert.Equal(t, 2, g.inside())
	drained := g.shut()
	assert.False(t, g.enter(), "closed to newcomers")
	assert.Equal(t, 2, g.inside(), "who was turned away does not count")
	g.leave()
	assert.False(t, isClosed(drained))
	g.leave()
	assert.True(t, isClosed(drained))
	assert.False(t, g.over(), "it may open again")
	g.open()
	assert.True(t, g.enter())
	assert.Equal(t, 1, g.inside())
	g.leave()
	assert.True(t, isClosed(g.shut()), "nobody was inside")
}

func TestShuttingAGateTwiceAwaitsTheSame(t *testing.T) {
	t.Parallel()
	g := new(gate)
	require.True(t, g.enter())
	first, second := g.shut(), g.shut()
	assert.False(t, isClosed(second))
	g.leave()
	assert.True(t, isClosed(first))
	assert.True(t, isClosed(second))
	assert.True(t, isClosed(g.shut()), "drained already")
	g.open()
	g.open()
	assert.True(t, g.enter(), "opening twice is opening once")
}

func TestAGatePassesItsWaitersOnForGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate)
		g.pass()
		assert.False(t, g.over(), "an open gate has nobody to pass on")
		g.shut()
		waited := make(chan error, 1)
		go func() { waited <- g.wait(t.Context()) }()
		advance(time.Hour)
		require.Empty(t, waited)
		g.pass()
		require.NoError(t, <-waited)
		assert.True(t, g.over())
		assert.False(t, g.enter(), "its generation is over")
		require.NoError(t, g.wait(t.Context()), "who comes late does not wait")
		g.pass()
		g.open()
		assert.True(t, g.enter(), "opening what has passed on is no panic")
	})
}

func TestAWaiterLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate)
		drained := g.shut()
		reason := errors.New("had enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
		defer cancel()
		require.False(t, g.enter())
		require.ErrorIs(t, g.wait(ctx), reason)
		assert.Zero(t, g.inside())
		assert.True(t, isClosed(drained))
		g.open()
		require.NoError(t, g.wait(t.Context()))
	})
}

func TestAGateThatOpensWakesItsWaitersAndCanBeShutAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate)
		for range 3 {
			g.shut()
			require.False(t, g.enter())
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			waited := make(chan error, 1)
			go func() { waited <- g.wait(ctx) }()
			synctest.Wait()
			g.open()
			require.NoError(t, <-waited)
			cancel()
			require.True(t, g.enter())
			assert.False(t, g.over())
			drained := g.shut()
			assert.False(t, isClosed(drained), "somebody is inside")
			g.leave()
			assert.True(t, isClosed(drained))
			g.open()
		}
	})
}

func TestAGateCountsRightUnderContention(t *testing.T) {
	t.Parallel()
	g := new(gate)
	var inside, shut atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if !g.enter() {
					_ = g.wait(ctx)
					continue
				}
				inside.Add(1)
				if shut.Load() == 2 {
					t.Error("somebody is inside a drained gate")
				}
				inside.Add(-1)
				g.leave()
			}
		})
	}
	for range 2000 {
		drained := g.shut()
		shut.Store(1)
		<-drained
		if n := inside.Load(); n != 0 {
			t.Errorf("%d inside a drained gate", n)
		}
		shut.Store(0)
		g.open()
	}
	stop()
	wg.Wait()
	assert.Zero(t, g.inside())
}

// clientAtGate is a client with a store over a base of one's own, and the gate of the
// key in use.
func clientAtGate(t *testing.T, base http.RoundTripper) (*Client, *gate) {
	t.Helper()
	c := clientOver(t, base, Static(APIKey(testKey)), WithStore(MemoryStore()))
	l, err := c.core.creds.get(t.Context())
	require.NoError(t, err)
	return c, l.Value.gate
}

func TestAPanicOfTheBaseLeavesTheGate(t *testing.T) {
	t.Parallel()
	c, g := clientAtGate(t, tripFunc(func(*http.Request) (*http.Response, error) { panic("base") }))
	assert.PanicsWithValue(t, "base", func() {
		_, _ = c.transport.RoundTrip(request(t, http.MethodGet, "/", nil)) //nolint:bodyclose // it panics
	})
	assert.Zero(t, g.inside())
	assert.True(t, isClosed(g.shut()))
}

func TestWhoComesLateGetsTheNewGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := answering(http.StatusOK, "{}")
		c, g := clientAtGate(t, base)
		g.shut()
		done := make(chan error, 1)
		go func() {
			_, err := c.Do(t.Context(), http.MethodGet, "/", nil, nil)
			done <- err
		}()
		advance(time.Second / 2)
		require.Empty(t, base.requests(), "it waits")
		const next = "a-newer-key-than-that"
		require.NoError(t, c.core.rotator.adopt(t.Context(), record.StoredKey{Credential: APIKey(next).c}, 0))
		g.pass()
		require.NoError(t, <-done)
		assert.Equal(t, next, secretOf(base.only(t).header))
		require.NoError(t, c.Close())
	})
}

// streamingServer answers with headers, and keeps what follows for later.
func streamingServer(t *testing.T, release <-chan struct{}) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			line, _ := bufio.NewReader(rw).ReadString('\n')
			_, _ = io.WriteString(conn, line)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "the rest")
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestADownloadAndAnUpgradeDoNotHoldTheGate(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	srv := streamingServer(t, release)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithTransport(base), WithCredential(APIKey(testKey)),
		WithStore(MemoryStore()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })

	download, err := c.transport.RoundTrip(request(t, http.MethodGet, srv.URL, nil))
	require.NoError(t, err)
	upgrade := request(t, http.MethodGet, srv.URL, nil)
	upgrade.Header.Set("Connection", "Upgrade")
	upgrade.Header.Set("Upgrade", "echo")
	switched, err := c.transport.RoundTrip(upgrade)
	require.NoError(t, err)
	defer switched.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, switched.StatusCode)

	l, err := c.core.creds.get(t.Context())
	require.NoError(t, err)
	assert.True(t, isClosed(l.Value.gate.shut()), "both have their headers")
	close(release)
	assert.Equal(t, "the rest", readAll(t, download))
	conn, ok := switched.Body.(io.ReadWriter)
	require.True(t, ok)
	_, err = io.WriteString(conn, "still here\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "still here\n", line)
	l.Value.gate.open()
}

// TestTheGateSurvivesTheStoreBeingLookedAt holds the rule that all requests
// with one key pass one gate: a look at the store must not bring an open one.
func TestTheGateSurvivesTheStoreBeingLookedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, g := clientAtGate(t, answering(http.StatusOK, "{}"))
		for range 5 {
			advance(2 * storeRecheck)
			_, err := c.Do(t.Context(), http.MethodGet, "/", nil, nil)
			require.NoError(t, err)
			advance(time.Millisecond)
			l, err := c.core.creds.get(t.Context())
			require.NoError(t, err)
			require.Same(t, g, l.Value.gate)
		}
		require.NoError(t, c.Close())
	})
}
