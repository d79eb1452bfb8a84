package sockettest

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// maxChannels is the maximum number of channels of a socket, as in Phoenix.
const maxChannels = 100

// conn is one socket. Its fields from queue on need the lock of Sockets.
type conn struct {
	sockets  *Sockets
	endpoint endpoint
	who      agrentingtest.Principal
	version  version
	ws       *websocket.Conn
	silence  *time.Timer // ends a socket that does not send anything
	done     chan struct{}
	work     sync.WaitGroup

	queue    chan frame
	closing  bool // nothing more is queued
	channels map[string]*channel
}

// channel is a topic that a socket has joined.
type channel struct {
	conn      *conn
	topic     string // as the client wrote it
	kind, id  string // the ID in the topic, in canonical form
	joinedRef ref
}

// key returns the topic with the canonical ID.
func (ch *channel) key() string { return ch.kind + ch.id }

// frame is one entry of the queue: messages that belong together, or the end of the
// socket.
type frame struct {
	messages []message
	code     websocket.StatusCode // the code that ends the socket
	reason   string
}

// id returns the ID of the agent, or of the user, that has opened the socket.
func (c *conn) id() string {
	if c.who.AgentID != "" {
		return c.who.AgentID
	}
	return c.who.UserID
}

// handler returns the handler of an endpoint.
func (s *Sockets) handler(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, ok := versionOf(r.URL.Query().Get("vsn"))
		if !ok {
			s.refuse(w, r)
			return
		}
		c := &conn{
			sockets: s, endpoint: e, version: v,
			done: make(chan struct{}), queue: make(chan frame, s.cfg.queue), channels: make(map[string]*channel),
		}
		c.who, _ = agrentingtest.PrincipalFrom(r.Context())
		var revoked <-chan struct{}
		if !s.cfg.surviving {
			revoked = s.srv.Revoked(c.who.CredentialID)
		}
		s.add(c) // registered before the client learns that it is connected
		defer s.remove(c)
		c.silence = time.AfterFunc(s.cfg.timeout, c.timeOut)
		defer c.silence.Stop()
		var err error
		c.ws, err = websocket.Accept(w, r, &websocket.AcceptOptions{
			InsecureSkipVerify: true, // the credential in the URL authenticates, not the origin of the page
			OnPingReceived: func(context.Context, []byte) bool {
				c.alive()
				return true
			},
			OnPongReceived: func(context.Context, []byte) { c.alive() },
		})
		if err != nil {
			return // Accept has responded
		}
		c.ws.SetReadLimit(s.cfg.readLimit)
		ctx := context.WithoutCancel(r.Context())
		c.work.Go(func() { c.write(ctx, revoked) })
		c.read(ctx)
		close(c.done)
		_ = c.ws.CloseNow() // usually already closed
		s.remove(c)
		c.work.Wait()
	}
}

// alive records that the client has sent something.
func (c *conn) alive() { c.silence.Reset(c.sockets.cfg.timeout) }

// timeOut ends a socket that has not sent anything for too long.
func (c *conn) timeOut() {
	c.sockets.mu.Lock()
	defer c.sockets.mu.Unlock()
	c.end(websocket.StatusProtocolError, "timeout")
}

// send queues messages, which take one entry of the queue. It needs the lock. It
// disconnects a client that does not read its messages.
func (c *conn) send(messages ...message) { c.enqueue(frame{messages: messages}) }

// end closes the socket after the messages in the queue. It needs the lock.
func (c *conn) end(code websocket.StatusCode, reason string) {
	c.enqueue(frame{code: code, reason: reason})
	c.closing = true
}

// enqueue needs the lock.
func (c *conn) enqueue(f frame) {
	if c.closing {
		return
	}
	select {
	case c.queue <- f:
	default:
		c.closing = true
		c.work.Go(func() { _ = c.ws.CloseNow() }) // may have to wait for a write that is in progress
	}
}

// read handles messages until the socket ends.
func (c *conn) read(ctx context.Context) {
	for {
		kind, b, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		c.alive()
		m, err := c.version.decode(b)
		switch {
		case kind != websocket.MessageText:
			c.fail(websocket.StatusUnsupportedData, "binary messages are not supported")
		case err != nil:
			c.fail(websocket.StatusInternalError, "")
		default:
			c.handle(m)
		}
	}
}

// fail ends the socket because of an invalid message from the client.
func (c *conn) fail(code websocket.StatusCode, reason string) {
	c.sockets.mu.Lock()
	defer c.sockets.mu.Unlock()
	c.end(code, reason)
}

