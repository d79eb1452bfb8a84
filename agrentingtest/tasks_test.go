package agrentingtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// market is a world in which the user owns several agents, and an agent of another user
// offers writing.
type market struct {
	*world
	provider *agrentingtest.Agent
	worker   caller // the provider's key
	stranger caller
}

func newMarket(t *testing.T, opts ...agrentingtest.Option) *market {
	t.Helper()
	return newMarketOf(t, agrentingtest.AgentConfig{}, opts...)
}

// newMarketOf has a provider with some of the configuration given.
func newMarketOf(t *testing.T, provider agrentingtest.AgentConfig, opts ...agrentingtest.Option) *market {
	t.Helper()
	w := newWorld(t, append([]agrentingtest.Option{agrentingtest.WithoutRateLimits()}, opts...)...)
	w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Second"})
	provider.Name, provider.Capabilities = "Writer", []string{"writing"}
	p := w.NewAgent(w.NewUser("Bob"), provider)
	eve := w.NewToken(w.NewUser("Eve").ID, agrentingtest.TokenConfig{})
	return &market{
		world: w, provider: p, worker: w.caller.key(w.NewKey(p.ID).Secret), stranger: w.bearer(eve.Secret),
	}
}

// newTask creates a task of the provider as the official bridge does, and returns its path.
func (m *market) newTask(c caller) string {
	m.t.Helper()
	made := c.post(tasksPath, `{"provider_agent_id":"`+m.provider.DID+`","capability":"writing","input":"hello","external_client":true}`)
	require.Equal(m.t, 201, made.status, made.raw)
	return tasksPath + "/" + made.text("id")
}

