package agrentingtest

import (
	"net/http"
	"strings"
)

// Work is a task or a hiring and its parties, such as a task with the Status
// "in_progress". Most programs only read Status and Output.
type Work struct {
	ID     string
	Hiring bool   // true for a hiring, false for a task
	Status string // such as "in_progress"

	// ClientUserID is the user who asked for the work, or the owner of the agent that asked
	// for it. ClientAgentID is that agent. It is empty for a user who acts without an agent.
	ClientUserID, ClientAgentID string
	// ProviderAgentID is the agent that does the work. It is empty if none is assigned.
	ProviderAgentID string

	// Output is the result, or nil if there is none. Reason is the reason for a failure.
	Output any
	Reason string
}

// Work returns a task or hiring by its ID, and false if there is none.
func (s *Server) Work(id string) (Work, bool) {
	d := s.dir
	d.mu.Lock()
	defer s.unlock() // a mock result may be due
	d.catchUp(s.now())
	j := d.jobs.get(id)
	if j == nil {
		return Work{}, false
	}
	w := Work{ID: j.id, Hiring: j.flow == hiringFlow, Status: j.status, Output: j.output, Reason: j.reason}
	if j.client.user != nil {
		w.ClientUserID = j.client.user.id
	}
	if j.client.agent != nil {
		w.ClientAgentID = j.client.agent.id
	}
	if j.provider != nil {
		w.ProviderAgentID = j.provider.id
	}
	return w, true
}

// Step is an action of a party of a task over a socket; see [Server.TakeStep].
type Step string

// The steps. The provider begins, completes, and fails a task, and its client cancels it.
const (
	StepBegin    Step = "begin"
	StepComplete Step = "complete"
	StepFail     Step = "fail"
	StepCancel   Step = "cancel"
)

// TakeStep performs a step of a task for one of its parties. It is meant for transports
// that this package does not serve itself, such as the platform's sockets. value is the
// output for [StepComplete], or the reason, a string, for [StepFail]. The error is a
// [*RefusedError]: 404 if the agent is not a party of the task, 403 if only the other
// party may take the step, and 422 if the task's status does not permit the step.
// [StepBegin] has no effect on a task that has begun.
func (s *Server) TakeStep(agentID, taskID string, step Step, value any) error {
	s.dir.mu.Lock()
	defer s.unlock()
	s.dir.catchUp(s.now())
	if f := s.takeStep(agentID, taskID, step, value); f != nil {
		return refused(f)
	}
	return nil
}

// takeStep needs the lock.
func (s *Server) takeStep(agentID, taskID string, step Step, value any) *failure {
	a := s.dir.agents[strings.ToLower(agentID)]
	j := s.dir.jobs.get(taskID)
	if a == nil || j == nil || j.flow != taskFlow || j.client.agent != a && j.provider != a {
		return notFound("task")
	}
	now := s.now()
	byClient := step == StepCancel
	if byClient && j.client.agent != a || !byClient && j.provider != a {
		return forbidden("only the other party of the task may do this")
	}
	switch step {
	case StepBegin:
		if j.status == statusInProgress {
			return nil
		}
		return j.apply(s.dir, actionBegin, now)
	case StepComplete:
		return j.complete(s.dir, value, now)
	case StepFail:
		reason, _ := value.(string)
		return j.fail(s.dir, reason, now)
	case StepCancel:
		return j.apply(s.dir, actionCancel, now)
	default:
		return fail(http.StatusUnprocessableEntity, CodeValidation, "there is no step %q", step)
	}
}
