package agrentingtest_test

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// whoami is a route that returns the principal of the request.
func whoami(w http.ResponseWriter, r *http.Request) {
	p, ok := agrentingtest.PrincipalFrom(r.Context())
	if !ok {
		p = agrentingtest.Principal{}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{
		"who": p.String(), "kind": string(p.Kind), "key": p.KeyID, "user": p.UserID, "sandbox": p.Sandbox,
	}})
}

func TestEveryDocumentedCredentialIsAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Handle("GET /whoami", http.HandlerFunc(whoami))
	session, expires := w.NewSession(w.key.Secret)
	assert.WithinDuration(t, time.Now().Add(20*time.Hour), expires, time.Minute)
	agent, user := "agent:"+w.agent.ID, "agent:"+w.agent.ID
	cases := map[string]struct {
		header []string
		kind   string
		who    string
	}{
		"key in X-API-Key":        {[]string{"X-API-Key", w.key.Secret}, "api_key", agent},
		"key in Api-Key":          {[]string{"Api-Key", w.key.Secret}, "api_key", agent},
		"session as bearer":       {[]string{"Authorization", "Bearer " + session}, "session", agent},
		"scheme in lower case":    {[]string{"Authorization", "bearer " + session}, "session", agent},
		"user token as bearer":    {[]string{"Authorization", "Bearer " + w.token.Secret}, "user_token", user},
		"user token in X-API-Key": {[]string{"X-API-Key", w.token.Secret}, "user_token", user},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := w.with(c.header...).get("/whoami?case=" + url.QueryEscape(name))
			require.Equal(t, 200, a.status, a.raw)
			assert.Equal(t, c.kind, a.text("kind"))
			assert.Equal(t, c.who, a.text("who"))
			assert.Equal(t, w.user.ID, a.text("user"))
			log := w.Requests()
			i := slices.IndexFunc(log, func(r agrentingtest.Request) bool { return r.Query.Get("case") == name })
			require.NotEqual(t, -1, i)
			last := log[i]
			assert.Equal(t, agrentingtest.CredentialKind(c.kind), last.CredentialKind)
			assert.Equal(t, c.who, last.Principal)
			assert.Equal(t, w.agent.ID, last.AgentID)
			assert.NotEmpty(t, last.CredentialID)
		})
	}
}

func TestEverythingElseIsUnauthorized(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, _ := w.NewSession(w.key.Secret)
	revokedKey := w.NewKey(w.agent.ID)
	w.RevokeKey(revokedKey.ID)
	w.RevokeKey(revokedKey.ID)
	w.RevokeKey("nonsense")
	revokedToken := w.NewToken(w.user.ID, agrentingtest.TokenConfig{})
	w.RevokeToken(revokedToken.ID)
	w.RevokeToken(revokedToken.ID)
	expired := w.NewToken(w.user.ID, agrentingtest.TokenConfig{TTL: -time.Second})
	cases := map[string][]string{
		"nothing":              nil,
		"empty key":            {"X-API-Key", ""},
		"unknown key":          {"X-API-Key", "nobody"},
		"session as key":       {"X-API-Key", session},
		"key as bearer":        {"Authorization", "Bearer " + w.key.Secret},
		"basic auth":           {"Authorization", "Basic dTpw"},
		"bare token":           {"Authorization", session},
		"unknown bearer":       {"Authorization", "Bearer unknown"},
		"revoked key":          {"X-API-Key", revokedKey.Secret},
		"revoked token":        {"Authorization", "Bearer " + revokedToken.Secret},
		"expired token":        {"Authorization", "Bearer " + expired.Secret},
		"two credentials":      {"X-API-Key", w.key.Secret, "Authorization", "Bearer " + session},
		"same key twice":       {"X-API-Key", w.key.Secret, "X-API-Key", w.key.Secret},
		"both spellings":       {"X-API-Key", w.key.Secret, "Api-Key", w.key.Secret},
		"two bearers":          {"Authorization", "Bearer " + session, "Authorization", "Bearer " + session},
		"a key with its space": {"X-API-Key", "x y"},
	}
	for name, header := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := w.with(header...).get(tasksPath)
			assert.Equal(t, 401, a.status)
			assert.Equal(t, agrentingtest.CodeUnauthorized, a.code())
		})
	}
	t.Cleanup(func() { assert.EqualValues(t, len(cases), w.Stats().Unauthorized) })
	assert.EqualValues(t, 1, w.Stats().KeysRevoked)
	assert.True(t, w.KeyAlive(w.key.Secret))
	assert.False(t, w.KeyAlive(revokedKey.Secret))
	assert.False(t, w.KeyAlive("nobody"))
}

func TestAgentHeaderSelectsAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Second"})
	stranger := w.NewAgent(nil, agrentingtest.AgentConfig{Name: "Stranger"})
	lonely := w.NewUser("Lonely")
	lonelyToken := w.NewToken(lonely.ID, agrentingtest.TokenConfig{})
	single := w.NewUser("Single")
	w.NewAgent(single, agrentingtest.AgentConfig{})
	singleToken := w.NewToken(single.ID, agrentingtest.TokenConfig{})
	user, key := w.asToken(), w.asKey()
	const h = "X-Agent-ID"
	cases := map[string]struct {
		caller caller
		status int
		code   string
	}{
		"a user with several agents must choose": {user, 422, agrentingtest.CodeValidation},
		"first agent":                            {user.and(h, w.agent.ID), 200, ""},
		"second agent":                           {user.and(h, second.ID), 200, ""},
		"malformed":                              {user.and(h, "agent-7"), 422, agrentingtest.CodeValidation},
		"almost a UUID":                          {user.and(h, "0000000-00000-0000-0000-00000000000g"), 422, agrentingtest.CodeValidation},
		"not hexadecimal":                        {user.and(h, "0000000g-0000-0000-0000-000000000000"), 422, agrentingtest.CodeValidation},
		"twice":                                  {user.and(h, w.agent.ID).and(h, second.ID), 422, agrentingtest.CodeValidation},
		"of another user":                        {user.and(h, stranger.ID), 403, agrentingtest.CodeForbidden},
		"unknown":                                {user.and(h, "00000000-0000-4000-8000-000000000000"), 404, agrentingtest.CodeNotFound},
		"a user with one agent need not choose":  {w.bearer(singleToken.Secret), 200, ""},
		"a user without agents cannot choose":    {w.bearer(lonelyToken.Secret), 422, agrentingtest.CodeValidation},
		"a key may name its own agent":           {key.and(h, w.agent.ID), 200, ""},
		"a key may not name another agent":       {key.and(h, second.ID), 403, agrentingtest.CodeForbidden},
		"a key may not name an unknown agent":    {key.and(h, "00000000-0000-4000-8000-000000000000"), 403, agrentingtest.CodeForbidden},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := c.caller.get(tasksPath)
			assert.Equal(t, c.status, a.status, a.raw)
			assert.Equal(t, c.code, a.code())
			if c.status == 422 {
				assert.Equal(t, h, a.field())
				assert.NotEmpty(t, a.env.Errors[0].Details[h])
			}
		})
	}
	w.Handle("GET /whoami", http.HandlerFunc(whoami))
	w.HandleAgent("GET /acting", http.HandlerFunc(whoami))
	assert.Equal(t, "user:"+w.user.ID, user.get("/whoami").text("who"), "no agent needed, none chosen")
	assert.Equal(t, 422, user.get("/acting").status)
	assert.Equal(t, "agent:"+second.ID, user.and(h, second.ID).get("/acting").text("who"))
	assert.Equal(t, 200, user.get("/api/v1/agents/mine").status, "user-only routes need no agent")
}

func TestUserRoutesRefuseAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{"/api/v1/user/tokens", "/api/v1/agents/mine", "/api/v1/hirings"} {
		assert.Equal(t, agrentingtest.CodeForbidden, w.asKey().get(path).code(), path)
		assert.Equal(t, 200, w.asToken().get(path).status, path)
	}
	assert.Equal(t, 403, w.asToken().post(authPath, "").status, "a user token cannot be exchanged for a session")
	assert.Equal(t, 403, w.asToken().del(logoutPath).status)
}

