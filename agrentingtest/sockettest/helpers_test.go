package sockettest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

const (
	agentPath  = "/socket/agent/websocket"
	hirerPath  = "/socket/hirer/websocket"
	commonPath = "/socket/websocket"
)

// world is a platform with a provider and a client.
type world struct {
	t       *testing.T
	srv     *agrentingtest.Server
	sockets *sockettest.Sockets

	user, other      *agrentingtest.User // owner of the agents; a stranger
	provider, client *agrentingtest.Agent
	stranger         *agrentingtest.Agent
	key, clientKey   agrentingtest.Key
	token            agrentingtest.Token
}

// inBubble runs a test on virtual time.
func inBubble(t *testing.T, test func(*world), opts ...sockettest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, []agrentingtest.Option{agrentingtest.WithoutRateLimits()}, opts...)
		defer w.srv.Close()
		test(w)
	})
}

func newWorld(t *testing.T, server []agrentingtest.Option, opts ...sockettest.Option) *world {
	t.Helper()
	w := &world{t: t, srv: agrentingtest.NewServer(append(server, agrentingtest.InMemory())...)}
	w.sockets = sockettest.Mount(w.srv, opts...)
	w.user, w.other = w.srv.NewUser("Ada"), w.srv.NewUser("Bob")
	w.provider = w.srv.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Provider", Capabilities: []string{"writing"}, BasePrice: "2.50"})
	w.client = w.srv.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Client"})
	w.stranger = w.srv.NewAgent(w.other, agrentingtest.AgentConfig{Name: "Stranger"})
	w.key, w.clientKey = w.srv.NewKey(w.provider.ID), w.srv.NewKey(w.client.ID)
	w.token = w.srv.NewToken(w.user.ID, agrentingtest.TokenConfig{})
	return w
}

// dial opens a socket with a query, which begins with the credential.
func (w *world) dial(path, query string) (*peer, int) {
	w.t.Helper()
	conn, resp, err := websocket.Dial(w.t.Context(), w.srv.URL+path+"?"+query, //nolint:bodyclose // the body of a handshake is the connection
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: w.srv.Transport()}})
	if err != nil {
		require.NotNil(w.t, resp, "%v", err)
		return nil, resp.StatusCode
	}
	conn.SetReadLimit(-1)
	w.t.Cleanup(func() { _ = conn.CloseNow() })
	return &peer{t: w.t, conn: conn}, resp.StatusCode
}

// connect opens a socket of version 2.0.0.
func (w *world) connect(path, secret string) *peer {
	w.t.Helper()
	p, status := w.dial(path, "vsn=2.0.0&api_key="+url.QueryEscape(secret))
	require.Equal(w.t, http.StatusSwitchingProtocols, status)
	return p
}

// post sends a request with the credential in a header, and returns the data.
func (w *world) post(header, secret, path string, body any) map[string]any {
	w.t.Helper()
	b, err := json.Marshal(body)
	require.NoError(w.t, err)
	return w.request(http.MethodPost, header, secret, path, b)
}

// task has the client ask the provider for something.
func (w *world) task() string {
	w.t.Helper()
	data := w.post("X-API-Key", w.clientKey.Secret, "/api/v1/tasks", map[string]any{
		"provider_agent_id": w.provider.ID, "capability": "writing", "input": "a poem",
	})
	id, _ := data["id"].(string)
	require.NotEmpty(w.t, id)
	return id
}

// hire has the user hire the provider.
func (w *world) hire() string {
	w.t.Helper()
	data := w.post("Authorization", "Bearer "+w.token.Secret, "/api/v1/agents/"+w.provider.ID+"/hire", map[string]any{
		"task_description": "a poem", "capability_requested": "writing", "price": "2.50", "delivery_mode": "output",
	})
	if hiring, ok := data["hiring"].(map[string]any); ok {
		data = hiring
	}
	id, _ := data["id"].(string)
	require.NotEmpty(w.t, id)
	return id
}

