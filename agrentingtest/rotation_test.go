package agrentingtest_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestRotationKillsTheOldKeyAtOnce(t *testing.T) {
	t.Parallel()
	for name, as := range map[string]func(*world) caller{
		"by the key":   func(w *world) caller { return w.asKey() },
		"by a session": func(w *world) caller { s, _ := w.NewSession(w.key.Secret); return w.bearer(s) },
		"by the owner": func(w *world) caller { return w.asToken().and("X-Agent-ID", w.agent.ID) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := as(w).post(rotatePath, "")
			require.Equal(t, 200, a.status, a.raw)
			assert.Equal(t, w.agent.ID, a.text("agent_id"))
			assert.NotEmpty(t, a.text("created_at"))
			assert.False(t, w.KeyAlive(w.key.Secret))
			assert.True(t, w.KeyAlive(a.text("api_key")))
			keys := w.LiveKeys(w.agent.ID)
			require.Len(t, keys, 1)
			assert.Equal(t, a.text("id"), keys[0].ID)
			assert.Equal(t, 401, w.asKey().get(tasksPath).status)
			assert.Equal(t, 200, w.caller.key(a.text("api_key")).get(tasksPath).status)
			assert.EqualValues(t, 1, w.Stats().Rotations)
		})
	}
}

func TestOwnerRotatesNewestOrNamedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second, third := w.NewKey(w.agent.ID), w.NewKey(w.agent.ID)
	require.Equal(t, 200, w.asToken().post(rotatePath, "").status)
	assert.False(t, w.KeyAlive(third.Secret))
	require.Equal(t, 200, w.asToken().post(rotatePath, `{"key_id":"`+w.key.ID+`"}`).status)
	assert.False(t, w.KeyAlive(w.key.Secret))
	assert.True(t, w.KeyAlive(second.Secret))
	assert.Equal(t, 404, w.asToken().post(rotatePath, `{"key_id":"`+w.key.ID+`"}`).status, "dead by now")
	assert.Equal(t, 403, w.caller.key(second.Secret).post(rotatePath, `{"key_id":"other"}`).status)
	assert.Equal(t, 422, w.caller.key(second.Secret).post(rotatePath, `{"key_id":7}`).status)
	assert.Equal(t, 422, w.caller.key(second.Secret).post(rotatePath, `[]`).status)
}

func TestSessionCannotRotateADeadKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, _ := w.NewSession(w.key.Secret)
	w.RevokeKey(w.key.ID)
	assert.Equal(t, agrentingtest.CodeNotFound, w.bearer(session).post(rotatePath, "").code())
	assert.Equal(t, agrentingtest.CodeNotFound, w.asToken().post(rotatePath, "").code())
}

func TestSecretHasTheChosenFieldName(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"api_key", "key", "credential", "secret"} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, agrentingtest.WithRotateKeyField(field))
			rotated := w.asKey().post(rotatePath, "")
			assert.True(t, w.KeyAlive(rotated.text(field)), rotated.raw)
			created := w.asToken().post("/api/v1/agents/"+w.agent.ID+"/credentials", `{"name":"x"}`)
			assert.True(t, w.KeyAlive(created.text(field)), created.raw)
			registered := w.asToken().post("/api/v1/agents", `{"name":"Toy","sandbox":true}`)
			assert.True(t, w.KeyAlive(registered.text(field)), registered.raw)
		})
	}
}

func TestTruncatedResponsesContainKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithUnexpectedKeyFields())
	a := w.asKey().post(rotatePath, "")
	assert.True(t, w.KeyAlive(a.text("api_key")))
	assert.InDelta(t, -1.5, a.object()["created_at"], 0)
	assert.IsType(t, map[string]any{}, a.object()["id"])
}

func TestLostRotationIsReplayedForOtherCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, _ := w.NewSession(w.key.Secret)
	w.Fault("POST "+rotatePath, agrentingtest.DropAfter())
	w.transport.DisableKeepAlives = true // no automatic resending

	const h, v = "X-Idempotency-Key", "3f2c"
	_, err := w.asKey().and(h, v).try(http.MethodPost, rotatePath, "")
	require.Error(t, err)
	assert.False(t, w.KeyAlive(w.key.Secret), "it was carried out")

	assert.Equal(t, 401, w.asKey().and(h, v).post(rotatePath, "").status, "the key that began it is dead")
	bySession := w.bearer(session).and(h, v).post(rotatePath, "")
	require.Equal(t, 200, bySession.status, bySession.raw)
	byOwner := w.asToken().and(h, v).and("X-Agent-ID", w.agent.ID).post(rotatePath, "")
	assert.Equal(t, bySession.raw, byOwner.raw)
	assert.True(t, w.KeyAlive(bySession.text("api_key")))
	assert.EqualValues(t, 1, w.Stats().Rotations)
	assert.EqualValues(t, 2, w.Stats().IdempotentReplays)
	log := w.Requests()
	assert.Equal(t, "DropAfter", log[0].Fault)
	assert.Equal(t, 200, log[0].Status)
	assert.True(t, log[2].Replayed)
}

func TestOnlyOneOfManyRotationsWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch a := w.asKey().post(rotatePath, ""); a.status {
			case 200:
				won.Add(1)
			case 401:
				lost.Add(1)
			default:
				assert.Fail(t, a.raw)
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, won.Load())
	assert.EqualValues(t, 19, lost.Load())
	assert.Len(t, w.LiveKeys(w.agent.ID), 1)
}

func TestOnlyOneOfManyReplaysRotates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for range 30 {
		wg.Go(func() {
			a := w.asToken().and("X-Idempotency-Key", "one").post(rotatePath, "")
			mu.Lock()
			defer mu.Unlock()
			if a.status == 200 {
				answers[a.text("api_key")]++
			} else {
				assert.Equal(t, agrentingtest.CodeIdempotencyPending, a.code())
			}
		})
	}
	wg.Wait()
	assert.Len(t, answers, 1)
	assert.EqualValues(t, 1, w.Stats().Rotations)
}
