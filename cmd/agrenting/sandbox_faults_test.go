package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// response is what the platform responds with.
type response struct {
	status     int
	retryAfter string
	body       []byte
}

// send sends a request with a key to the platform.
func send(t *testing.T, srv *agrentingtest.Server, method, path, key string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Api-Key", key)
	resp, err := srv.Transport().RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return response{resp.StatusCode, resp.Header.Get("Retry-After"), body}
}

func TestSandboxLimitsAreThoseOfTheFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits     sandboxLimits
		path       string
		allowed    int
		status     int
		retryAfter string
	}{
		"defaults":  {sandboxLimits{}, "/api/v1/auth/authenticate", 10, 429, "300"},
		"exchanges": {sandboxLimits{AuthLimit: 2}, "/api/v1/auth/authenticate", 2, 429, "300"},
		"lockout":   {sandboxLimits{AuthLimit: 2, Lockout: time.Hour}, "/api/v1/auth/authenticate", 2, 429, "3600"},
		"requests":  {sandboxLimits{RequestLimit: 3}, "/api/v1/tasks", 3, 429, "60"},
		"none":      {sandboxLimits{NoRateLimits: true}, "/api/v1/auth/authenticate", 11, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits, err := c.limits.option()
			require.NoError(t, err)
			srv := agrentingtest.NewServer(agrentingtest.InMemory(), limits)
			defer srv.Close()
			key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret
			method := http.MethodPost
			if c.path == "/api/v1/tasks" {
				method = http.MethodGet
			}
			for range c.allowed {
				require.Equal(t, 200, send(t, srv, method, c.path, key).status)
			}
			over := send(t, srv, method, c.path, key)
			assert.Equal(t, c.status, over.status)
			assert.Equal(t, c.retryAfter, over.retryAfter)
		})
	}
}

func TestSandboxNodesAreThoseOfTheFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults  sandboxFaults
		refused [2]int // of 200 requests with a new key, at least and at most
	}{
		"none lag":   {sandboxFaults{RevocationLag: time.Hour}, [2]int{0, 0}},
		"all lag":    {sandboxFaults{Lag: time.Hour}, [2]int{200, 200}},
		"some lag":   {sandboxFaults{Lag: time.Hour, LaggingNodes: "1/4"}, [2]int{20, 80}},
		"strays too": {sandboxFaults{Stray401: 0.25}, [2]int{20, 80}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, err := c.faults.options()
			require.NoError(t, err)
			srv := agrentingtest.NewServer(append(opts, agrentingtest.InMemory(), agrentingtest.WithoutRateLimits())...)
			defer srv.Close()
			old := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret
			var rotated struct {
				Data struct {
					Key string `json:"api_key"`
				} `json:"data"`
			}
			require.NoError(t, json.Unmarshal(send(t, srv, http.MethodPost, "/api/v1/auth/rotate-key", old).body, &rotated))
			c.faults.script(srv)
			refused := 0
			for range 200 {
				if send(t, srv, http.MethodGet, "/api/v1/tasks", rotated.Data.Key).status == http.StatusUnauthorized {
					refused++
				}
			}
			assert.GreaterOrEqual(t, refused, c.refused[0])
			assert.LessOrEqual(t, refused, c.refused[1])
		})
	}
}
