package agrentingtest_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func keyed(c caller, key string) caller { return c.and("X-Idempotency-Key", key) }

func TestReplayGivesTheFirstAnswerWith200(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"agent_id":"` + w.agent.ID + `","task_type":"t"}`
	first := keyed(w.asKey(), "k").post(tasksPath, body)
	again := keyed(w.asKey(), "k").post(tasksPath, body)
	assert.Equal(t, 201, first.status)
	assert.Equal(t, 200, again.status)
	assert.Equal(t, first.raw, again.raw)
	assert.Equal(t, first.header.Get("Content-Type"), again.header.Get("Content-Type"))
	assert.Len(t, w.asKey().get(tasksPath).items(), 1)

	other := keyed(w.asKey(), "k").post(tasksPath, body+" ")
	assert.Equal(t, 422, other.status)
	assert.Equal(t, agrentingtest.CodeIdempotencyMismatch, other.code())
}

func TestKeysAreApartByActorRouteAndMethod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var calls atomic.Int32
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	w.Handle("/a", count)
	w.Handle("/b", count)
	stranger := w.NewKey(w.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	for range 2 {
		for _, c := range []caller{w.asKey(), w.caller.key(stranger.Secret)} {
			for _, method := range []string{"POST", "PUT"} {
				for _, path := range []string{"/a", "/b"} {
					assert.Equal(t, 200, keyed(c, "k").call(method, path, "").status)
				}
			}
		}
	}
	assert.EqualValues(t, 8, calls.Load())
	for range 2 {
		keyed(w.asKey(), "k").call("PATCH", "/a", "")
		keyed(w.asKey(), "k").call("DELETE", "/a", "")
		w.asKey().post("/a", "")
	}
	assert.EqualValues(t, 14, calls.Load(), "only keyed POST and PUT are remembered")
}

func TestPendingIsAConflict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Handle("POST /slow", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			advance(time.Minute)
			_, _ = rw.Write(body)
		}))
		done := make(chan answer)
		go func() { done <- keyed(w.asKey(), "k").post("/slow", "x") }()
		advance(time.Second)
		busy := keyed(w.asKey(), "k").post("/slow", "x")
		assert.Equal(t, 409, busy.status)
		assert.Equal(t, agrentingtest.CodeIdempotencyPending, busy.code())
		assert.Equal(t, "x", (<-done).raw)
		assert.Equal(t, "x", keyed(w.asKey(), "k").post("/slow", "x").raw)
	})
}

func TestFailuresAreRepeatedForIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"agent_id":"` + w.agent.ID + `","task_type":"t"}`
	w.Fault("POST "+tasksPath, agrentingtest.HandlerError(503, ""))
	for range 2 {
		a := keyed(w.asKey(), "k").post(tasksPath, body)
		assert.Equal(t, 503, a.status)
		assert.Equal(t, agrentingtest.CodeAgentUnavailable, a.code())
	}
	assert.Equal(t, 201, keyed(w.asKey(), "new").post(tasksPath, body).status)

	first := keyed(w.asKey(), "bad").post(tasksPath, `{}`)
	again := keyed(w.asKey(), "bad").post(tasksPath, `{}`)
	assert.Equal(t, 422, first.status)
	assert.Equal(t, first.raw, again.raw)
	assert.Equal(t, first.status, again.status)

	w.Handle("POST /mine", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w.Fault("/mine", agrentingtest.HandlerError(500, "X"))
	assert.Equal(t, "X", w.asKey().post("/mine", "").code())
}

func TestGatewayFaultsAreNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fault("POST "+rotatePath, agrentingtest.Status(503, ""), agrentingtest.DropBefore())
	w.transport.DisableKeepAlives = true
	assert.Equal(t, 503, keyed(w.asKey(), "k").post(rotatePath, "").status)
	_, err := keyed(w.asKey(), "k").try("POST", rotatePath, "")
	require.Error(t, err)
	assert.Equal(t, 200, keyed(w.asKey(), "k").post(rotatePath, "").status)
}

func TestPanickingHandlerFailsRetriably(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("POST /boom", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	w.transport.DisableKeepAlives = true
	_, err := keyed(w.asKey(), "k").try("POST", "/boom", "")
	require.Error(t, err)
	assert.Equal(t, 500, keyed(w.asKey(), "k").post("/boom", "").status)
}

func TestKeysAreForgottenAfterADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		body := `{"agent_id":"` + w.agent.ID + `","task_type":"t"}`
		first := keyed(w.asKey(), "k").post(tasksPath, body).text("id")
		advance(24*time.Hour - time.Second)
		assert.Equal(t, first, keyed(w.asKey(), "k").post(tasksPath, body).text("id"))
		advance(time.Second)
		assert.NotEqual(t, first, keyed(w.asKey(), "k").post(tasksPath, body).text("id"))
	})
}

func TestOversizedKeyedBodyIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("POST /big", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	assert.Equal(t, 413, keyed(w.asKey(), "k").post("/big", string(make([]byte, 16<<20+1))).status)
}

func TestAnonymousRegistrationIsIdempotent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := keyed(w.with(), "k").post("/api/v1/agents/register", goodAgent)
	b := keyed(w.with(), "k").post("/api/v1/agents/register", goodAgent)
	assert.Equal(t, a.text("api_key"), b.text("api_key"))
	assert.EqualValues(t, 1, w.Stats().AgentsRegistered)
}
