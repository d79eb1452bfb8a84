package sockettest

import (
	"slices"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The events on hirer and on agent. Webhooks have the same names for them.
var (
	hirerEvents = []string{"hiring.created", "hiring.completed", "hiring.cancelled"}
	agentEvents = slices.Concat(hirerEvents, []string{
		"task.created", "task.claimed", "task.in_progress", "task.completed", "task.failed", "task.cancelled",
	})
)

// onChange pushes a change that happened on the server.
func (s *Sockets) onChange(c agrentingtest.Change) {
	id := c.TaskID + c.HiringID // one of them is empty
	if id == "" || c.PaymentID != "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(agentEvents, c.Event) {
		payload := encodePayload(c.Data)
		s.broadcast(topicAgent+c.AgentID, c.Event, payload, nil)
		if c.ClientAgentID != c.AgentID {
			s.broadcast(topicAgent+c.ClientAgentID, c.Event, payload, nil)
		}
		if slices.Contains(hirerEvents, c.Event) {
			s.broadcast(topicHirer+c.UserID, c.Event, payload, nil)
		}
	}
	s.endStream(id, c)
	if c.Event == "task.completed" {
		s.broadcast(topicTask+id, "task_completed", encodePayload(object{"task": c.Data}), nil)
	}
}

// endStream ends the stream of a task that has ended, and begins a new stream when
// the task has begun again. It needs the lock.
func (s *Sockets) endStream(id string, c agrentingtest.Change) {
	w := agrentingtest.Work{Status: c.Status}
	if !ended(w) {
		if st := s.streams[id]; st != nil && st.end != nil {
			delete(s.streams, id)
		}
		return
	}
	event, payload := eventStreamError, object{"error": first(c.Data, "error_reason", "failed_reason")}
	if c.Status == "completed" {
		event, payload = eventStreamDone, object{"result": first(c.Data, "result", "task_output")}
	} else if payload["error"] == nil {
		payload["error"] = c.Status
	}
	end := message{topic: topicStream + id, event: event, payload: encodePayload(payload)}
	s.stream(id).end = &end
	s.broadcast(end.topic, end.event, end.payload, nil)
}

// first returns the first of two members that is present, because tasks and hirings
// have different names for it.
func first(data map[string]any, task, hiring string) any {
	if v := data[task]; v != nil {
		return v
	}
	return data[hiring]
}
