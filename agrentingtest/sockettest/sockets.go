package sockettest

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// closeGrace is how long closing the server waits for clients to confirm the end.
const closeGrace = time.Second

// Sockets are the WebSockets of one server. All methods are safe for concurrent use.
type Sockets struct {
	srv *agrentingtest.Server
	cfg config

	mu          sync.Mutex
	conns       []*conn
	joined      map[string][]*channel      // by topic, with the canonical ID
	allowed     map[string][]string        // IDs of agents by topic
	streams     map[string]*stream         // by task
	checkpoints map[string]json.RawMessage // by task
	closed      bool
	idle        chan struct{} // closed when the last socket of a closed server has ended
}

// Mount adds the platform's sockets to a server. It must be called at most once for a
// server.
func Mount(srv *agrentingtest.Server, opts ...Option) *Sockets {
	s := &Sockets{
		srv:         srv,
		cfg:         newConfig(opts),
		joined:      make(map[string][]*channel),
		allowed:     make(map[string][]string),
		streams:     make(map[string]*stream),
		checkpoints: make(map[string]json.RawMessage),
		idle:        make(chan struct{}),
	}
	for _, e := range endpoints {
		srv.HandleQuery("GET "+e.path, s.handler(e), http.HandlerFunc(s.refuse), e.kinds...)
	}
	srv.BeforeClose(s.close)
	srv.OnChange(s.onChange)
	return s
}

// refuse responds to a handshake that is not accepted, as in Phoenix.
func (s *Sockets) refuse(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(s.cfg.refusal) }

// Connection describes an open socket.
type Connection struct {
	Path      string // such as /socket/agent/websocket
	Principal agrentingtest.Principal
	Topics    []string // the topics that it has joined, sorted
}

// Connections returns the open sockets, oldest first.
func (s *Sockets) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Connection, len(s.conns))
	for i, c := range s.conns {
		out[i] = Connection{Path: c.endpoint.path, Principal: c.who}
		for topic := range c.channels {
			out[i].Topics = append(out[i].Topics, topic)
		}
		slices.Sort(out[i].Topics)
	}
	return out
}

// Push sends an event to all clients that have joined a topic, and returns their number.
// It panics if the payload is not a JSON object.
func (s *Sockets) Push(topic, event string, payload any) int {
	b := encodePayload(payload)
	if _, ok := (message{payload: b}).fields(); !ok {
		panic("sockettest: Push: the payload is not a JSON object")
	}
	topic = s.canonicalTopic(topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broadcast(topic, event, b, nil)
}

// broadcast sends an event to all sockets that have joined a topic, except one. It needs
// the lock.
func (s *Sockets) broadcast(topic, event string, payload json.RawMessage, except *conn) int {
	n := 0
	for _, ch := range s.joined[topic] {
		if ch.conn != except {
			ch.conn.send(message{topic: ch.topic, event: event, payload: payload})
			n++
		}
	}
	return n
}

// Allow lets agents join the topic of a negotiation or a payment channel, such as
// "negotiation:42". The embedded platform has no routes for these.
func (s *Sockets) Allow(topic string, agentIDs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed[topic] = append(s.allowed[topic], agentIDs...)
}

// Disconnect closes the sockets of an agent or a user with code 1001, after which clients
// connect again. It returns the number of sockets.
func (s *Sockets) Disconnect(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.conns {
		if id != "" && id == c.id() && !c.closing {
			c.end(websocket.StatusGoingAway, "")
			n++
		}
	}
	return n
}

// close ends all sockets when the server is closed. The server then closes the
// connections of clients that do not confirm the end in time.
func (s *Sockets) close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.conns {
		c.end(websocket.StatusGoingAway, "")
	}
	if len(s.conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-s.idle:
	case <-timer.C:
	}
}

// add registers a socket.
func (s *Sockets) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	if s.closed {
		c.end(websocket.StatusGoingAway, "")
	}
}

// remove removes a socket that has ended. It may be called again.
func (s *Sockets) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.conns, c) {
		return
	}
	for _, ch := range c.channels {
		s.leave(ch)
	}
	s.conns = slices.DeleteFunc(s.conns, func(other *conn) bool { return other == c })
	c.closing = true
	if s.closed && len(s.conns) == 0 {
		close(s.idle)
	}
}

// leave removes a channel. It needs the lock.
func (s *Sockets) leave(ch *channel) {
	delete(ch.conn.channels, ch.topic)
	left := slices.DeleteFunc(s.joined[ch.key()], func(other *channel) bool { return other == ch })
	if len(left) == 0 {
		delete(s.joined, ch.key())
		return
	}
	s.joined[ch.key()] = left
}
