package agrentingtest

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Change is one event on the platform: a task, a hiring, an agent, or a payment has
// another status than before.
type Change struct {
	// Event names what has changed and how. It is one of
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
	// Those that the platform names are in the documentation of its webhooks. The others
	// are formed alike, which is assumed.
	Event string
	// TaskID, HiringID, and PaymentID are empty unless the event belongs to one. A
	// deposit or withdrawal has the ID of its transaction as PaymentID.
	TaskID, HiringID, PaymentID string

	// UserID and ClientAgentID are who asked for the work, or whose money it is. One of
	// them may be empty: a user may act for no agent, and an agent may have no owner.
	UserID, ClientAgentID string
	// AgentID is the agent that does the work, or whose status has changed, and OwnerID
	// is the user who owns it. Both are empty for a task without a provider.
	AgentID, OwnerID string

	// Status is the status after the change, such as "completed".
	Status string
	// At is the time of the change on the server's clock.
	At time.Time
	// Data is the task, hiring, payment, or agent after the change, as the platform's
	// routes render it. It must not be changed.
	Data map[string]any
}

// OnChange calls f once for each change that happens from now on, in the order of the
// changes, and after each has taken effect. The server holds no lock meanwhile, so f may
// send requests to it and call all of its methods except Close.
//
// At any time at most one call of one function is in progress. It runs in the goroutine
// that made the change, before the response of the request is sent, or in the one that
// is already announcing other changes. So f should return soon; a change that f itself
// makes is announced after f has returned.
//
// stop ends the calls. It does not wait for one that is in progress, and f may call it.
func (s *Server) OnChange(f func(Change)) (stop func()) {
	l := &listener{notify: f}
	a := &s.dir.changes
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(slices.Clip(a.listeners), l) // announcements keep the old slice
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

// add queues a change for those who listen. The data is made only if somebody does.
func (a *announcer) add(c Change, data func() map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.listeners) > 0 {
		c.Data = data()
		a.queue = append(a.queue, announcement{change: c, listeners: a.listeners})
	}
}

// announce empties the queue, unless another goroutine, or a caller of this one, is
// doing so. It must be called without the directory's lock.
func (a *announcer) announce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy {
		return
	}
	a.busy = true
	defer func() { a.busy = false }() // also if a listener panics
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

// unlock releases the directory's lock after a change: it sets the alarm for the next
// mock result, and announces what has changed.
func (s *Server) unlock() {
	s.setAlarm()
	s.dir.mu.Unlock()
	s.dir.changes.announce()
}

// alarm makes mock results arrive when they are due, and not only with the next request.
type alarm struct {
	at    time.Time // on the server's clock, zero = not set
	timer *time.Timer
}

// setAlarm sets the alarm for the mock result that is due first. It needs the lock.
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

// announce is called for each change, with the lock and after the change: it queues the
// announcements and webhooks. data is the resource as rendered.
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

// announcePayment announces what has become of the payment of a task.
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

// change is a change with the parties of the job.
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
