package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain fails the run if a goroutine of a proxy outlives its Close.
func TestMain(m *testing.M) {
	code := m.Run()
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if code == 0 && strings.Contains(stack, "chaos.(*") {
			fmt.Fprintln(os.Stderr, "FAIL: a goroutine is left:\n"+stack)
			code = 1
		}
	}
	os.Exit(code)
}

// world is a server that counts, a proxy before it, and a client of the proxy.
type world struct {
	proxy  *Proxy
	client *http.Client
	served atomic.Int64
	body   string
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{body: strings.Repeat("0123456789", 50)}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.served.Add(1)
		_, _ = io.WriteString(rw, w.body)
	}))
	t.Cleanup(srv.Close)
	p, err := New(srv.Listener.Addr().String(), seed)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	base := &http.Transport{ResponseHeaderTimeout: 100 * time.Millisecond}
	t.Cleanup(base.CloseIdleConnections)
	w.proxy, w.client = p, &http.Client{Transport: base}
	return w
}

// post sends something that net/http does not repeat by itself, and tells from
// where.
func (w *world) post(t *testing.T) (addr string, err error) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { addr = i.Conn.LocalAddr().String() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.proxy.Addr(), strings.NewReader("hello"))
	require.NoError(t, err)
	resp, err := w.client.Do(req)
	if err != nil {
		return addr, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		assert.Equal(t, w.body, string(b))
	}
	return addr, err
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind   Kind
		fails  bool
		served int64
	}{
		{kind: "", served: 1},
		{kind: Latency, served: 1},
		{kind: Slow, served: 1},
		{kind: Lost, fails: true, served: 1},
		{kind: Reset, fails: true},
		{kind: Silent, fails: true},
	} {
		t.Run("fault "+string(tc.kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.proxy.Next(tc.kind)
			began := time.Now()
			addr, err := w.post(t)
			assert.Equal(t, tc.fails, err != nil, "%v", err)
			assert.Equal(t, tc.served, w.served.Load())
			assert.Equal(t, tc.kind, w.proxy.Harm(addr))
			if tc.kind == "" {
				assert.Empty(t, w.proxy.Counts())
			} else {
				assert.Equal(t, map[Kind]int{tc.kind: 1}, w.proxy.Counts())
			}
			if tc.kind == Silent {
				var timeout net.Error
				require.ErrorAs(t, err, &timeout)
				assert.True(t, timeout.Timeout(), "nothing came, not even the end")
				assert.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
			}
			addr, err = w.post(t)
			require.NoError(t, err, "the next exchange is not harmed")
			assert.Empty(t, w.proxy.Harm(addr))
		})
	}
}

func TestConnectionsAreKeptAndEveryExchangeCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.proxy.Next("", Latency, "", Slow, "", Lost)
	first, err := w.post(t)
	require.NoError(t, err)
	for range 4 {
		addr, err := w.post(t)
		require.NoError(t, err)
		assert.Equal(t, first, addr, "it is the same connection")
	}
	_, err = w.post(t)
	require.Error(t, err)
	assert.Equal(t, map[Kind]int{Latency: 1, Slow: 1, Lost: 1}, w.proxy.Counts())
}

func TestSeedReproducesFaults(t *testing.T) {
	t.Parallel()
	mix := Mix{Latency: 0.1, Reset: 0.2, Silent: 0.1, Lost: 0.2, Slow: 0.1}
	var runs [2][]Kind
	for i := range runs {
		p, err := New("127.0.0.1:1", 42)
		require.NoError(t, err)
		for range 1000 {
			kind, delay := p.draw(&mix)
			assert.LessOrEqual(t, delay, mix.Delay)
			runs[i] = append(runs[i], kind)
		}
		p.Close()
	}
	assert.Equal(t, runs[0], runs[1])
	count := map[Kind]int{}
	for _, k := range runs[0] {
		count[k]++
	}
	assert.InDelta(t, 300, count[""], 60)
	assert.InDelta(t, 200, count[Lost], 60)
	assert.InDelta(t, 100, count[Silent], 50)
}

func TestCutResetsConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	addr, err := w.post(t)
	require.NoError(t, err)
	w.proxy.Cut()
	assert.Equal(t, Reset, w.proxy.Harm(addr))
	assert.Eventually(t, func() bool { _, err := w.post(t); return err == nil }, 5*time.Second, time.Millisecond)
}

func TestASilenceEndsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.proxy.Set(Mix{Silent: 1, Hang: 10 * time.Millisecond})
	_, err := w.post(t)
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	w.proxy.Set(Mix{})
	_, err = w.post(t)
	require.NoError(t, err)
}

func TestMissingBackendIsReset(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	p, err := New(addr, 1)
	require.NoError(t, err)
	defer p.Close()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
	if err == nil { // the reset may be faster than the end of the handshake
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	assert.Error(t, err)
}

// What Close leaves behind is seen by TestMain.
func TestCloseEndsConnections(t *testing.T) {
	t.Parallel()
	for range 20 {
		w := newWorld(t, 7)
		w.proxy.Set(Mix{Latency: 0.2, Reset: 0.2, Silent: 0.2, Lost: 0.2, Slow: 0.2, Delay: time.Hour})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 4 {
				resp, err := w.client.Get("http://" + w.proxy.Addr())
				if err == nil {
					resp.Body.Close()
				}
			}
		}()
		<-time.After(5 * time.Millisecond) // in the middle of it
		w.proxy.Close()
		w.proxy.Close()
		<-done
		_, err := w.post(t)
		require.Error(t, err)
	}
}
