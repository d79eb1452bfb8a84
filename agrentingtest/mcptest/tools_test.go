package mcptest_test

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
)

var hirerTools = []string{
	"answer_hiring_question", "cancel_hiring", "cancel_swarm", "check_balance", "clear_github_token", "download_artifact",
	"generate_deposit_address", "get_github_token_status", "get_hiring_status", "get_swarm_status", "hire_agent",
	"hire_swarm", "list_agents", "list_hiring_artifacts", "list_my_hirings", "list_saved_teams", "list_team_listings",
	"set_github_token", "suggest_team", "wait_for_hirings",
}

var agentTools = []string{"add_hiring_message", "report_hiring_failure", "submit_hiring_result", "task_emit_chunk"}

func TestEndpointsListTheirTools(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]struct {
		tools   []string
		version string
	}{
		streamable: {hirerTools, "2025-11-25"},
		hirerSSE:   {hirerTools, "2024-11-05"},
		agentSSE:   {agentTools, "2024-11-05"},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			t.Cleanup(w.Close)
			header := w.token(w.user)
			if path == agentSSE {
				header = w.key(w.worker)
			}
			s := w.session(path, header)
			assert.Equal(t, want.version, s.InitializeResult().ProtocolVersion)
			listed, err := s.ListTools(t.Context(), nil)
			require.NoError(t, err)
			var names []string
			for _, tool := range listed.Tools {
				names = append(names, tool.Name)
				assert.NotEmpty(t, tool.Description, tool.Name)
				schema, _ := tool.InputSchema.(map[string]any)
				assert.Equal(t, "object", schema["type"], tool.Name)
			}
			assert.Equal(t, want.tools, names)
			resources, err := s.ListResources(t.Context(), nil)
			require.NoError(t, err)
			if path != agentSSE {
				assert.Empty(t, resources.Resources)
				return
			}
			require.Len(t, resources.Resources, 1)
			assert.Equal(t, "hiring://pending", resources.Resources[0].URI)
		})
	}
}

func TestSchemasNameTheArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	s := w.session(streamable, w.token(w.user))
	listed, err := s.ListTools(t.Context(), nil)
	require.NoError(t, err)
	schemas := make(map[string]object)
	for _, tool := range listed.Tools {
		schemas[tool.Name] = sub(object{"schema": tool.InputSchema}, "schema")
	}
	assert.ElementsMatch(t, []any{"agent_did", "capability_requested", "task_description", "price"}, schemas["hire_agent"]["required"])
	assert.Len(t, sub(schemas["hire_agent"], "properties"), 10)
	assert.Empty(t, schemas["list_agents"]["required"])
	assert.Contains(t, s.fails("hire_agent", object{"agent_did": w.worker.DID}), "capability_requested")
	assert.Contains(t, s.fails("get_hiring_status", object{"hiring": "x"}), "hiring")
}

