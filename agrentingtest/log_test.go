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

func TestLogListsRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := time.Now()
	w.asKey().and("X-Trace", "7").call("PATCH", "/api/v1/agents/did%3Aweb%3Ax%2Fy?dry=1&dry=2", `{"agent":{}}`)
	w.with().post(tasksPath, `{"refused":true}`)
	log := w.Requests()
	require.Len(t, log, 2)
	r := log[0]
	assert.Equal(t, "PATCH", r.Method)
	assert.Equal(t, "/api/v1/agents/did:web:x/y", r.Path)
	assert.Equal(t, "/api/v1/agents/did%3Aweb%3Ax%2Fy", r.RawPath)
	assert.Equal(t, []string{"1", "2"}, r.Query["dry"])
	assert.Equal(t, "7", r.Header.Get("X-Trace"))
	assert.Equal(t, w.key.Secret, r.Header.Get("X-Api-Key"))
	assert.JSONEq(t, `{"agent":{}}`, string(r.Body))
	assert.EqualValues(t, 12, r.BodySize)
	assert.Equal(t, strings.TrimPrefix(w.URL, "http://"), r.Host)
	assert.True(t, strings.HasPrefix(r.RemoteAddr, "127.0.0.1:"))
	assert.WithinRange(t, r.ReceivedAt, before, time.Now())
	assert.Equal(t, 404, r.Status)
	assert.Equal(t, "agent:"+w.agent.ID, r.Principal)
	assert.Equal(t, w.key.ID, r.CredentialID)
	assert.JSONEq(t, `{"refused":true}`, string(log[1].Body), "also of what was refused")
	assert.Equal(t, 401, log[1].Status)

	r.Header.Set("X-Trace", "changed")
	r.Body[0] = 'x'
	assert.Equal(t, "7", w.Requests()[0].Header.Get("X-Trace"), "copies")
	assert.JSONEq(t, `{"agent":{}}`, string(w.Requests()[0].Body))

	assert.Equal(t, 1, w.Count("POST "+tasksPath))
	w.ResetLog()
	assert.Empty(t, w.Requests())
	assert.Zero(t, w.Count("*"))
	assert.EqualValues(t, 2, w.Stats().Requests)
}

func TestLogIsBoundedAndCountsAreNot(t *testing.T) {
	t.Parallel()
	s := newServer(t, agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(3))
	c := newCaller(t, s)
	for range 10 {
		c.get(health)
	}
	last := c.get("/last")
	log := s.Requests()
	require.Len(t, log, 3)
	assert.Equal(t, last.env.Meta.RequestID, log[2].ID)
	assert.Equal(t, 10, s.Count("GET "+health))
}

func TestCountsAreBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t, agrentingtest.WithoutRateLimits())
	s.LimitCounts(2)
	c := newCaller(t, s)
	c.get(health)
	c.get(tasksPath + "/first")
	c.get(tasksPath + "/" + strings.Repeat("x", 2000))
	for i := range 20 {
		c.get(fmt.Sprintf("%s/%d", tasksPath, i))
		c.get(fmt.Sprintf("/unknown/%d", i))
		c.call(fmt.Sprintf("M%d", i), "/unknown", "")
	}
	c.get(health)
	for route, want := range map[string]int{
		"*": 64, "GET *": 44, "!GET *": 20, "M1 *": 0,
		"GET " + health: 2, "GET " + tasksPath + "/first": 1,
		"GET " + tasksPath + "/{id}": 22, tasksPath + "/*": 22, "GET " + tasksPath + "/7": 0, "/unknown/*": 0,
	} {
		assert.Equal(t, want, s.Count(route), route)
	}
	assert.Equal(t, 5, s.Counts(), "two paths, a route, and unknown ones with and without a method")
	s.ResetLog()
	c.get("/unknown/1")
	assert.Equal(t, 1, s.Count("GET /unknown/1"))
	s.ResetLog()
	c.get("/" + strings.Repeat("x", 2000))
	assert.Equal(t, []int{0, 1}, []int{s.Count("GET /x*"), s.Count("*")}, "no long path is kept")
}

func TestLoggedBodiesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("POST /sink", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	w.asKey().post("/sink", strings.Repeat("x", 200_000))
	r := w.Requests()[0]
	assert.Len(t, r.Body, 64<<10)
	assert.EqualValues(t, 200_000, r.BodySize)
}

func TestStreamsArePassedOnAsTheyCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Handle("POST /echo", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(rw)
			assert.NoError(t, rc.EnableFullDuplex())
			assert.NoError(t, rc.Flush())
			buf := make([]byte, 16)
			for {
				n, err := r.Body.Read(buf)
				_, _ = rw.Write(buf[:n])
				_ = rc.Flush()
				if err != nil {
					return
				}
			}
		}))
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/echo", pr)
		require.NoError(t, err)
		req.Header.Set("X-Api-Key", w.key.Secret)
		resp, err := w.client.Do(req)
		require.NoError(t, err)
		buf := make([]byte, 4)
		for range 3 {
			_, err = pw.Write([]byte("ping"))
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, buf)
			require.NoError(t, err)
			assert.Equal(t, "ping", string(buf))
		}
		require.NoError(t, pw.Close())
		rest, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Empty(t, rest)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, "pingpingping", string(w.Requests()[0].Body))
	})
}

func TestUnreadBodyOfWaitingClientIsNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.with("Expect", "100-continue").post(tasksPath, `{"secret":1}`)
	assert.Equal(t, 401, a.status)
	assert.Empty(t, w.Requests()[0].Body, "it was never sent")
}

func TestInformationalResponsesPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("/hints", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Link", "</x>")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.WriteHeader(http.StatusAccepted)
		rw.WriteHeader(http.StatusTeapot) // too late
	}))
	assert.Equal(t, 202, w.asKey().get("/hints").status)
	assert.Equal(t, 202, keyed(w.asKey(), "k").post("/hints", "").status)
	assert.Equal(t, 202, w.Requests()[0].Status)
}
