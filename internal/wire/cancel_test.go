package wire

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestContextEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	reason := errors.New("no longer wanted")
	type ending struct {
		parent context.CancelCauseFunc
		cancel chan struct{}
		stop   func()
	}
	for name, tc := range map[string]struct {
		end  func(ending)
		want error
	}{
		"Cancel is closed":      {func(e ending) { close(e.cancel) }, context.Canceled},
		"its context ends":      {func(e ending) { e.parent(reason) }, reason},
		"it is no longer used":  {func(e ending) { e.stop() }, context.Canceled},
		"both":                  {func(e ending) { e.parent(reason); close(e.cancel) }, reason},
		"nothing happens to it": {func(ending) {}, nil},
	} {
		for when, waits := range map[string]bool{"waiting": true, "not waiting": false} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					parent, end := context.WithCancelCause(t.Context())
					e := ending{parent: end, cancel: make(chan struct{})}
					req := &http.Request{Cancel: e.cancel} //nolint:staticcheck // this is what is tested
					ctx, stop := Context(req.WithContext(parent))
					e.stop = stop
					child := ctx
					if waits {
						var endChild context.CancelFunc
						child, endChild = context.WithCancel(ctx)
						defer endChild()
					}
					require.NoError(t, ctx.Err())
					tc.end(e)
					synctest.Wait()
					assert.Equal(t, tc.want, context.Cause(ctx))
					assert.Equal(t, tc.want, context.Cause(child))
					if tc.want != nil {
						<-ctx.Done()
					}
					if name != "it is no longer used" {
						stop()
					}
				})
			})
		}
	}
}

func TestContextWithoutCancelIsUsedDirectly(t *testing.T) {
	t.Parallel()
	req := (&http.Request{}).WithContext(t.Context())
	ctx, stop := Context(req)
	stop()
	assert.Equal(t, req.Context(), ctx)
	require.NoError(t, ctx.Err())
}
