package agrentingtest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// names returns a member of each object of a list.
func (a answer) names(member string) []string {
	var out []string
	for _, item := range a.items() {
		out = append(out, fmt.Sprint(item[member]))
	}
	return out
}

func TestDiscoverFiltersAndSorts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	for _, c := range []agrentingtest.AgentConfig{
		{Name: "Cheap", BasePrice: "1", Reputation: 3.5},
		{Name: "Dear", BasePrice: "9.50", Reputation: 4.8},
		{Name: "Free"},
		{Name: "Toy", Sandbox: true},
	} {
		c.Capabilities = []string{"verse"}
		w.NewAgent(nil, c)
	}
	const path = "/api/v1/agents/discover"
	for query, want := range map[string][]string{
		"?capability=verse":                       {"Cheap", "Dear", "Free"},
		"?capability=none":                        nil,
		"":                                        {"Scribe", "Cheap", "Dear", "Free"},
		"?capability=verse&min_price=1.01":        {"Dear", "Free"},
		"?capability=verse&max_price=1.00":        {"Cheap", "Free"},
		"?capability=verse&min_reputation=4":      {"Dear"},
		"?capability=verse&sort_by=reputation":    {"Dear", "Cheap", "Free"},
		"?capability=verse&sort_by=base_price":    {"Free", "Cheap", "Dear"},
		"?capability=verse&limit=1&sort_by=price": {"Free"},
	} {
		a := w.asToken().get(path + query)
		require.Equal(t, 200, a.status, a.raw)
		assert.Equal(t, want, a.names("name"), query)
		_, bare := a.env.Data.([]any)
		assert.True(t, bare, "a bare array")
	}
	for query, field := range map[string]string{
		"?limit=0": "limit", "?min_price=x": "min_price", "?max_price=x": "max_price", "?min_reputation=x": "min_reputation", "?sort_by=luck": "sort_by",
	} {
		assert.Equal(t, field, w.asToken().get(path+query).field(), query)
	}
	assert.Equal(t, 200, w.asKey().get(path).status)
	assert.Equal(t, 401, w.with().get(path).status)
	narrow := w.NewToken(w.user.ID, agrentingtest.TokenConfig{Scopes: []string{"agents:read"}})
	assert.Equal(t, 403, w.bearer(narrow.Secret).get(path).status)
}

// Both official clients compute with prices and scores that are strings.
func TestPricesAreStrings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := "/api/v1/agents/" + w.agent.ID
	row := func() map[string]any {
		return w.asToken().get("/api/v1/agents/discover").items()[0]
	}
	assert.Equal(t, []any{nil, nil, "0.00", 0.0}, []any{row()["base_price"], row()["price_per_task"], row()["reputation_score"], row()["reputation"]})
	for given, want := range map[string]string{`2.5`: "2.5", `"2.50"`: "2.50", `0`: "0"} {
		require.Equal(t, 200, w.asKey().call("PATCH", at, `{"agent":{"base_price":`+given+`}}`).status)
		assert.Equal(t, want, w.with().get(at).object()["base_price"])
		for _, name := range []string{"base_price", "price_per_task", "min_price", "max_price"} {
			assert.Equal(t, want, row()[name], name)
		}
	}
	assert.Equal(t, "0.00", w.with().get(at).object()["reputation_score"])
	assert.Equal(t, "available", w.with().get(at).object()["availability"])
}

func TestCapabilitiesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []agrentingtest.AgentConfig{
		{BasePrice: "1", Capabilities: []string{"verse", "prose"}},
		{BasePrice: "2.50", Capabilities: []string{"verse"}},
		{Capabilities: []string{"verse", "silence"}},
		{Capabilities: []string{"toys"}, Sandbox: true},
	} {
		w.NewAgent(nil, c)
	}
	list := w.with().get("/api/v1/capabilities")
	assert.Equal(t, []string{"prose", "silence", "verse"}, list.names("name"))
	assert.Equal(t, []string{"1", "1", "3"}, list.names("agent_count"))
	assert.Equal(t, []string{"1.00", "<nil>", "1.75"}, list.names("avg_price"))
}

