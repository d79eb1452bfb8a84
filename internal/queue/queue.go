package queue

import "sync"

// A Queue runs reports in the order in which they are added. Its length is not
// limited. It is safe for concurrent use.
type Queue struct {
	mu   sync.Mutex
	idle sync.Cond
	todo []func()
	busy bool
}

// New returns an empty queue.
func New() *Queue {
	q := &Queue{}
	q.idle.L = &q.mu
	return q
}

// Put adds a report. It does not wait for the report to run.
func (q *Queue) Put(report func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.todo = append(q.todo, report)
	if !q.busy {
		q.busy = true
		go q.deliver()
	}
}

func (q *Queue) deliver() {
	finished := false
	defer func() {
		if !finished { // a report ended the goroutine, as t.FailNow does
			go q.deliver()
		}
	}()
	for report, ok := q.next(); ok; report, ok = q.next() {
		shielded(report)
	}
	finished = true
}

// next returns false if no reports are left. The delivery then ends.
func (q *Queue) next() (func(), bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.todo) == 0 {
		q.todo, q.busy = nil, false
		q.idle.Broadcast()
		return nil, false
	}
	report := q.todo[0]
	q.todo = q.todo[1:]
	return report, true
}

// shielded recovers a panic in a report, which is a bug of an observer or a logger.
// The other reports still run.
func shielded(report func()) {
	defer func() { _ = recover() }()
	report()
}

// Close waits until the last report has run.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy {
		q.idle.Wait()
	}
}
