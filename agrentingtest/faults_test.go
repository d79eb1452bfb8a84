package agrentingtest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const health = "/api/v1/health"

func TestFaultsBefallTheirRequestsInOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t, agrentingtest.WithoutRateLimits())
	c := newCaller(t, s)
	s.Fault("GET "+health, agrentingtest.Status(500, ""), agrentingtest.Status(503, "").Times(2))
	s.Fault("*", agrentingtest.Status(418, "TEAPOT"))
	s.Fault("POST "+health, agrentingtest.Status(502, ""))
	assert.Equal(t, 418, c.get("/elsewhere").status, "the first that matches")
	var got []int
	for range 4 {
		got = append(got, c.get(health).status)
	}
	assert.Equal(t, []int{500, 503, 503, 200}, got)
	s.Fault(health, agrentingtest.Gone().Always())
	for range 3 {
		assert.Equal(t, 410, c.get(health).status)
	}
	s.ClearFaults()
	assert.Equal(t, 200, c.get(health).status)
	assert.Equal(t, 502, func() int { s.Fault("POST "+health, agrentingtest.Status(502, "")); return c.post(health, "").status }())
	assert.EqualValues(t, 8, s.Stats().Faults)
}

func TestStatusFaultsHavePlatformFormat(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newCaller(t, s)
	for status, code := range map[int]string{
		401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 410: "GONE", 422: "VALIDATION_ERROR",
		429: "RATE_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR", 503: "AGENT_UNAVAILABLE",
	} {
		s.Fault("*", agrentingtest.Status(status, ""))
		a := c.get(health)
		assert.Equal(t, status, a.status)
		assert.Equal(t, code, a.code())
		assert.NotEmpty(t, a.header.Get("X-Ratelimit-Limit"))
	}
	s.Fault("*", agrentingtest.StatusWithRetryAfter(429, "Wed, 21 Oct 2026 07:28:00 GMT"))
	assert.Equal(t, "Wed, 21 Oct 2026 07:28:00 GMT", c.get(health).header.Get("Retry-After"))
}

func TestDroppedConnectionsAreErrors(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"memory": {agrentingtest.InMemory()}, "socket": nil, "HTTP/2": {agrentingtest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := agrentingtest.NewServer(opts...)
			defer s.Close()
			a := s.NewAgent(nil, agrentingtest.AgentConfig{})
			k := s.NewKey(a.ID)
			c := newCaller(t, s).key(k.Secret)
			s.Fault("POST "+rotatePath, agrentingtest.DropBefore())
			_, err := c.try("POST", rotatePath, "")
			require.Error(t, err)
			assert.True(t, s.KeyAlive(k.Secret))
			s.Fault("POST "+rotatePath, agrentingtest.DropAfter())
			_, err = c.try("POST", rotatePath, "")
			require.Error(t, err)
			assert.False(t, s.KeyAlive(k.Secret))
			assert.Equal(t, []int{0, 200}, []int{s.Requests()[0].Status, s.Requests()[1].Status})

			k = s.NewKey(a.ID)
			s.Fault("POST "+rotatePath, agrentingtest.ResetMidBody(10))
			got, err := c.key(k.Secret).try("POST", rotatePath, "")
			require.Error(t, err)
			assert.Equal(t, 200, got.status)
			assert.Len(t, got.raw, 10)
			assert.False(t, s.KeyAlive(k.Secret))
		})
	}
}

func TestResponsesCanBeTruncated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.HandlePublic("/stream", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		for range 10 {
			_, _ = io.WriteString(rw, "abcd")
			_ = http.NewResponseController(rw).Flush()
		}
	}))
	w.Fault("/stream", agrentingtest.ResetMidBody(6), agrentingtest.ResetMidBody(1000), agrentingtest.ResetMidBody(-1))
	for _, want := range []string{"abcdab", strings.Repeat("abcd", 10), ""} {
		a, err := w.with().try("GET", "/stream", "")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, want, a.raw)
	}
	w.Fault("/stream", agrentingtest.MalformedJSON())
	assert.Equal(t, "abcdabcdabcdabcdabcd", w.with().get("/stream").raw)

	w.Fault("POST "+rotatePath, agrentingtest.MalformedJSON(), agrentingtest.ResetMidBody(5))
	a := keyed(w.asKey(), "k").post(rotatePath, "")
	assert.Equal(t, 200, a.status)
	assert.True(t, strings.HasPrefix(a.raw, `{"data"`))
	assert.Empty(t, a.text("api_key"))
	b, err := keyed(w.asToken(), "k").try("POST", rotatePath, "")
	require.Error(t, err)
	assert.Equal(t, a.raw[:5], b.raw)
	assert.True(t, w.KeyAlive(keyed(w.asToken(), "k").post(rotatePath, "").text("api_key")))
}

func TestRevokeNowRejectsPresentedCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, _ := w.NewSession(w.key.Secret)
	w.Fault("*", agrentingtest.RevokeNow().Times(3))
	assert.Equal(t, 401, w.bearer(session).get(tasksPath).status)
	assert.Equal(t, 401, w.asToken().get(tasksPath).status)
	assert.Equal(t, 401, w.asKey().get(tasksPath).status)
	assert.False(t, w.KeyAlive(w.key.Secret))
}

func TestRedirectsLeadAnywhere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newCaller(t, s)
	s.Fault("*", agrentingtest.Redirect(307, "https://elsewhere.example/x"))
	a := c.post(authPath, "")
	assert.Equal(t, 307, a.status)
	assert.Equal(t, "https://elsewhere.example/x", a.header.Get("Location"))
}

func TestFaultsCombine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := newCaller(t, s)
		s.Fault("*", agrentingtest.Delay(time.Minute).
			And(agrentingtest.SetHeader("X-Extra", "1")).
			And(agrentingtest.Sunset(time.Now().Add(time.Hour))).
			And(agrentingtest.Status(503, "")).Times(2))
		at := time.Now()
		for range 2 {
			a := c.get(health)
			assert.Equal(t, 503, a.status)
			assert.Equal(t, "1", a.header.Get("X-Extra"))
			assert.Equal(t, "Sat, 01 Jan 2000 01:00:00 GMT", a.header.Get("Sunset"))
		}
		assert.Equal(t, 2*time.Minute, time.Since(at))
		assert.Equal(t, 200, c.get(health).status)
		assert.Equal(t, "Delay+SetHeader+Sunset+Status", s.Requests()[0].Fault)
	})
}

func TestDelayEndsWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := newCaller(t, s)
		c.client.Timeout = time.Second
		s.Fault("*", agrentingtest.Delay(time.Hour))
		at := time.Now()
		_, err := c.try("GET", health, "")
		require.Error(t, err)
		s.Close()
		assert.Equal(t, time.Second, time.Since(at))
	})
}

func TestShareAppliesAtRandom(t *testing.T) {
	t.Parallel()
	const requests = 600
	for share, want := range map[float64][2]int{
		0: {0, 0}, 0.05: {15, 50}, 1. / 3: {160, 240}, 1: {requests, requests},
	} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			t.Parallel()
			s := newServer(t, agrentingtest.WithoutRateLimits())
			c := newCaller(t, s)
			s.Fault("*", agrentingtest.Status(401, "").Share(share))
			for range requests {
				c.get(health)
			}
			n := int(s.Stats().Unauthorized)
			assert.GreaterOrEqual(t, n, want[0])
			assert.LessOrEqual(t, n, want[1])
			assert.EqualValues(t, n, s.Stats().Faults)
			s.ClearFaults()
			assert.Equal(t, 200, c.get(health).status)
		})
	}
}

func TestSeedSelectsFaultyRequests(t *testing.T) {
	t.Parallel()
	outcomes := func(opts ...agrentingtest.Option) (statuses []int) {
		s := newServer(t, append(opts, agrentingtest.WithoutRateLimits())...)
		c := newCaller(t, s)
		s.Fault("*", agrentingtest.Page(403).Share(0.2), agrentingtest.Status(401, "").Share(0.5))
		for range 64 {
			statuses = append(statuses, c.get(health).status)
		}
		return statuses
	}
	byDefault := outcomes()
	assert.Subset(t, byDefault, []int{200, 401, 403}, "requests that a fault leaves out get the next fault")
	assert.Equal(t, byDefault, outcomes(agrentingtest.WithSeed(0)))
	other := outcomes(agrentingtest.WithSeed(1))
	assert.NotEqual(t, byDefault, other)
	assert.Equal(t, other, outcomes(agrentingtest.WithSeed(1)))
}