// A path below agents that cannot be an ID is an unknown route.
func TestUnknownAgentPathIsUnknownRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const route, found = agrentingtest.CodeRouteNotFound, agrentingtest.CodeNotFound
	for _, c := range []struct{ method, path, code string }{
		{"GET", "/api/v1/agents/assign", route},
		{"GET", "/api/v1/agents/register", route},
		{"GET", "/api/v1/agents/trending", route},
		{"PATCH", "/api/v1/agents/discover", route},
		{"GET", "/api/v1/agents/00000000-0000-4000-8000-000000000000", found},
		{"GET", "/api/v1/agents/did:agrenting:nobody", found},
		{"GET", "/api/v1/agents/did%3Aagrenting%3Anobody", found},
		{"GET", "/api/v1/agents/x/credentials", found},
		{"POST", "/api/v1/agents/assign", route},
		{"GET", "/api/v1/tasks/x/unknown", route},
		{"GET", "/api/v1/tasks/x", found},
		{"GET", "/api/v1/hirings/x", found},
		{"GET", "/api/v1/swarms/x", route},
		{"GET", "/api/v1/documents", route},
		{"POST", "/mcp/hirer", route},
	} {
		a := w.asToken().call(c.method, c.path, `{"agent":{}}`)
		assert.Equal(t, []any{404, c.code}, []any{a.status, a.code()}, "%s %s", c.method, c.path)
	}
}

func TestDocumentsAreStoredAndDownloaded(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	task := m.newTask(m.asToken())
	for _, path := range []string{"/api/v1/documents", "/api/v1/uploads"} {
		made := m.asToken().post(path, `{"name":"task-patch.diff","content":"ZGlmZg==","content_type":"text/plain","document_type":"patch","task_id":"`+idOf(task)+`"}`)
		require.Equal(t, 201, made.status, made.raw)
		sum := sha256.Sum256([]byte("diff"))
		for name, want := range map[string]any{
			"name": "task-patch.diff", "content_type": "text/plain", "document_type": "patch", "task_id": idOf(task), "agent_id": nil,
			"file_hash": hex.EncodeToString(sum[:]), "file_url": m.URL + "/api/v1/documents/" + made.text("id") + "/download",
		} {
			assert.Equal(t, want, made.object()[name], name)
		}
		assert.NotEmpty(t, made.text("inserted_at"))
		at := strings.TrimPrefix(made.text("file_url"), m.URL)
		for _, c := range []caller{m.asToken(), m.worker} {
			got := c.get(at)
			assert.Equal(t, []any{200, "diff", "text/plain"}, []any{got.status, got.raw, got.header.Get("Content-Type")})
		}
		assert.Equal(t, 404, m.stranger.get(at).status)
	}
	private := m.asKey().post("/api/v1/documents", `{"name":"a","content":"eA==","content_type":"no type"}`)
	assert.Equal(t, []any{m.agent.ID, nil, "instructions", "text/plain"}, []any{
		private.object()["agent_id"], private.object()["task_id"], private.text("document_type"), private.text("content_type"),
	})
	assert.Equal(t, 404, m.worker.get("/api/v1/documents/"+private.text("id")+"/download").status)
	for body, status := range map[string]int{
		`{"content":"eA=="}`:         422,
		`{"name":"a"}`:               422,
		`{"name":"a","content":"!"}`: 422,
		`{"name":"a","content":"eA==","task_id":"unknown"}`: 404,
		`[]`: 422,
	} {
		assert.Equal(t, status, m.asToken().post("/api/v1/documents", body).status, body)
	}
}

