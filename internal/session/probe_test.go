package session_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestARouteThatAlwaysRefusesHidesNoDeadSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		w.Server.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, "").Always())
		c := w.Client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			sdktest.Advance(50 * time.Millisecond)
		}
		bought := w.Exchanges()
		assert.LessOrEqual(t, bought, 6, "refusals that renewal does not mend exhaust nothing")
		for range 5 {
			w.Server.RevokeSessions()
			require.NoError(t, w.Call(c), "this one it does mend")
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
		}
		assert.LessOrEqual(t, w.Exchanges(), bought+10)
	})
}

func TestASessionThatIsEndedUnderItsFirstRequestIsRenewedOnceMore(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
	base := w.Server.Transport()
	var n atomic.Int64
	c := w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/agents" && n.Add(1) <= 3 {
			w.Server.RevokeSessions()
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.Call(c))
	assert.Equal(t, 4, w.Exchanges())
}

// A platform whose answers to the probe are worth nothing must not make the SDK
// buy sessions without end.
func TestAProbeThatLiesIsNotBelievedForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		refuse := agrentingtest.Status(http.StatusUnauthorized, "").Always()
		w.Server.Fault("GET /api/v1/tasks", refuse)
		w.Server.Fault("GET /api/v1/hirings/pending", refuse)
		c := w.Client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			sdktest.Advance(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, w.Exchanges(), 10)
		require.NoError(t, w.Call(c))
	})
}
