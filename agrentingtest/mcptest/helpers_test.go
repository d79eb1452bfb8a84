package mcptest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
)

// world is a platform with a user who hires, and agents of another user who work.
type world struct {
	*agrentingtest.Server
	*mcptest.Endpoints
	t      *testing.T
	user   *agrentingtest.User
	own    *agrentingtest.Agent // of the user
	owner  *agrentingtest.User
	worker *agrentingtest.Agent
	quick  *agrentingtest.Agent // completes its work after ten seconds

	mu    sync.Mutex
	conns []net.Conn // of the clients
}

// dials returns a transport whose connections cut ends.
func (w *world) dials() *http.Transport {
	transport := w.Transport()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, conn)
		return conn, err
	}
	return transport
}

// cut ends the connections of all clients.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		_ = conn.Close()
	}
}

func newWorld(t *testing.T, opts ...agrentingtest.Option) *world {
	t.Helper()
	srv := agrentingtest.NewServer(append([]agrentingtest.Option{agrentingtest.InMemory()}, opts...)...)
	w := &world{Server: srv, Endpoints: mcptest.Mount(srv), t: t, user: srv.NewUser("Ada"), owner: srv.NewUser("Grace")}
	w.own = srv.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Own"})
	w.worker = srv.NewAgent(w.owner, agrentingtest.AgentConfig{
		Name: "Scribe", Capabilities: []string{"writing"}, BasePrice: "2.50", Reputation: 4,
	})
	w.quick = srv.NewAgent(w.owner, agrentingtest.AgentConfig{
		Name: "Quick", Capabilities: []string{"drawing", "writing"}, BasePrice: "1.25", MockAfter: 10 * time.Second,
	})
	return w
}

// token returns the headers of a user with these scopes, all if there are none.
func (w *world) token(user *agrentingtest.User, scopes ...string) http.Header {
	return http.Header{"Authorization": {"Bearer " + w.NewToken(user.ID, agrentingtest.TokenConfig{Scopes: scopes}).Secret}}
}

func (w *world) key(agent *agrentingtest.Agent) http.Header {
	return http.Header{"X-Api-Key": {w.NewKey(agent.ID).Secret}}
}

// headers adds headers to each request.
type headers struct {
	header http.Header
	base   http.RoundTripper
}

func (h headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	maps.Copy(r.Header, h.header)
	return h.base.RoundTrip(r)
}

// The paths of the three endpoints.
const (
	streamable = "/mcp/hirer"
	hirerSSE   = "/mcp/hirer/sse"
	agentSSE   = "/mcp/sse"
)

// connect begins an MCP session. The caller closes it.
func (w *world) connect(path string, header http.Header) *mcp.ClientSession {
	w.t.Helper()
	return w.connectWith(path, &http.Client{Transport: headers{header, w.dials()}}, nil)
}

func (w *world) connectWith(path string, client *http.Client, opts *mcp.ClientOptions) *mcp.ClientSession {
	w.t.Helper()
	session, err := w.dial(path, client, opts)
	require.NoError(w.t, err)
	return session
}

func (w *world) dial(path string, client *http.Client, opts *mcp.ClientOptions) (*mcp.ClientSession, error) {
	var transport mcp.Transport = &mcp.SSEClientTransport{Endpoint: w.URL + path, HTTPClient: client}
	if path == streamable {
		transport = &mcp.StreamableClientTransport{Endpoint: w.URL + path, HTTPClient: client, MaxRetries: -1}
	}
	return mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, opts).Connect(w.t.Context(), transport, nil)
}

// session is connect for tests outside of bubbles: it ends with the test.
func (w *world) session(path string, header http.Header) tools {
	w.t.Helper()
	s := w.connect(path, header)
	w.t.Cleanup(func() { _ = s.Close() })
	return tools{w.t, s}
}

// tools calls tools.
type tools struct {
	t *testing.T
	*mcp.ClientSession
}

type object = map[string]any

func (s tools) try(ctx context.Context, name string, args object) (object, error) {
	result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		return nil, err
	}
	content, _ := result.Content[0].(*mcp.TextContent)
	if result.IsError {
		return nil, errors.New(content.Text)
	}
	var out object
	if err := json.Unmarshal([]byte(content.Text), &out); err != nil {
		return nil, err
	}
	assert.Equal(s.t, result.StructuredContent, any(out), "the two forms of the result")
	return out, nil
}

// do calls a tool that succeeds.
func (s tools) do(name string, args object) object {
	s.t.Helper()
	out, err := s.try(s.t.Context(), name, args)
	require.NoError(s.t, err, name)
	return out
}

// fails calls a tool that fails, and returns its error.
func (s tools) fails(name string, args object) string {
	s.t.Helper()
	_, err := s.try(s.t.Context(), name, args)
	require.Error(s.t, err, name)
	return err.Error()
}

// hire hires an agent, and returns the ID of the hiring.
func (s tools) hire(agent *agrentingtest.Agent) string {
	s.t.Helper()
	hired := s.do("hire_agent", object{
		"agent_did": agent.DID, "capability_requested": "writing", "task_description": "write", "price": "8.50",
	})
	return text(sub(hired, "hiring"), "id")
}

func sub(o object, name string) object {
	m, _ := o[name].(object)
	return m
}

func text(o object, name string) string {
	s, _ := o[name].(string)
	return s
}

func list(o object, name string) []object {
	items, _ := o[name].([]any)
	out := make([]object, len(items))
	for i, item := range items {
		out[i], _ = item.(object)
	}
	return out
}

// response is one that was read.
type response struct {
	status int
	header http.Header
}

// send sends one request, and returns its response and body.
func (w *world) send(method, path string, header http.Header, body string) (response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+path, strings.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set("Accept", "application/json, text/event-stream")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := headers{header, w.Transport()}.RoundTrip(req)
	require.NoError(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return response{resp.StatusCode, resp.Header}, string(raw)
}
