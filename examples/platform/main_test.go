package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// transcript calls seen once the introduction is complete.
type transcript struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen func()
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen()
	return w.buf.Write(p)
}

func TestRunServesUntilInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out := &transcript{seen: cancel}
	require.NoError(t, run(ctx, []string{"-session-ttl", "1m", "-no-rate-limits"}, out))
	text := out.buf.String()
	assert.Contains(t, text, "http://127.0.0.1:")
	assert.Contains(t, text, "sk_sandbox_")
	assert.True(t, strings.HasSuffix(text, "\nserved 0 requests\n"))
}

func TestRunRefusesInvalidArguments(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	require.Error(t, run(t.Context(), []string{"-addr", taken.Addr().String()}, &bytes.Buffer{}))
	require.Error(t, run(t.Context(), []string{"-nonsense"}, &bytes.Buffer{}))
	require.NoError(t, run(t.Context(), []string{"-h"}, &bytes.Buffer{}))
}
