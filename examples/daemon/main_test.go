package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestDemoShowsMetrics(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-demo"}, &out), &out)
	text := out.String()
	for _, line := range []string{
		"the key was rotated to generation 2", "no request failed\n", `agrenting_credential_state{state="ready"} 1` + "\n",
		"agrenting_key_overdue 0\n", `agrenting_rotations_total{result="success",stage="done"} 1` + "\n",
	} {
		assert.Contains(t, text, line)
	}
}

func TestInterruptCleansUp(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Setenv("TMP", folder) // on Windows
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, run(ctx, []string{"-demo"}, &bytes.Buffer{}))
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), nil, &bytes.Buffer{}), "-keys is required")
	require.Error(t, run(t.Context(), []string{"-nonsense"}, &bytes.Buffer{}))
	require.NoError(t, run(t.Context(), []string{"-h"}, &bytes.Buffer{}))
}

// world is a platform, and a daemon that works on it until the test ends.
type world struct {
	srv   *agrentingtest.Server
	agent *agrentingtest.Agent
	d     *daemon
	addr  string
}

func newWorld(t *testing.T, policy agrenting.RotationPolicy) *world {
	t.Helper()
	w := &world{srv: agrentingtest.NewServer(agrentingtest.WithoutRateLimits())}
	t.Cleanup(w.srv.Close)
	w.agent = w.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	var err error
	w.d, err = newDaemon(filepath.Join(t.TempDir(), "keys"), policy, on(w.srv, w.srv.NewKey(w.agent.ID).Secret)...)
	require.NoError(t, err)
	w.d.every = 50 * time.Millisecond
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.addr = ln.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.d.run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return w
}

func TestStatusIsJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrenting.RotationPolicy{})
	_, err := w.d.client.Credential(t.Context())
	require.NoError(t, err)
	rec := httptest.NewRecorder()
	w.d.mux.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/status", nil))
	var status struct{ State agrenting.State }
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &status))
	assert.Equal(t, agrenting.StateReady, status.State)
}
