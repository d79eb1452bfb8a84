package agrentingtest_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// newKeyOf creates a key over HTTP.
func newKeyOf(w *world) string {
	secret := w.asToken().post("/api/v1/agents/"+w.agent.ID+"/credentials", "").text("api_key")
	assert.True(w.t, w.KeyAlive(secret), "whatever nodes know")
	return secret
}

func (w *world) newSession() string { return w.asKey().post(authPath, "").text("session_token") }

func TestNodesLearnLate(t *testing.T) {
	t.Parallel()
	const lag = 3 * time.Second
	cases := map[string]struct {
		nodes  agrentingtest.Nodes
		act    func(*world) caller // what is new or revoked
		before int                 // status until the nodes have learned of it
		after  int
	}{
		"created key":   {agrentingtest.Nodes{KeyLag: lag}, func(w *world) caller { return w.caller.key(newKeyOf(w)) }, 401, 200},
		"rotated key":   {agrentingtest.Nodes{KeyLag: lag}, func(w *world) caller { return w.caller.key(w.asKey().post(rotatePath, "").text("api_key")) }, 401, 200},
		"own key":       {agrentingtest.Nodes{KeyLag: lag}, func(w *world) caller { return w.caller.key(w.NewKey(w.agent.ID).Secret) }, 200, 200},
		"other lag":     {agrentingtest.Nodes{SessionLag: lag}, func(w *world) caller { return w.caller.key(newKeyOf(w)) }, 200, 200},
		"session":       {agrentingtest.Nodes{SessionLag: lag}, func(w *world) caller { return w.bearer(w.newSession()) }, 401, 200},
		"own session":   {agrentingtest.Nodes{SessionLag: lag}, func(w *world) caller { s, _ := w.NewSession(w.key.Secret); return w.bearer(s) }, 200, 200},
		"revoked key":   {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller { w.RevokeKey(w.key.ID); return w.asKey() }, 200, 401},
		"rotated away":  {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller { w.asKey().post(rotatePath, ""); return w.asKey() }, 200, 401},
		"revoked token": {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller { w.RevokeToken(w.token.ID); return w.asToken() }, 200, 401},
		"RevokeNow": {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller {
			c := w.bearer(w.newSession())
			w.Fault("*", agrentingtest.RevokeNow())
			return c
		}, 200, 401},
		"ended session": {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller {
			c := w.bearer(w.newSession())
			w.RevokeSessions()
			return c
		}, 200, 401},
		"logout": {agrentingtest.Nodes{RevocationLag: lag}, func(w *world) caller {
			c := w.bearer(w.newSession())
			assert.Equal(w.t, 200, c.del(logoutPath).status)
			return c
		}, 200, 401},
		"new and revoked": {agrentingtest.Nodes{SessionLag: lag + time.Hour, RevocationLag: lag}, func(w *world) caller {
			c := w.bearer(w.newSession())
			w.RevokeSessions()
			return c
		}, 401, 401},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithNodes(c.nodes))
				who := c.act(w)
				assert.Equal(t, c.before, who.get(tasksPath).status)
				advance(lag - time.Nanosecond)
				assert.Equal(t, c.before, who.get(tasksPath).status)
				advance(time.Nanosecond)
				assert.Equal(t, c.after, who.get(tasksPath).status)
			})
		})
	}
}

func TestOneNodeInTenLagsBehind(t *testing.T) {
	t.Parallel()
	nodes := agrentingtest.Nodes{
		Count: 10, Lagging: 1, KeyLag: 3 * time.Second, SessionLag: 3 * time.Second, RevocationLag: 3 * time.Second,
	}
	for name, c := range map[string]struct {
		act      func(*world) caller
		late, ok int // status of nodes that lag behind, and of the others
	}{
		"key":     {func(w *world) caller { return w.caller.key(newKeyOf(w)) }, 401, 200},
		"session": {func(w *world) caller { w.key.Secret = w.NewKey(w.agent.ID).Secret; return w.bearer(w.newSession()) }, 401, 200},
		"revoked": {func(w *world) caller { w.RevokeKey(w.key.ID); return w.asKey() }, 200, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithNodes(nodes), agrentingtest.WithoutRateLimits())
				who := c.act(w)
				statuses := func() map[int]int {
					counts := map[int]int{}
					for range 500 {
						counts[who.get(tasksPath).status]++
					}
					return counts
				}
				before := statuses()
				assert.InDelta(t, 50, before[c.late], 30)
				assert.Equal(t, 500, before[c.late]+before[c.ok])
				advance(3 * time.Second)
				assert.Equal(t, 500, statuses()[c.ok])
			})
		})
	}
}

func TestConnectionsStayOnTheirNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithoutRateLimits(), agrentingtest.WithNodes(agrentingtest.Nodes{
			Count: 4, Lagging: 1, SessionLag: time.Second, ByConnection: true,
		}))
		who := w.bearer(w.newSession())
		late := 0
		for range 40 {
			who.client = &http.Client{Transport: w.Transport()}
			first := who.get(tasksPath).status
			if first == 401 {
				late++
			}
			for range 5 {
				require.Equal(t, first, who.get(tasksPath).status)
			}
			advance(10 * time.Millisecond)
		}
		assert.InDelta(t, 10, late, 8)
		advance(time.Second)
		for range 20 {
			who.client = &http.Client{Transport: w.Transport()}
			require.Equal(t, 200, who.get(tasksPath).status)
		}
	})
}

func TestMountedHandlerChoosesNodesByAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits(), agrentingtest.WithNodes(agrentingtest.Nodes{
		Count: 2, Lagging: 1, SessionLag: time.Hour, ByConnection: true,
	}))
	session := w.newSession()
	late := 0
	for port := range 40 {
		statuses := map[int]int{}
		for range 5 {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tasksPath, http.NoBody)
			r.RemoteAddr = "192.0.2.1:" + strconv.Itoa(20_000+port)
			r.Header.Set("Authorization", "Bearer "+session)
			rec := httptest.NewRecorder()
			w.Handler().ServeHTTP(rec, r)
			statuses[rec.Code]++
		}
		assert.Contains(t, []map[int]int{{200: 5}, {401: 5}}, statuses)
		late += statuses[401] / 5
	}
	assert.InDelta(t, 20, late, 15)
}

func TestRevokedKeyIsExchangedUntilNodesKnow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts []agrentingtest.Option
		want int // status of the session once the nodes know
	}{
		"session lives on":      {nil, 200},
		"session dies with key": {[]agrentingtest.Option{agrentingtest.WithSessionsEndingWithKey()}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, append(c.opts, agrentingtest.WithNodes(agrentingtest.Nodes{RevocationLag: time.Minute}))...)
				w.RevokeKey(w.key.ID)
				advance(time.Second)
				session := w.bearer(w.newSession())
				assert.Equal(t, 200, session.get(tasksPath).status)
				assert.Equal(t, 401, w.asKey().post(rotatePath, "").status, "a key has one successor")
				assert.False(t, w.KeyAlive(w.key.Secret))
				advance(59 * time.Second)
				assert.Equal(t, 401, w.asKey().post(authPath, "").status)
				assert.Equal(t, c.want, session.get(tasksPath).status)
			})
		})
	}
}

func TestEndingTwiceDoesNotProlongASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithNodes(agrentingtest.Nodes{RevocationLag: time.Minute}))
		session := w.bearer(w.newSession())
		w.RevokeSessions()
		advance(30 * time.Second)
		w.RevokeSessions()
		assert.Equal(t, 200, session.del(logoutPath).status)
		advance(30 * time.Second)
		assert.Equal(t, 401, session.get(tasksPath).status)
	})
}

func TestExpiryIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithSessionTTL(time.Minute),
			agrentingtest.WithNodes(agrentingtest.Nodes{RevocationLag: time.Hour}))
		session := w.bearer(w.newSession())
		advance(time.Minute)
		assert.Equal(t, 401, session.get(tasksPath).status)
	})
}

func TestVerifyAsksANode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithNodes(agrentingtest.Nodes{Count: 2, Lagging: 1, SessionLag: time.Minute}))
		h := http.Header{"Authorization": {"Bearer " + w.newSession()}}
		refused := func() (n int) {
			for range 100 {
				if _, err := w.Verify(h); err != nil {
					n++
				}
			}
			return n
		}
		assert.InDelta(t, 50, refused(), 40)
		advance(time.Minute)
		assert.Zero(t, refused())
	})
}
