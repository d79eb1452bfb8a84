package agrentingtest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestServerIsReachableByEveryListener(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		opts   []agrentingtest.Option
		prefix string
		proto  string
	}{
		"socket":          {nil, "http://127.0.0.1:", "HTTP/1.1"},
		"socket with TLS": {[]agrentingtest.Option{agrentingtest.WithTLS()}, "https://127.0.0.1:", "HTTP/2.0"},
		"memory":          {[]agrentingtest.Option{agrentingtest.InMemory()}, "http://127.77.", "HTTP/1.1"},
		"memory with TLS": {[]agrentingtest.Option{agrentingtest.InMemory(), agrentingtest.WithTLS()}, "https://127.77.", "HTTP/2.0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := agrentingtest.NewServer(c.opts...)
			defer s.Close()
			assert.True(t, strings.HasPrefix(s.URL, c.prefix), s.URL)
			a := newCaller(t, s).get("/api/v1/health")
			assert.Equal(t, 200, a.status)
			assert.Equal(t, c.proto, s.Requests()[0].Proto)
		})
	}
	t.Run("chosen address", func(t *testing.T) {
		t.Parallel()
		s, err := agrentingtest.Listen("localhost:0")
		require.NoError(t, err)
		defer s.Close()
		assert.True(t, strings.HasPrefix(s.URL, "http://"), s.URL)
		assert.Equal(t, 200, newCaller(t, s).get("/api/v1/health").status)
		assert.Equal(t, "HTTP/1.1", s.Requests()[0].Proto)
	})
}

func TestTLSServesHTTP1OnRequest(t *testing.T) {
	t.Parallel()
	s := agrentingtest.NewServer(agrentingtest.WithTLS())
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	c := caller{t: t, client: &http.Client{Transport: tr}, base: s.URL}
	assert.Equal(t, 200, c.get("/api/v1/health/readiness").status)
	assert.Equal(t, "HTTP/1.1", s.Requests()[0].Proto)
	assert.Nil(t, newServer(t).Certificate(), "no TLS, no certificate")
}

func TestListenSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"plain": nil, "TLS": {agrentingtest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, err := agrentingtest.Listen("127.0.0.1:0", opts...)
			require.NoError(t, err)
			defer first.Close()
			_, addr, _ := strings.Cut(first.URL, "://")

			second, err := agrentingtest.Listen(addr)
			assert.Nil(t, second)
			require.ErrorContains(t, err, addr)
			var cause *net.OpError
			require.ErrorAs(t, err, &cause)

			first.Close()
			second, err = agrentingtest.Listen(addr)
			require.NoError(t, err, "the address is free again")
			assert.Equal(t, "http://"+addr, second.URL)
			second.Close()
		})
	}
	memory, err := agrentingtest.Listen("nonsense", agrentingtest.InMemory())
	require.NoError(t, err, "in memory there is nothing to listen on")
	memory.Close()
}

func TestListenRefusesUnusableAddress(t *testing.T) {
	t.Parallel()
	_, err := agrentingtest.Listen("256.0.0.1:0")
	require.ErrorContains(t, err, "256.0.0.1:0")
}

func TestInMemoryServerOpensNoConnection(t *testing.T) {
	t.Parallel()
	s, other := newServer(t), newServer(t)
	c := newCaller(t, s)
	c.base = "http://example.org"
	_, err := c.try(http.MethodGet, "/", "")
	require.ErrorContains(t, err, "reaches only itself")
	if other.URL != s.URL { // one in 65,000 runs
		c.base = other.URL
		_, err = c.try(http.MethodGet, "/", "")
		require.Error(t, err)
	}
}

func TestDialIntoAClosedServerFails(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newCaller(t, s)
	s.Close()
	s.Close()
	_, err := c.try(http.MethodGet, "/api/v1/health", "")
	require.Error(t, err)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/health", nil))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestHandlerCanBeMounted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/health", nil))
	assert.Equal(t, http.StatusOK, w.Code)
}

// A bubble fails its test if any goroutine remains.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"HTTP/1.1": nil,
		"HTTP/2":   {agrentingtest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, opts...)
				s.HandlePublic("/stuck", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
				c := newCaller(t, s)
				s.Fault("GET /api/v1/agents", agrentingtest.Delay(time.Hour))
				var wg sync.WaitGroup
				for _, path := range []string{"/api/v1/health", "/api/v1/agents", "/stuck"} {
					wg.Go(func() { _, _ = c.try(http.MethodGet, path, "") })
				}
				synctest.Wait()
				began := time.Now()
				s.Close()
				wg.Wait()
				assert.Less(t, time.Since(began), time.Minute, "Close waits for no delay")
			})
		})
	}
}

