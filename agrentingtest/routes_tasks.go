package agrentingtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// taskForm is one of the known forms of a body that creates a task.
type taskForm struct {
	marks      []string // members that only this form has
	provider   string   // if empty, the platform chooses the provider
	registered bool     // the provider is a UUID and must list the capability
	capability string
	list       bool // the capability is a list
	input      string
	price      string
	extra      []string
}

// taskForms are tried in order. A body that does not match any of them is read in the
// last form.
var taskForms = []taskForm{
	{ // the official clients
		marks: []string{"provider_agent_id"}, provider: "provider_agent_id", capability: "capability", input: "input",
		price: "max_price", extra: []string{"payment_type", "external_client"},
	},
	{
		marks: []string{"title", "required_capabilities"}, capability: "required_capabilities", list: true,
		input: "description", price: "price", extra: []string{"title", "description", "deadline"},
	},
	{
		marks: []string{"capability", "execution_mode"}, capability: "capability", input: "input",
		price: "max_price", extra: []string{"execution_mode"},
	},
	{
		marks: []string{"agent_id", "task_type"}, provider: "agent_id", registered: true, capability: "task_type", input: "input",
		price: "max_price",
	},
}

func formOf(body fields) taskForm {
	for _, form := range taskForms {
		if slices.ContainsFunc(form.marks, func(mark string) bool { return body[mark] != nil }) {
			return form
		}
	}
	return taskForms[len(taskForms)-1]
}

// spec reads a body of this form. The provider must have at least one of the
// capabilities.
func (form taskForm) spec(body fields) (spec jobSpec, provider string, capabilities []string, _ *failure) {
	v := validator{fields: body}
	if form.provider != "" {
		provider = v.text(form.provider, true, 255)
		if provider != "" && form.registered && !isUUID(provider) {
			v.complain(form.provider, "must be a UUID")
		}
	}
	if form.list {
		capabilities = v.list(form.capability, true)
	} else {
		capabilities = []string{v.text(form.capability, true, 255)}
	}
	price, f := v.amount(form.price, false)
	if f := v.failure(); f != nil {
		return spec, "", nil, f
	}
	if f != nil {
		return spec, "", nil, f
	}
	spec = jobSpec{capability: capabilities[0], price: price, extra: map[string]any{}}
	if raw := body[form.input]; raw != nil {
		spec.input = raw
	}
	for _, name := range form.extra {
		if raw := body[name]; raw != nil {
			spec.extra[name] = raw
		}
	}
	return spec, provider, capabilities, nil
}

// createTask creates a task of an agent or a user. In the sandbox, a simulated result is
// available at once.
func (s *Server) createTask(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	form := formOf(body)
	spec, id, capabilities, f := form.spec(body)
	if f != nil {
		return reply{}, f
	}
	var provider *agent
	if form.provider == "" {
		provider = s.bestAgent(x, capabilities)
	} else {
		provider = s.dir.find(id)
		if provider == nil || !x.who.sees(provider) {
			return reply{}, notFound("agent")
		}
		if provider.status != AgentActive {
			return reply{}, unavailable()
		}
		// The documentation requires this for task_type. No source requires it for capability.
		if form.registered && !provider.offers(spec.capability) {
			return reply{}, invalid(form.capability, "is not a capability of the agent")
		}
	}
	j := s.dir.addJob(taskFlow, x.who.party(), provider, spec, s.now())
	s.dir.catchUp(s.now())
	return reply{status: http.StatusCreated, data: j.renderTask()}, nil
}

// offers reports whether an agent accepts a capability. Sandbox agents, and agents
// without a list of capabilities, accept all.
func (a *agent) offers(capability string) bool {
	known := a.profile.capabilities
	return a.sandbox || len(known) == 0 || slices.Contains(known, capability)
}

// bestAgent chooses a provider other than the client: the agent with the highest
// reputation among those that list one of the capabilities. The platform does not
// publish how it chooses. If there is no such agent, the task remains unassigned.
func (s *Server) bestAgent(x *exchange, capabilities []string) *agent {
	var best *agent
	for _, a := range s.dir.agentList {
		if a == x.who.agent || a.status != AgentActive || !x.who.sees(a) || a.sandbox && x.who.agent == nil && !x.who.token.sandbox {
			continue
		}
		if !slices.ContainsFunc(capabilities, func(c string) bool { return slices.Contains(a.profile.capabilities, c) }) {
			continue
		}
		if best == nil || a.reputation > best.reputation {
			best = a
		}
	}
	return best
}

// renderTask renders the members that the official clients read, and those of the older
// example with agent_id and task_type.
func (j *job) renderTask() map[string]any {
	m := map[string]any{
		"id":                j.id,
		"status":            j.status,
		"client_agent_id":   j.client.agentID(),
		"provider_agent_id": nil,
		"capability":        j.spec.capability,
		"input":             j.spec.input,
		"progress_percent":  0,
		"created_at":        timestamp(j.created),
		"updated_at":        timestamp(j.updated),

		"requester_id": j.client.agentID(),
		"agent_id":     nil,
		"task_type":    j.spec.capability,
		"environment":  "production",
	}
	maps.Copy(m, j.spec.extra)
	if j.spec.price > 0 {
		m["max_price"] = j.spec.price
	}
	if j.client.agent != nil {
		m["environment"] = j.client.agent.environment()
	}
	if j.provider != nil {
		m["provider_agent_id"], m["agent_id"] = j.provider.id, j.provider.id
		m["environment"] = j.provider.environment()
	}
	if j.output != nil {
		m["output"], m["result"] = text(j.output), j.output
	}
	if j.reason != "" {
		m["error_reason"] = j.reason
	}
	if j.status == statusCompleted {
		m["progress_percent"] = 100
		m["completed_at"] = timestamp(j.ended)
	}
	return m
}

