package agrentingtest

import (
	"net/http"
	"slices"
)

// maxMessage is the documented maximum length of messages and task descriptions, in
// characters.
const maxMessage = 5000

var messageKinds = []string{"instruction", "feedback", "question"}

// say adds a message. The provider's first message begins the work, which is an
// assumption.
func (s *Server) say(x *exchange, j *job, content, kind string) *message {
	m := &message{
		id: newUUID(), seq: s.dir.next(), kind: kind, content: content,
		sender: x.who.party(), client: j.client.is(&x.who), created: s.now(),
	}
	j.messages = append(j.messages, m)
	if !m.client && j.allows(actionBegin) == nil {
		_ = j.apply(s.dir, actionBegin, s.now()) // already checked
	}
	return m
}

// sendTaskMessage adds a message to a task.
func (s *Server) sendTaskMessage(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	content, kind := v.text("message", true, maxMessage), v.text("message_type", false, 50)
	if kind == "" {
		kind = messageKinds[0]
	}
	if !slices.Contains(messageKinds, kind) {
		v.complain("message_type", "is invalid: must be instruction, feedback, or question")
	}
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	j, f := s.job(x, taskFlow)
	if f != nil {
		return reply{}, f
	}
	m := s.say(x, j, content, kind)
	return reply{status: http.StatusCreated, data: map[string]any{
		"message_id": m.id, "task_id": j.id, "sent_at": timestamp(m.created),
	}}, nil
}

// listTaskMessages lists the messages of a task.
func (s *Server) listTaskMessages(x *exchange) (reply, *failure) {
	j, f := s.job(x, taskFlow)
	if f != nil {
		return reply{}, f
	}
	return page(x, j.messages, func(m *message) uint64 { return m.seq }, func(m *message) map[string]any {
		r := map[string]any{
			"id": m.id, "task_id": j.id, "content": m.content, "message_type": m.kind,
			"sender_name": m.sender.name(), "created_at": timestamp(m.created),
		}
		if m.sender.agent != nil {
			r["sender_agent_did"] = m.sender.agent.did
		} else {
			r["sender_user_id"] = m.sender.user.id
		}
		return r
	})
}

// sendHiringMessage adds a message to a hiring.
func (s *Server) sendHiringMessage(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	content := v.text("content", true, maxMessage)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	j, f := s.job(x, hiringFlow)
	if f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusCreated, data: s.say(x, j, content, "").renderFor(j)}, nil
}

// renderFor renders a message of a hiring.
func (m *message) renderFor(j *job) map[string]any {
	sender := "agent"
	if m.client {
		sender = "client"
	}
	return map[string]any{
		"id": m.id, "hiring_id": j.id, "content": m.content, "sender_type": sender, "sender_name": m.sender.name(),
		"sender_agent_id": m.sender.agentID(), "created_at": timestamp(m.created), "inserted_at": timestamp(m.created),
	}
}
