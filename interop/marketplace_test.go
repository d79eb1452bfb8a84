package interop_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// marketplaceCaller calls routes of the marketplace with one credential.
type marketplaceCaller struct {
	t      *testing.T
	v      *witness
	base   string
	header [2]string
}

// send expects success, and returns a member of data.
func (c marketplaceCaller) send(method, path, body, member string) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
	require.NoError(c.t, err)
	req.Header.Set(c.header[0], c.header[1])
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.v.RoundTrip(req)
	require.NoError(c.t, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.Less(c.t, resp.StatusCode, 300, "%s %s: %s", method, path, raw)
	if member == "" {
		return ""
	}
	var env struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	require.NoError(c.t, json.Unmarshal(raw, &env))
	var value string
	require.NoError(c.t, json.Unmarshal(env.Data[member], &value), "%s", raw)
	return value
}

// exerciseMarketplace calls every route of tasks, hirings, documents, money, and
// webhooks.
func exerciseMarketplace(t *testing.T, v *witness, srv *agrentingtest.Server) {
	t.Helper()
	ada := srv.NewUser("Ada")
	scribe := srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}, BasePrice: "2.50"})
	srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Second", Capabilities: []string{"writing"}})
	toy := srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
	token := srv.NewToken(ada.ID, agrentingtest.TokenConfig{Name: "all"}).Secret
	user := marketplaceCaller{t, v, srv.URL, [2]string{"Authorization", "Bearer " + token}}
	agent := marketplaceCaller{t, v, srv.URL, [2]string{"X-API-Key", srv.NewKey(scribe.ID).Secret}}

	user.send("GET", "/api/v1/agents/discover?capability=writing&min_price=1&max_price=9&sort_by=reputation&limit=5", "", "")
	user.send("GET", "/api/v1/capabilities", "", "")

	// Tasks, in every form.
	task := user.send("POST", "/api/v1/tasks", `{"provider_agent_id":"`+scribe.DID+`","capability":"writing","input":"x","external_client":true}`, "id")
	user.send("POST", "/api/v1/tasks", `{"title":"t","description":"d","required_capabilities":["writing"],"price":"1","deadline":"2027-01-01"}`, "id")
	user.send("POST", "/api/v1/tasks", `{"capability":"unknown","input":{"x":1},"max_price":"1","execution_mode":"auto"}`, "id")
	user.send("POST", "/api/v1/tasks", `{"agent_id":"`+toy.ID+`","task_type":"writing","input":null}`, "id")
	at := "/api/v1/tasks/" + task
	user.send("POST", at+"/messages", `{"message":"hello","message_type":"question"}`, "message_id")
	agent.send("POST", at+"/messages", `{"message":"hello"}`, "message_id")
	agent.send("GET", at+"/messages", "", "")
	agent.send("GET", "/api/v1/tasks/pending", "", "")
	user.send("POST", at+"/payments", `{"task_id":"`+task+`","payment_type":"crypto"}`, "id")
	user.send("GET", at+"/payments", "", "id")
	srv.FailTask(task, "it did not work")
	user.send("POST", at+"/reassign", `{"new_provider_agent_did":"`+scribe.DID+`"}`, "new_agent_did")
	user.send("GET", at+"/timeline", "", "")
	user.send("GET", at+"/attempts", "", "")
	user.send("POST", at+"/cancel", "", "id")

	// Documents.
	file := `{"name":"a.txt","content":"aGVsbG8=","content_type":"text/plain","document_type":"patch","task_id":"` + task + `"}`
	user.send("POST", "/api/v1/uploads", file, "id")
	document := user.send("POST", "/api/v1/documents", file, "id")
	user.send("GET", "/api/v1/documents/"+document+"/download", "", "")

	// Hirings.
	hire := func(g *agrentingtest.Agent) string {
		user.send("POST", "/api/v1/agents/"+g.DID+"/hire", `{"task_description":"d","capability_requested":"writing","price":"8.50",`+
			`"delivery_mode":"output","client_idempotency_key":"`+g.ID+`","task_input":{"a":1},"client_message":"m"}`, "")
		var list struct {
			Data struct{ Hirings []struct{ ID string } }
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/hirings?limit=1", http.NoBody)
		require.NoError(t, err)
		req.Header.Set(user.header[0], user.header[1])
		resp, err := v.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&list))
		require.NoError(t, resp.Body.Close())
		return list.Data.Hirings[0].ID
	}
	hiring := hire(scribe)
	at = "/api/v1/hirings/" + hiring
	user.send("POST", at+"/messages", `{"content":"hello"}`, "id")
	agent.send("POST", at+"/messages", `{"content":"hello"}`, "id")
	agent.send("GET", "/api/v1/hirings/pending", "", "")
	agent.send("POST", at+"/failure", `{"error":"it broke","reason":"timeout"}`, "id")
	user.send("POST", at+"/retry", `{"reason":"again"}`, "id")
	agent.send("POST", at+"/result", `{"output":{"summary":"s"},"trace_attempt":2,"artifacts":[{"name":"a.txt","content":"aGVsbG8=","content_type":"text/plain"}]}`, "id")
	user.send("POST", at+"/revision", `{"reason":"shorter"}`, "id")
	user.send("POST", at+"/cancel", "", "id")
	agent.send("GET", at, "", "id")
	user.send("GET", "/api/v1/artifacts/"+artifactOf(t, v, user, at)+"/download", "", "")
	user.send("GET", "/api/v1/hirings/"+hire(toy), "", "id") // completed at once

	// Money.
	user.send("POST", "/api/v1/ledger/deposit", `{"amount":"5","currency":"USD","payment_method":"crypto"}`, "transaction_id")
	user.send("POST", "/api/v1/ledger/withdraw", `{"amount":1.5,"currency":"USD","withdrawal_address_id":"a"}`, "transaction_id")
	user.send("POST", "/api/v1/payments/create-intent", `{"amount":"5","payment_type":"crypto"}`, "id")
	user.send("GET", "/api/v1/ledger/balance", "", "available")
	user.send("GET", "/api/v1/ledger/transactions?limit=100", "", "")
	user.send("GET", "/api/v1/ledger/transactions?type=deposit", "", "")

	// Webhooks.
	user.send("POST", "/api/v1/webhooks", `{"url":"https://example.org/a","events":["task.completed"],"secret":"s"}`, "secret_key")
	hook := user.send("POST", "/api/v1/webhooks", `{"callback_url":"https://example.org/b","event_types":["task.failed"]}`, "id")
	user.send("GET", "/api/v1/webhooks", "", "")
	user.send("DELETE", "/api/v1/webhooks/"+hook, "", "id")
}

// artifactOf returns the ID of the first artifact of a hiring.
func artifactOf(t *testing.T, v *witness, c marketplaceCaller, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set(c.header[0], c.header[1])
	resp, err := v.RoundTrip(req)
	require.NoError(t, err)
	var hiring struct {
		Data struct{ Artifacts []struct{ ID string } }
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&hiring))
	require.NoError(t, resp.Body.Close())
	require.NotEmpty(t, hiring.Data.Artifacts)
	return hiring.Data.Artifacts[0].ID
}
