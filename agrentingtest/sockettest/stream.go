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

// The limits of the stored stream, for clients that join later. The platform does not
// publish numbers.
const (
	maxChunks = 10_000
	maxBytes  = 16 << 20 // of contents and kinds
)

// Chunk is a part of the output of an agent while it works on a task, such as Chunk{Seq:
// 1, Content: "Hello", Kind: "text"}. Most programs only read Content.
type Chunk struct {
	Seq       int            `json:"seq"` // 1 for the first chunk
	Content   string         `json:"content"`
	Kind      string         `json:"kind"` // "text" unless the agent sets it, which is an assumption
	Timestamp time.Time      `json:"timestamp"`
	Metadata  map[string]any `json:"metadata"`
}

// size returns the size in bytes.
func (c Chunk) size() int { return len(c.Content) + len(c.Kind) }

// stream is the output of the current attempt at a task.
type stream struct {
	last   int // the sequence number of the latest chunk
	chunks []Chunk
	size   int      // total size of chunks
	end    *message // stream.done or stream.error
}

// keep adds a chunk and drops the oldest ones beyond the limits, but never the new one.
// It needs the lock.
func (st *stream) keep(c Chunk) {
	st.chunks = append(st.chunks, c)
	st.size += c.size()
	for len(st.chunks) > maxChunks || st.size > maxBytes && len(st.chunks) > 1 {
		st.size -= st.chunks[0].size()
		st.chunks[0] = Chunk{} // append may keep the array for a long time
		st.chunks = st.chunks[1:]
	}
}

// replay returns the messages that a client has missed if it joins late. It needs the
// lock.
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

// Emit adds a chunk to the stream of a task or hiring. It is meant for agents that use a
// transport other than the sockets, such as the tool task_emit_chunk of the platform's
// MCP server. An empty kind means "text". Emit returns an error if there is no such task
// or hiring, or if it has ended.
func (s *Sockets) Emit(id, content, kind string, metadata map[string]any) error {
	w, ok := s.srv.Work(id)
	if !ok {
		return fmt.Errorf("sockettest: no task or hiring %q on this server", id)
	}
	if ended(w) {
		return fmt.Errorf("sockettest: the task or hiring %q is already %s", id, w.Status)
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

// Chunks returns the latest chunks of a task or hiring, oldest first: at most 10,000, and
// at most 16 MiB in total. A single larger chunk is kept alone. A new attempt begins
// without chunks.
func (s *Sockets) Chunks(id string) []Chunk {
	id = s.canonical(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[id]; st != nil {
		return slices.Clone(st.chunks)
	}
	return nil
}

// receiveChunk handles a task.stream_chunk from an agent.
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