// The work of a hiring, from the list of agents to the file of its result.
func TestHiringIsDoneByTools(t *testing.T) {
	t.Parallel()
	for _, path := range []string{streamable, hirerSSE} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			t.Cleanup(w.Close)
			user, worker := w.session(path, w.token(w.user)), w.session(agentSSE, w.key(w.worker))

			agents := list(user.do("list_agents", object{"capability": "writing", "sort_by": "price", "max_price": 2}), "agents")
			require.Len(t, agents, 1)
			assert.Equal(t, w.quick.DID, agents[0]["did"])
			id := user.hire(w.worker)
			assert.Equal(t, object{"available": "991.50", "escrow": "8.50", "total": "1000.00", "currency": "USD"}, user.do("check_balance", nil))

			pending, err := worker.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "hiring://pending"})
			require.NoError(t, err)
			var work []object
			require.NoError(t, json.Unmarshal([]byte(pending.Contents[0].Text), &work))
			require.Len(t, work, 1)
			assert.Equal(t, []any{id, "write"}, []any{work[0]["id"], work[0]["task_description"]})

			worker.do("add_hiring_message", object{"hiring_id": id, "content": "in which language?"})
			assert.Equal(t, "in_progress", user.do("get_hiring_status", object{"hiring_id": id})["status"])
			user.do("answer_hiring_question", object{"hiring_id": id, "answer": "in English"})
			messages := list(user.do("get_hiring_status", object{"hiring_id": id}), "messages")
			require.Len(t, messages, 2)
			assert.Equal(t, []any{"in English", "client"}, []any{messages[1]["content"], messages[1]["sender_type"]})

			worker.do("task_emit_chunk", object{"task_id": id, "chunk": "Once upon "})
			assert.Equal(t, object{"task_id": id, "sequence": 2., "final": true},
				worker.do("task_emit_chunk", object{"task_id": id, "chunk": "a time", "final": true}))
			assert.Contains(t, worker.fails("task_emit_chunk", object{"task_id": id, "chunk": "x"}), "VALIDATION_ERROR")
			chunks := w.Chunks(id)
			require.Len(t, chunks, 2)
			assert.Equal(t, "Once upon a time", chunks[0].Content+chunks[1].Content)
			assert.Equal(t, w.worker.ID, chunks[0].AgentID)

			worker.do("submit_hiring_result", object{"hiring_id": id, "output": object{"summary": "done"}, "artifacts": []object{
				{"name": "tale.md", "content": base64.StdEncoding.EncodeToString([]byte("Once")), "content_type": "text/markdown"},
				{"name": "ink", "content": base64.StdEncoding.EncodeToString([]byte{0xff, 0}), "content_type": "image/png"},
			}})
			waited := user.do("wait_for_hirings", object{"hiring_ids": []string{id}})
			assert.Equal(t, []any{true, false}, []any{waited["all_ended"], waited["timed_out"]})
			assert.Equal(t, object{"summary": "done"}, list(waited, "hirings")[0]["task_output"])

			files := list(user.do("list_hiring_artifacts", object{"hiring_id": id}), "artifacts")
			require.Len(t, files, 2)
			assert.Equal(t, w.URL+"/api/v1/artifacts/"+text(files[0], "id")+"/download", files[0]["download_url"])
			assert.Equal(t, object{
				"artifact_id": files[0]["id"], "content_type": "text/markdown", "size_bytes": 4., "encoding": "utf-8", "content": "Once",
			}, user.do("download_artifact", object{"artifact_id": files[0]["id"]}))
			assert.Equal(t, []any{"base64", "/wA="}, func() []any {
				file := user.do("download_artifact", object{"artifact_id": files[1]["id"]})
				return []any{file["encoding"], file["content"]}
			}())
			assert.Contains(t, worker.fails("task_emit_chunk", object{"task_id": id, "chunk": "x"}), "completed")

			other := user.hire(w.worker)
			assert.Equal(t, "cancelled", user.do("cancel_hiring", object{"hiring_id": other})["status"])
			mine := user.do("list_my_hirings", object{"status": "completed", "limit": 1, "page": 1})
			assert.Equal(t, []any{1., id}, []any{mine["total"], list(mine, "hirings")[0]["id"]})
		})
	}
}

func TestAgentsReportFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user, worker := w.session(hirerSSE, w.token(w.user)), w.session(agentSSE, w.key(w.worker))
	id := user.hire(w.worker)
	assert.Equal(t, "failed", worker.do("report_hiring_failure", object{"hiring_id": id, "reason": "other", "error": "no ink"})["status"])
	assert.Equal(t, "other: no ink", user.do("get_hiring_status", object{"hiring_id": id})["failed_reason"])
	id = user.hire(w.worker)
	worker.do("report_hiring_failure", object{"hiring_id": id, "reason": "timeout"})
	assert.Equal(t, "timeout", user.do("get_hiring_status", object{"hiring_id": id})["failed_reason"])
}

func TestChunksAreForTasksToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	_, made := w.send("POST", "/api/v1/tasks", w.token(w.user),
		`{"provider_agent_id":"`+w.worker.ID+`","capability":"writing","input":"hello"}`)
	var task struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal([]byte(made), &task))
	worker, stranger := w.session(agentSSE, w.key(w.worker)), w.session(agentSSE, w.key(w.quick))
	worker.do("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "0"})
	type heard struct {
		chunk mcptest.Chunk
		known int
	}
	var first, second []heard
	w.OnChunk(func(c mcptest.Chunk) { first = append(first, heard{c, len(w.Chunks(c.TaskID))}) })
	w.OnChunk(func(c mcptest.Chunk) { second = append(second, heard{c, len(w.Chunks(c.TaskID))}) })
	worker.do("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "1"})
	assert.Contains(t, stranger.fails("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "2"}), "NOT_FOUND (HTTP 404)")
	client := w.session(agentSSE, w.key(w.own))
	assert.Contains(t, client.fails("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "3"}), "FORBIDDEN (HTTP 403)")
	worker.do("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "4", "final": true})
	worker.fails("task_emit_chunk", object{"task_id": task.Data.ID, "chunk": "5"})
	chunks := w.Chunks(task.Data.ID)
	assert.Equal(t, "014", chunks[0].Content+chunks[1].Content+chunks[2].Content)
	assert.Equal(t, []heard{{chunks[1], 2}, {chunks[2], 3}}, first, "none that is refused")
	assert.Equal(t, first, second)
	assert.Empty(t, w.Chunks("unknown"))
}

// What the REST routes refuse, tools refuse with the same code.
func TestToolsAndRESTRefuseTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user, stranger := w.session(streamable, w.token(w.user)), w.session(hirerSSE, w.token(w.NewUser("Eve")))
	id := user.hire(w.worker)
	hire := object{"agent_did": w.worker.ID, "capability_requested": "writing", "task_description": "x", "price": "1.00"}
	with := func(name string, value any) object {
		args := object{name: value}
		for k, v := range hire {
			if k != name {
				args[k] = v
			}
		}
		return args
	}
	reader := w.session(hirerSSE, w.token(w.user, "hirings:read"))
	agent := w.session(streamable, w.key(w.own))
	for _, c := range []struct {
		who  tools
		tool string
		args object
		want string
	}{
		{user, "hire_agent", with("price", "0"), "INVALID_AMOUNT (HTTP 422): price: "},
		{user, "hire_agent", with("price", "5000"), "INSUFFICIENT_BALANCE (HTTP 422): "},
		{user, "hire_agent", with("agent_did", "did:agrenting:nobody"), "NOT_FOUND (HTTP 404): agent not found"},
		{user, "hire_agent", with("delivery_mode", "fax"), "VALIDATION_ERROR (HTTP 422): delivery_mode: "},
		{user, "list_agents", object{"sort_by": "beauty"}, "VALIDATION_ERROR (HTTP 422): sort_by: "},
		{user, "download_artifact", object{"artifact_id": "x/../y"}, "NOT_FOUND (HTTP 404)"},
		{stranger, "get_hiring_status", object{"hiring_id": id}, "NOT_FOUND (HTTP 404): hiring not found"},
		{stranger, "cancel_hiring", object{"hiring_id": id}, "NOT_FOUND (HTTP 404): hiring not found"},
		{stranger, "wait_for_hirings", object{"hiring_ids": []string{id}}, "NOT_FOUND (HTTP 404): hiring not found"},
		{reader, "hire_agent", hire, "FORBIDDEN (HTTP 403): the token lacks the scope hire:create"},
		{reader, "list_hiring_artifacts", object{"hiring_id": id}, "FORBIDDEN (HTTP 403): the token lacks the scope artifacts:read"},
		{reader, "check_balance", nil, "FORBIDDEN (HTTP 403): the token lacks the scope balance:read"},
		{agent, "hire_agent", hire, "FORBIDDEN (HTTP 403): this endpoint is for users, not for agents"},
		{user, "wait_for_hirings", object{"hiring_ids": []string{}}, "VALIDATION_ERROR (HTTP 422): "},
		{user, "wait_for_hirings", object{"hiring_ids": []string{id}, "timeout_seconds": 601}, "VALIDATION_ERROR (HTTP 422): "},
	} {
		assert.Contains(t, c.who.fails(c.tool, c.args), c.want, c.tool)
	}
	assert.Equal(t, "paid", reader.do("get_hiring_status", object{"hiring_id": id})["status"])
	assert.Len(t, list(agent.do("list_agents", nil), "agents"), 3)
}

func TestFaultsHitTools(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	for _, path := range []string{streamable, hirerSSE} {
		s := w.session(path, w.token(w.user))
		w.Fault("GET /api/v1/ledger/balance", agrentingtest.Status(503, ""), agrentingtest.DropBefore(), agrentingtest.Page(502), agrentingtest.MalformedJSON())
		assert.Contains(t, s.fails("check_balance", nil), "AGENT_UNAVAILABLE (HTTP 503)")
		assert.Contains(t, s.fails("check_balance", nil), "connection to the platform was closed")
		assert.Contains(t, s.fails("check_balance", nil), "HTTP_ERROR (HTTP 502): Bad Gateway")
		assert.Contains(t, s.fails("check_balance", nil), "malformed")
		s.do("check_balance", nil)
	}
}

func TestMessagesAreChargedOnce(t *testing.T) {
	t.Parallel()
	// Streamable: three messages to initialize, and a stream. SSE: a stream, three messages.
	for path, before := range map[string]int{streamable: 4, hirerSSE: 4} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: before + 5}))
			t.Cleanup(w.Close)
			s := w.session(path, w.token(w.owner)) // who owns several agents, so that both routes are used by the user
			calls := 0
			for ; calls < 20; calls++ {
				if _, err := s.try(t.Context(), "check_balance", nil); err != nil {
					assert.Contains(t, err.Error(), "Too Many Requests")
					break
				}
			}
			assert.Equal(t, calls, w.Count("GET /api/v1/ledger/balance"))
			assert.Equal(t, before+5, w.Count("*")-calls-1, "all but the last, which was refused")
		})
	}
}
