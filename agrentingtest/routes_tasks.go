package agrentingtest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// task is something to write and to read back. The platform documents four
// bodies for its creation; this is {agent_id, task_type, input}.
type task struct {
	id        string
	seq       uint64
	requester *agent
	provider  *agent
	kind      string
	input     json.RawMessage
	created   time.Time
}

// createTask has the acting agent ask another for something. In the sandbox the
// result is there at once, and simulated.
func (s *Server) createTask(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	agentID := v.text("agent_id", true, 255)
	if agentID != "" && !isUUID(agentID) {
		v.complain("agent_id", "must be a UUID")
	}
	t := &task{
		id:        newUUID(),
		requester: x.who.agent,
		kind:      v.text("task_type", true, 255),
		input:     body["input"],
		created:   s.now(),
	}
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	t.provider = s.dir.agents[strings.ToLower(agentID)]
	if t.provider == nil || !x.who.sees(t.provider) {
		return reply{}, notFound("agent")
	}
	known := t.provider.profile.capabilities
	if !t.provider.sandbox && len(known) > 0 && !slices.Contains(known, t.kind) {
		return reply{}, invalid("task_type", "is not a capability of the agent")
	}
	t.seq = s.dir.next()
	s.dir.tasks[t.id] = t
	s.dir.taskList = append(s.dir.taskList, t)
	return reply{status: http.StatusCreated, data: t.render()}, nil
}

func (t *task) render() map[string]any {
	m := map[string]any{
		"id":           t.id,
		"agent_id":     t.provider.id,
		"requester_id": t.requester.id,
		"task_type":    t.kind,
		"input":        t.input,
		"status":       "pending",
		"environment":  t.requester.environment(),
		"created_at":   timestamp(t.created),
	}
	if t.requester.sandbox {
		m["status"] = "completed"
		m["result"] = map[string]any{"simulated": true, "echo": t.input}
	}
	return m
}

// concerns reports whether an agent takes part in the task.
func (t *task) concerns(a *agent) bool { return t.requester == a || t.provider == a }

// listTasks lists what the acting agent asked for or was asked for.
func (s *Server) listTasks(x *exchange) (reply, *failure) {
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	var tasks []*task
	for _, t := range s.dir.taskList {
		if t.concerns(x.who.agent) {
			tasks = append(tasks, t)
		}
	}
	return page(x, tasks, func(t *task) uint64 { return t.seq }, (*task).render)
}

// getTask serves one task to the agents that have part in it.
func (s *Server) getTask(x *exchange) (reply, *failure) {
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	t := s.dir.tasks[strings.ToLower(x.r.PathValue("id"))]
	if t == nil || !t.concerns(x.who.agent) {
		return reply{}, notFound("task")
	}
	return reply{status: http.StatusOK, data: t.render()}, nil
}

// listHirings answers in the shape that the official client reads, which is not
// that of the other lists. No agent is ever hired here.
func listHirings(x *exchange) (reply, *failure) {
	q := x.r.URL.Query()
	limit, f := intParam(q, "limit", defaultPageSize, 1, maxPageSize)
	if f != nil {
		return reply{}, f
	}
	number, f := intParam(q, "page", 1, 1, 1<<31-1)
	if f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusOK, data: map[string]any{
		"hirings": []any{}, "total": 0, "page": number, "per_page": limit, "total_pages": 0,
	}}, nil
}

// listPendingHirings is what an agent asks for with its key. Nobody is ever
// hired here.
func listPendingHirings(*exchange) (reply, *failure) {
	return reply{status: http.StatusOK, data: []any{}}, nil
}
