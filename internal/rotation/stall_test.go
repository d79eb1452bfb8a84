package rotation_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// defaultCallTimeout is what CallTimeout of a RotationPolicy is by default.
const defaultCallTimeout = 8 * time.Second

func TestPostponedInPlaceRotationDoesNotBlockRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault agrentingtest.Fault
		most  time.Duration // that a request waits
		want  uint64        // generation in the end
	}{
		"429 for half a minute":  {agrentingtest.StatusWithRetryAfter(429, "30").Always(), time.Second, 2},
		"503 for half a minute":  {agrentingtest.StatusWithRetryAfter(503, "30").Always(), time.Second, 1},
		"429 for an hour":        {agrentingtest.StatusWithRetryAfter(429, "3600").Always(), time.Second, 2},
		"429 for a second":       {agrentingtest.StatusWithRetryAfter(429, "1").Always(), 3 * time.Second, 2},
		"503":                    {agrentingtest.Status(503, "").Always(), 2 * time.Second, 1},
		"it does not respond":    {agrentingtest.Delay(time.Hour).Always(), defaultCallTimeout + time.Second, 2},
		"429 once, for a second": {agrentingtest.StatusWithRetryAfter(429, "1"), 2 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace})
				require.NoError(t, w.Call(c))
				w.Server.Fault(sdktest.RouteRotate, tc.fault)
				done := make(chan struct{})
				go func() { _, _ = c.Rotate(t.Context()); close(done) }()
				var slowest time.Duration
				for range 300 {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					began := time.Now()
					_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
					require.NoError(t, err)
					slowest = max(slowest, time.Since(began))
					cancel()
					sdktest.Advance(time.Second / 2)
				}
				<-done
				assert.LessOrEqual(t, slowest, tc.most)
				w.Server.ClearFaults()
				sdktest.Advance(7 * time.Hour)
				require.NoError(t, w.Call(c))
				rec := w.OneLiveKey(store)
				assert.Equal(t, tc.want, rec.Generation, "what could not be done was undone, and the rest finished")
				require.NoError(t, c.Close())
			})
		})
	}
}

// A session that is renewed while the platform replaces its key in place dies with
// that key.
func TestSessionRenewalDuringRotationFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, before := range []time.Duration{0, time.Second, 1500 * time.Millisecond, time.Minute} {
		t.Run(before.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionTTL(10*time.Minute), agrentingtest.WithSessionsEndingWithKey())
				c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}, agrenting.WithSession())
				require.NoError(t, w.Call(c))
				sdktest.Advance(time.Until(c.Status().NextRenewal) - before)
				w.Server.Fault(sdktest.RouteRotate, agrentingtest.Delay(3*time.Second))
				w.Server.Fault("POST /api/v1/tasks", agrentingtest.Delay(1500*time.Millisecond).Always())
				done := make(chan error)
				go func() { _, err := c.Rotate(t.Context()); done <- err }()
				var uploads sync.WaitGroup
				for range 60 {
					uploads.Go(func() { assert.NoError(t, sdktest.CallOnce(t, c, w.Agent.ID)) })
					sdktest.Advance(100 * time.Millisecond)
				}
				require.NoError(t, <-done)
				uploads.Wait()
				require.NoError(t, w.Call(c))
				require.NoError(t, c.Close())
			})
		})
	}
}