func TestRecordedTaskBodiesAreAccepted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/tasks/*.json")
	require.NoError(t, err)
	require.Len(t, files, 6)
	for _, file := range files {
		for _, credential := range []string{"agent key", "user token"} {
			t.Run(filepath.Base(file)+" "+credential, func(t *testing.T) {
				t.Parallel()
				m := newMarket(t)
				as, client := m.asKey(), any(m.agent.ID)
				if credential == "user token" {
					as, client = m.asToken(), nil
				}
				b, err := os.ReadFile(file)
				require.NoError(t, err)
				text := strings.NewReplacer("PROVIDER_DID", m.provider.DID, "PROVIDER_ID", m.provider.ID).Replace(string(b))
				var recorded struct {
					Request  json.RawMessage
					Response map[string]any
				}
				require.NoError(t, json.Unmarshal([]byte(text), &recorded))
				made := as.post(tasksPath, string(recorded.Request))
				require.Equal(t, 201, made.status, made.raw)
				read := as.get(tasksPath + "/" + made.text("id"))
				for name, want := range recorded.Response {
					if want == "CLIENT" {
						want = client
					}
					assert.Equal(t, want, made.object()[name], name)
					assert.Equal(t, want, read.object()[name], name)
				}
				for _, name := range []string{"id", "created_at", "updated_at"} {
					assert.NotEmpty(t, made.text(name), name)
				}
			})
		}
	}
}

func TestTaskBodiesAreValidated(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	const validation, amount = agrentingtest.CodeValidation, agrentingtest.CodeInvalidAmount
	for body, want := range map[string][2]string{
		`{"provider_agent_id":"ID"}`:                                           {"capability", validation},
		`{"provider_agent_id":7,"capability":"writing"}`:                       {"provider_agent_id", validation},
		`{"provider_agent_id":"ID","capability":"writing","max_price":"0"}`:    {"max_price", amount},
		`{"provider_agent_id":"ID","capability":"writing","max_price":-1}`:     {"max_price", amount},
		`{"provider_agent_id":"ID","capability":"writing","max_price":"free"}`: {"max_price", validation},
		`{"capability":"writing","max_price":"0.123456789"}`:                   {"max_price", amount},
		`{"capability":"writing","max_price":"99999999999999999999"}`:          {"max_price", amount},
		`{"title":"t"}`: {"required_capabilities", validation},
		`{"title":"t","required_capabilities":[]}`:                        {"required_capabilities", validation},
		`{"title":"t","required_capabilities":["writing"],"price":"1e1"}`: {"price", amount},
		`{"execution_mode":"auto"}`:                                       {"capability", validation},
	} {
		a := m.asToken().post(tasksPath, strings.ReplaceAll(body, "ID", m.provider.ID))
		assert.Equal(t, 422, a.status, body)
		assert.Equal(t, want, [2]string{a.field(), a.code()}, body)
	}
	// Only task_type is documented to be a capability that the agent lists.
	a := m.asToken().post(tasksPath, `{"agent_id":"`+m.provider.ID+`","task_type":"singing"}`)
	assert.Equal(t, "task_type", a.field())
	a = m.asToken().post(tasksPath, `{"provider_agent_id":"`+m.provider.ID+`","capability":"singing"}`)
	assert.Equal(t, 201, a.status, a.raw)
	a = m.asToken().post(tasksPath, `{"provider_agent_id":"did:agrenting:nobody","capability":"writing"}`)
	assert.Equal(t, agrentingtest.CodeNotFound, a.code())
}

func TestTaskWithoutProviderGetsTheBestAgent(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	best := m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Best", Capabilities: []string{"writing"}, Reputation: 4})
	m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Other", Capabilities: []string{"writing"}, Reputation: 3})
	m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Sandboxed", Capabilities: []string{"writing"}, Reputation: 5, Sandbox: true})
	body := `{"capability":"writing","input":"x"}`
	assert.Equal(t, best.ID, m.asToken().post(tasksPath, body).text("provider_agent_id"))
	assert.NotEqual(t, best.ID, m.caller.key(m.NewKey(best.ID).Secret).post(tasksPath, body).text("provider_agent_id"), "not itself")
	open := m.asToken().post(tasksPath, `{"capability":"singing","input":"x"}`)
	assert.Equal(t, 201, open.status, open.raw)
	assert.Equal(t, "pending", open.text("status"))
	assert.Nil(t, open.object()["provider_agent_id"])
}

// dashboardScopes are those that the dashboard's preset selects.
var dashboardScopes = []string{
	"agents:discover", "agents:read", "hire:create", "hirings:read", "hirings:cancel", "balance:read", "artifacts:read",
	"deposits:create", "account:read", "account:write",
}

// The official clients send a user token without X-Agent-ID on these routes.
func TestUserTokenWithoutAgentOnOfficialRoutes(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	task := m.newTask(m.asToken())
	scoped := m.NewToken(m.user.ID, agrentingtest.TokenConfig{Scopes: dashboardScopes})
	for _, as := range []caller{m.asToken(), m.caller.key(m.token.Secret), m.bearer(scoped.Secret)} {
		document := as.post("/api/v1/documents", `{"name":"a","content":"eA==","content_type":"text/plain","document_type":"patch"}`)
		for _, c := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/api/v1/agents/discover?capability=writing", "", 200},
			{"GET", "/api/v1/agents/" + m.provider.DID, "", 200},
			{"GET", "/api/v1/capabilities", "", 200},
			{"POST", tasksPath, `{"provider_agent_id":"` + m.provider.ID + `","capability":"writing","input":"x"}`, 201},
			{"GET", task, "", 200},
			{"GET", task + "/timeline", "", 200},
			{"GET", task + "/attempts", "", 200},
			{"GET", task + "/messages", "", 200},
			{"POST", task + "/messages", `{"message":"x"}`, 201},
			{"POST", m.newTask(as) + "/cancel", "", 200},
			{"POST", "/api/v1/uploads", `{"name":"a","content":"eA=="}`, 201},
			{"GET", "/api/v1/documents/" + document.text("id") + "/download", "", 200},
			{"GET", "/api/v1/ledger/balance", "", 200},
			{"GET", "/api/v1/ledger/transactions?", "", 200},
			{"POST", "/api/v1/ledger/deposit", `{"amount":"1"}`, 201},
			{"POST", "/api/v1/webhooks", `{"callback_url":"https://example.org","event_types":["task.failed"]}`, 201},
			{"GET", "/api/v1/webhooks", "", 200},
			{"POST", "/api/v1/agents/" + m.provider.DID + "/hire", `{"task_description":"x","capability_requested":"writing","price":"1"}`, 201},
			{"GET", "/api/v1/hirings", "", 200},
		} {
			a := as.call(c.method, c.path, c.body)
			assert.Equal(t, c.status, a.status, "%s %s: %s", c.method, c.path, a.raw)
		}
	}
}

func TestTaskIsVisibleToParticipants(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	ofUser, ofAgent := m.newTask(m.asToken()), m.newTask(m.asKey())
	second := m.NewAgent(m.user, agrentingtest.AgentConfig{Name: "Third"})
	for name, c := range map[string]struct {
		caller          caller
		ofUser, ofAgent int
	}{
		"the user":                {m.asToken(), 200, 200},
		"the agent":               {m.asKey(), 404, 200},
		"the user as the agent":   {m.asToken().and("X-Agent-ID", m.agent.ID), 200, 200},
		"the user as another one": {m.asToken().and("X-Agent-ID", second.ID), 200, 404},
		"the provider":            {m.worker, 200, 200},
		"a stranger":              {m.stranger, 404, 404},
	} {
		assert.Equal(t, c.ofUser, c.caller.get(ofUser).status, name)
		assert.Equal(t, c.ofAgent, c.caller.get(ofAgent).status, name)
		if c.ofAgent == 404 {
			for _, action := range []string{"/cancel", "/reassign", "/payments"} {
				assert.Equal(t, 404, c.caller.post(ofAgent+action, `{}`).status, name)
			}
		}
	}
	for _, action := range []string{"/cancel", "/reassign", "/payments"} {
		assert.Equal(t, 403, m.worker.post(ofAgent+action, `{}`).status, "for the client only")
	}
	pending := m.worker.get(tasksPath + "/pending")
	assert.Len(t, pending.object()["tasks"], 2)
}

// A task in each status, and what each action makes of it. Empty means refused.
func TestTaskTransitions(t *testing.T) {
	t.Parallel()
	reach := map[string]func(*market, string){
		"pending": func(*market, string) {},
		"in_progress": func(m *market, at string) {
			require.Equal(m.t, 201, m.worker.post(at+"/messages", `{"message":"x"}`).status)
		},
		"completed": func(m *market, at string) { m.CompleteTask(idOf(at), "done") },
		"failed":    func(m *market, at string) { m.FailTask(idOf(at), "broken") },
		"cancelled": func(m *market, at string) { require.Equal(m.t, 200, m.asToken().post(at+"/cancel", "").status) },
	}
	actions := map[string]func(*market, string) answer{
		"cancel":   func(m *market, at string) answer { return m.asToken().post(at+"/cancel", "") },
		"reassign": func(m *market, at string) answer { return m.asToken().post(at+"/reassign", `{}`) },
		"pay": func(m *market, at string) answer {
			return m.asToken().post(at+"/payments", `{"task_id":"`+idOf(at)+`"}`)
		},
		"message": func(m *market, at string) answer { return m.worker.post(at+"/messages", `{"message":"x"}`) },
	}
	table := map[string]map[string]string{
		"pending":     {"cancel": "cancelled", "pay": "pending", "message": "in_progress"},
		"in_progress": {"cancel": "cancelled", "pay": "in_progress", "message": "in_progress"},
		"completed":   {"pay": "completed", "message": "completed"},
		"failed":      {"message": "failed", "reassign": "pending"},
		"cancelled":   {"message": "cancelled", "reassign": "pending"},
	}
	for from, get := range reach {
		for name, act := range actions {
			t.Run(from+" "+name, func(t *testing.T) {
				t.Parallel()
				m := newMarketOf(t, agrentingtest.AgentConfig{BasePrice: "2.50"})
				at := m.newTask(m.asToken())
				get(m, at)
				require.Equal(t, from, m.asToken().get(at).text("status"))
				a := act(m, at)
				to, allowed := table[from][name]
				if !allowed {
					to = from
					assert.Equal(t, 422, a.status, a.raw)
					assert.Equal(t, agrentingtest.CodeValidation, a.code())
				} else {
					assert.Less(t, a.status, 300, a.raw)
				}
				assert.Equal(t, to, m.asToken().get(at).text("status"))
			})
		}
	}
}

func idOf(path string) string { return path[strings.LastIndex(path, "/")+1:] }

func TestTaskHistoryShowsEventsAttemptsAndMessages(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newTask(m.asToken())
	asked := m.asToken().post(at+"/messages", `{"message":"how far?","message_type":"question"}`)
	assert.Equal(t, idOf(at), asked.text("task_id"))
	assert.NotEmpty(t, asked.text("message_id"))
	assert.NotEmpty(t, asked.text("sent_at"))
	require.Equal(t, 201, m.worker.post(at+"/messages", `{"message":"half"}`).status)
	m.FailTask(idOf(at), "out of ink")
	failed := m.asToken().get(at)
	assert.Equal(t, "out of ink", failed.text("error_reason"))
	other := m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Other", Capabilities: []string{"writing"}})
	moved := m.asToken().post(at+"/reassign", `{"new_provider_agent_did":"`+other.DID+`"}`)
	assert.Equal(t, []string{idOf(at), m.provider.DID, other.DID, other.ID, "pending"}, []string{
		moved.text("task_id"), moved.text("previous_agent_did"), moved.text("new_agent_did"),
		moved.text("new_provider_agent_id"), moved.text("status"),
	})
	m.CompleteTask(idOf(at), map[string]any{"pages": 3})

	var kinds []string
	timeline, _ := m.asToken().get(at + "/timeline").object()["events"].([]any)
	for _, e := range timeline {
		kinds = append(kinds, fmt.Sprint(object(e)["event_type"]))
	}
	assert.Equal(t, []string{"task.created", "task.in_progress", "task.failed", "task.reassigned", "task.completed"}, kinds)
	attempts, _ := m.asToken().get(at + "/attempts").object()["attempts"].([]any)
	require.Len(t, attempts, 2)
	assert.Equal(t, []any{"failed", "out of ink"}, []any{object(attempts[0])["status"], object(attempts[0])["error_reason"]})
	assert.Equal(t, "completed", object(attempts[1])["status"])
	assert.NotEmpty(t, object(attempts[1])["completed_at"])
	messages := m.asToken().get(at + "/messages").items()
	require.Len(t, messages, 2)
	assert.Equal(t, []any{"how far?", "question", "Ada", m.user.ID}, []any{
		messages[0]["content"], messages[0]["message_type"], messages[0]["sender_name"], messages[0]["sender_user_id"],
	})
	assert.Equal(t, []any{"half", "instruction", m.provider.DID}, []any{
		messages[1]["content"], messages[1]["message_type"], messages[1]["sender_agent_did"],
	})
	done := m.asToken().get(at)
	assert.Equal(t, `{"pages":3}`, done.text("output"), "a string for the official clients")
	assert.Equal(t, map[string]any{"pages": 3.0}, done.object()["result"])
	assert.NotEmpty(t, done.text("completed_at"))
	for _, body := range []string{`{}`, `{"message":"x","message_type":"shout"}`, `{"message":"` + strings.Repeat("é", 5001) + `"}`} {
		assert.Equal(t, 422, m.asToken().post(at+"/messages", body).status)
	}
	assert.Equal(t, 201, m.asToken().post(at+"/messages", `{"message":"`+strings.Repeat("é", 5000)+`"}`).status)
}

func TestMockResultsArriveInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMarketOf(t, agrentingtest.AgentConfig{MockAfter: time.Minute})
		at, cancelled := m.newTask(m.asToken()), m.newTask(m.asToken())
		require.Equal(t, 200, m.asToken().post(cancelled+"/cancel", "").status)
		advance(time.Minute - time.Nanosecond)
		assert.Equal(t, "pending", m.asToken().get(at).text("status"))
		due := time.Now().Add(time.Nanosecond).UTC().Format(time.RFC3339Nano)
		advance(time.Hour)
		done := m.asToken().get(at)
		assert.Equal(t, "completed", done.text("status"))
		assert.Equal(t, due, done.text("completed_at"))
		assert.JSONEq(t, `{"echo":"hello","simulated":true}`, done.text("output"))
		assert.Equal(t, "cancelled", m.asToken().get(cancelled).text("status"))
	})
}

func TestEndingAnUnknownOrEndedTaskPanics(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	id := idOf(m.newTask(m.asToken()))
	m.CompleteTask(id, "done")
	assert.Panics(t, func() { m.CompleteTask(id, "done") })
	assert.Panics(t, func() { m.FailTask(id, "late") })
	assert.Panics(t, func() { m.FailTask("unknown", "") })
	assert.Panics(t, func() { m.NewAgent(nil, agrentingtest.AgentConfig{BasePrice: "free"}) })
	assert.Panics(t, func() { agrentingtest.WithBalance("-1") })
}
