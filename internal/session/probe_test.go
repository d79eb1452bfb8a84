package session_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestAlwaysRefusingRouteHidesNoDeadSession(t *testing.T) {
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
		before := w.Exchanges()
		assert.LessOrEqual(t, before, 2, "refusals that no renewal ends exhaust nothing")
		for range 5 {
			w.Server.RevokeSessions()
			require.NoError(t, w.Call(c))
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
		}
		assert.LessOrEqual(t, w.Exchanges(), before+5)
	})
}

func TestSessionEndedAtFirstRequestIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		base := w.Server.Transport()
		ended := map[string]bool{}
		c := w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if token := sdktest.SecretOf(r.Header); r.URL.Path == "/api/v1/agents" && !ended[token] && len(ended) < 2 {
				ended[token] = true
				w.Server.RevokeSessions()
			}
			return base.RoundTrip(r)
		})))
		require.NoError(t, w.Call(c))
		assert.Equal(t, 3, w.Exchanges())
	})
}

// A platform that refuses all sessions when asked must not make the SDK obtain
// sessions without end.
func TestVerifyRefusingAllSessionsLimitsExchanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		refuse := agrentingtest.Status(http.StatusUnauthorized, "").Always()
		w.Server.Fault("GET /api/v1/tasks", refuse)
		w.Server.Fault(sdktest.RouteVerify, refuse)
		c := w.Client()
		began := time.Now()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			sdktest.Advance(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, w.Exchanges(), 3+2*int(time.Since(began)/time.Minute))
		require.NoError(t, w.Call(c))
	})
}
