package agrentingtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestReportCountsByRouteAndStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.transport.DisableKeepAlives = true // nothing is resent
		w.HandlePublic("/echo/{name}", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }))
		w.HandlePublic("/panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		w.asKey().get(tasksPath)
		w.asKey().get(tasksPath + "/" + w.agent.ID)
		w.asKey().get(tasksPath + "/" + w.user.ID)
		w.get(tasksPath)
		w.get("/echo/one")
		w.post("/echo/two", "")
		w.get("/nowhere/" + w.agent.ID)
		w.get("//api/v1/health")
		_, err := w.try(http.MethodGet, "/panic", "")
		require.Error(t, err)
		w.Fault("GET "+health, agrentingtest.DropBefore(), agrentingtest.DropAfter(), agrentingtest.ResetMidBody(3),
			agrentingtest.Page(502).AfterServing(), agrentingtest.Empty(204))
		for range 6 {
			_, _ = w.try(http.MethodGet, health, "") // faults are errors, too
		}
		w.Fault("GET "+health, agrentingtest.Delay(time.Hour))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+health, http.NoBody)
		require.NoError(t, err)
		_, err = w.client.Do(req) //nolint:bodyclose // there is no response
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()

		assert.Equal(t, []agrentingtest.RouteReport{
			{Route: "GET /api/v1/health", Requests: 7, Responses: map[string]int{"none": 3, "200": 2, "502": 1, "204": 1}},
			{Route: "GET /api/v1/tasks", Requests: 2, Responses: map[string]int{"200": 1, "401": 1}},
			{Route: "GET /api/v1/tasks/{id}", Requests: 2, Responses: map[string]int{"404": 2}},
			{Route: "GET /echo/{name}", Requests: 1, Responses: map[string]int{"418": 1}},
			{Route: "POST /echo/{name}", Requests: 1, Responses: map[string]int{"418": 1}},
			{Route: "GET /panic", Requests: 1, Responses: map[string]int{"none": 1}},
			{Route: "unknown route", Requests: 2, Responses: map[string]int{"404": 2}},
		}, w.Report().Requests)
	})
}

func TestReportListsFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fault("GET  "+health, agrentingtest.Status(500, "").Times(2))
	w.Fault("*", agrentingtest.Page(502).And(agrentingtest.Stall(3)).Times(5))
	w.Fault("POST "+health, agrentingtest.StatusWithRetryAfter(429, "1").Always())
	w.get(health)
	w.get(health)
	assert.Equal(t, []agrentingtest.FaultReport{
		{ID: 1, Pattern: "GET  " + health, Kind: "status", State: "consumed", Requests: 2},
		{ID: 2, Pattern: "*", Kind: "page+stall", State: "pending", Left: 5},
		{ID: 3, Pattern: "POST " + health, Kind: "status", State: "pending"},
	}, w.Report().Faults)
	w.ClearFaults()
	assert.Equal(t, "cleared", w.Report().Faults[1].State)

	for range 1200 {
		w.Fault("*", agrentingtest.Gone())
		w.get(health)
	}
	faults := w.Report().Faults
	assert.Len(t, faults, 1000, "the oldest are dropped")
	assert.EqualValues(t, 1203, faults[999].ID)
}

func TestReportCountsRefusalsByCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		scoped := w.NewToken(w.user.ID, agrentingtest.TokenConfig{Scopes: []string{"balance:read"}, TTL: time.Hour})
		session, _ := w.NewSession(w.key.Secret)
		revoked := w.NewKey(w.agent.ID)
		w.RevokeKey(revoked.ID)
		ended, _ := w.NewSession(w.key.Secret)
		w.RevokeSession(ended)
		stray := agrentingtest.Status(401, "")

		type row = agrentingtest.RefusedCredential
		key := row{Header: "X-Api-Key", Kind: "api_key", AgentID: w.agent.ID, Status: 401, Route: "GET " + tasksPath}
		const badKey, badToken = "invalid or revoked API key", "invalid or revoked token"
		for name, c := range map[string]struct {
			from   caller
			secret string
			fault  *agrentingtest.Fault
			want   row
		}{
			"anonymous":    {w.with(), "", nil, row{Status: 401, Route: key.Route, Reason: "a credential is required"}},
			"revoked":      {w.caller.key(revoked.Secret), revoked.Secret, nil, row{Header: key.Header, Kind: key.Kind, ID: revoked.ID, AgentID: key.AgentID, State: "revoked", Status: 401, Route: key.Route, Reason: badKey}},
			"stray":        {w.asKey(), w.key.Secret, &stray, row{Header: key.Header, Kind: key.Kind, ID: w.key.ID, AgentID: key.AgentID, State: "live", Status: 401, Route: key.Route, Reason: "unauthorized", Fault: "status"}},
			"other header": {w.bearer(w.key.Secret), w.key.Secret, nil, row{Header: "Authorization", Kind: key.Kind, ID: w.key.ID, AgentID: key.AgentID, State: "live", Status: 401, Route: key.Route, Reason: badToken}},
			"unknown":      {w.with("Api-Key", "from elsewhere"), "from elsewhere", nil, row{Header: "Api-Key", Kind: "unknown", Status: 401, Route: key.Route, Reason: badKey}},
			"ended":        {w.bearer(ended), ended, nil, row{Header: "Authorization", Kind: "session", AgentID: key.AgentID, State: "ended", Status: 401, Route: key.Route, Reason: badToken}},
			"scope":        {w.bearer(scoped.Secret), scoped.Secret, nil, row{Header: "Authorization", Kind: "user_token", ID: scoped.ID, State: "live", Status: 403, Route: key.Route, Reason: "the token lacks the scope tasks:read"}},
		} {
			before := w.Report().Refused
			if c.fault != nil {
				w.Fault("*", *c.fault)
			}
			status := c.from.get(tasksPath).status
			assert.Equal(t, c.want.Status, status, name)
			got := newRow(before, w.Report().Refused)
			if c.secret != "" {
				c.want.Fingerprint = agrenting.APIKey(c.secret).Fingerprint()
			}
			if got.Kind == "session" {
				c.want.ID = got.ID // it is known to the server only
			}
			c.want.Requests = 1
			assert.Equal(t, c.want, got, name)
		}
		advance(21 * time.Hour)
		w.bearer(session).get(tasksPath)
		w.bearer(session).get(tasksPath)
		w.bearer(scoped.Secret).get(tasksPath)
		top := w.Report().Refused[0]
		assert.Equal(t, []any{"session", "expired", 2}, []any{top.Kind, top.State, top.Requests})

		raw, err := json.Marshal(w.Report())
		require.NoError(t, err)
		for _, secret := range []string{scoped.Secret, session, revoked.Secret, ended, w.key.Secret} {
			assert.NotContains(t, string(raw), secret)
		}
	})
}

// newRow returns the row that was added.
func newRow(before, after []agrentingtest.RefusedCredential) agrentingtest.RefusedCredential {
	for _, a := range after {
		found := false
		for _, b := range before {
			found = found || a == b
		}
		if !found {
			return a
		}
	}
	return agrentingtest.RefusedCredential{}
}

