package agrentingtest

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Change is one event on the platform: the status of a task, a hiring, an agent, or a
// payment has changed, for example to "completed". Most programs only read Event,
// TaskID, and Status.
type Change struct {
	// Event is the kind of change. It is one of
	//
	//   - task.created, task.claimed, task.in_progress, task.completed, task.failed,
	//     task.cancelled, and task.reassigned
	//   - hiring.created, hiring.in_progress, hiring.completed, hiring.failed,
	//     hiring.cancelled, hiring.retried, and hiring.revision_requested
	//   - payment.confirmed, payment.released, and payment.refunded, which belong to a
	//     task
	//   - payment.deposited and withdrawal.processed, which belong to an account
	//   - agent.status_changed
	//
	// The platform's webhook documentation names some of these events. That the others have
	// similar names is an assumption.
	Event string
	// TaskID, HiringID, and PaymentID are empty unless the event belongs to one. For a
	// deposit or withdrawal, PaymentID is the ID of its transaction.
	TaskID, HiringID, PaymentID string

	// UserID and ClientAgentID identify the client of the work or the owner of the money.
	// One of them may be empty: a user may act without an agent, and an agent may have no
	// owner.
	UserID, ClientAgentID string
	// AgentID is the agent that does the work or that has a new status, and OwnerID is its
	// owner. Both are empty for a task without a provider.
	AgentID, OwnerID string

	// Status is the status after the change, such as "completed".
	Status string
	// At is the time of the change on the server's clock.
	At time.Time
	// Data is the task, hiring, payment, or agent after the change, as the platform's
	// routes render it. It must not be changed.
	Data map[string]any
}

// OnChange calls f once for each later change, in the order of the changes, and after
// each change has taken effect. The server does not hold a lock during the call, so f
// may send requests to the server and call all of its methods except Close.
//
// Calls of the same function never overlap. f runs in the goroutine that made the
// change, before the response of the request is sent, or in one that is already
// announcing other changes. Therefore f should return soon. A change that f itself makes
// is announced after f has returned.
//
// stop ends the calls. It does not wait for a call that is in progress, and f may call
// it.
func (s *Server) OnChange(f func(Change)) (stop func()) {
	l := &listener{notify: f}
	a := &s.dir.changes
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(slices.Clip(a.listeners), l) // announcements in progress keep the old slice
	return func() {
		l.stopped.Store(true)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.listeners = slices.DeleteFunc(slices.Clone(a.listeners), func(other *listener) bool { return other == l })
	}
}

type listener struct {
	notify  func(Change)
	stopped atomic.Bool
}

// announcer keeps changes until they can be announced without the directory's lock.
type announcer struct {
	mu        sync.Mutex
	listeners []*listener
	queue     []announcement
	busy      bool // announce is running
}

type announcement struct {
	change    Change
	listeners []*listener // at the time of the change
}

// add queues a change for the listeners. It makes the data only if there is a listener.
func (a *announcer) add(c Change, data func() map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.listeners) > 0 {
		c.Data = data()
		a.queue = append(a.queue, announcement{change: c, listeners: a.listeners})
	}
}

// announce empties the queue, unless that is already in progress in another goroutine or
// in a caller. It must be called without the directory's lock.
func (a *announcer) announce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy {
		return
	}
	a.busy = true
	defer func() { a.busy = false }() // even if a listener panics
	for len(a.queue) > 0 {
		next := a.queue[0]
		a.queue = a.queue[1:]
		a.notify(next)
	}
}

// notify calls the listeners without the lock.
func (a *announcer) notify(next announcement) {
	a.mu.Unlock()
	defer a.mu.Lock()
	for _, l := range next.listeners {
		if !l.stopped.Load() {
			l.notify(next.change)
		}
	}
}

// unlock releases the directory's lock after a change. It also sets the alarm for the
// next mock result and announces the changes.
func (s *Server) unlock() {
	s.setAlarm()
	s.dir.mu.Unlock()
	s.dir.changes.announce()
}

// alarm delivers mock results when they are due, instead of with the next request.
type alarm struct {
	at    time.Time // on the server's clock; zero if not set
	timer *time.Timer
}

// setAlarm sets the alarm for the next mock result. It needs the lock.
func (s *Server) setAlarm() {
	var first time.Time
	for _, j := range s.dir.mocks {
		if first.IsZero() || !j.due.IsZero() && j.due.Before(first) {
			first = j.due
		}
	}
	a := &s.alarm
	if first.Equal(a.at) {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	*a = alarm{at: first}
	if !first.IsZero() {
		a.timer = time.AfterFunc(first.Sub(s.now()), s.wake)
	}
}

// wake delivers the mock results that are due.
func (s *Server) wake() {
	if !s.enter() {
		return
	}
	defer s.inflight.Done()
	s.dir.mu.Lock()
	defer s.unlock()
	s.alarm = alarm{}
	s.dir.catchUp(s.now())
}

// announce queues the announcement and the webhooks for a change. It is called with the
// lock and after the change. data returns the resource as the routes render it.
func (d *directory) announce(c Change, data func() map[string]any) {
	d.changes.add(c, data)
	d.postWebhooks(&c, data)
}

// announceJob announces an event of a job.
func (d *directory) announceJob(j *job, e event) {
	c := j.change(e.kind, e.at)
	c.Status = j.status
	if j.flow == taskFlow {
		c.TaskID = j.id
		d.announce(c, j.renderTask)
	} else {
		c.HiringID = j.id
		d.announce(c, func() map[string]any { return j.renderHiring(d.origin) })
	}
}

// announcePayment announces a change of a task's payment.
func (d *directory) announcePayment(j *job, event string, now time.Time) {
	c := j.change(event, now)
	c.TaskID, c.PaymentID, c.Status = j.id, j.payment.id, j.paymentStatus()
	d.announce(c, j.renderPayment)
}

// announceTransfer announces a deposit or a withdrawal.
func (d *directory) announceTransfer(p party, event string, t *transaction, now time.Time) {
	c := Change{Event: event, PaymentID: t.id, Status: t.status, At: now}
	c.concerning(p)
	d.announce(c, t.render)
}

// change returns a change with the parties of the job.
func (j *job) change(event string, at time.Time) Change {
	c := Change{Event: event, At: at}
	c.concerning(j.client)
	if j.provider != nil {
		c.AgentID, c.OwnerID = j.provider.id, j.provider.ownerID()
	}
	return c
}

func (c *Change) concerning(p party) {
	if p.user != nil {
		c.UserID = p.user.id
	}
	if p.agent != nil {
		c.ClientAgentID = p.agent.id
	}
}
