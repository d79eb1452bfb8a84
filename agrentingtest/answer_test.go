package agrentingtest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestFaultsReplaceTheResponse(t *testing.T) {
	t.Parallel()
	const page, json = "text/html; charset=utf-8", "application/json; charset=utf-8"
	for name, c := range map[string]struct {
		fault       agrentingtest.Fault
		status      int
		contentType string
		body        string // regexp
		platform    bool   // has the headers of the platform
	}{
		"page":        {agrentingtest.Page(502), 502, page, `^<!DOCTYPE html>[^{]*502 Bad Gateway`, false},
		"stray page":  {agrentingtest.Page(401), 401, page, `401 Unauthorized`, false},
		"good page":   {agrentingtest.Page(200), 200, page, `200 OK`, false},
		"odd page":    {agrentingtest.Page(599), 599, page, `>599</h1>`, false},
		"empty":       {agrentingtest.Empty(200), 200, "", `^$`, false},
		"empty error": {agrentingtest.Empty(503), 503, "", `^$`, false},
		"status":      {agrentingtest.Status(401, ""), 401, json, `"UNAUTHORIZED"`, true},
		"redirect":    {agrentingtest.Redirect(307, "https://elsewhere.example/x"), 307, "", `^$`, true},
		"half a page": {agrentingtest.Page(502).And(agrentingtest.MalformedJSON()), 502, page, `^<!DOCTYPE html>[^/]*</titl$`, false},
		"header":      {agrentingtest.SetHeader("X-Extra", "1").And(agrentingtest.Page(502)), 502, page, `502`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			check := func(a answer) {
				assert.Equal(t, c.status, a.status)
				assert.Equal(t, c.contentType, a.header.Get("Content-Type"))
				assert.Regexp(t, c.body, a.raw)
				assert.Equal(t, c.platform, a.header.Get("X-Ratelimit-Limit") != "")
				assert.Equal(t, name == "header", a.header.Get("X-Extra") == "1")
				last := w.Requests()[len(w.Requests())-1]
				assert.Equal(t, c.status, last.Status)
			}
			w.Fault("POST "+rotatePath, c.fault, c.fault.AfterServing())
			check(keyed(w.asKey(), "k").post(rotatePath, ""))
			assert.True(t, w.KeyAlive(w.key.Secret), "nothing was done")

			check(keyed(w.asKey(), "k").post(rotatePath, ""))
			assert.False(t, w.KeyAlive(w.key.Secret), "the route was served")
			assert.True(t, w.KeyAlive(keyed(w.asToken().and("X-Agent-ID", w.agent.ID), "k").post(rotatePath, "").text("api_key")))
			if c.status != 401 {
				assert.Zero(t, w.Stats().Unauthorized)
			} else {
				assert.EqualValues(t, 2, w.Stats().Unauthorized)
			}
		})
	}
}

func TestReplacedRefusalIsNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fault("*", agrentingtest.Page(502).AfterServing())
	assert.Equal(t, 502, w.with("X-API-Key", "bad").get(tasksPath).status)
	assert.Zero(t, w.Stats().Unauthorized)
	assert.Equal(t, 401, w.with("X-API-Key", "bad").get(tasksPath).status)
	assert.EqualValues(t, 1, w.Stats().Unauthorized)
}

func TestAfterServingRunsPerResponse(t *testing.T) {
	t.Parallel()
	late := agrentingtest.Page(502).AfterServing()
	for name, c := range map[string]struct {
		fault  agrentingtest.Fault
		served bool
	}{
		"joined first": {late.And(agrentingtest.SetHeader("X-Extra", "1")), true},
		"joined last":  {agrentingtest.SetHeader("X-Extra", "1").And(late), true},
		"overruled":    {late.And(agrentingtest.Page(503)), false},
		"overruling":   {agrentingtest.Page(503).And(late), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Fault("*", c.fault)
			assert.NotEqual(t, 200, w.asKey().post(rotatePath, "").status)
			assert.Equal(t, c.served, !w.KeyAlive(w.key.Secret))
		})
	}
}