func TestShareCombinesWithOtherModifiers(t *testing.T) {
	t.Parallel()
	stray := agrentingtest.Status(401, "").Share(0.5)
	for name, c := range map[string]struct {
		fault  agrentingtest.Fault
		atMost int // faults in 100 requests
	}{
		"alone":       {stray, 80},
		"Times":       {stray.Times(3), 3},
		"before":      {agrentingtest.Status(401, "").Times(3).Share(0.5), 3},
		"Always":      {stray.Times(3).Always(), 80},
		"And":         {agrentingtest.SetHeader("X-Extra", "1").And(stray), 80},
		"And, first":  {stray.And(agrentingtest.SetHeader("X-Extra", "1")), 80},
		"And, joined": {stray.And(agrentingtest.Gone().Times(2)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			caller := newCaller(t, s)
			s.Fault("*", c.fault)
			for range 100 {
				caller.get(health)
			}
			n := int(s.Stats().Faults)
			assert.LessOrEqual(t, n, c.atMost)
			assert.GreaterOrEqual(t, n, min(c.atMost, 20))
		})
	}
}

func TestExceptedRouteHasNoFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fault("!"+authPath, agrentingtest.Status(401, "").Always())
	assert.Equal(t, 200, w.asKey().post(authPath, "").status)
	assert.Equal(t, 401, w.asKey().get(tasksPath).status)
}

func TestEndpointsAreDeprecatedAndRetired(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newCaller(t, s)
	at := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	s.SetSunset("GET "+health, at)
	assert.Equal(t, "Mon, 01 Mar 2027 12:00:00 GMT", c.get(health).header.Get("Sunset"))
	assert.Empty(t, c.get(health+"/readiness").header.Get("Sunset"))
	s.SetSunset("GET "+health, time.Time{})
	assert.Empty(t, c.get(health).header.Get("Sunset"))
	s.SetGone("GET /api/v1/health*")
	a := c.get(health + "/readiness")
	assert.Equal(t, 410, a.status)
	assert.Equal(t, "GONE", a.code())
	assert.Equal(t, 200, c.get("/api/v1/agents").status)
}

func TestRoutePatterns(t *testing.T) {
	t.Parallel()
	cases := []struct {
		pattern, method, path string
		want                  int
	}{
		{"*", "GET", "/a", 1},
		{"/a", "GET", "/a", 1},
		{"/a", "GET", "/a/b", 0},
		{"get /a", "GET", "/a", 1},
		{"POST /a", "GET", "/a", 0},
		{"* /a", "GET", "/a", 1},
		{"GET *", "GET", "/a", 1},
		{"GET *", "POST", "/a", 0},
		{"/a/*", "GET", "/a/b/c", 1},
		{"/a/*", "GET", "/a", 0},
		{"/a*c", "GET", "/a/b/c", 1},
		{"/a*c", "GET", "/a/b/d", 0},
		{"/a/{id}", "GET", "/a/b", 1},
		{"/a/{id}", "GET", "/a/b/c", 0},
		{"/a/{id}/c", "GET", "/a/b/c", 1},
		{"/a/{id}/*", "GET", "/a/b/c", 1},
		{"/a/{id}", "GET", "/a/", 0},
		{"/*/{id}/x", "GET", "/p/q/r/x", 1},
		{"!/a", "GET", "/a", 0},
		{"!/a", "GET", "/b", 1},
		{"!POST /a", "GET", "/a", 1},
		{"!*", "GET", "/a", 0},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s on %s %s", c.pattern, c.method, c.path), func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			newCaller(t, s).call(c.method, c.path, "")
			assert.Equal(t, c.want, s.Count(c.pattern))
		})
	}
}
