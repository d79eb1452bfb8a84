package agrentingtest_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const hiringsPath = "/api/v1/hirings"

// hire sends the body of the official client, and returns the response.
func (m *market) hire(c caller, members string) answer {
	m.t.Helper()
	return c.post("/api/v1/agents/"+m.provider.DID+"/hire",
		`{"task_description":"write","capability_requested":"writing","price":"8.50","delivery_mode":"output"`+members+`}`)
}

// newHiring hires the provider, and returns the path of the hiring.
func (m *market) newHiring() string {
	m.t.Helper()
	made := m.hire(m.asToken(), "")
	require.Equal(m.t, 201, made.status, made.raw)
	return hiringsPath + "/" + fmt.Sprint(object(made.object()["hiring"])["id"])
}

// hiringActions change the status of a hiring, each through its own route.
var hiringActions = map[string]func(*market, string) answer{
	"begin":  func(m *market, at string) answer { return m.worker.post(at+"/messages", `{"content":"I begin"}`) },
	"result": func(m *market, at string) answer { return m.worker.post(at+"/result", `{"output":{"summary":"done"}}`) },
	"failure": func(m *market, at string) answer {
		return m.worker.post(at+"/failure", `{"reason":"other","error":"no ink"}`)
	},
	"cancel":   func(m *market, at string) answer { return m.asToken().post(at+"/cancel", "") },
	"retry":    func(m *market, at string) answer { return m.asToken().post(at+"/retry", `{"reason":"again"}`) },
	"revision": func(m *market, at string) answer { return m.asToken().post(at+"/revision", `{"reason":"shorter"}`) },
}

// The effect of each action on a hiring in each reachable status. Actions that are not
// listed are refused, except a message, which then does not change the status.
func TestHiringTransitions(t *testing.T) {
	t.Parallel()
	reach := map[string][]string{
		"paid":               nil,
		"in_progress":        {"begin"},
		"completed":          {"result"},
		"failed":             {"failure"},
		"cancelled":          {"cancel"},
		"queued":             {"failure", "retry"},
		"revision_requested": {"result", "revision"},
	}
	table := map[string]map[string]string{
		"paid":               {"begin": "in_progress", "result": "completed", "failure": "failed", "cancel": "cancelled"},
		"queued":             {"begin": "in_progress", "result": "completed", "failure": "failed", "cancel": "cancelled"},
		"in_progress":        {"begin": "in_progress", "result": "completed", "failure": "failed", "cancel": "cancelled"},
		"revision_requested": {"begin": "in_progress", "result": "completed", "failure": "failed", "cancel": "cancelled"},
		"completed":          {"begin": "completed", "revision": "revision_requested"},
		"failed":             {"begin": "failed", "retry": "queued"},
		"cancelled":          {"begin": "cancelled"},
	}
	for from, steps := range reach {
		for action, act := range hiringActions {
			t.Run(from+" "+action, func(t *testing.T) {
				t.Parallel()
				m := newMarket(t)
				at := m.newHiring()
				for _, step := range steps {
					a := hiringActions[step](m, at)
					require.Less(t, a.status, 300, a.raw)
				}
				require.Equal(t, from, m.asToken().get(at).text("status"))
				a := act(m, at)
				to, allowed := table[from][action]
				if !allowed {
					to = from
					assert.Equal(t, 422, a.status, a.raw)
					assert.Equal(t, []string{agrentingtest.CodeValidation, "status"}, []string{a.code(), a.field()})
				} else {
					assert.Less(t, a.status, 300, a.raw)
				}
				now := m.asToken().get(at)
				assert.Equal(t, to, now.text("status"))
				final := to == "completed" || to == "failed" || to == "cancelled"
				assert.Equal(t, final, now.object()["final"])
				open := m.worker.get(hiringsPath + "/pending").items()
				assert.Equal(t, final, len(open) == 0, "the agent's list")

				// The money is where the status implies.
				balance := m.asToken().get("/api/v1/ledger/balance").object()
				earned := m.worker.get("/api/v1/ledger/balance").text("available") == "1008.50"
				paid := from == "revision_requested" || to == "completed" || to == "revision_requested"
				assert.Equal(t, paid, earned)
				want := map[bool][]any{true: {"991.50", "0.00"}, false: {"991.50", "8.50"}}[paid]
				if !paid && final {
					want = []any{"1000.00", "0.00"}
				}
				assert.Equal(t, want, []any{balance["available"], balance["escrow"]})
			})
		}
	}
}

