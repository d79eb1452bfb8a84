package agrentingtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// relay serves path through another route of the same server, for the same caller.
func (w *world) relay(path string) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		inner, err := http.NewRequestWithContext(r.Context(), http.MethodGet, w.URL+path, http.NoBody)
		if !assert.NoError(w.t, err) {
			return
		}
		inner.Header.Set("X-Api-Key", r.Header.Get("X-Api-Key"))
		inner.RemoteAddr = r.RemoteAddr
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, inner)
		out.Header().Set("Inner-Remaining", rec.Header().Get("X-Ratelimit-Remaining"))
		out.WriteHeader(rec.Code)
		_, _ = out.Write(rec.Body.Bytes())
	})
}

func TestNestedRequestsAreChargedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 3}))
	w.Handle("GET /relay", w.relay(tasksPath))
	for left := range 3 {
		a := w.asKey().get("/relay")
		assert.Equal(t, 200, a.status, a.raw)
		assert.Equal(t, strconv.Itoa(2-left), a.header.Get("X-Ratelimit-Remaining"))
		assert.Equal(t, strconv.Itoa(2-left), a.header.Get("Inner-Remaining"))
	}
	assert.Equal(t, 429, w.asKey().get("/relay").status)
	assert.Equal(t, 3, w.Count("GET "+tasksPath))
	assert.Equal(t, "agent:"+w.agent.ID, w.Requests()[1].Principal)
}

func TestNestedRequestsGetFaultsAndRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("GET /relay", w.relay(tasksPath))
	w.Handle("GET /mine", w.relay("/api/v1/agents/mine"))
	w.Fault("GET "+tasksPath, agrentingtest.Status(503, ""))
	assert.Equal(t, 503, w.asKey().get("/relay").status)
	assert.Equal(t, 200, w.asKey().get("/relay").status)
	assert.Equal(t, 403, w.asKey().get("/mine").status, "the inner route is for users")
}

// A node that does not accept a key yet does not learn of it between the two
// requests.
func TestNestedRequestsReachTheSameNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithNodes(agrentingtest.Nodes{KeyLag: time.Hour, Count: 2, Lagging: 1}))
	w.Handle("GET /relay", w.relay(tasksPath))
	late := w.caller.key(w.asKey().post(rotatePath, "").text("api_key"))
	for range 40 {
		late.get("/relay")
	}
	for _, r := range w.Requests() {
		if r.Path == tasksPath {
			assert.Equal(t, 200, r.Status)
		}
	}
	assert.Positive(t, w.Count("GET "+tasksPath))
}

// The credential was valid when the first request arrived, which is sufficient.
func TestNestedRequestsOutliveTheCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.NewKey(w.agent.ID)
	w.RevokeKey(other.ID)
	ends := func(end func(), path string, change func(http.Header)) http.Handler {
		next := w.relay(path)
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			end()
			change(r.Header)
			next.ServeHTTP(out, r)
		})
	}
	same := func(http.Header) {}
	rotate := func() { assert.Equal(t, 200, w.asKey().post(rotatePath, "").status) }
	w.Handle("GET /rotated", ends(rotate, tasksPath, same))
	w.Handle("GET /another", ends(func() {}, tasksPath, func(h http.Header) { h.Set("X-Api-Key", other.Secret) }))
	w.Handle("GET /without", ends(func() {}, tasksPath, func(h http.Header) { h.Del("X-Api-Key") }))
	w.Handle("GET /plain", w.relay(tasksPath))
	w.HandlePublic("GET /public", w.relay(tasksPath))

	live := w.caller.key(w.NewKey(w.agent.ID).Secret)
	assert.Equal(t, 401, live.get("/another").status, "a part with another credential")
	assert.Equal(t, 401, live.get("/without").status, "a part without a credential")
	assert.Equal(t, 401, w.caller.key(other.Secret).get("/public").status, "the route did not look at it")
	w.Fault("GET "+tasksPath, agrentingtest.RevokeNow())
	assert.Equal(t, 401, live.get("/plain").status)
	assert.Equal(t, 200, w.asKey().get("/rotated").status)
	assert.Equal(t, 401, w.asKey().get("/plain").status, "the next request is refused")
}

func TestUserRoutesActForTheUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		p, _ := agrentingtest.PrincipalFrom(r.Context())
		_, _ = fmt.Fprint(out, p)
	})
	w.HandleUser("GET /user", who)
	w.Handle("GET /any", who)
	assert.Equal(t, "user:"+w.user.ID, w.asToken().get("/user").raw)
	assert.Equal(t, "agent:"+w.agent.ID, w.asToken().get("/any").raw, "the only agent of the user")
	assert.Equal(t, "agent:"+w.agent.ID, w.asToken().and("X-Agent-ID", w.agent.ID).get("/user").raw)
	assert.Equal(t, "agent:"+w.agent.ID, w.asKey().get("/user").raw)
	assert.Equal(t, 401, w.with().get("/user").status)
}

// The other server's connections are not the platform's to cut.
func TestCloseEndsStreamsOfMountedHandler(t *testing.T) {
	t.Parallel()
	s := agrentingtest.NewServer(agrentingtest.InMemory())
	t.Cleanup(s.Close)
	began := make(chan struct{})
	s.HandlePublic("GET /stream", http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(out).Flush()
		close(began)
		<-r.Context().Done()
	}))
	other := httptest.NewServer(s.Handler())
	t.Cleanup(other.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, other.URL+"/stream", http.NoBody)
	require.NoError(t, err)
	resp, err := other.Client().Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	<-began
	assert.Equal(t, 200, s.Requests()[0].Status, "the log has a stream while it lasts")
	s.Close()
}
