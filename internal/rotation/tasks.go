package rotation

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tasks runs work that no caller waits for, until it is closed.
type tasks struct {
	ctx    context.Context //nolint:containedctx // the context of that work, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	closing chan struct{} // closed when closed is set; nil if no caller waits for it
}

func newTasks() *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// start runs f, unless shut was called.
func (t *tasks) start(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// shut prevents new work from starting.
func (t *tasks) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	if t.closing != nil {
		close(t.closing)
	}
}

// shutting returns a channel that is closed when new work cannot start any
// more.
func (t *tasks) shutting() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing == nil {
		t.closing = make(chan struct{})
		if t.closed {
			close(t.closing)
		}
	}
	return t.closing
}

func (t *tasks) isShut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// deafGrace is how long Close waits for a store that ignores its context.
const deafGrace = 5 * time.Second

// errDeaf means that a store ignored the end of its context.
var errDeaf = errors.New("agrenting: the store ignored the end of its context")

// end ends the work that is running, and waits for it, but only for a limited
// time.
func (t *tasks) end(patience time.Duration) error {
	t.cancel()
	ended := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(ended)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return errDeaf
	}
}
