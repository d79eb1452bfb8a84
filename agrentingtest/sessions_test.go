package agrentingtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestAuthenticateUsesChosenFormat(t *testing.T) {
	t.Parallel()
	cases := map[agrentingtest.SessionShape]struct {
		token   string
		fields  []string
		expires string // regexp
	}{
		agrentingtest.ShapeLive:       {"session_token", []string{"expires_at", "session_token"}, `^20\d\d-.*Z$`},
		agrentingtest.ShapeDocs:       {"token", []string{"agent", "token"}, ""},
		agrentingtest.ShapeBoth:       {"token", []string{"agent", "expires_at", "session_token", "token"}, `^20\d\d-.*Z$`},
		agrentingtest.ShapeBadExpiry:  {"session_token", []string{"expires_at", "session_token"}, "in a while"},
		agrentingtest.ShapePastExpiry: {"session_token", []string{"expires_at", "session_token"}, `^20\d\d-.*Z$`},
	}
	for shape, c := range cases {
		t.Run(shape.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, agrentingtest.WithSessionShape(shape))
			a := w.asKey().post(authPath, "")
			require.Equal(t, 200, a.status, a.raw)
			names := make([]string, 0, len(a.object()))
			for name := range a.object() {
				names = append(names, name)
			}
			assert.ElementsMatch(t, c.fields, names)
			if c.expires != "" {
				assert.Regexp(t, c.expires, a.text("expires_at"))
			}
			if agent, ok := a.object()["agent"]; ok {
				assert.Equal(t, map[string]any{"id": w.agent.ID, "name": "Scribe"}, agent)
			}
			assert.Equal(t, 200, w.bearer(a.text(c.token)).get(tasksPath).status)
		})
	}
	w := newWorld(t, agrentingtest.WithSessionShape(agrentingtest.ShapeFlat))
	flat := w.asKey().post(authPath, "")
	assert.Regexp(t, `^\{"expires_at":"[^"]+","session_token":"[^"]+"\}$`, flat.raw)
	assert.Equal(t, "SessionShape(?)", agrentingtest.SessionShape(99).String())
}

func TestAuthenticateMovesWithItsPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"))
	assert.Equal(t, 200, w.asKey().post("/auth/authenticate", "").status)
	assert.Equal(t, agrentingtest.CodeRouteNotFound, w.asKey().post(authPath, "").code())
}

func TestSessionEndsWithItsTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithSessionTTL(time.Minute))
		short := w.asKey().post(authPath, "").text("session_token")
		w.SetSessionTTL(time.Hour)
		long := w.asKey().post(authPath, "").text("session_token")
		advance(time.Minute - time.Second)
		assert.Equal(t, 200, w.bearer(short).get(tasksPath).status)
		advance(time.Second)
		assert.Equal(t, 401, w.bearer(short).get(tasksPath).status)
		assert.Equal(t, 200, w.bearer(long).get(tasksPath).status)
	})
}

func TestSessionsCanBeRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.NewSession(w.key.Secret)
	b, _ := w.NewSession(w.key.Secret)
	w.RevokeSession(a)
	w.RevokeSession("unknown")
	assert.Equal(t, 401, w.bearer(a).get(tasksPath).status)
	assert.Equal(t, 200, w.bearer(b).get(tasksPath).status)
	w.RevokeSessions()
	assert.Equal(t, 401, w.bearer(b).get(tasksPath).status)
	assert.EqualValues(t, 2, w.Stats().SessionsIssued)
}

func TestLogoutEndsSessionOrSessionsOfKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.NewKey(w.agent.ID)
	a, _ := w.NewSession(w.key.Secret)
	b, _ := w.NewSession(w.key.Secret)
	c, _ := w.NewSession(other.Secret)

	out := w.bearer(a).del(logoutPath)
	assert.Equal(t, 200, out.status)
	assert.Contains(t, out.raw, `"data":null`)
	assert.Equal(t, 401, w.bearer(a).get(tasksPath).status)
	assert.Equal(t, 200, w.bearer(b).get(tasksPath).status)

	assert.Equal(t, 200, w.asKey().del(logoutPath).status)
	assert.Equal(t, 401, w.bearer(b).get(tasksPath).status)
	assert.Equal(t, 200, w.bearer(c).get(tasksPath).status, "obtained with another key")
	assert.EqualValues(t, 2, w.Stats().Logouts)
}

func TestSessionsOutliveTheirKeyUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts []agrentingtest.Option
		want int
	}{
		"default": {nil, 200},
		"dying":   {[]agrentingtest.Option{agrentingtest.WithSessionsEndingWithKey()}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.opts...)
			session, _ := w.NewSession(w.key.Secret)
			require.Equal(t, 200, w.asKey().post(rotatePath, "").status)
			assert.Equal(t, c.want, w.bearer(session).get(tasksPath).status)
		})
	}
}

func TestExpiredSessionsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithSessionTTL(time.Second))
		for range 3000 {
			w.NewSession(w.key.Secret)
			advance(time.Millisecond)
		}
		token, _ := w.NewSession(w.key.Secret)
		assert.Equal(t, 200, w.bearer(token).get(tasksPath).status)
	})
}
