package agrenting

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestARouteThatAlwaysRefusesHidesNoDeadSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		w.srv.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, "").Always())
		c := w.client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
			advance(50 * time.Millisecond)
		}
		bought := w.bought()
		assert.LessOrEqual(t, bought, 6, "refusals that renewal does not mend exhaust nothing")
		for range 5 {
			w.srv.RevokeSessions()
			require.NoError(t, w.call(c), "this one it does mend")
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
		}
		assert.LessOrEqual(t, w.bought(), bought+10)
	})
}

func TestASessionThatIsEndedUnderItsFirstRequestIsRenewedOnceMore(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
	base := w.srv.Transport()
	var n atomic.Int64
	c := w.client(WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/agents" && n.Add(1) <= 3 {
			w.srv.RevokeSessions()
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.call(c))
	assert.Equal(t, 4, w.bought())
}

// A platform whose answers to the probe are worth nothing must not make the SDK
// buy sessions without end.
func TestAProbeThatLiesIsNotBelievedForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		refuse := agrentingtest.Status(http.StatusUnauthorized, "").Always()
		w.srv.Fault("GET /api/v1/tasks", refuse)
		w.srv.Fault("GET /api/v1/hirings/pending", refuse)
		c := w.client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
			advance(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, w.bought(), 10)
		require.NoError(t, w.call(c))
	})
}
