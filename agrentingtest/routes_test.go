package agrentingtest_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const goodAgent = `{"agent":{"name":"Bard","did":"did:web:example.com:bard","capabilities":["verse"],` +
	`"pricing_model":"fixed","base_price":"2.50","description":"sings","category":"art","metadata":{"callback_url":"https://x"}}}`

func TestRegistrationMakesAnAgentWithAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := map[string]struct {
		caller caller
		path   string
		owner  string
	}{
		"anonymous":           {w.with(), "/api/v1/agents/register", ""},
		"with a user token":   {w.asToken(), "/api/v1/agents/register", w.user.ID},
		"with an agent's key": {w.asKey(), "/api/v1/agents/register", w.user.ID},
		"on the owner route":  {w.asToken(), "/api/v1/agents", w.user.ID},
	}
	i := 0
	for name, c := range cases {
		i++
		n := i
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := c.caller.post(c.path, strings.ReplaceAll(goodAgent, ":bard", fmt.Sprint(":", n)))
			require.Equal(t, 201, a.status, a.raw)
			agent := object(a.object()["agent"])
			owner, _ := agent["owner_id"].(string)
			assert.Equal(t, c.owner, owner)
			assert.Equal(t, "2.50", agent["base_price"])
			assert.NotEmpty(t, a.text("message"))
			assert.Equal(t, 200, w.caller.key(a.text("api_key")).get(tasksPath).status)
			public := w.with().get("/api/v1/agents/" + url.PathEscape(fmt.Sprint(agent["did"])))
			assert.Equal(t, "Bard", public.text("name"), "found by its DID")
		})
	}
	t.Cleanup(func() { assert.EqualValues(t, 4, w.Stats().AgentsRegistered) })
	assert.Equal(t, 401, w.with("X-API-Key", "bad").post("/api/v1/agents/register", goodAgent).status)
	assert.Equal(t, 401, w.with().post("/api/v1/agents", goodAgent).status)
	assert.Equal(t, 403, w.asKey().post("/api/v1/agents", goodAgent).status)
}

func TestSandboxSampleRegisters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.with().post("/api/v1/agents/register", `{"name":"Toy","sandbox":true}`)
	require.Equal(t, 201, a.status, a.raw)
	assert.True(t, strings.HasPrefix(a.text("api_key"), "sk_sandbox_"))
}

func TestRegistrationReportsAllProblems(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.NewAgent(nil, agrentingtest.AgentConfig{DID: "did:web:taken"})
	cases := map[string]struct {
		body   string
		fields []string
	}{
		"empty":         {``, []string{"agent"}},
		"no object":     {`[1]`, nil},
		"null":          {`null`, nil},
		"wrapped text":  {`{"agent":"x"}`, []string{"agent"}},
		"wrapped null":  {`{"agent":null}`, []string{"agent"}},
		"flat":          {`{"name":"x"}`, []string{"agent"}},
		"nothing in it": {`{"agent":{}}`, []string{"capabilities", "did", "name", "pricing_model"}},
		"wrong types": {
			`{"agent":{"name":1,"did":[],"capabilities":"x","pricing_model":{},"base_price":"much","metadata":1,"sandbox":"y"}}`,
			[]string{"base_price", "capabilities", "did", "metadata", "name", "pricing_model", "sandbox"},
		},
		"wrong values": {
			`{"agent":{"name":" ","did":"web:x","capabilities":["a","a"],"pricing_model":"free","base_price":-1,"category":"` +
				strings.Repeat("x", 256) + `"}}`,
			[]string{"base_price", "capabilities", "category", "did", "name", "pricing_model"},
		},
		"no capability": {`{"agent":{"name":"x","did":"did:a:b","capabilities":[],"pricing_model":"fixed"}}`, []string{"capabilities"}},
		"taken DID":     {strings.ReplaceAll(goodAgent, "did:web:example.com:bard", "did:web:taken"), []string{"did"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := w.with().post("/api/v1/agents/register", c.body)
			assert.Equal(t, 422, a.status, a.raw)
			require.Equal(t, agrentingtest.CodeValidation, a.code())
			fields := make([]string, 0, len(c.fields))
			for f := range a.env.Errors[0].Details {
				fields = append(fields, f)
			}
			assert.ElementsMatch(t, c.fields, fields, a.raw)
			if len(c.fields) > 0 {
				assert.Equal(t, c.fields[0], a.field())
			}
		})
	}
}

func TestHugeBodiesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	assert.Equal(t, 413, w.asToken().post("/api/v1/agents", body).status)
}

func TestAnonymousRegistrationsAreThreeAnAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	register := func(c caller, n int) answer {
		return c.post("/api/v1/agents/register", fmt.Sprintf(`{"name":"T%d","sandbox":true}`, n))
	}
	for n := range 3 {
		require.Equal(t, 201, register(w.with(), n).status)
	}
	assert.Equal(t, agrentingtest.CodeForbidden, register(w.with(), 4).code())
	elsewhere := w.with()
	elsewhere.client = newCaller(t, w.Server).client
	elsewhere.client.Transport = w.TransportFrom("192.0.2.7")
	assert.Equal(t, 201, register(elsewhere, 5).status)
	assert.Equal(t, 201, register(w.asToken(), 6).status, "owners are not counted")
}

func TestAgentAndOwnerMayPatchProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger := w.NewKey(w.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	path := "/api/v1/agents/" + w.agent.ID
	a := w.asKey().call("PATCH", path, `{"agent":{"description":"writes","did":"did:web:ignored"}}`)
	require.Equal(t, 200, a.status, a.raw)
	assert.Equal(t, w.agent.DID, a.text("did"))
	assert.Equal(t, "Scribe", a.text("name"))
	assert.Equal(t, 200, w.asToken().call("PATCH", path, `{"agent":{"name":"Clerk"}}`).status)
	got := w.with().get(path)
	assert.Equal(t, []string{"Clerk", "writes"}, []string{got.text("name"), got.text("description")})

	assert.Equal(t, 403, w.caller.key(stranger.Secret).call("PATCH", path, `{"agent":{"name":"Mine"}}`).status)
	assert.Equal(t, 404, w.asKey().call("PATCH", "/api/v1/agents/unknown", `{"agent":{}}`).status)
	for _, body := range []string{``, `{}`, `[]`, `{"agent":[]}`, `{"agent":{"pricing_model":"free"}}`} {
		assert.Equal(t, 422, w.asKey().call("PATCH", path, body).status, body)
	}
	for body, want := range map[string]string{
		`{"metadata":{}}`: `is missing (want {"agent": {…}} with the fields to change)`,
		``:                `is missing (want {"agent": {…}}`,
		`{"agent":[]}`:    `must be an object`,
		`{"agent":null}`:  `must be an object`,
	} {
		a := w.asKey().call("PATCH", path, body)
		require.Len(t, a.env.Errors, 1, a.raw)
		assert.Equal(t, "agent", a.field(), body)
		assert.Contains(t, a.env.Errors[0].Message, want)
	}
}

func TestListsArePaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	for n := range 44 {
		w.NewAgent(w.user, agrentingtest.AgentConfig{Name: fmt.Sprint("A", n), Capabilities: []string{fmt.Sprint("c", n%2)}})
	}
	seen := map[string]bool{}
	query := url.Values{}
	pages := 0
	for {
		a := w.with().get("/api/v1/agents?" + query.Encode())
		require.Equal(t, 200, a.status, a.raw)
		for _, item := range a.items() {
			seen[fmt.Sprint(item["id"])] = true
		}
		pages++
		p := a.env.Meta.Pagination
		require.NotNil(t, p)
		assert.Equal(t, 45, p.Total)
		if !p.More {
			assert.Empty(t, p.Cursor)
			assert.Contains(t, a.raw, `"cursor":null`)
			break
		}
		assert.Regexp(t, `^[A-Za-z0-9_-]+$`, p.Cursor)
		query.Set("cursor", p.Cursor)
		query.Set("offset", "40") // ignored beside a cursor
	}
	assert.Len(t, seen, 45)
	assert.Equal(t, 3, pages)

	for query, want := range map[string]int{
		"limit=100": 45, "limit=1": 1, "offset=40": 5, "offset=1000": 0, "capability=c1&limit=50": 22, "status=active": 20, "status=banned": 0,
	} {
		assert.Len(t, w.with().get("/api/v1/agents?"+query).items(), want, query)
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=x": "limit", "offset=-1": "offset",
		"cursor=%21": "cursor", "cursor=eA": "cursor", "cursor=YWZ0ZXI6eA": "cursor",
	} {
		a := w.with().get("/api/v1/agents?" + query)
		assert.Equal(t, 422, a.status, query)
		assert.Equal(t, field, a.field(), query)
	}
	assert.Len(t, w.asToken().get("/api/v1/agents/mine?limit=100").items(), 45)
	assert.Contains(t, w.with().get("/api/v1/agents?offset=1000").raw, `"data":[]`)
}

func TestCredentialsAreManagedByAgentAndOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithMaxKeys(3))
	path := "/api/v1/agents/" + w.agent.ID + "/credentials"
	session, _ := w.NewSession(w.key.Secret)
	made := w.bearer(session).post(path, `{"name":"deploy"}`)
	require.Equal(t, 201, made.status, made.raw)
	secret := made.text("api_key")
	assert.Equal(t, 201, w.asToken().post(path, "").status)
	assert.Equal(t, 422, w.asToken().post(path, "").status, "three is the most")
	assert.Equal(t, 422, w.asToken().post(path, `{"name":[]}`).status)
	assert.Equal(t, 422, w.asToken().post(path, `nonsense`).status)

	assert.Equal(t, 200, w.caller.key(secret).get(tasksPath).status)
	list := w.asKey().get(path)
	require.Len(t, list.items(), 3)
	assert.NotContains(t, list.raw, secret)
	assert.NotContains(t, list.raw, w.key.Secret)
	item := list.items()[1]
	assert.Equal(t, "deploy", item["name"])
	assert.Equal(t, secret[len(secret)-4:], item["last4"])
	assert.Equal(t, "production", item["environment"])
	assert.NotNil(t, item["last_used_at"])
	assert.Nil(t, list.items()[2]["last_used_at"])
	assert.Len(t, w.asKey().get(path+"?limit=2").items(), 2)

	gone := w.caller.key(secret).del(path + "/" + made.text("id"))
	assert.Equal(t, 200, gone.status, gone.raw)
	assert.NotEmpty(t, gone.text("revoked_at"))
	assert.Equal(t, 401, w.caller.key(secret).get(tasksPath).status)
	assert.Equal(t, 404, w.asKey().del(path+"/"+made.text("id")).status, "twice")
	assert.Equal(t, 404, w.asKey().del(path+"/unknown").status)
	assert.Len(t, w.LiveKeys(w.agent.ID), 2)
	assert.NotNil(t, w.asKey().get(path).items()[1]["revoked_at"])

	other := w.NewAgent(nil, agrentingtest.AgentConfig{})
	otherKey := w.NewKey(other.ID)
	for _, c := range []caller{w.caller.key(otherKey.Secret), w.bearer(w.NewToken(w.NewUser("Eve").ID, agrentingtest.TokenConfig{}).Secret)} {
		assert.Equal(t, 403, c.post(path, "").status)
		assert.Equal(t, 403, c.get(path).status)
		assert.Equal(t, 403, c.del(path+"/"+w.key.ID).status)
	}
	assert.Equal(t, 404, w.asKey().del(path+"/"+otherKey.ID).status, "a key of another agent")
	assert.Equal(t, 404, w.asKey().get("/api/v1/agents/unknown/credentials").status)
	assert.Nil(t, w.LiveKeys("unknown"))
}

func TestUserTokensAreManagedByTheirUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/api/v1/user/tokens"
	made := w.asToken().post(path, `{"name":"ci","scopes":["read","account:write"],"expires_in":86400}`)
	require.Equal(t, 201, made.status, made.raw)
	assert.Regexp(t, `^ap_[A-Za-z0-9]{16,}$`, made.text("token"))
	assert.NotEmpty(t, made.text("expires_at"))
	ci := w.bearer(made.text("token"))
	list := ci.get(path)
	assert.Len(t, list.items(), 2)
	assert.NotContains(t, list.raw, made.text("token"))

	for body, field := range map[string]string{
		`{}`:                                "name",
		`{"name":"x","scopes":"read"}`:      "scopes",
		`{"name":"x","scopes":["READ ME"]}`: "scopes",
		`{"name":"x","expires_in":0}`:       "expires_in",
		`{"name":"x","expires_in":"1"}`:     "expires_in",
		`x`:                                 "",
	} {
		a := w.asToken().post(path, body)
		assert.Equal(t, 422, a.status, body)
		assert.Equal(t, field, a.field(), body)
	}
	assert.Equal(t, 403, ci.post(path, `{"name":"more","scopes":["write"]}`).status, "more than it has")
	heir := ci.post(path, `{"name":"same"}`)
	assert.Equal(t, []any{"read", "account:write"}, heir.object()["scopes"])

	eve := w.NewToken(w.NewUser("Eve").ID, agrentingtest.TokenConfig{})
	assert.Equal(t, 404, w.bearer(eve.Secret).del(path+"/"+made.text("id")).status)
	assert.Equal(t, 200, ci.del(path+"/"+made.text("id")).status, "a token may revoke itself")
	assert.Equal(t, 401, ci.get(path).status)
	assert.EqualValues(t, 2, w.Stats().TokensCreated)
	assert.EqualValues(t, 1, w.Stats().TokensRevoked)
}

func TestTasksAreWrittenAndReadBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker := w.NewAgent(nil, agrentingtest.AgentConfig{Name: "Worker", Capabilities: []string{"sum"}})
	third := w.NewKey(w.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	made := w.asKey().post(tasksPath, `{"agent_id":"`+worker.ID+`","task_type":"sum","input":{"a":[1,2]}}`)
	require.Equal(t, 201, made.status, made.raw)
	assert.Equal(t, "pending", made.text("status"))
	at := tasksPath + "/" + made.text("id")
	assert.Equal(t, map[string]any{"a": []any{1.0, 2.0}}, w.asKey().get(at).object()["input"])
	workerKey := w.NewKey(worker.ID)
	assert.Len(t, w.caller.key(workerKey.Secret).get(tasksPath).items(), 1)
	assert.Equal(t, 404, w.caller.key(third.Secret).get(at).status)
	assert.Equal(t, 404, w.asKey().get(tasksPath+"/unknown").status)

	for body, field := range map[string]string{
		`{}`: "agent_id", `x`: "",
		`{"agent_id":"7","task_type":"sum"}`:                      "agent_id",
		`{"agent_id":"` + worker.ID + `"}`:                        "task_type",
		`{"agent_id":"` + worker.ID + `","task_type":"subtract"}`: "task_type",
	} {
		a := w.asKey().post(tasksPath, body)
		assert.Equal(t, 422, a.status, body)
		assert.Equal(t, field, a.field(), body)
	}
	missing := w.asKey().post(tasksPath, `{"agent_id":"00000000-0000-4000-8000-000000000000","task_type":"sum"}`)
	assert.Equal(t, agrentingtest.CodeNotFound, missing.code())
}

func TestHiringsHaveTheirOwnListShape(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.asToken().get("/api/v1/hirings?page=2&limit=5")
	assert.Equal(t, map[string]any{
		"hirings": []any{}, "total": 0.0, "page": 2.0, "per_page": 5.0, "total_pages": 0.0,
	}, a.object())
	assert.Equal(t, 422, w.asToken().get("/api/v1/hirings?page=0").status)
	assert.Equal(t, 422, w.asToken().get("/api/v1/hirings?limit=0").status)
}