func TestReportCountsRefusalsOfCredentialsInTheQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seenBy(w.Server, "/any", nil)
	seenBy(w.Server, "/closed", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	revoked := w.NewKey(w.agent.ID)
	w.RevokeKey(revoked.ID)
	ended, _ := w.NewSession(w.key.Secret)
	w.RevokeSession(ended)
	stray := agrentingtest.Status(401, "")

	type row = agrentingtest.RefusedCredential
	agent := w.agent.ID
	const badKey = "invalid or revoked API key"
	for name, c := range map[string]struct {
		path, query, secret string
		fault               *agrentingtest.Fault
		want                row
	}{
		"none":       {"/any", "", "", nil, row{Status: 401, Reason: "a credential is required: api_key or session_token in the query"}},
		"empty":      {"/any", "api_key=", "", nil, row{Status: 401, Reason: badKey}},
		"revoked":    {"/any", "api_key=" + revoked.Secret, revoked.Secret, nil, row{Header: "query", Kind: "api_key", ID: revoked.ID, AgentID: agent, State: "revoked", Status: 401, Reason: badKey}},
		"unknown":    {"/any", "api_key=from-elsewhere", "from-elsewhere", nil, row{Header: "query", Kind: "unknown", Status: 401, Reason: badKey}},
		"ended":      {"/any", "session_token=" + ended, ended, nil, row{Header: "query", Kind: "session", AgentID: agent, State: "ended", Status: 401, Reason: "invalid or revoked token"}},
		"misspelled": {"/any", "Api_Key=" + w.key.Secret, w.key.Secret, nil, row{Header: "query", Kind: "api_key", ID: w.key.ID, AgentID: agent, State: "live", Status: 401, Reason: "a credential is required: api_key or session_token in the query"}},
		"own way":    {"/closed", "api_key=" + revoked.Secret, revoked.Secret, nil, row{Header: "query", Kind: "api_key", ID: revoked.ID, AgentID: agent, State: "revoked", Status: 403}},
		"stray":      {"/any", "api_key=" + w.key.Secret, w.key.Secret, &stray, row{Header: "query", Kind: "api_key", ID: w.key.ID, AgentID: agent, State: "live", Status: 401, Reason: "unauthorized", Fault: "status"}},
		"elsewhere":  {tasksPath, "api_key=" + w.key.Secret, "", nil, row{Status: 401, Reason: "a credential is required"}},
	} {
		before := w.Report().Refused
		if c.fault != nil {
			w.Fault("*", *c.fault)
		}
		assert.Equal(t, c.want.Status, w.get(c.path+"?"+c.query).status, name)
		got := newRow(before, w.Report().Refused)
		if c.secret != "" {
			c.want.Fingerprint = agrenting.APIKey(c.secret).Fingerprint()
		}
		if got.Kind == "session" {
			c.want.ID = got.ID // it is known to the server only
		}
		c.want.Requests, c.want.Route = 1, "GET "+c.path
		assert.Equal(t, c.want, got, name)
	}
	before := len(w.Report().Refused)
	w.asKey().get("/any?api_key=" + w.key.Secret + "&session_token=" + ended)
	assert.Len(t, w.Report().Refused, before+3, "all of the credentials")

	raw, err := json.Marshal(w.Report())
	require.NoError(t, err)
	for _, secret := range []string{revoked.Secret, ended, w.key.Secret} {
		assert.NotContains(t, string(raw), secret)
	}
}

func TestTwoCredentialsAreBothReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.asKey().and("Authorization", "Bearer "+w.token.Secret).get(tasksPath)
	rows := w.Report().Refused
	require.Len(t, rows, 2)
	for _, r := range rows {
		assert.Equal(t, "more than one credential header on one request", r.Reason)
	}
	assert.Empty(t, w.Report().Misplaced)
}

