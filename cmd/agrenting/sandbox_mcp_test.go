package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tools are tested where they are.
func TestSandboxServesMCP(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sandbox", "--json"}, streams{
			in: strings.NewReader(""), out: in, err: io.Discard, lookup: func(string) (string, bool) { return "", false },
		})
	}()
	defer func() {
		cancel()
		assert.Equal(t, codeOK, <-ended, "an open stream does not keep it")
	}()
	var world jsonSandbox
	require.NoError(t, json.NewDecoder(out).Decode(&world))
	go func() { _, _ = io.Copy(io.Discard, out) }()

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	post := func(path, name, secret string) (status int, body string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, world.URL+path, strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`))
		require.NoError(t, err)
		req.Header.Set(name, secret)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(raw)
	}
	status, body := post("/mcp/hirer", "Authorization", "Bearer "+world.Token)
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, `"serverInfo":{"name":"agrenting"`)
	status, _ = post("/mcp/hirer", "Authorization", "Bearer ap_unknown")
	assert.Equal(t, http.StatusUnauthorized, status)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, world.URL+"/mcp/sse", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Api-Key", world.Agents[0].Key)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
}
