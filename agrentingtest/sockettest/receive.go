package sockettest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// taskEvent is the effect of an event on task.
type taskEvent struct {
	client bool               // sent by the client, not by the provider
	shared bool               // forwarded to the other party
	step   agrentingtest.Step // its effect on the task
}

// taskEvents are the inbound events of the page "WebSocket".
var taskEvents = map[string]taskEvent{
	"input_stream":    {client: true, shared: true},
	"input_complete":  {client: true},
	"output_stream":   {shared: true, step: agrentingtest.StepBegin},
	"output_complete": {},
	"progress":        {shared: true, step: agrentingtest.StepBegin},
	"checkpoint":      {step: agrentingtest.StepBegin},
	"complete":        {step: agrentingtest.StepComplete},
	"error":           {step: agrentingtest.StepFail},
	"cancel":          {client: true, step: agrentingtest.StepCancel},
}

// receive handles an event on a channel. It must be called without the lock, because it
// may change the task on the server, which then announces the change.
func (s *Sockets) receive(ch *channel, m message) {
	var reason string
	known := false
	switch ch.kind {
	case topicAgent:
		if known = m.event == eventEmit; known {
			reason = s.receiveChunk(ch.conn, m)
		}
	case topicTask:
		var e taskEvent
		if e, known = taskEvents[m.event]; known {
			reason = s.receiveTask(ch, e, m)
		}
	default: // there are no inbound events
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := ch.conn
	switch {
	case c.closing || c.channels[ch.topic] != ch:
		// It has ended in the meantime.
	case !known:
		c.dropChannel(ch, eventError, object{})
	case reason != "":
		c.refuse(m, ch.joinedRef, reason)
	default:
		c.accept(m, ch.joinedRef)
	}
}

// receiveTask handles an event on task.
func (s *Sockets) receiveTask(ch *channel, e taskEvent, m message) (reason string) {
	fields, ok := m.fields()
	if !ok {
		return "invalid payload: expected an object"
	}
	w, ok := s.srv.Work(ch.id)
	self := w.ProviderAgentID
	if e.client {
		self = w.ClientAgentID
	}
	switch {
	case !ok || self != ch.conn.who.AgentID:
		return reasonUnauthorized
	case ended(w):
		return "the task is " + w.Status
	}
	if e.step != "" {
		if reason := s.step(ch, w, e.step, fields); reason != "" {
			return reason
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.shared {
		s.broadcast(ch.key(), m.event, m.payload, ch.conn)
	}
	if m.event == "checkpoint" {
		s.checkpoints[w.ID] = m.payload
	}
	return ""
}

// step changes the task.
func (s *Sockets) step(ch *channel, w agrentingtest.Work, step agrentingtest.Step, fields map[string]json.RawMessage) (reason string) {
	var value any
	switch step {
	case agrentingtest.StepComplete:
		if raw := fields["result"]; raw != nil {
			value = raw
		}
	case agrentingtest.StepFail:
		value = failure(fields)
	default:
	}
	err := s.srv.TakeStep(ch.conn.who.AgentID, w.ID, step, value)
	if refused, ok := errors.AsType[*agrentingtest.RefusedError](err); ok {
		if refused.Status == http.StatusUnprocessableEntity {
			return refused.Message
		}
		return reasonUnauthorized
	}
	return ""
}

// failure returns the reason of a failed task: the type of the error and its details.
func failure(fields map[string]json.RawMessage) string {
	parts := make([]string, 0, 2)
	for _, name := range []string{"type", "details"} {
		raw := fields[name]
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		if s != "" && s != "null" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Checkpoint returns the payload of the latest checkpoint that the provider of a task has
// sent, with state and seq. It returns false if there is none.
func (s *Sockets) Checkpoint(taskID string) (json.RawMessage, bool) {
	taskID = s.canonical(taskID)
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.checkpoints[taskID]
	return b, ok
}
