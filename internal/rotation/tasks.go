package rotation

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tasks runs the work that no caller waits for, until it is closed.
type tasks struct {
	ctx    context.Context //nolint:containedctx // of that work, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	closing chan struct{}
}

func newTasks() *tasks {
	t := &tasks{closing: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// start runs f, unless tasks are closing.
func (t *tasks) start(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// shut lets nothing new begin.
func (t *tasks) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.closing)
	}
}

func (t *tasks) isShut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// deafGrace is how long Close waits for a store that ignores its context.
const deafGrace = 5 * time.Second

// errDeaf says that a store ignored the end of its context.
var errDeaf = errors.New("agrenting: the store ignored the end of its context")

// end ends what is running, and waits for it, but not for ever.
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
