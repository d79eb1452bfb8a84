package interop_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// pipeListener accepts connections within the process, which a bubble of
// testing/synctest can wait for.
type pipeListener struct {
	addr    net.Addr
	pending chan net.Conn
	done    context.Context
	stop    context.CancelFunc
}

func newPipeListener(port int) *pipeListener {
	done, stop := context.WithCancel(context.Background())
	return &pipeListener{
		addr:    &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port},
		pending: make(chan net.Conn), done: done, stop: stop,
	}
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.pending:
		return c, nil
	case <-l.done.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error {
	l.stop()
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return l.addr }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.pending <- far:
		return near, nil
	case <-l.done.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// advance lets virtual time pass; it is for bubbles only.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where tests wait

// What the platform announces never reaches a client as a refusal: sessions are
// renewed before they end, and keys are rotated when they are due, automatically.
func TestClockJumpsFailNoRequest(t *testing.T) {
	t.Parallel()
	const (
		ttl  = 20 * time.Hour
		step = ttl * (expiries + 1) / exchanges
		// Between the ends of sessions, so that a rotation does not end a session
		// that was obtained just before.
		age = ttl * 3 / 2
	)
	for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		for _, c := range clients {
			t.Run(fmt.Sprintf("%s/%s", strategy, c.name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newVirtualWorld(t, strategy, ttl, age)
					contact := c.start(w)
					w.client()
					failures := 0
					began := time.Now()
					for n := 1; n <= exchanges; n++ {
						if n > 1 { // the last exchange is the end
							advance(step)
						}
						if err := contact.exchange(t.Context(), n); err != nil {
							failures++
							w.failed(fmt.Sprintf("exchange %d: %v", n, err))
						}
						if contact.alive != nil && n%50 == 0 {
							require.NoError(t, contact.alive(t.Context()))
						}
					}
					if len(w.origins) == 0 {
						w.readLog()
					}
					stats := w.platform.Stats()
					t.Logf("%-32s %-8s %4d exchanges in %v: %d sessions, %d rotations, %d failures, %d requests refused",
						c.name, strategy, exchanges, time.Since(began), len(w.seen), stats.KeysRevoked, failures, w.refused)
					assert.Zero(t, failures, "%s", w.failures)
					assert.Zero(t, w.refused, "requests that were refused at first")
					assert.GreaterOrEqual(t, len(w.seen), expiries+1)
					assert.GreaterOrEqual(t, stats.KeysRevoked, int64(rotations))
					assert.Equal(t, len(w.seen), w.platform.Count("POST /api/v1/auth/authenticate"), "sessions that were obtained, and used")
				})
			})
		}
	}
}