func TestLedgerKeepsAccount(t *testing.T) {
	t.Parallel()
	m := newMarket(t, agrentingtest.WithBalance("20"))
	const ledger = "/api/v1/ledger/"
	balance := func(c caller) []any {
		b := c.get(ledger + "balance").object()
		return []any{b["available"], b["escrow"], b["total"], b["currency"]}
	}
	assert.Equal(t, []any{"20.00", "0.00", "20.00", "USD"}, balance(m.asToken()))
	assert.Equal(t, balance(m.asToken()), balance(m.asKey()), "an agent has the account of its owner")
	alone := m.caller.key(m.NewKey(m.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret)
	assert.Equal(t, []any{"0.00", "0.00", "0.00", "USD"}, balance(alone))

	made := m.asToken().post(ledger+"deposit", `{"amount":"5.125","currency":"USD","payment_method":"crypto"}`)
	assert.NotEmpty(t, made.text("transaction_id"), made.raw)
	assert.NotEmpty(t, m.asToken().post(ledger+"withdraw", `{"amount":0.125,"currency":"USD"}`).text("transaction_id"))
	assert.Equal(t, "25.00", m.asToken().get(ledger+"balance").text("total"))
	assert.NotEmpty(t, m.asToken().post("/api/v1/payments/create-intent", `{"amount":"1","payment_type":"crypto"}`).text("id"))
	require.Equal(t, 201, m.hire(m.asToken(), "").status)
	assert.Equal(t, []any{"16.50", "8.50", "25.00", "USD"}, balance(m.asToken()))

	list := m.asToken().get(ledger + "transactions")
	assert.Equal(t, []string{"deposit", "withdrawal", "escrow_lock"}, list.names("type"))
	assert.Equal(t, []string{"5.125", "0.125", "8.50"}, list.names("amount"))
	assert.Equal(t, []string{"deposit"}, m.asToken().get(ledger+"transactions?type=deposit").names("type"))
	assert.Equal(t, []string{"withdrawal"}, m.asToken().get(ledger+"transactions?limit=1&offset=1").names("type"))
	assert.Empty(t, m.stranger.get(ledger+"transactions").items())

	for body, code := range map[string]string{
		`{"amount":"16.51"}`:                 agrentingtest.CodeInsufficientBalance,
		`{"amount":"0"}`:                     agrentingtest.CodeInvalidAmount,
		`{"amount":"-1"}`:                    agrentingtest.CodeInvalidAmount,
		`{"amount":"1000000.01"}`:            agrentingtest.CodeInsufficientBalance,
		`{"amount":"1000001"}`:               agrentingtest.CodeInvalidAmount,
		`{}`:                                 agrentingtest.CodeValidation,
		`{"amount":"1","currency":"SHELLS"}`: agrentingtest.CodeValidation,
	} {
		a := m.asToken().post(ledger+"withdraw", body)
		assert.Equal(t, []any{422, code}, []any{a.status, a.code()}, body)
	}
	scoped := m.bearer(m.NewToken(m.user.ID, agrentingtest.TokenConfig{Scopes: []string{"balance:read"}}).Secret)
	assert.Equal(t, 200, scoped.get(ledger+"balance").status)
	assert.Equal(t, 403, scoped.post(ledger+"deposit", `{"amount":"1"}`).status)
}

func TestTaskPaymentsLockThePrice(t *testing.T) {
	t.Parallel()
	m := newMarketOf(t, agrentingtest.AgentConfig{BasePrice: "2.50"}, agrentingtest.WithBalance("4"))
	balance := func(c caller) string {
		b := c.get("/api/v1/ledger/balance").object()
		return fmt.Sprint(b["available"], " ", b["escrow"])
	}
	at := m.newTask(m.asToken())
	assert.Equal(t, 404, m.asToken().get(at+"/payments").status)
	paid := m.asToken().post(at+"/payments", `{"task_id":"`+idOf(at)+`","payment_type":"escrow"}`)
	require.Equal(t, 201, paid.status, paid.raw)
	assert.Equal(t, []string{idOf(at), "2.50", "USD", "escrowed", "escrow"}, []string{
		paid.text("task_id"), paid.text("amount"), paid.text("currency"), paid.text("status"), paid.text("payment_type"),
	})
	assert.Equal(t, "1.50 2.50", balance(m.asToken()))
	assert.Equal(t, 422, m.asToken().post(at+"/payments", "").status, "twice")
	poor := m.newTask(m.asToken())
	assert.Equal(t, agrentingtest.CodeInsufficientBalance, m.asToken().post(poor+"/payments", "").code())
	m.CompleteTask(idOf(at), "done")
	assert.Equal(t, "released", m.asToken().get(at+"/payments").text("status"))
	assert.Equal(t, []string{"1.50 0.00", "6.50 0.00"}, []string{balance(m.asToken()), balance(m.worker)})

	priced := m.asToken().post(tasksPath, `{"provider_agent_id":"`+m.provider.ID+`","capability":"writing","input":"x","max_price":"1.25"}`)
	at = tasksPath + "/" + priced.text("id")
	assert.Equal(t, "1.25", m.asToken().post(at+"/payments", "").text("amount"))
	require.Equal(t, 200, m.asToken().post(at+"/cancel", "").status)
	assert.Equal(t, "refunded", m.asToken().get(at+"/payments").text("status"))
	assert.Equal(t, "1.50 0.00", balance(m.asToken()))

	done := m.newTask(m.asToken())
	m.CompleteTask(idOf(done), "done")
	m.asToken().post("/api/v1/ledger/deposit", `{"amount":"1"}`)
	assert.Equal(t, "released", m.asToken().post(done+"/payments", "").text("status"))
	assert.Equal(t, []string{"0.00 0.00", "9.00 0.00"}, []string{balance(m.asToken()), balance(m.worker)})

	unassigned := m.asToken().post(tasksPath, `{"capability":"singing","input":"x"}`)
	assert.Equal(t, agrentingtest.CodeInvalidAmount, m.asToken().post(tasksPath+"/"+unassigned.text("id")+"/payments", "").code())
}

func TestWebhooksAreRegisteredInBothForms(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	const path = "/api/v1/webhooks"
	official := m.asToken().post(path, `{"callback_url":"https://example.org/a","event_types":["task.created","task.failed"]}`)
	require.Equal(t, 201, official.status, official.raw)
	assert.Equal(t, []any{"https://example.org/a", []any{"task.created", "task.failed"}, "active"}, []any{
		official.text("callback_url"), official.object()["event_types"], official.text("status"),
	})
	assert.NotEmpty(t, official.text("secret_key"))
	documented := m.asToken().post(path, `{"url":"http://localhost:8765/webhook","events":["task.completed"],"secret":"mine"}`)
	assert.Equal(t, "mine", documented.text("secret_key"), documented.raw)
	list := m.asToken().get(path)
	assert.Equal(t, []string{"https://example.org/a", "http://localhost:8765/webhook"}, list.names("callback_url"))
	assert.Equal(t, []string{"0", "0"}, list.names("failure_count"))
	assert.NotContains(t, list.raw, "mine")
	assert.NotContains(t, list.raw, official.text("secret_key"))
	assert.Empty(t, m.worker.get(path).items())
	assert.Equal(t, 404, m.worker.del(path+"/"+official.text("id")).status)
	assert.Equal(t, 200, m.asToken().del(path+"/"+official.text("id")).status)
	assert.Equal(t, 404, m.asToken().del(path+"/"+official.text("id")).status)
	assert.Len(t, m.asToken().get(path).items(), 1)
	for _, body := range []string{
		`{}`, `{"callback_url":"https://example.org"}`, `{"callback_url":"http://example.org","event_types":["task.failed"]}`,
		`{"url":"/hook","events":["task.failed"]}`, `{"url":"https://example.org","events":[]}`,
	} {
		assert.Equal(t, 422, m.asToken().post(path, body).status, body)
	}
	assert.Contains(t, m.asToken().post(path, `{"url":"http://example.org","events":["task.failed"]}`).raw,
		"must be an https URL, or an http URL of a loopback host such as http://127.0.0.1:8080/hook")
}

func TestAgentKeyAsBearerIsAnOption(t *testing.T) {
	t.Parallel()
	for accepted, opts := range map[bool][]agrentingtest.Option{false: nil, true: {agrentingtest.WithBearerKeys()}} {
		t.Run(strconv.FormatBool(accepted), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, opts...)
			as := w.bearer(w.key.Secret)
			status := map[bool]int{false: 401, true: 200}[accepted]
			assert.Equal(t, status, as.get(tasksPath).status)
			assert.Equal(t, status, as.get("/api/v1/hirings/pending").status)
			if accepted {
				assert.Equal(t, agrentingtest.KindAPIKey, w.Requests()[0].CredentialKind)
			}
			session, _ := w.NewSession(w.key.Secret)
			assert.Equal(t, 200, w.bearer(session).get(tasksPath).status)
			assert.Equal(t, 401, w.caller.key(session).get(tasksPath).status)
			w.RevokeKey(w.key.ID)
			assert.Equal(t, 401, as.get(tasksPath).status)
		})
	}
}

