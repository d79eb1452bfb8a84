package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

func TestShutdownLosesNoRequest(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		listen string
		shuts  bool // the system can keep newcomers out
	}{
		{"port", "127.0.0.1:0", runtime.GOOS == "linux"},
		{"socket", "unix:" + filepath.Join(t.TempDir(), "s"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			w := start(t, setup{listen: tt.listen, server: []agrentingtest.Option{agrentingtest.WithoutRateLimits()}})
			w.srv.Handle("POST /count", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(http.StatusNoContent)
			}))
			var answered, lost, told, late atomic.Int64
			begun := make(chan struct{})
			var callers sync.WaitGroup
			for range 16 {
				callers.Go(func() {
					warned := false // that the connection ends
					for {
						var traced strings.Builder
						ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
							fmt.Fprintf(&traced, " conn reused=%v idle=%v %v", i.Reused, i.WasIdle, i.IdleTime)
							if warned && !i.Reused {
								late.Add(1)
							}
						}})
						req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/count", strings.NewReader("x"))
						if err != nil {
							t.Error(err)
							return
						}
						resp, err := w.client.Do(req)
						if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
							return // it was never sent
						}
						if err != nil {
							lost.Add(1)
							t.Error(err, traced.String())
							return
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						assert.Equal(t, http.StatusNoContent, resp.StatusCode)
						if resp.Close && !warned {
							warned = true
							told.Add(1)
						}
						if answered.Add(1) == 100 {
							close(begun)
						}
					}
				})
			}
			<-begun
			cut, err := w.stop()
			require.NoError(t, err)
			assert.Zero(t, cut)
			callers.Wait()
			assert.Zero(t, lost.Load())
			assert.EqualValues(t, answered.Load(), w.srv.Count("POST /count"))
			assert.Positive(t, told.Load(), "callers hear that their connection ends")
			if tt.shuts {
				assert.Zero(t, late.Load(), "who has heard is not let in again")
			}
		})
	}
}

func TestWaitingConnectionsAreServed(t *testing.T) {
	t.Parallel()

	for _, listen := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")} {
		t.Run(listen[:strings.IndexByte(listen, ':')], func(t *testing.T) {
			t.Parallel()

			l, err := proxy.Listen(t.Context(), listen)
			require.NoError(t, err)
			var callers []*caller
			for range 32 {
				c := dial(t, l.Addr())
				c.send()
				callers = append(callers, c)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			cut, err := proxy.Serve(ended, l, http.NotFoundHandler(), 5*time.Second)
			require.NoError(t, err)
			assert.Zero(t, cut)
			for _, c := range callers {
				c.last()
			}
		})
	}
}

func TestOpenConnectionsHaveOneMoreRequest(t *testing.T) {
	t.Parallel()

	opened, err := proxy.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	tcp, ok := opened.(*net.TCPListener)
	require.True(t, ok)
	l := &watched{TCPListener: tcp, closed: make(chan struct{})}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	served := make(chan error, 1)
	go func() {
		_, err := proxy.Serve(ctx, l, http.NotFoundHandler(), 5*time.Second)
		served <- err
	}()
	var callers []*caller
	for range 8 {
		c := dial(t, l.Addr())
		c.send()
		require.False(t, c.last())
		callers = append(callers, c)
	}
	end()
	<-l.closed
	for _, c := range callers {
		c.send()
		assert.True(t, c.last())
	}
	require.NoError(t, <-served)
}

// watched is a listener that reports when it is closed.
type watched struct {
	*net.TCPListener
	once   sync.Once
	closed chan struct{}
}

func (l *watched) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.TCPListener.Close()
}

// caller speaks HTTP/1.1 on one connection.
type caller struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr net.Addr) *caller {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), addr.Network(), addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *caller) send() {
	c.t.Helper()
	_, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(c.t, err)
}

// last reads a response, and reports whether it is the last one.
func (c *caller) last() bool {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(c.t, err)
	assert.Equal(c.t, http.StatusNotFound, resp.StatusCode)
	return resp.Close
}

func TestShutdownWaitsForStreamsAndThenCutsThem(t *testing.T) {
	t.Parallel()

	w := start(t, setup{grace: 300 * time.Millisecond})
	w.srv.Handle("GET /socket/agent", http.HandlerFunc(echo))
	conn, r := w.upgrade()
	began := time.Now()
	cut, err := w.stop()
	require.NoError(t, err)
	assert.Equal(t, 1, cut)
	assert.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	_, err = r.ReadByte()
	require.Error(t, err)
	require.NoError(t, conn.Close())
}

func TestRunningRequestIsFinished(t *testing.T) {
	t.Parallel()

	w := start(t, setup{})
	arrived, release := make(chan struct{}), make(chan struct{})
	w.srv.Handle("GET /slow", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(rw, "done")
	}))
	got := make(chan string, 1)
	go func() {
		_, body := w.send(http.MethodGet, "/slow", "")
		got <- body
	}()
	<-arrived
	time.AfterFunc(500*time.Millisecond, func() { close(release) })
	cut, err := w.stop()
	require.NoError(t, err)
	assert.Zero(t, cut)
	assert.Equal(t, "done", <-got)
}
