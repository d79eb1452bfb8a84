package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The tools are tested where they are.
func TestSandboxServesMCPAndSockets(t *testing.T) {
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

	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, world.URL+"/socket/agent/websocket?api_key=unknown", http.NoBody)
	require.NoError(t, err)
	refused, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, refused.Body.Close())
	assert.Equal(t, http.StatusForbidden, refused.StatusCode, "as sockets refuse it")
}

func TestChunksOfMCPReachTheSockets(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	sockets := mount(srv)
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", BasePrice: "2.50", Capabilities: []string{"writing"}})
	send := func(method, path, name, secret, body string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set(name, secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := srv.Transport().RoundTrip(req)
		require.NoError(t, err)
		return resp
	}
	hire := send(http.MethodPost, "/api/v1/agents/"+agent.DID+"/hire", "Authorization",
		"Bearer "+srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret, `{"task_description":"write","capability_requested":"writing","price":"2.50"}`)
	defer func() { _ = hire.Body.Close() }()
	var hired struct {
		Data struct {
			Hiring struct {
				ID string `json:"id"`
			} `json:"hiring"`
		} `json:"data"`
	}
	require.NoError(t, json.NewDecoder(hire.Body).Decode(&hired))
	require.Equal(t, http.StatusCreated, hire.StatusCode)
	id := hired.Data.Hiring.ID
	work, ok := srv.Work(id)
	require.True(t, ok)

	key := srv.NewKey(agent.ID).Secret
	stream := send(http.MethodGet, "/mcp/sse", "X-Api-Key", key, "")
	defer func() { _ = stream.Body.Close() }()
	events := bufio.NewScanner(stream.Body)
	next := func() string { // the data of the next event
		for events.Scan() {
			if data, ok := strings.CutPrefix(events.Text(), "data: "); ok {
				return data
			}
		}
		require.FailNow(t, "the stream has ended", events.Err())
		return ""
	}
	messages := next()
	say := func(message string) {
		resp := send(http.MethodPost, messages, "X-Api-Key", key, message)
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
	say(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`)
	assert.Contains(t, next(), `"id":1`)
	say(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	for _, chunk := range []string{"Once upon ", "a time"} {
		say(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"task_emit_chunk","arguments":{"task_id":"` + id + `","chunk":"` + chunk + `"}}}`)
		assert.NotContains(t, next(), `"isError":true`)
	}
	chunks := sockets.Chunks(work.ID)
	require.Len(t, chunks, 2)
	assert.Equal(t, []any{"Once upon ", "a time", "text"}, []any{chunks[0].Content, chunks[1].Content, chunks[1].Kind})
}