// peer is a client that speaks version 2.0.0, or another one by read and write.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
}

// event is a message from the server.
type event struct {
	JoinRef, Ref any
	Topic, Event string
	Payload      map[string]any
}

func (p *peer) write(text string) {
	p.t.Helper()
	require.NoError(p.t, p.conn.Write(p.t.Context(), websocket.MessageText, []byte(text)))
}

// read returns the next message, which must arrive within a second.
func (p *peer) read() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := p.conn.Read(ctx)
	require.NoError(p.t, err)
	return string(b)
}

func (p *peer) next() event {
	p.t.Helper()
	var parts []any
	text := p.read()
	require.NoError(p.t, json.Unmarshal([]byte(text), &parts))
	require.Len(p.t, parts, 5, text)
	e := event{JoinRef: parts[0], Ref: parts[1]}
	e.Topic, _ = parts[2].(string)
	e.Event, _ = parts[3].(string)
	e.Payload, _ = parts[4].(map[string]any)
	return e
}

// send sends a message on a topic that was joined with the reference "1".
func (p *peer) send(topic, event string, payload any) {
	p.t.Helper()
	b, err := json.Marshal([]any{"1", "2", topic, event, payload})
	require.NoError(p.t, err)
	p.write(string(b))
}

// push sends a message and expects a reply with a status. It returns the reason.
func (p *peer) push(status, topic, event string, payload any) any {
	p.t.Helper()
	p.send(topic, event, payload)
	e := p.next()
	require.Equal(p.t, "phx_reply", e.Event, "%v", e)
	require.Equal(p.t, "2", e.Ref)
	require.Equal(p.t, status, e.Payload["status"], "%v", e)
	response, _ := e.Payload["response"].(map[string]any)
	return response["reason"]
}

// join joins a topic with the reference "1", and returns the reason of a refusal.
func (p *peer) join(topic string) any {
	p.t.Helper()
	b, err := json.Marshal([]any{"1", "1", topic, "phx_join", map[string]any{}})
	require.NoError(p.t, err)
	p.write(string(b))
	e := p.next()
	require.Equal(p.t, "phx_reply", e.Event)
	require.Equal(p.t, topic, e.Topic)
	response, _ := e.Payload["response"].(map[string]any)
	if e.Payload["status"] == "ok" {
		require.Empty(p.t, response)
		return nil
	}
	return response["reason"]
}

// expect reads a push.
func (p *peer) expect(topic, name string) map[string]any {
	p.t.Helper()
	e := p.next()
	require.Equal(p.t, []string{topic, name}, []string{e.Topic, e.Event}, "%v", e)
	require.Nil(p.t, e.Ref)
	return e.Payload
}

// quiet checks that nothing is on its way: a heartbeat is answered at once.
func (p *peer) quiet() {
	p.t.Helper()
	p.write(`[null,"99","phoenix","heartbeat",{}]`)
	e := p.next()
	require.Equal(p.t, event{Ref: "99", Topic: "phoenix", Event: "phx_reply", Payload: map[string]any{"status": "ok", "response": map[string]any{}}}, e)
}

// closed waits for the end and returns its code.
func (p *peer) closed() websocket.StatusCode {
	p.t.Helper()
	for {
		_, _, err := p.conn.Read(p.t.Context())
		if err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func (w *world) request(method, header, secret, path string, body []byte) map[string]any {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.srv.URL+path, bytes.NewReader(body))
	require.NoError(w.t, err)
	req.Header.Set(header, secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: w.srv.Transport()}).Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	var envelope struct {
		Data   map[string]any   `json:"data"`
		Errors []map[string]any `json:"errors"`
	}
	require.NoError(w.t, json.NewDecoder(resp.Body).Decode(&envelope))
	assert.Empty(w.t, envelope.Errors)
	return envelope.Data
}

// sleep lets time pass in the bubble.
func sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
}
