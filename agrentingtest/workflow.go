package agrentingtest

import (
	"net/http"
	"slices"
	"time"
)

// The statuses of hirings and tasks. This server has no route that sets
// pending_payment, disputed, or refunded.
const (
	statusPending           = "pending"
	statusPendingPayment    = "pending_payment"
	statusPaid              = "paid"
	statusQueued            = "queued"
	statusInProgress        = "in_progress"
	statusRevisionRequested = "revision_requested"
	statusCompleted         = "completed"
	statusFailed            = "failed"
	statusCancelled         = "cancelled"
	statusDisputed          = "disputed"
	statusRefunded          = "refunded"
)

// action is an action that changes the status of a hiring or task.
type action string

const (
	actionBegin    action = "begin"  // a message from the provider
	actionResult   action = "result" // also for a mock result
	actionFailure  action = "failure"
	actionCancel   action = "cancel"
	actionRetry    action = "retry"
	actionReassign action = "reassign"
	actionRevise   action = "request a revision of"
)

// transition is the effect of an action on a status.
type transition struct {
	from []string
	to   string
}

// workflow is the life cycle of hirings or of tasks.
type workflow struct {
	noun        string
	statuses    []string
	initial     string
	transitions map[action]transition
}

// The platform names the statuses and the routes. Which route changes which status is
// an assumption, except that only failed hirings can be retried.
var (
	hiringFlow = &workflow{
		noun: "hiring",
		statuses: []string{
			statusPendingPayment, statusPaid, statusQueued, statusInProgress, statusRevisionRequested,
			statusCompleted, statusFailed, statusCancelled, statusDisputed, statusRefunded,
		},
		initial: statusPaid,
		transitions: map[action]transition{
			actionBegin:   {[]string{statusPaid, statusQueued, statusRevisionRequested}, statusInProgress},
			actionResult:  {hiringAssigned, statusCompleted},
			actionFailure: {hiringAssigned, statusFailed},
			actionCancel:  {slices.Concat([]string{statusPendingPayment}, hiringAssigned), statusCancelled},
			actionRetry:   {[]string{statusFailed}, statusQueued},
			actionRevise:  {[]string{statusCompleted}, statusRevisionRequested},
		},
	}
	taskFlow = &workflow{
		noun:     "task",
		statuses: []string{statusPending, statusInProgress, statusCompleted, statusFailed, statusCancelled},
		initial:  statusPending,
		transitions: map[action]transition{
			actionBegin:    {[]string{statusPending}, statusInProgress},
			actionResult:   {taskOpen, statusCompleted},
			actionFailure:  {taskOpen, statusFailed},
			actionCancel:   {taskOpen, statusCancelled},
			actionReassign: {[]string{statusFailed, statusCancelled}, statusPending},
		},
	}

	hiringAssigned = []string{statusPaid, statusQueued, statusInProgress, statusRevisionRequested}
	taskOpen       = []string{statusPending, statusInProgress}
)

// final reports whether no further work is expected.
func final(status string) bool {
	return slices.Contains([]string{statusCompleted, statusFailed, statusCancelled, statusDisputed, statusRefunded}, status)
}

// job is a hiring or a task. Its fields need the lock, except those that never change.
type job struct {
	id       string
	seq      uint64
	flow     *workflow
	client   party
	provider *agent // nil if the task has no agent
	spec     jobSpec
	created  time.Time

	status    string
	updated   time.Time
	started   time.Time // time of the first attempt
	ended     time.Time // zero if it has not ended
	output    any
	reason    string // of a failure
	resultID  string
	due       time.Time // when a mock result is due; zero if there is none
	escrow    money
	payment   *payment
	attempts  []*attempt
	events    []event
	messages  []*message
	artifacts []*document
}

// jobSpec is the client's request.
type jobSpec struct {
	capability string
	input      any // a string or any other JSON value
	price      money
	extra      map[string]any // further members, rendered unchanged
}

// attempt is one try of a provider. For a hiring, its ID is the dispatch_id.
type attempt struct {
	id             string
	provider       *agent
	status, reason string
	created, ended time.Time
}

// event is an entry of the timeline.
type event struct {
	kind string
	at   time.Time
}

// message is part of the conversation about a job.
type message struct {
	id      string
	seq     uint64
	kind    string
	content string
	sender  party
	client  bool // sent by the client, not by the provider
	created time.Time
}

// addJob creates a job. It needs the lock.
func (d *directory) addJob(flow *workflow, client party, provider *agent, spec jobSpec, now time.Time) *job {
	j := &job{
		id: newUUID(), seq: d.next(), flow: flow, client: client, provider: provider, spec: spec, created: now,
		status: flow.initial, updated: now,
	}
	d.jobs.add(j.id, j)
	d.dispatch(j, now)
	j.record(d, "created", now)
	return j
}

// dispatch begins an attempt of the provider. It needs the lock.
func (d *directory) dispatch(j *job, now time.Time) {
	j.attempts = append(j.attempts, &attempt{id: newUUID(), provider: j.provider, created: now})
	if j.provider != nil && (j.provider.sandbox || j.provider.mockAfter > 0) {
		j.due = now.Add(j.provider.mockAfter)
		d.mocks = append(d.mocks, j)
	}
	if j.flow == hiringFlow {
		d.postHire(j)
	}
}

