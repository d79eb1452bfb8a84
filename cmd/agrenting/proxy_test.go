package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

// transcript is a standard error that can be read while it is written.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// liveProxy is a proxy that runs in this process.
type liveProxy struct {
	t      *testing.T
	url    string
	stderr transcript
}

// serveProxy starts the proxy for a key. It ends before the platform does.
func serveProxy(t *testing.T, srv *agrentingtest.Server, key string, args ...string) *liveProxy {
	t.Helper()
	s := &liveProxy{t: t}
	ready := filepath.Join(t.TempDir(), "ready")
	env := map[string]string{varURL: srv.URL, varAPIKey: key}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"proxy", "--ready-file", ready}, args...), streams{
			in: strings.NewReader(""), out: io.Discard, err: &s.stderr, environ: func() []string { return nil },
			lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		})
	}()
	t.Cleanup(func() {
		interrupt()
		assert.Equal(t, codeOK, <-ended, s.stderr.String())
	})
	require.Eventually(t, func() bool { _, err := os.Lstat(ready); return err == nil }, 20*time.Second, 5*time.Millisecond)
	at, err := os.ReadFile(ready)
	require.NoError(t, err)
	s.url = strings.TrimSpace(string(at))
	return s
}

// get makes a request with headers in pairs, and returns the status of its response.
func (s *liveProxy) get(path string, header ...string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, http.NoBody)
	require.NoError(s.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	require.NoError(s.t, err)
	require.NoError(s.t, resp.Body.Close())
	return resp.StatusCode
}

// says waits until standard error has a text.
func (s *liveProxy) says(text string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.stderr.String(), text) }, 20*time.Second, 5*time.Millisecond, s.stderr.String())
}

func TestProxyReportsDeadKeyOfWebSockets(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	sockettest.Mount(srv)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	s := serveProxy(t, srv, key.Secret)
	srv.RevokeKey(key.ID)
	status := s.get("/socket/agent/websocket?vsn=2.0.0", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")
	assert.Equal(t, http.StatusForbidden, status)
	s.says("the platform rejects the credential")
}

// While the proxy serves, a failed renewal appears only where callers are affected. A log in
// JSON has no other lines.
func TestProxyNotesRenewalsOnlyAtStart(t *testing.T) {
	t.Parallel()

	const authenticate = "POST /api/v1/auth/authenticate"
	for format, want := range map[string]int{"json": 0, "text": 1} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
			t.Cleanup(srv.Close)
			key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
			srv.Fault(authenticate, agrentingtest.Status(http.StatusServiceUnavailable, ""))
			s := serveProxy(t, srv, key.Secret, "--session", "--log", format)
			assert.Equal(t, http.StatusOK, s.get("/api/v1/hirings/pending"))
			srv.Fault(authenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
			srv.RevokeSessions()
			var callers sync.WaitGroup
			callers.Go(func() { assert.Equal(t, http.StatusOK, s.get("/api/v1/hirings/pending")) })
			s.says("no valid credential, so requests may fail")
			srv.ClearFaults()
			callers.Wait()
			text := s.stderr.String()
			assert.Equal(t, want, strings.Count(text, "no credential yet"), text)
			for line := range strings.Lines(text) {
				assert.Equal(t, format == "json", json.Valid([]byte(line)), line)
			}
		})
	}
}