func TestScopesAreEnforced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"agent_id":"` + w.agent.ID + `","task_type":"t"}`
	cases := map[string]struct {
		scopes      []string
		read, write int
	}{
		"all":                 {nil, 200, 201},
		"none":                {[]string{}, 403, 403},
		"read":                {[]string{"read"}, 200, 403},
		"write":               {[]string{"write"}, 403, 201},
		"both":                {[]string{"read", "write"}, 200, 201},
		"resource read":       {[]string{"tasks:read"}, 200, 403},
		"resource write":      {[]string{"tasks:write"}, 403, 201},
		"of another resource": {[]string{"agents:read", "balance:read"}, 403, 403},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := w.NewToken(w.user.ID, agrentingtest.TokenConfig{Scopes: c.scopes})
			assert.Equal(t, c.read, w.bearer(tok.Secret).get(tasksPath).status)
			a := w.bearer(tok.Secret).post(tasksPath, body)
			assert.Equal(t, c.write, a.status)
			if c.write == 403 {
				assert.Equal(t, agrentingtest.CodeForbidden, a.code())
			}
		})
	}
}

func TestSandboxAndProductionDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	toy := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
	toyKey := w.NewKey(toy.ID)
	assert.Regexp(t, `^sk_sandbox_[0-9a-f]{40}$`, toyKey.Secret)
	assert.Regexp(t, `^[0-9a-f]{40}$`, w.key.Secret)
	toyToken := w.NewToken(w.user.ID, agrentingtest.TokenConfig{Sandbox: true})
	assert.Regexp(t, `^ap_sandbox_[0-9a-f]{40}$`, toyToken.Secret)
	stranger := w.NewAgent(nil, agrentingtest.AgentConfig{Sandbox: true})

	prod, sand := w.asKey(), w.caller.key(toyKey.Secret)
	both, toyOnly := w.asToken(), w.bearer(toyToken.Secret)
	cases := map[string]struct {
		caller caller
		id     string
		status int
	}{
		"production sees production":                 {prod, w.agent.ID, 200},
		"production sees no sandbox":                 {prod, toy.ID, 404},
		"sandbox sees sandbox":                       {sand, toy.ID, 200},
		"sandbox sees no production":                 {sand, w.agent.ID, 404},
		"anonymous sees production":                  {w.with(), w.agent.ID, 200},
		"anonymous sees no sandbox":                  {w.with(), toy.ID, 404},
		"a user sees his production":                 {both, w.agent.ID, 200},
		"and his sandbox":                            {both, toy.ID, 200},
		"a user does not see another user's sandbox": {both, stranger.ID, 404},
		"as sandbox agent":                           {both.and("X-Agent-ID", toy.ID), w.agent.ID, 404},
		"sandbox token":                              {toyOnly, w.agent.ID, 404},
		"sandbox token, sandbox":                     {toyOnly, toy.ID, 200},
		"sandbox token, wrong agent":                 {toyOnly.and("X-Agent-ID", w.agent.ID), toy.ID, 404},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.status, c.caller.get("/api/v1/agents/"+c.id).status)
		})
	}
	assert.Len(t, both.get("/api/v1/agents/mine").items(), 2)
	assert.Len(t, toyOnly.get("/api/v1/agents/mine").items(), 1)
	assert.Equal(t, 404, prod.post(tasksPath, `{"agent_id":"`+toy.ID+`","task_type":"test"}`).status)
	assert.Equal(t, 404, sand.get("/api/v1/agents/"+w.agent.ID+"/credentials").status)
	assert.Equal(t, 200, toyOnly.get(tasksPath).status, "the only sandbox agent of the user")
	made := sand.post(tasksPath, `{"agent_id":"`+toy.ID+`","task_type":"test","input":{"n":1}}`)
	assert.Equal(t, "completed", made.text("status"))
	assert.Equal(t, map[string]any{"simulated": true, "echo": map[string]any{"n": 1.0}}, made.object()["result"])
}

func TestTokenExpiresByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		tok := w.NewToken(w.user.ID, agrentingtest.TokenConfig{TTL: time.Hour})
		assert.Equal(t, time.Now().Add(time.Hour), tok.ExpiresAt)
		advance(time.Hour - time.Nanosecond)
		assert.Equal(t, 200, w.bearer(tok.Secret).get("/api/v1/hirings").status)
		advance(time.Nanosecond)
		assert.Equal(t, 401, w.bearer(tok.Secret).get("/api/v1/hirings").status)
	})
}

func TestSetupMistakesPanic(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a := s.NewAgent(nil, agrentingtest.AgentConfig{DID: "did:web:x"})
	k := s.NewKey(a.ID)
	s.RevokeKey(k.ID)
	for name, f := range map[string]func(){
		"unknown owner":            func() { s.NewAgent(&agrentingtest.User{ID: "x"}, agrentingtest.AgentConfig{}) },
		"malformed ID":             func() { s.NewAgent(nil, agrentingtest.AgentConfig{ID: "x"}) },
		"taken ID":                 func() { s.NewAgent(nil, agrentingtest.AgentConfig{ID: a.ID}) },
		"taken DID":                func() { s.NewAgent(nil, agrentingtest.AgentConfig{DID: a.DID}) },
		"key of an unknown agent":  func() { s.NewKey("x") },
		"token of an unknown user": func() { s.NewToken("x", agrentingtest.TokenConfig{}) },
		"session of a key":         func() { s.NewSession(k.Secret) },
		"bad route":                func() { s.Fault("GET nowhere") },
		"bad exception":            func() { s.Fault("!nowhere") },
		"negative share":           func() { agrentingtest.Gone().Share(-0.1) },
		"share over one":           func() { agrentingtest.Gone().Share(5) },
		"share of nothing":         func() { agrentingtest.Gone().Share(math.NaN()) },
	} {
		assert.Panics(t, f, name)
	}
}

func TestPrincipalWithoutCredentialIsEmpty(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.HandlePublic("GET /whoami", http.HandlerFunc(whoami))
	assert.Empty(t, newCaller(t, s).get("/whoami").text("who"))
	assert.Equal(t, 200, newCaller(t, s, "X-API-Key", "rubbish").get("/whoami").status)
}