// write sends the queued messages until the socket ends.
func (c *conn) write(ctx context.Context, revoked <-chan struct{}) {
	for {
		select {
		case <-c.done:
			return
		case <-revoked:
			revoked = nil
			c.fail(websocket.StatusGoingAway, "")
		case f := <-c.queue:
			if f.code != 0 {
				_ = c.ws.Close(f.code, f.reason) // the client may have left
				return
			}
			for _, m := range f.messages {
				select {
				case <-revoked:
					revoked = nil
					c.fail(websocket.StatusGoingAway, "")
				default:
				}
				if c.writeMessage(ctx, c.version.encode(m)) != nil {
					return // the connection is closed, so read ends too
				}
			}
		}
	}
}

func (c *conn) writeMessage(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.sockets.cfg.timeout, errSlow)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, b)
}

var errSlow = errors.New("sockettest: the client does not read")

// reply returns the response to a message of the client.
func reply(m message, joined ref, status string, response object) message {
	return message{
		joinRef: joined, ref: m.ref, topic: m.topic, event: eventReply,
		payload: encodePayload(object{"status": status, "response": response}),
	}
}

// accept sends a positive reply and the messages that follow from it. It needs the lock.
func (c *conn) accept(m message, joined ref, then ...message) {
	c.send(append([]message{reply(m, joined, "ok", object{})}, then...)...)
}

// refuse sends a negative reply. It needs the lock.
func (c *conn) refuse(m message, joined ref, reason string) {
	c.send(reply(m, joined, "error", object{"reason": reason}))
}

// handle processes a message.
func (c *conn) handle(m message) {
	s := c.sockets
	if m.event == eventJoin && m.topic != topicPhoenix {
		c.join(m)
		return
	}
	if ch := c.control(m); ch != nil {
		s.receive(ch, m)
	}
}

// control processes messages of the protocol itself. For all others, it returns the
// channel.
func (c *conn) control(m message) *channel {
	c.sockets.mu.Lock()
	defer c.sockets.mu.Unlock()
	if c.closing {
		return nil
	}
	ch := c.channels[m.topic]
	switch {
	case m.topic == topicPhoenix && m.event == eventHeartbeat:
		c.accept(m, nil)
	case ch == nil && m.event == eventLeave:
		c.accept(m, m.joinRef)
	case ch == nil:
		c.refuse(m, nil, reasonUnmatched)
	case !m.joinRef.none() && !m.joinRef.equal(ch.joinedRef):
		// The message belongs to an earlier join of the topic.
	case m.event == eventLeave:
		c.accept(m, ch.joinedRef)
		c.closeChannel(ch)
	default:
		return ch
	}
	return nil
}

// join makes the client join a topic. The client may have joined it before.
func (c *conn) join(m message) {
	s := c.sockets
	kind, id, matched := c.endpoint.match(m.topic)
	allowed := matched && s.authorized(c.who, kind, id)
	if allowed && (kind == topicStream || kind == topicTask) {
		id = s.canonical(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.closing {
		return
	}
	if old := c.channels[m.topic]; old != nil {
		c.closeChannel(old)
	}
	joined := m.joinRef
	if joined.none() {
		joined = m.ref
	}
	switch {
	case !matched:
		c.refuse(m, nil, reasonUnmatched)
	case len(c.channels) >= maxChannels:
		c.refuse(m, m.joinRef, "too many channels joined")
	case !allowed:
		c.refuse(m, m.joinRef, reasonUnauthorized)
	default:
		ch := &channel{conn: c, topic: m.topic, kind: kind, id: id, joinedRef: joined}
		c.channels[m.topic] = ch
		s.joined[ch.key()] = append(s.joined[ch.key()], ch)
		var missed []message
		if kind == topicStream {
			missed = s.stream(id).replay(ch.topic)
		}
		c.accept(m, m.joinRef, missed...)
	}
}

// closeChannel closes a channel in an orderly way. It needs the lock.
func (c *conn) closeChannel(ch *channel) { c.dropChannel(ch, eventClose, object{}) }

// dropChannel removes a channel and sends an event about it. It needs the lock.
func (c *conn) dropChannel(ch *channel, event string, payload object) {
	c.sockets.leave(ch)
	c.send(message{
		joinRef: ch.joinedRef, ref: ch.joinedRef, topic: ch.topic, event: event, payload: encodePayload(payload),
	})
}