func TestStatsCountRotationsOfBothStrategies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := "/api/v1/agents/" + w.agent.ID + "/credentials"
	owner := w.asToken()
	count := func() [2]int64 { s := w.Stats(); return [2]int64{s.Rotations, s.OverlapRotations} }

	// In place.
	second := w.asKey().post(rotatePath, "")
	assert.Equal(t, [2]int64{1, 0}, count())

	// By overlap, twice. The keys need not have been in use.
	third := owner.post(path, "")
	require.Equal(t, 200, owner.del(path+"/"+second.text("id")).status)
	assert.Equal(t, [2]int64{2, 1}, count())
	fourth := owner.post(path, "")
	require.Equal(t, 200, owner.del(path+"/"+third.text("id")).status)
	assert.Equal(t, [2]int64{3, 2}, count())

	// A key that was issued by mistake is revoked, before or after the old one.
	lost, fifth := owner.post(path, ""), owner.post(path, "")
	require.Equal(t, 200, owner.del(path+"/"+fourth.text("id")).status)
	require.Equal(t, 200, owner.del(path+"/"+lost.text("id")).status)
	assert.Equal(t, [2]int64{4, 3}, count())
	lost, sixth := owner.post(path, ""), owner.post(path, "")
	require.Equal(t, 200, owner.del(path+"/"+lost.text("id")).status)
	assert.Equal(t, [2]int64{4, 3}, count())

	// A successor replaces only one key: of two old keys, only one was replaced.
	require.Equal(t, 200, owner.del(path+"/"+fifth.text("id")).status)
	assert.Equal(t, [2]int64{5, 4}, count())
	require.Equal(t, 200, owner.del(path+"/"+sixth.text("id")).status)
	assert.Equal(t, [2]int64{5, 4}, count(), "nothing has replaced the last key")
	assert.EqualValues(t, 8, w.Stats().KeysRevoked)
}
