package agrenting_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// silentConn is a connection that can die without a word.
type silentConn struct {
	net.Conn
	dead   <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *silentConn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

func (c *silentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.isDead() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *silentConn) Write(p []byte) (int, error) {
	if c.isDead() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *silentConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// dyingBase is the default base before a platform with HTTP/2. Its first connection dies
// without a word.
type dyingBase struct {
	*http.Transport

	dead  chan struct{}
	dials int
}

func newDyingBase(t *testing.T, srv *agrentingtest.Server) *dyingBase {
	t.Helper()
	to := srv.Transport()
	b := &dyingBase{Transport: agrenting.NewBaseTransport(), dead: make(chan struct{})}
	t.Cleanup(b.CloseIdleConnections)
	b.TLSClientConfig = to.TLSClientConfig
	b.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := to.DialContext(ctx, network, addr)
		b.dials++
		if b.dials > 1 || err != nil {
			return conn, err
		}
		return &silentConn{Conn: conn, dead: b.dead, closed: make(chan struct{})}, nil
	}
	return b
}

func TestDeadHTTP2ConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		idle   time.Duration // after the connection has died
		ttl    time.Duration // of sessions
		within time.Duration
		failed int // the most requests that fail
	}{
		"requests all the time": {0, time.Hour, time.Minute, 20},
		"idle":                  {50 * time.Second, time.Hour, time.Minute, 0},
		"session expires":       {0, 6 * time.Second, 20 * time.Second, 6},
		"idle session expires":  {5 * time.Second, 6 * time.Second, 20 * time.Second, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithTLS(), agrentingtest.WithSessionTTL(tc.ttl))
				base := newDyingBase(t, w.Server)
				c := w.Client(agrenting.WithTransport(base), agrenting.WithSession(agrenting.SessionPolicy{Timeout: 3 * time.Second}))
				call := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					_, err := c.Do(ctx, http.MethodGet, "/api/v1/agents", nil, nil)
					return err
				}
				require.NoError(t, call())
				close(base.dead)
				began, failed := time.Now(), 0
				sdktest.Advance(tc.idle)
				for call() != nil && time.Since(began) < time.Hour {
					failed++
					sdktest.Advance(100 * time.Millisecond)
				}
				assert.LessOrEqual(t, time.Since(began), tc.within)
				assert.LessOrEqual(t, failed, tc.failed)
				assert.Greater(t, base.dials, 1)
			})
		})
	}
}
