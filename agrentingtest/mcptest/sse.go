package mcptest

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// maxMessage is the maximum size of a message in bytes.
const maxMessage = 4 << 20

// streams are the MCP sessions of an HTTP+SSE endpoint. The handler of the MCP library
// cannot be used: it does not serve the platform's URL for messages, and does not pass
// the request of a message to its tool.
type streams struct {
	server   *mcp.Server
	messages string // the prefix of the URL for messages

	mu   sync.Mutex
	live map[string]*stream
}

// stream is one MCP session. It ends with its HTTP request.
type stream struct {
	mcp.SSEServerTransport
	owner    string
	incoming chan jsonrpc.Message
	done     chan struct{}
	ending   sync.Once
}

func newStreams(server *mcp.Server, messages string) *streams {
	return &streams{server: server, messages: messages, live: make(map[string]*stream)}
}

// open serves a stream until the client leaves or the server is closed.
func (s *streams) open(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	t := &stream{
		SSEServerTransport: mcp.SSEServerTransport{Endpoint: s.messages + id, Response: w},
		owner:              owner(principalOf(r)),
		incoming:           make(chan jsonrpc.Message),
		done:               make(chan struct{}),
	}
	s.mu.Lock()
	s.live[id] = t
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.live, id)
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	session, err := s.server.Connect(r.Context(), t, nil)
	if err != nil {
		return // the client has left
	}
	select {
	case <-r.Context().Done():
	case <-t.done:
	}
	t.end()             // cancels the tools that are running
	_ = session.Close() // waits for them
}

// message accepts a message from the client.
func (s *streams) message(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	t := s.live[r.PathValue("session")]
	s.mu.Unlock()
	if t == nil || t.owner != owner(principalOf(r)) {
		refuse(w, &refusal{http.StatusNotFound, "NOT_FOUND", "MCP session not found"})
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		refuse(w, &refusal{http.StatusRequestEntityTooLarge, "VALIDATION_ERROR", "the message could not be read: " + err.Error()})
		return
	}
	msg, err := jsonrpc.DecodeMessage(data)
	if err != nil {
		refuse(w, &refusal{http.StatusBadRequest, "VALIDATION_ERROR", "the body is not a JSON-RPC message"})
		return
	}
	if req, ok := msg.(*jsonrpc.Request); ok {
		// The tool outlives the HTTP request, which ends with the 202.
		late := r.WithContext(context.WithoutCancel(r.Context()))
		req.Extra = &mcp.RequestExtra{Header: r.Header, TokenInfo: tokenInfo(late)}
	}
	select {
	case t.incoming <- msg:
		w.WriteHeader(http.StatusAccepted)
	case <-t.done:
		refuse(w, &refusal{http.StatusNotFound, "NOT_FOUND", "MCP session not found"})
	case <-r.Context().Done():
	}
}

// Connect implements [mcp.Transport].
func (t *stream) Connect(ctx context.Context) (mcp.Connection, error) {
	conn, err := t.SSEServerTransport.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &connection{conn, t}, nil
}

// end makes Read return, after which the MCP library cancels the running calls.
func (t *stream) end() { t.ending.Do(func() { close(t.done) }) }

// connection writes events to the stream and reads the messages that message has
// accepted.
type connection struct {
	mcp.Connection
	stream *stream
}

// Read implements [mcp.Connection].
func (c *connection) Read(ctx context.Context) (jsonrpc.Message, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case msg := <-c.stream.incoming:
		return msg, nil
	case <-c.stream.done:
		return nil, io.EOF
	}
}

// Close implements [mcp.Connection].
func (c *connection) Close() error {
	c.stream.end()
	return c.Connection.Close()
}
