package wire

import (
	"context"
	"net/http"
	"sync"
)

// Context returns the context of a request. It also ends when [http.Request.Cancel] is
// closed. The caller must call stop when it no longer needs the context.
func Context(req *http.Request) (ctx context.Context, stop func()) {
	if req.Cancel == nil { //nolint:staticcheck // [http.Client.Timeout] sets it
		return req.Context(), func() {}
	}
	c := &cancelContext{Context: req.Context(), cancel: req.Cancel, stopped: make(chan struct{})} //nolint:staticcheck // see above
	return c, c.stop
}

// cancelContext ends with its parent or when a channel is closed. It has no goroutine until
// Done is called, because most requests do not wait for the channel.
type cancelContext struct {
	context.Context //nolint:containedctx // it is one

	cancel  <-chan struct{}
	stopped chan struct{}
	watch   sync.Once
	done    chan struct{} // nil before the first call of Done
}

// Done implements [context.Context].
func (c *cancelContext) Done() <-chan struct{} {
	c.watch.Do(func() {
		c.done = make(chan struct{})
		go func() {
			defer close(c.done)
			select {
			case <-c.cancel:
			case <-c.stopped:
			case <-c.Context.Done():
			}
		}()
	})
	return c.done
}

// Err implements [context.Context].
func (c *cancelContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	select {
	case <-c.cancel:
		return context.Canceled
	case <-c.stopped:
		return context.Canceled
	default:
		return nil
	}
}

func (c *cancelContext) stop() { close(c.stopped) }
