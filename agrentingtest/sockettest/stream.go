package sockettest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The events of task_stream, and the one that emits a chunk.
const (
	eventEmit        = "task.stream_chunk"
	eventChunk       = "stream.chunk"
	eventStreamDone  = "stream.done"
	eventStreamError = "stream.error"
)

// The bounds of what is kept of a stream for those who join later. The platform publishes
// no numbers.
const (
	maxChunks = 10_000
	maxBytes  = 16 << 20 // of contents and kinds
)

// Chunk is a part of what an agent says about a task while it works on it.
type Chunk struct {
	Seq       int            `json:"seq"` // 1 for the first one
	Content   string         `json:"content"`
	Kind      string         `json:"kind"` // "text" unless the agent says otherwise, which is assumed
	Timestamp time.Time      `json:"timestamp"`
	Metadata  map[string]any `json:"metadata"`
}

// size is in bytes.
func (c Chunk) size() int { return len(c.Content) + len(c.Kind) }

// stream is the output of the current attempt at a task.
type stream struct {
	last   int // the number of the latest chunk
	chunks []Chunk
	size   int      // of chunks
	end    *message // stream.done or stream.error
}

// keep adds a chunk, and forgets the oldest ones beyond the bounds, but never the new one.
// It needs the lock.
func (st *stream) keep(c Chunk) {
	st.chunks = append(st.chunks, c)
	st.size += c.size()
	for len(st.chunks) > maxChunks || st.size > maxBytes && len(st.chunks) > 1 {
		st.size -= st.chunks[0].size()
		st.chunks[0] = Chunk{} // append may keep the array for long
		st.chunks = st.chunks[1:]
	}
}

// replay returns what a client that joins late has missed. It needs the lock.
func (st *stream) replay(topic string) []message {
	missed := make([]message, 0, len(st.chunks)+1)
	for _, c := range st.chunks {
		missed = append(missed, message{topic: topic, event: eventChunk, payload: encodePayload(c)})
	}
	if st.end != nil {
		missed = append(missed, message{topic: topic, event: st.end.event, payload: st.end.payload})
	}
	return missed
}

// stream returns the stream of a task. It needs the lock.
func (s *Sockets) stream(id string) *stream {
	st := s.streams[id]
	if st == nil {
		st = &stream{}
		s.streams[id] = st
	}
	return st
}

// Emit adds a chunk to the stream of a task or hiring, for an agent that uses another
// transport than the sockets, such as the tool task_emit_chunk of the platform's MCP
// server. An empty kind means "text". The error says that there is no such task or
// hiring, or that it has ended.
func (s *Sockets) Emit(id, content, kind string, metadata map[string]any) error {
	w, ok := s.srv.Work(id)
	if !ok {
		return fmt.Errorf("sockettest: no task or hiring %q on this server", id)
	}
	if ended(w) {
		return fmt.Errorf("sockettest: the task or hiring %q is %s already", id, w.Status)
	}
	s.emit(w.ID, content, kind, metadata)
	return nil
}

func (s *Sockets) emit(id, content, kind string, metadata map[string]any) {
	if kind == "" {
		kind = "text"
	}
	if metadata == nil {
		metadata = map[string]any{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stream(id)
	st.last++
	c := Chunk{Seq: st.last, Content: content, Kind: kind, Timestamp: time.Now().UTC(), Metadata: maps.Clone(metadata)}
	st.keep(c)
	s.broadcast(topicStream+id, eventChunk, encodePayload(c), nil)
}

// Chunks returns the latest chunks of a task or hiring, the oldest first: at most 10,000,
// of at most 16 MiB together. A single larger chunk is kept alone.
// A new attempt begins without any.
func (s *Sockets) Chunks(id string) []Chunk {
	id = s.canonical(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[id]; st != nil {
		return slices.Clone(st.chunks)
	}
	return nil
}

// receiveChunk handles the task.stream_chunk of an agent.
func (s *Sockets) receiveChunk(c *conn, m message) (reason string) {
	var p struct {
		TaskID  string  `json:"task_id"`
		Content *string `json:"content"`
		Kind    string  `json:"kind"`
	}
	if json.Unmarshal(m.payload, &p) != nil || p.Content == nil {
		return "invalid payload: expected task_id, content, and kind"
	}
	w, ok := s.srv.Work(p.TaskID)
	switch {
	case !ok || w.ProviderAgentID != c.who.AgentID:
		return reasonUnauthorized
	case ended(w):
		return "the task is " + w.Status
	}
	s.emit(w.ID, *p.Content, p.Kind, nil)
	return ""
}

// ended reports whether no more output is expected.
func ended(w agrentingtest.Work) bool {
	switch w.Status {
	case "completed", "failed", "cancelled", "disputed", "refunded":
		return true
	default:
		return false
	}
}