func TestHiringActionsBelongToOneSide(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newHiring()
	owner := m.bearer(m.NewToken(m.provider.OwnerID, agrentingtest.TokenConfig{}).Secret)
	for _, c := range []struct {
		what   string
		caller caller
		path   string
		status int
	}{
		{"the agent cannot cancel", m.worker, "/cancel", 403},
		{"the agent cannot retry", m.worker, "/retry", 403},
		{"the agent cannot ask for a revision", m.worker, "/revision", 403},
		{"the user cannot submit", m.asToken().and("X-Agent-ID", m.agent.ID), "/result", 403},
		{"the user cannot report a failure", m.asToken().and("X-Agent-ID", m.agent.ID), "/failure", 403},
		{"a user must act as the agent", m.asToken(), "/result", 422},
		{"another agent sees nothing", m.caller.key(m.NewKey(m.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret), "/result", 404},
		{"a stranger sees nothing", m.stranger, "/cancel", 404},
		{"the owner of the agent has not hired", owner, "/cancel", 403},
	} {
		assert.Equal(t, c.status, c.caller.post(at+c.path, `{"output":"x","reason":"x"}`).status, c.what)
	}
	for _, c := range []caller{m.asToken(), m.worker, owner} {
		assert.Equal(t, "paid", c.get(at).text("status"))
	}
	assert.Equal(t, 404, m.stranger.get(at).status)
	assert.Equal(t, 404, m.asToken().get(tasksPath+"/"+idOf(at)).status, "a hiring is not a task")
	assert.Equal(t, 403, m.hire(m.asKey(), "").status, "only users hire")
	assert.Equal(t, 200, owner.and("X-Agent-ID", m.provider.ID).post(at+"/result", `{"result":"x"}`).status)
}

func TestHireResponseHasOfficialMembers(t *testing.T) {
	t.Parallel()
	m := newMarketOf(t, agrentingtest.AgentConfig{BasePrice: "2.50"})
	made := m.hire(m.asToken(), `,"task_input":{"run":7},"client_message":"soon","repo_url":"https://example.org/r","repo_access_token":"ghp_secret"`)
	require.Equal(t, 201, made.status, made.raw)
	assert.NotContains(t, made.raw, "ghp_secret")
	hiring, config := object(made.object()["hiring"]), object(made.object()["config"])
	for name, want := range map[string]any{
		"status": "paid", "final": false, "price": "8.50", "capability_requested": "writing", "task_description": "write",
		"delivery_mode": "output", "agent_id": m.provider.ID, "agent_did": m.provider.DID, "client_agent_id": nil,
		"task_input": map[string]any{"run": 7.0}, "client_message": "soon", "repo_url": "https://example.org/r",
		"task_output": nil, "failed_reason": nil, "messages": []any{}, "artifacts": []any{}, "trace_attempt": 1.0,
	} {
		assert.Equal(t, want, hiring[name], name)
	}
	assert.Equal(t, "2.50", object(hiring["agent"])["base_price"])
	assert.Equal(t, map[string]any{
		"agentDid": m.provider.DID, "pricingModel": "fixed", "basePrice": "2.50", "capabilities": []any{"writing"}, "hiringId": hiring["id"],
	}, config)

	older := m.asToken().and("X-Agent-ID", m.agent.ID).post("/api/v1/agents/"+m.provider.ID+"/hire",
		`{"agent_id":"x","capability":"writing","task_description":"write","price":3,"sync_to_linear":false}`)
	require.Equal(t, 201, older.status, older.raw)
	assert.Equal(t, []any{"3.00", m.agent.ID}, []any{
		object(older.object()["hiring"])["price"], object(older.object()["hiring"])["client_agent_id"],
	})
}

func TestHireBodiesAreValidated(t *testing.T) {
	t.Parallel()
	m := newMarket(t, agrentingtest.WithBalance("10"))
	at := "/api/v1/agents/" + m.provider.ID + "/hire"
	for body, want := range map[string][2]string{
		`{"capability_requested":"writing","price":"1"}`:                                                      {"task_description", agrentingtest.CodeValidation},
		`{"task_description":"x","price":"1"}`:                                                                {"capability_requested", agrentingtest.CodeValidation},
		`{"task_description":"x","capability_requested":"writing"}`:                                           {"price", agrentingtest.CodeValidation},
		`{"task_description":"x","capability_requested":"writing","price":"0.00"}`:                            {"price", agrentingtest.CodeInvalidAmount},
		`{"task_description":"x","capability_requested":"writing","price":"1","delivery_mode":"pigeon"}`:      {"delivery_mode", agrentingtest.CodeValidation},
		`{"task_description":"x","capability_requested":"writing","price":"10.01"}`:                           {"", agrentingtest.CodeInsufficientBalance},
		`{"task_description":"` + strings.Repeat("x", 5001) + `","capability_requested":"writing","price":1}`: {"task_description", agrentingtest.CodeValidation},
	} {
		a := m.asToken().post(at, body)
		assert.Equal(t, 422, a.status, body)
		assert.Equal(t, want, [2]string{a.field(), a.code()}, body)
	}
	assert.Equal(t, 201, m.asToken().post(at, `{"task_description":"x","capability_requested":"singing","price":"1"}`).status)
	assert.Equal(t, 404, m.asToken().post("/api/v1/agents/did:agrenting:nobody/hire", `{"task_description":"x","capability_requested":"writing","price":"1"}`).status)
}

func TestClientIdempotencyKeyHiresOnce(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	first := m.hire(m.asToken(), `,"client_idempotency_key":"run-1"`)
	again := m.hire(m.asToken(), `,"client_idempotency_key":"run-1"`)
	assert.Equal(t, []int{201, 200}, []int{first.status, again.status})
	assert.Equal(t, object(first.object()["hiring"])["id"], object(again.object()["hiring"])["id"])
	other := m.hire(m.asToken(), `,"client_idempotency_key":"run-1","client_message":"x"`)
	assert.Equal(t, 409, other.status)
	assert.Equal(t, agrentingtest.CodeIdempotencyConflict, other.code())
	eve := m.hire(m.stranger, `,"client_idempotency_key":"run-1"`)
	assert.Equal(t, 201, eve.status, "keys belong to a user")
	assert.EqualValues(t, 1, m.asToken().get(hiringsPath).object()["total"])
}

func TestResultIDsAttemptsAndArtifacts(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newHiring()
	first := m.worker.get(at).text("dispatch_id")
	require.Equal(t, 200, m.worker.post(at+"/failure", `{"reason":"no ink"}`).status)
	assert.Equal(t, "no ink", m.asToken().get(at).text("failed_reason"))
	require.Equal(t, 200, m.asToken().post(at+"/retry", "").status)
	retried := m.worker.get(at)
	assert.Equal(t, idOf(at), retried.text("id"), "the hiring keeps its ID")
	assert.EqualValues(t, 2, retried.object()["trace_attempt"])
	assert.NotEqual(t, first, retried.text("dispatch_id"))
	assert.Nil(t, retried.object()["failed_reason"])

	for body, field := range map[string]string{
		`{}`:              "output",
		`{"output":null}`: "output",
		`{"output":"x","dispatch_id":"` + first + `"}`:                         "dispatch_id",
		`{"output":"x","trace_attempt":1}`:                                     "trace_attempt",
		`{"output":"x","artifacts":[{"name":"a"},{"name":"b","content":"!"}]}`: "artifacts",
		`{"output":"x","artifacts":"a"}`:                                       "artifacts",
	} {
		a := m.worker.post(at+"/result", body)
		assert.Equal(t, 422, a.status, body)
		assert.Equal(t, field, a.field(), body)
	}
	done := m.worker.post(at+"/result", `{"output":{"summary":"s"},"trace_attempt":2,"dispatch_id":"`+retried.text("dispatch_id")+`",`+
		`"artifacts":[{"name":"poem.txt","content":"cm9zZXM=","content_type":"text/plain","artifact_type":"output","language":"en"}]}`)
	require.Equal(t, 200, done.status, done.raw)
	assert.NotEmpty(t, done.text("id"))
	assert.Equal(t, []string{done.text("id"), done.text("id")}, []string{done.text("submission_id"), done.text("result_id")})
	hiring := m.asToken().get(at).object()
	assert.Equal(t, []any{map[string]any{"summary": "s"}, done.text("id")}, []any{hiring["task_output"], hiring["result_id"]})

	artifacts, _ := hiring["artifacts"].([]any)
	require.Len(t, artifacts, 1)
	artifact := object(artifacts[0])
	for name, want := range map[string]any{
		"name": "poem.txt", "content_type": "text/plain", "artifact_type": "output", "language": "en", "size_bytes": 5.0,
		"download_url": m.URL + "/api/v1/artifacts/" + fmt.Sprint(artifact["id"]) + "/download",
	} {
		assert.Equal(t, want, artifact[name], name)
	}
	path := strings.TrimPrefix(fmt.Sprint(artifact["download_url"]), m.URL)
	for who, c := range map[string]caller{"the user": m.asToken(), "the agent": m.worker} {
		a := c.get(path)
		assert.Equal(t, []any{200, "roses", "text/plain"}, []any{a.status, a.raw, a.header.Get("Content-Type")}, who)
	}
	assert.Equal(t, 404, m.stranger.get(path).status)
	assert.Equal(t, 401, m.with().get(path).status)
	assert.Equal(t, 404, m.asToken().get(strings.Replace(path, "artifacts", "documents", 1)).status, "it is not a document")
}

func TestPendingHiringsAreNotChangedByReading(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newHiring()
	for range 3 { // the SDK asks this route whether a credential is alive
		pending := m.worker.get(hiringsPath + "/pending").items()
		require.Len(t, pending, 1)
		assert.Equal(t, "paid", pending[0]["status"])
	}
	assert.Equal(t, "paid", m.asToken().get(at).text("status"))
	assert.Empty(t, m.asKey().get(hiringsPath+"/pending").items())
}

func TestHiringsAreListedInNumberedPages(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	var ids []string
	for range 5 {
		ids = append(ids, idOf(m.newHiring()))
	}
	require.Equal(t, 200, m.asToken().post(hiringsPath+"/"+ids[1]+"/cancel", "").status)
	for query, want := range map[string]struct {
		ids   []string
		pages int
	}{
		"?limit=2":                  {[]string{ids[4], ids[3]}, 3},
		"?limit=2&page=3":           {[]string{ids[0]}, 3},
		"?limit=2&page=4":           {nil, 3},
		"?status=cancelled":         {[]string{ids[1]}, 1},
		"?status=disputed":          {nil, 0},
		"?status=paid&limit=1":      {[]string{ids[4]}, 4},
		"?status=completed&page=99": {nil, 0},
	} {
		a := m.asToken().get(hiringsPath + query)
		list, ok := a.object()["hirings"].([]any)
		require.True(t, ok, a.raw)
		var got []string
		for _, h := range list {
			got = append(got, fmt.Sprint(object(h)["id"]))
		}
		assert.Equal(t, want.ids, got, query)
		assert.EqualValues(t, want.pages, a.object()["total_pages"], query)
	}
	assert.Equal(t, "status", m.asToken().get(hiringsPath+"?status=odd").field())
	assert.Empty(t, m.stranger.get(hiringsPath).object()["hirings"])
}

func TestHiringMessagesAreInTheHiring(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newHiring()
	sent := m.asToken().post(at+"/messages", `{"content":"please"}`)
	require.Equal(t, 201, sent.status, sent.raw)
	assert.Equal(t, []string{"please", idOf(at), "client"}, []string{sent.text("content"), sent.text("hiring_id"), sent.text("sender_type")})
	assert.Equal(t, "paid", m.asToken().get(at).text("status"), "the client's message begins nothing")
	require.Equal(t, 201, m.worker.post(at+"/messages", `{"content":"yes"}`).status)
	messages, _ := m.asToken().get(at).object()["messages"].([]any)
	require.Len(t, messages, 2)
	assert.Equal(t, []any{"yes", "agent", "Writer", m.provider.ID}, []any{
		object(messages[1])["content"], object(messages[1])["sender_type"], object(messages[1])["sender_name"], object(messages[1])["sender_agent_id"],
	})
	assert.NotNil(t, m.asToken().get(at).object()["started_at"])
	for _, body := range []string{`{}`, `{"content":" "}`, `{"content":7}`, `{"content":"` + strings.Repeat("x", 5001) + `"}`} {
		assert.Equal(t, 422, m.worker.post(at+"/messages", body).status)
	}
}

func TestSandboxHiringIsCompletedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	toy := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
	made := w.asToken().post("/api/v1/agents/"+toy.ID+"/hire", `{"task_description":"x","capability_requested":"any","price":"1"}`)
	require.Equal(t, 201, made.status, made.raw)
	hiring := object(made.object()["hiring"])
	assert.Equal(t, "completed", hiring["status"])
	assert.Equal(t, map[string]any{"simulated": true, "echo": "x"}, hiring["task_output"])
	assert.Len(t, hiring["artifacts"], 1)
}

// The hire of the official adapter, from its start to the result, by polling.
func TestMockAgentCompletesAHire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMarketOf(t, agrentingtest.AgentConfig{MockAfter: 3 * time.Second})
		at := m.newHiring()
		polls := 0
		for m.asToken().get(at).text("status") == "paid" {
			polls++
			require.Less(t, polls, 10)
			advance(2 * time.Second)
		}
		assert.Equal(t, 2, polls)
		assert.Equal(t, "completed", m.asToken().get(at).text("status"))
		require.Equal(t, 200, m.asToken().post(at+"/revision", "").status)
		assert.Equal(t, "revision_requested", m.asToken().get(at).text("status"))
		advance(3 * time.Second)
		assert.Equal(t, "completed", m.asToken().get(at).text("status"))
	})
}
