package agrentingtest

import (
	"net/http"
	"strings"
)

// Work is a task or a hiring, and whose it is.
type Work struct {
	ID     string
	Hiring bool   // a hiring, not a task
	Status string // such as "in_progress"

	// ClientUserID is the user who asked for the work, or who owns the agent that did.
	// ClientAgentID is that agent, and empty for a user who acts for none.
	ClientUserID, ClientAgentID string
	// ProviderAgentID is the agent that does the work, and empty while none is assigned.
	ProviderAgentID string

	// Output is the result, nil while there is none. Reason is why the work failed.
	Output any
	Reason string
}

// Work returns a task or hiring by its ID, and false if there is none.
func (s *Server) Work(id string) (Work, bool) {
	d := s.dir
	d.mu.Lock()
	defer s.unlock() // a mock result may have arrived
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

// Step is what a party does to a task over a socket; see [Server.TakeStep].
type Step string

// The steps. The provider begins, completes, and fails a task, and its client cancels it.
const (
	StepBegin    Step = "begin"
	StepComplete Step = "complete"
	StepFail     Step = "fail"
	StepCancel   Step = "cancel"
)

// TakeStep does to a task what one of its parties asks for, for transports that this
// package does not serve itself, such as the platform's sockets. value is the output of
// [StepComplete], or the reason, a string, of [StepFail]. The error is a [*RefusedError]:
// 404 for a task that does not concern the agent, 403 for a step of the other party, and
// 422 for one that the task's status does not permit. [StepBegin] has no effect on a task
// that has begun.
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