// text returns a value as the string that the official clients expect.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	var s string
	b := encode(v)
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	return string(b)
}

// listTasks lists the tasks of which the acting agent is the client or the provider.
func (s *Server) listTasks(x *exchange) (reply, *failure) {
	return page(x, s.tasksOf(x), func(j *job) uint64 { return j.seq }, (*job).renderTask)
}

func (s *Server) tasksOf(x *exchange) []*job {
	return s.dir.jobs.where(func(j *job) bool { return j.flow == taskFlow && j.concerns(&x.who) })
}

// listPendingTasks lists the open tasks of a provider. The list is a member of data.
func (s *Server) listPendingTasks(x *exchange) (reply, *failure) {
	tasks := []map[string]any{}
	for _, j := range s.tasksOf(x) {
		if j.provider == x.who.agent && !final(j.status) {
			tasks = append(tasks, j.renderTask())
		}
	}
	return reply{status: http.StatusOK, data: map[string]any{"tasks": tasks}}, nil
}

// job returns the job in the path if the actor is one of its parties.
func (s *Server) job(x *exchange, flow *workflow) (*job, *failure) {
	j := s.dir.jobs.get(x.r.PathValue("id"))
	if j == nil || j.flow != flow || !j.concerns(&x.who) {
		return nil, notFound(flow.noun)
	}
	return j, nil
}

// clientJob returns the job in the path if the actor is its client.
func (s *Server) clientJob(x *exchange, flow *workflow) (*job, *failure) {
	j, f := s.job(x, flow)
	if f == nil && !j.client.is(&x.who) {
		return nil, forbidden("only the client of the %s may do this", flow.noun)
	}
	return j, f
}

// task serves a route that only reads a task.
func (s *Server) task(render func(*job) any) func(*exchange) (reply, *failure) {
	return s.working(func(x *exchange) (reply, *failure) {
		j, f := s.job(x, taskFlow)
		if f != nil {
			return reply{}, f
		}
		return reply{status: http.StatusOK, data: render(j)}, nil
	})
}

func (j *job) taskData() any { return j.renderTask() }

// timeline lists the events of a task, under the names of the webhook events.
func (j *job) timeline() any {
	events := make([]map[string]any, len(j.events))
	for i, e := range j.events {
		events[i] = map[string]any{"event_type": e.kind, "timestamp": timestamp(e.at)}
	}
	return map[string]any{"events": events}
}

// attemptList lists the attempts. Each assignment begins an attempt.
func (j *job) attemptList() any {
	attempts := make([]map[string]any, len(j.attempts))
	for i, a := range j.attempts {
		m := map[string]any{"id": a.id, "status": a.status, "created_at": timestamp(a.created)}
		if a.ended.IsZero() {
			m["status"] = j.status
		}
		if a.status == statusCompleted {
			m["completed_at"] = timestamp(a.ended)
		}
		if a.reason != "" {
			m["error_reason"] = a.reason
		}
		attempts[i] = m
	}
	return map[string]any{"attempts": attempts}
}

// cancelTask cancels a task for its client.
func (s *Server) cancelTask(x *exchange) (reply, *failure) {
	j, f := s.clientJob(x, taskFlow)
	if f == nil {
		f = j.apply(s.dir, actionCancel, s.now())
	}
	if f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusOK, data: j.renderTask()}, nil
}

// reassignTask assigns a failed or canceled task to another agent, or to the best one.
func (s *Server) reassignTask(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	did := v.text("new_provider_agent_did", false, 255)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	j, f := s.clientJob(x, taskFlow)
	if f != nil {
		return reply{}, f
	}
	next := s.bestAgent(x, []string{j.spec.capability})
	if did != "" {
		next = s.dir.find(did)
	}
	switch {
	case did != "" && (next == nil || !x.who.sees(next)):
		return reply{}, notFound("agent")
	case next == nil:
		return reply{}, fail(http.StatusServiceUnavailable, CodeAgentUnavailable, "no agent has the capability")
	case next.status != AgentActive:
		return reply{}, unavailable()
	}
	if f := j.allows(actionReassign); f != nil {
		return reply{}, f
	}
	m := map[string]any{"task_id": j.id, "previous_agent_did": nil, "new_agent_did": next.did, "new_provider_agent_id": next.id}
	if j.provider != nil {
		m["previous_agent_did"] = j.provider.did
	}
	j.provider, j.payment = next, nil
	if f := j.apply(s.dir, actionReassign, s.now()); f != nil {
		return reply{}, f
	}
	m["status"], m["reassigned_at"] = j.status, timestamp(j.updated)
	s.dir.catchUp(s.now())
	return reply{status: http.StatusOK, data: m}, nil
}
