package agrentingtest_test

import (
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestAllowanceIsTheDocumentedOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agentKey := func(cfg agrentingtest.AgentConfig) caller {
		return w.caller.key(w.NewKey(w.NewAgent(nil, cfg).ID).Secret)
	}
	cases := map[string]struct {
		caller caller
		path   string
		limit  string
	}{
		"agent":                   {w.asKey(), tasksPath, "100"},
		"of high reputation":      {agentKey(agrentingtest.AgentConfig{Reputation: 4.5}), tasksPath, "200"},
		"of low reputation":       {agentKey(agrentingtest.AgentConfig{Reputation: 2.9}), tasksPath, "50"},
		"in the sandbox":          {agentKey(agrentingtest.AgentConfig{Sandbox: true}), tasksPath, "200"},
		"of high standing, there": {agentKey(agrentingtest.AgentConfig{Sandbox: true, Reputation: 5}), tasksPath, "400"},
		"user":                    {w.asToken(), "/api/v1/hirings", "100"},
		"anonymous":               {w.with(), "/api/v1/health", "100"},
		"refused":                 {w.with("X-API-Key", "bad"), tasksPath, "100"},
		"unknown route":           {w.with(), "/nowhere", "100"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := c.caller.get(c.path)
			assert.Equal(t, c.limit, a.header.Get("X-Ratelimit-Limit"))
			assert.NotEmpty(t, a.header.Get("X-Ratelimit-Remaining"))
			assert.Empty(t, a.header.Get("Retry-After"))
		})
	}
	assert.Equal(t, "10", w.asKey().post(authPath, "").header.Get("X-Ratelimit-Limit"))
}

func TestBucketEmptiesAndFillsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 3}))
		for left := 2; left >= 0; left-- {
			a := w.asKey().get(tasksPath)
			assert.Equal(t, 200, a.status)
			assert.Equal(t, strconv.Itoa(left), a.header.Get("X-Ratelimit-Remaining"))
		}
		advance(19*time.Second + time.Millisecond)
		over := w.asKey().get(tasksPath)
		assert.Equal(t, 429, over.status)
		assert.Equal(t, agrentingtest.CodeRateLimited, over.code())
		assert.Equal(t, "41", over.header.Get("Retry-After"))
		assert.Equal(t, "0", over.header.Get("X-Ratelimit-Remaining"))
		assert.NotContains(t, over.raw, `"data"`)
		assert.Equal(t, 200, w.asToken().get("/api/v1/hirings").status, "the user has a bucket of his own")
		assert.Equal(t, 429, w.asToken().and("X-Agent-ID", w.agent.ID).get(tasksPath).status, "the agent's bucket")
		advance(41 * time.Second)
		assert.Equal(t, 200, w.asKey().get(tasksPath).status)
		assert.EqualValues(t, 2, w.Stats().RateLimited)
	})
}

func TestTokensOfOneUserShareABucket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 2}))
	second := w.NewToken(w.user.ID, agrentingtest.TokenConfig{})
	assert.Equal(t, 200, w.asToken().get("/api/v1/hirings").status)
	assert.Equal(t, 200, w.bearer(second.Secret).get("/api/v1/hirings").status)
	assert.Equal(t, 429, w.asToken().get("/api/v1/hirings").status)
}

func TestTooManyAuthenticatesLockTheAddressOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			assert.Equal(t, 200, w.asKey().post(authPath, "").status)
			assert.Equal(t, 401, w.with("X-API-Key", "bad").post(authPath, "").status, "failures count too")
		}
		out := w.asKey().post(authPath, "")
		assert.Equal(t, 429, out.status)
		assert.Equal(t, "300", out.header.Get("Retry-After"))

		elsewhere := w.asKey()
		elsewhere.client = &http.Client{Transport: w.TransportFrom("192.0.2.1")}
		assert.Equal(t, 200, elsewhere.post(authPath, "").status)
		assert.Equal(t, 200, w.asKey().get(tasksPath).status, "only authenticate is locked")

		advance(2 * time.Minute)
		assert.Equal(t, "180", w.asKey().post(authPath, "").header.Get("Retry-After"), "trying does not prolong it")
		advance(3 * time.Minute)
		assert.Equal(t, 200, w.asKey().post(authPath, "").status)
	})
}

func TestAuthenticateLimitsAreConfigurable(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		limits agrentingtest.RateLimits
		tries  int           // that succeed
		wait   time.Duration // of the next one
	}{
		"number":           {agrentingtest.RateLimits{Authenticate: 2}, 2, 5 * time.Minute},
		"lockout":          {agrentingtest.RateLimits{Authenticate: 2, Lockout: time.Minute}, 2, time.Minute},
		"window":           {agrentingtest.RateLimits{Authenticate: 2, AuthenticateWindow: 10 * time.Second, Lockout: -1}, 2, 10 * time.Second},
		"common window":    {agrentingtest.RateLimits{Authenticate: 2, Window: 20 * time.Second, Lockout: -1}, 2, 20 * time.Second},
		"window, lockout":  {agrentingtest.RateLimits{Authenticate: 1, AuthenticateWindow: time.Second, Lockout: time.Hour}, 1, time.Hour},
		"never locked out": {agrentingtest.RateLimits{Lockout: -1}, 10, time.Minute},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithRateLimits(c.limits))
				for range c.tries {
					require.Equal(t, 200, w.asKey().post(authPath, "").status)
				}
				refused := w.asKey().post(authPath, "")
				assert.Equal(t, 429, refused.status)
				assert.Equal(t, strconv.Itoa(int(c.wait/time.Second)), refused.header.Get("Retry-After"))
				advance(c.wait - time.Nanosecond)
				assert.Equal(t, 429, w.asKey().post(authPath, "").status)
				advance(time.Nanosecond)
				assert.Equal(t, 200, w.asKey().post(authPath, "").status)
			})
		})
	}
}

func TestTenAuthenticatesAMinuteNeverLockOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			for range 10 {
				require.Equal(t, 200, w.asKey().post(authPath, "").status)
			}
			advance(time.Minute)
		}
	})
}

func TestWithoutRateLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	for range 120 {
		require.Equal(t, 200, w.asKey().post(authPath, "").status)
		require.Equal(t, 200, w.asKey().get(tasksPath).status)
	}
	for range 5 {
		require.Equal(t, 201, w.with().post("/api/v1/agents/register", `{"name":"x","sandbox":true}`).status)
	}
	assert.Equal(t, "100", w.asKey().get(tasksPath).header.Get("X-Ratelimit-Remaining"))
}

func TestSourceAddressOfASocketCanBeChosen(t *testing.T) {
	t.Parallel()
	s := agrentingtest.NewServer()
	defer s.Close()
	c := newCaller(t, s)
	c.client = &http.Client{Transport: s.TransportFrom("127.0.0.1")}
	assert.Equal(t, 200, c.get("/api/v1/health").status)
}
