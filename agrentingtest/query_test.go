package agrentingtest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// seenBy adds a route that takes its credential from the query and says what it sees.
func seenBy(s *agrentingtest.Server, path string, refuse http.Handler, kinds ...agrentingtest.CredentialKind) {
	s.HandleQuery("GET "+path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := agrentingtest.PrincipalFrom(r.Context())
		_, _ = fmt.Fprint(w, p.Kind, " ", p.AgentID, " ", p.UserID, " ", r.URL, " ", r.RequestURI)
	}), refuse, kinds...)
}

func TestHandleQueryAuthenticatesByTheQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	seenBy(w.Server, "/any", nil)
	seenBy(w.Server, "/keys", nil, agrentingtest.KindAPIKey)
	session, _ := w.NewSession(w.key.Secret)
	agent := w.agent.ID + " " + w.user.ID
	for _, c := range []struct {
		path, query, want string
		status            int
	}{
		{"/any", "a=1&api_key=" + w.key.Secret, "api_key " + agent + " /any?a=1 /any?a=1", 200},
		{"/any", "api_key=" + w.token.Secret, "user_token  " + w.user.ID + " /any /any", 200},
		{"/any", "session_token=" + session, "session " + agent + " /any /any", 200},
		{"/keys", "api_key=" + w.key.Secret, "api_key " + agent + " /keys /keys", 200},
		{"/keys", "api_key=" + w.token.Secret, "", 403},
		{"/keys", "session_token=" + session, "", 403},
		{"/any", "", "", 401},
		{"/any", "api_key=", "", 401},
		{"/any", "api_key=" + session, "", 401},
		{"/any", "session_token=" + w.key.Secret, "", 401},
		{"/any", "api_key=" + w.key.Secret + "&api_key=" + w.key.Secret, "", 401},
		{"/any", "api_key=" + w.key.Secret + "&session_token=" + session, "", 401},
	} {
		a := w.get(c.path + "?" + c.query)
		assert.Equal(t, c.status, a.status, c.query)
		if c.want != "" {
			assert.Equal(t, c.want, a.raw)
		}
	}
	assert.Equal(t, 401, w.asKey().get("/any").status, "a credential in a header is refused")
	assert.Equal(t, 401, w.asKey().get("/any?api_key="+w.key.Secret).status)
	assert.Equal(t, 401, w.get(tasksPath+"?api_key="+w.key.Secret).status, "a credential in the query is refused on other routes")
}

func TestHandleQueryUsesRefusalOfRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	teapot := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	seenBy(w.Server, "/any", teapot, agrentingtest.KindAPIKey)
	assert.Equal(t, http.StatusTeapot, w.get("/any").status)
	assert.Equal(t, http.StatusTeapot, w.get("/any?api_key="+w.token.Secret).status)
	w.Fault("GET /any", agrentingtest.HandlerError(http.StatusConflict, "CONFLICT"))
	assert.Equal(t, http.StatusConflict, w.get("/any?api_key="+w.key.Secret).status)
}

func TestHandleQueryLogsNoCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seenBy(w.Server, "/any", nil)
	w.get("/any?a=1&api_key=" + w.key.Secret)
	w.get("/any?Session_Token=x&session_token=y&session_token=z")
	w.get("/other?api_key=misplaced")
	log := w.Requests()
	require.Len(t, log, 3)
	assert.Equal(t, url.Values{"a": {"1"}, "api_key": {"[FILTERED]"}}, log[0].Query)
	assert.Equal(t, w.key.ID, log[0].CredentialID)
	assert.Equal(t, url.Values{"Session_Token": {"[FILTERED]"}, "session_token": {"[FILTERED]", "[FILTERED]"}}, log[1].Query)
	assert.Equal(t, url.Values{"api_key": {"misplaced"}}, log[2].Query, "a credential where it does not belong is shown")
}

func TestHandleQueryHasTheLimitOfChannels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seenBy(w.Server, "/any", nil)
	sandbox := w.NewKey(w.NewAgent(w.user, agrentingtest.AgentConfig{Sandbox: true}).ID).Secret
	for secret, limit := range map[string]int{w.key.Secret: 30, w.token.Secret: 30, sandbox: 60} {
		for range limit {
			require.Equal(t, 200, w.get("/any?api_key="+secret).status)
		}
		a := w.get("/any?api_key=" + secret)
		assert.Equal(t, 429, a.status)
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	}
	assert.Equal(t, 200, w.asKey().get(tasksPath).status, "other requests have their own allowance")
}

func TestRevokedReportsEndOfCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	isClosed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	spare := w.NewKey(w.agent.ID)
	session, _ := w.NewSession(w.key.Secret)
	p, err := w.Verify(http.Header{"Authorization": {"Bearer " + session}})
	require.NoError(t, err)
	all := map[string]<-chan struct{}{}
	for _, id := range []string{w.key.ID, spare.ID, w.token.ID, p.CredentialID} {
		all[id] = w.Revoked(id)
		assert.False(t, isClosed(all[id]))
		assert.Equal(t, all[id], w.Revoked(id), "one channel for each")
	}
	w.RevokeSession(session)
	assert.True(t, isClosed(all[p.CredentialID]))
	w.RevokeToken(w.token.ID)
	w.RevokeToken(w.token.ID)
	assert.True(t, isClosed(all[w.token.ID]))
	assert.Equal(t, 200, w.asKey().post(rotatePath, "").status)
	assert.True(t, isClosed(all[w.key.ID]))
	assert.False(t, isClosed(all[spare.ID]))
	assert.True(t, isClosed(w.Revoked(w.key.ID)), "it is known afterwards")
	assert.True(t, isClosed(w.Revoked(p.CredentialID)))
	assert.True(t, isClosed(w.Revoked("unknown")))
}

func TestSessionsOfRevokedKeyAreRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithSessionsEndingWithKey())
	session, _ := w.NewSession(w.key.Secret)
	p, err := w.Verify(http.Header{"Authorization": {"Bearer " + session}})
	require.NoError(t, err)
	revoked := w.Revoked(p.CredentialID)
	w.RevokeKey(w.key.ID)
	<-revoked
}

// The connection is still open when the function runs.
func TestBeforeCloseRunsBeforeConnectionsAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := agrentingtest.NewServer(agrentingtest.InMemory())
		ended := make(chan error, 1)
		leave := make(chan struct{})
		s.HandlePublic("GET /stream", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.NoError(t, http.NewResponseController(w).Flush())
			<-leave
			ended <- r.Context().Err()
		}))
		ran := 0
		s.BeforeClose(func() {
			ran++
			close(leave)
			assert.NoError(t, <-ended, "the request was not cut off")
		})
		s.BeforeClose(func() { <-leave })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/stream", http.NoBody)
		require.NoError(t, err)
		resp, err := s.Transport().RoundTrip(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		s.Close()
		s.Close()
		assert.Equal(t, 1, ran)
		late := false
		s.BeforeClose(func() { late = true })
		assert.True(t, late)
	})
}