func (j *job) attempt() *attempt { return j.attempts[len(j.attempts)-1] }

// record adds an event, with the name of the webhook event, and announces it. Every
// change of a job calls it last.
func (j *job) record(d *directory, what string, now time.Time) {
	e := event{kind: j.flow.noun + "." + what, at: now}
	j.events = append(j.events, e)
	d.announceJob(j, e)
}

// allows returns a refusal if the status does not permit the action. Its error code is
// an assumption.
func (j *job) allows(a action) *failure {
	if slices.Contains(j.flow.transitions[a].from, j.status) {
		return nil
	}
	f := fail(http.StatusUnprocessableEntity, CodeValidation, "cannot %s a %s that is %s", a, j.flow.noun, j.status)
	f.err.Field = "status"
	f.err.Details = map[string][]string{"status": {f.err.Message}}
	return f
}

// apply performs an action: it changes the status, ends or begins an attempt, and
// moves the money. It needs the lock.
func (j *job) apply(d *directory, a action, now time.Time) *failure {
	if f := j.allows(a); f != nil {
		return f
	}
	j.status, j.updated = j.flow.transitions[a].to, now
	switch {
	case final(j.status):
		j.ended, j.due = now, time.Time{}
		last := j.attempt()
		last.status, last.reason, last.ended = j.status, j.reason, now
		j.settle(d, now)
		j.record(d, j.status, now)
		if j.payment != nil {
			d.announcePayment(j, "payment."+j.paymentStatus(), now)
		}
	case a == actionBegin:
		if j.started.IsZero() {
			j.started = now
		}
		if j.flow == taskFlow { // The platform does not publish what claims a task. There is no status for it.
			d.announceJob(j, event{kind: "task.claimed", at: now})
		}
		j.record(d, j.status, now)
	default: // a new attempt
		j.ended, j.reason = time.Time{}, ""
		d.dispatch(j, now)
		j.record(d, map[action]string{
			actionRetry: "retried", actionReassign: "reassigned", actionRevise: statusRevisionRequested,
		}[a], now)
	}
	return nil
}

// concerns reports whether the actor is a party of the job.
func (j *job) concerns(w *actor) bool {
	return j.client.is(w) || j.provider != nil &&
		(w.agent == j.provider || w.agent == nil && w.token != nil && j.provider.owner == w.token.user)
}

// catchUp delivers the mock results that are due. It needs the lock.
func (d *directory) catchUp(now time.Time) {
	waiting := d.mocks[:0]
	for _, j := range d.mocks {
		switch {
		case j.due.IsZero(): // the job has ended
		case now.Before(j.due):
			waiting = append(waiting, j)
		default:
			d.mock(j)
		}
	}
	clear(d.mocks[len(waiting):])
	d.mocks = waiting
}

// mock completes a job as the platform's sandbox does. Hirings get an artifact.
func (d *directory) mock(j *job) {
	at := j.due
	output := map[string]any{"simulated": true, "echo": j.spec.input}
	if j.flow == hiringFlow {
		j.artifacts = append(j.artifacts, d.addDocument(document{
			name: "result.json", contentType: "application/json", kind: "output", content: encode(output),
			owner: party{user: j.provider.owner, agent: j.provider}, job: j, created: at,
		}))
	}
	_ = j.complete(d, output, at) // even an open job can be completed
}

// working wraps a route of the marketplace: it delivers the mock results that are due,
// and calls the route with the lock.
func (s *Server) working(h func(*exchange) (reply, *failure)) func(*exchange) (reply, *failure) {
	return func(x *exchange) (reply, *failure) {
		s.dir.mu.Lock()
		defer s.unlock()
		s.dir.catchUp(s.now())
		return h(x)
	}
}

// complete completes the job with a result. It needs the lock.
func (j *job) complete(d *directory, output any, now time.Time) *failure {
	if f := j.allows(actionResult); f != nil {
		return f
	}
	j.output, j.resultID = output, newUUID()
	return j.apply(d, actionResult, now)
}

// fail fails the job. It needs the lock.
func (j *job) fail(d *directory, reason string, now time.Time) *failure {
	if f := j.allows(actionFailure); f != nil {
		return f
	}
	j.reason = reason
	return j.apply(d, actionFailure, now)
}

// CompleteTask completes a task with a result, as its provider does. No source names a
// route for that. It panics if there is no such task or if the task has ended.
func (s *Server) CompleteTask(id string, output any) {
	s.endTask("CompleteTask", id, func(j *job) *failure { return j.complete(s.dir, output, s.now()) })
}

// FailTask is like [Server.CompleteTask], but fails the task with a reason, such as
// "timeout".
func (s *Server) FailTask(id, reason string) {
	s.endTask("FailTask", id, func(j *job) *failure { return j.fail(s.dir, reason, s.now()) })
}

func (s *Server) endTask(caller, id string, end func(*job) *failure) {
	s.dir.mu.Lock()
	defer s.unlock()
	s.dir.catchUp(s.now())
	j := s.dir.jobs.get(id)
	if j == nil || j.flow != taskFlow {
		panic("agrentingtest: " + caller + ": no task " + id + " on this server")
	}
	if f := end(j); f != nil {
		panic("agrentingtest: " + caller + ": " + f.err.Message)
	}
}
