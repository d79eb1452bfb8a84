package agrenting_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// stalling responds with a status and a body that never ends.
func stalling(status int) sdktest.RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		body, w := io.Pipe()
		go func() { _, _ = io.WriteString(w, `{"errors":[`) }()
		resp := sdktest.Reply(status, "")
		resp.Body, resp.Request = body, req
		return resp, nil
	}
}

func TestErrorWithStalledBody(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404, 409, 422, 429, 503} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := sdktest.Keyed(t, stalling(status), agrenting.WithTimeout(0), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}))
				for name, call := range map[string]func() error{
					"Do": func() error {
						_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
						return err
					},
					"CheckResponse": func() error {
						resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/api/v1/tasks", nil))
						require.NoError(t, err)
						defer func() { _ = resp.Body.Close() }()
						return agrenting.CheckResponse(resp)
					},
				} {
					began := time.Now()
					api, ok := errors.AsType[*agrenting.APIError](call())
					require.True(t, ok, name)
					assert.Equal(t, status, api.StatusCode)
					assert.LessOrEqual(t, time.Since(began), 400*time.Millisecond, name)
				}
				require.NoError(t, c.Close())
			})
		})
	}
}

// A proxy that requires credentials refuses an exchange: no request waits for another.
func TestExchangeRefusedByProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			calls++
			return nil, errors.New(http.StatusText(http.StatusProxyAuthRequired))
		})
		c := sdktest.Keyed(t, base, agrenting.WithSession())
		began := time.Now()
		_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
		require.ErrorContains(t, err, "Proxy Authentication Required")
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 1, calls)
		require.NoError(t, c.Close())
	})
}