func TestAfterServingDropsTheResponse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fault("*", agrentingtest.DropBefore().AfterServing())
	_, err := w.asKey().try("POST", rotatePath, "")
	require.Error(t, err)
	assert.False(t, w.KeyAlive(w.key.Secret))
	assert.Equal(t, 200, w.Requests()[0].Status)
}

func TestAnyResponseCanBeCutShort(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newCaller(t, s)
	s.Fault("*",
		agrentingtest.Page(502).And(agrentingtest.ResetMidBody(9)),
		agrentingtest.ResetMidBody(1).And(agrentingtest.Status(503, "")))
	for _, want := range []struct {
		status int
		body   string
	}{{502, "<!DOCTYPE"}, {503, "{"}} {
		a, err := c.try("GET", health, "")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, want.status, a.status)
		assert.Equal(t, want.body, a.raw)
	}
}

func TestStallEndsWithTheClient(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fault  agrentingtest.Fault
		path   string
		status int
		body   string
	}{
		"route":       {agrentingtest.Stall(8), health, 200, `{"data":`},
		"no body":     {agrentingtest.Stall(-1), health, 200, ""},
		"status":      {agrentingtest.Status(503, "").And(agrentingtest.Stall(7)), health, 503, `{"data"`},
		"page":        {agrentingtest.Page(502).And(agrentingtest.Stall(9)), health, 502, "<!DOCTYPE"},
		"empty":       {agrentingtest.Empty(200).And(agrentingtest.Stall(1)), health, 200, ""},
		"short body":  {agrentingtest.Stall(1000), "/short", 200, "abcd"},
		"exact body":  {agrentingtest.Stall(4), "/short", 200, "abcd"},
		"joined last": {agrentingtest.Stall(1).And(agrentingtest.Page(502)), health, 502, "<"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.HandlePublic("/short", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", "4")
					_, _ = io.WriteString(w, "abcd")
				}))
				caller := newCaller(t, s)
				caller.client.Timeout = time.Hour
				s.Fault("*", c.fault)
				at := time.Now()
				a, err := caller.try("GET", c.path, "")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, c.status, a.status)
				assert.Equal(t, c.body, a.raw)
				s.Close()
				assert.Equal(t, time.Hour, time.Since(at))
				assert.Equal(t, c.status, s.Requests()[0].Status)
			})
		})
	}
}

func TestStallEndsWithTheServer(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"memory": {agrentingtest.InMemory()}, "socket": nil, "HTTP/2": {agrentingtest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := agrentingtest.NewServer(opts...)
			defer s.Close()
			k := s.NewKey(s.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
			s.Fault("POST "+rotatePath, agrentingtest.Stall(8))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+rotatePath, strings.NewReader(`{"key_id":"`+k.ID+`"}`))
			require.NoError(t, err)
			req.Header.Set("X-Api-Key", k.Secret)
			resp, err := s.Transport().RoundTrip(req)
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }()
			assert.Equal(t, 200, resp.StatusCode)
			assert.False(t, s.KeyAlive(k.Secret))
			s.Close()
			body, err := io.ReadAll(resp.Body)
			require.Error(t, err)
			assert.LessOrEqual(t, len(body), 8)
		})
	}
}

func TestStallEndsWhereThePlatformIsMounted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.Fault("*", agrentingtest.Stall(1))
	host := httptest.NewServer(s.Handler())
	defer host.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host.URL+health, http.NoBody)
	require.NoError(t, err)
	resp, err := host.Client().Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	s.Close()
	body, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Equal(t, "{", string(body))
}

func TestStallNeedsABody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := newCaller(t, s)
		s.Fault("HEAD *", agrentingtest.Stall(1).Always())
		s.Fault("GET *", agrentingtest.Empty(204).And(agrentingtest.Stall(1)))
		assert.Equal(t, 200, c.call("HEAD", health, "").status)
		assert.Equal(t, 204, c.get(health).status)
		assert.Equal(t, 200, c.get(health).status, "on the same connection")
	})
}