func TestCloseCutsHijackedConnections(t *testing.T) {
	t.Parallel()
	for _, s := range []*agrentingtest.Server{newServer(t), agrentingtest.NewServer()} {
		ended := make(chan struct{})
		s.HandlePublic("/socket", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
			_ = rw.Flush()
			_, _ = io.Copy(conn, conn)
			close(ended)
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/socket", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := s.Transport().RoundTrip(req) //nolint:bodyclose // closed below, as the upgraded connection
		require.NoError(t, err)
		rw, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok)
		_, err = rw.Write([]byte("hello"))
		require.NoError(t, err)
		buf := make([]byte, 5)
		_, err = io.ReadFull(rw, buf)
		require.NoError(t, err)
		assert.Equal(t, "hello", string(buf))
		assert.Equal(t, 101, s.Requests()[0].Status)
		s.Close()
		<-ended
		_ = rw.Close()
	}
}

//nolint:paralleltest // it counts the goroutines of the whole process
func TestServersOnSocketsLeaveNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		s := agrentingtest.NewServer(agrentingtest.WithTLS())
		c := newCaller(t, s)
		for range 5 {
			assert.Equal(t, 200, c.get("/api/v1/health").status)
		}
		s.Close()
	}
	// The client's side ends by itself after its connection was closed.
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, 5*time.Second, time.Millisecond)
}

func TestTimeInABubbleIsVirtual(t *testing.T) {
	t.Parallel()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.Fault("*", agrentingtest.Delay(3*time.Hour))
		at := time.Now()
		assert.Equal(t, 200, newCaller(t, s).get("/api/v1/health").status)
		assert.Equal(t, 3*time.Hour, time.Since(at))
	})
	assert.Less(t, time.Since(began), time.Minute)
}

func TestSkewedClockShowsEverywhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithClockSkew(90*time.Minute), agrentingtest.WithSessionTTL(time.Hour))
		want := time.Now().Add(90 * time.Minute)
		a := w.asKey().post(authPath, "")
		date, err := http.ParseTime(a.header.Get("Date"))
		require.NoError(t, err)
		assert.WithinDuration(t, want, date, time.Second)
		stamp, err := time.Parse(time.RFC3339Nano, a.env.Meta.Timestamp)
		require.NoError(t, err)
		assert.WithinDuration(t, want, stamp, time.Second)
		expires, err := time.Parse(time.RFC3339, a.text("expires_at"))
		require.NoError(t, err)
		assert.WithinDuration(t, want.Add(time.Hour), expires, time.Second)
	})
}

func TestEnvelopeIsComplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ok := w.get("/api/v1/health")
	assert.Equal(t, "1.0", ok.env.Meta.Version)
	assert.True(t, strings.HasPrefix(ok.env.Meta.RequestID, "req_"))
	assert.Equal(t, w.Requests()[0].ID, ok.env.Meta.RequestID)
	assert.NotContains(t, ok.raw, `"errors"`)
	assert.Equal(t, "application/json; charset=utf-8", ok.header.Get("Content-Type"))

	bad := w.get("/api/v1/hirings")
	assert.Equal(t, 401, bad.status)
	assert.Contains(t, bad.raw, `"data":null`)
	assert.Equal(t, agrentingtest.CodeUnauthorized, bad.code())
}

func TestUnknownRoutesAreRouteNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range [][2]string{
		{"GET", "/"},
		{"GET", "/api/v2/health"},
		{"POST", "/api/v1/health"},
		{"GET", "/api/v1//health"},
		{"GET", "/api/v1/x/../health"},
		{"PUT", "/api/v1/agents/1"},
		{"POST", "/auth/authenticate"},
	} {
		a := w.call(c[0], c[1], "")
		assert.Equal(t, 404, a.status, c)
		assert.Equal(t, agrentingtest.CodeRouteNotFound, a.code(), c)
	}
}

func TestLoggerNeverSeesASecret(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var buf bytes.Buffer
	logger := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithLogger(logger))
	a := s.NewAgent(nil, agrentingtest.AgentConfig{Name: "x"})
	k := s.NewKey(a.ID)
	next := newCaller(t, s).key(k.Secret).post(rotatePath, "").text("api_key")
	require.NotEmpty(t, next)
	s.Close()
	mu.Lock()
	defer mu.Unlock()
	assert.Contains(t, buf.String(), "principal=agent:"+a.ID)
	assert.NotContains(t, buf.String(), k.Secret)
	assert.NotContains(t, buf.String(), next)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestManyClientsAtOnceAreServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(50))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c := w.asKey()
			for range 50 {
				switch i % 4 {
				case 0:
					assert.Equal(t, 200, c.get("/api/v1/agents").status)
				case 1:
					assert.Equal(t, 201, c.post(tasksPath, `{"agent_id":"`+w.agent.ID+`","task_type":"a"}`).status)
				case 2:
					assert.Equal(t, 200, c.post(authPath, "").status)
				case 3:
					_ = w.Requests()
					assert.NotEmpty(t, w.LiveKeys(w.agent.ID))
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 750, w.Count("*"))
	assert.Len(t, w.Requests(), 50)
	assert.EqualValues(t, 250, w.Stats().Authenticates)
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Transport().DialContext(ctx, "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err == nil {
		return // the server was faster, which select may choose
	}
	require.Error(t, err)
}