func TestReportFindsMisplacedCredentials(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		send  func(w *world, session string)
		place string
		kind  string
		route string
	}{
		"key in the query":     {func(w *world, _ string) { w.get(health + "?api_key=" + w.key.Secret) }, "query", "api_key", "GET " + health},
		"session in the query": {func(w *world, s string) { w.get(health + "?x=1&x=" + s) }, "query", "session", "GET " + health},
		"token in the path":    {func(w *world, _ string) { w.get("/api/v1/nowhere/" + w.token.Secret + "/x") }, "path", "user_token", "unknown route"},
		"key in a header":      {func(w *world, _ string) { w.with("Referer", "https://x.example/?k="+w.key.Secret).get(health) }, "header Referer", "api_key", "GET " + health},
		"key in the body": {func(w *world, _ string) {
			w.asKey().post(tasksPath, `{"input":{"text":"my key is `+w.key.Secret+`."}}`)
		}, "body", "api_key", "POST " + tasksPath},
		"dead key in the body of a refused request": {func(w *world, _ string) {
			w.RevokeKey(w.key.ID)
			w.post(tasksPath, `{"a":"`+w.key.Secret+`","b":"`+w.key.Secret+`"}`)
		}, "body", "api_key", "POST " + tasksPath},
		"dropped": {func(w *world, _ string) {
			w.transport.DisableKeepAlives = true
			w.Fault("*", agrentingtest.DropBefore())
			_, _ = w.try(http.MethodGet, health+"?api_key="+w.key.Secret, "")
		}, "query", "api_key", "GET " + health},
		"where it belongs": {func(w *world, s string) {
			w.asKey().get(tasksPath)
			w.bearer(s).get(tasksPath)
			w.with("Api-Key", w.key.Secret).get(tasksPath)
		}, "", "", ""},
		"a socket":             {func(w *world, _ string) { w.get("/socket/agent/websocket?api_key=" + w.key.Secret) }, "", "", ""},
		"of somewhere else":    {func(w *world, _ string) { w.get(health + "?api_key=" + strings.Repeat("a1", 20)) }, "", "", ""},
		"idempotency key":      {func(w *world, _ string) { keyed(w.asKey(), w.agent.ID).post(rotatePath, "") }, "", "", ""},
		"a part of the secret": {func(w *world, _ string) { w.get(health + "?k=" + w.key.Secret[1:]) }, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			session, _ := w.NewSession(w.key.Secret)
			c.send(w, session)
			got := w.Report().Misplaced
			if c.place == "" {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			secret := map[string]string{"api_key": w.key.Secret, "session": session, "user_token": w.token.Secret}[c.kind]
			assert.Equal(t, agrenting.APIKey(secret).Fingerprint(), got[0].Fingerprint)
			assert.Equal(t, []any{c.place, c.kind, c.route, 1}, []any{got[0].Place, got[0].Kind, got[0].Route, got[0].Requests})
			raw, err := json.Marshal(w.Report())
			require.NoError(t, err)
			assert.NotContains(t, string(raw), secret)
		})
	}
}

func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	for i := range 1005 {
		assert.Equal(t, 401, w.caller.key(fmt.Sprintf("made up %d", i)).get(tasksPath).status)
	}
	r := w.Report()
	assert.Len(t, r.Refused, 1000)
	assert.Equal(t, 5, r.Omitted)
	assert.Equal(t, 1005, r.Requests[0].Requests, "requests are counted all the same")
}

func TestReportIsJSONWithoutNull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithControl())
		var empty map[string]any
		require.NoError(t, json.Unmarshal([]byte(w.get(reportPath).raw), &empty))
		for name, total := range object(empty["stats"]) {
			assert.Zero(t, total, name)
		}
		assert.Contains(t, empty["stats"], "sessions_issued")
		delete(empty, "stats")
		none := []any{}
		assert.Equal(t, map[string]any{
			"started_at": "2000-01-01T00:00:00Z", "requests": none, "faults": none, "chaos": nil,
			"refused_credentials": none, "misplaced_credentials": none, "omitted": 0.0,
		}, empty)
		w.asKey().post(authPath, "")
		w.asKey().post(rotatePath, "")
		r := w.report()
		assert.EqualValues(t, 1, r.Stats.SessionsIssued)
		assert.EqualValues(t, 1, r.Stats.Rotations)
	})
}

func TestResponsesAreReportedBeforeTheyArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rest := make(chan struct{})
	w.HandlePublic("GET /stream", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(rw).Flush()
		<-rest
	}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/stream", http.NoBody)
	require.NoError(t, err)
	resp, err := w.client.Do(req)
	require.NoError(t, err)
	want := []agrentingtest.RouteReport{{Route: "GET /stream", Requests: 1, Responses: map[string]int{"202": 1}}}
	assert.Equal(t, want, w.Report().Requests)
	close(rest)
	require.NoError(t, resp.Body.Close())
	w.Close()
	assert.Equal(t, want, w.Report().Requests)
}
