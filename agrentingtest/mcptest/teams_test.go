package mcptest_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
)

// member is an argument of hire_swarm.
func member(agent *agrentingtest.Agent, price string) object {
	return object{"agent_did": agent.DID, "capability_requested": "writing", "task_description": "write", "price": price, "note": "soon"}
}

func TestSwarmIsHiredAndCanceledTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user, worker := w.session(streamable, w.token(w.user)), w.session(agentSSE, w.key(w.worker))
	swarm := user.do("hire_swarm", object{"name": "two", "members": []object{member(w.worker, "1.00"), member(w.quick, "2.00")}})
	id := swarm["swarm_id"]
	assert.Equal(t, []any{"two", "in_progress"}, []any{swarm["name"], swarm["status"]})
	hirings := list(swarm, "hirings")
	require.Len(t, hirings, 2)
	assert.Equal(t, []any{w.worker.ID, "soon", "1.00"}, []any{hirings[0]["agent_id"], hirings[0]["client_message"], hirings[0]["price"]})
	assert.Equal(t, "3.00", user.do("check_balance", nil)["escrow"])

	worker.do("submit_hiring_result", object{"hiring_id": hirings[0]["id"], "output": "done"})
	assert.Equal(t, "in_progress", user.do("get_swarm_status", object{"swarm_id": id})["status"])
	after := user.do("cancel_swarm", object{"swarm_id": id})
	assert.Equal(t, "failed", after["status"], "one without a result")
	assert.Equal(t, []any{"completed", "cancelled"}, []any{list(after, "hirings")[0]["status"], list(after, "hirings")[1]["status"]})
	assert.Equal(t, "failed", user.do("get_swarm_status", object{"swarm_id": id})["status"])

	other := user.do("hire_swarm", object{"members": []object{member(w.worker, "1.00")}})["swarm_id"]
	assert.Equal(t, "cancelled", user.do("cancel_swarm", object{"swarm_id": other})["status"])
	third := user.do("hire_swarm", object{"members": []object{member(w.worker, "1.00")}})
	worker.do("submit_hiring_result", object{"hiring_id": list(third, "hirings")[0]["id"], "output": "done"})
	assert.Equal(t, "completed", user.do("get_swarm_status", object{"swarm_id": third["swarm_id"]})["status"])

	stranger := w.session(hirerSSE, w.token(w.NewUser("Eve")))
	for _, tool := range []string{"get_swarm_status", "cancel_swarm"} {
		assert.Equal(t, "NOT_FOUND (HTTP 404): swarm not found", stranger.fails(tool, object{"swarm_id": id}))
	}
}

func TestSwarmIsHiredCompletelyOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user := w.session(streamable, w.token(w.user))
	reason := user.fails("hire_swarm", object{"members": []object{member(w.worker, "600"), member(w.quick, "600")}})
	assert.Equal(t, "members[1]: INSUFFICIENT_BALANCE (HTTP 422): the balance does not cover the amount", reason)
	assert.Equal(t, "1000.00", user.do("check_balance", nil)["available"])

	// A token that may not cancel leaves hirings behind, and the error names them.
	narrow := w.session(streamable, w.token(w.user, "hire:create"))
	reason = narrow.fails("hire_swarm", object{"members": []object{member(w.worker, "600"), member(w.quick, "600")}})
	left := list(user.do("list_my_hirings", object{"status": "paid"}), "hirings")
	require.Len(t, left, 1)
	assert.Contains(t, reason, "could not be canceled: "+text(left[0], "id"))
	user.do("cancel_hiring", object{"hiring_id": left[0]["id"]})
	assert.Equal(t, "in_progress", narrow.do("hire_swarm", object{"members": []object{member(w.worker, "1")}})["status"])

	long := member(w.worker, "1")
	long["note"] = string(make([]byte, 501))
	for _, members := range [][]object{{}, make([]object, 11), {long}} {
		for i := range members {
			if members[i] == nil {
				members[i] = member(w.worker, "1")
			}
		}
		assert.Contains(t, user.fails("hire_swarm", object{"members": members}), "VALIDATION_ERROR (HTTP 422): members")
	}
}

// The hire was served, but hire_swarm does not get the response.
func TestLostResponseLeavesNoHiring(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault agrentingtest.Fault
		hires int
	}{
		"cut":       {agrentingtest.DropAfter(), 3},
		"malformed": {agrentingtest.MalformedJSON(), 3},
		"failed":    {agrentingtest.Status(502, "").AfterServing(), 3},
		"page":      {agrentingtest.Page(200).AfterServing(), 3},
		"refused":   {agrentingtest.Status(429, ""), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			t.Cleanup(w.Close)
			user := w.session(streamable, w.token(w.user))
			pattern := "POST /api/v1/agents/" + w.quick.DID + "/hire"
			w.Fault(pattern, c.fault)
			reason := user.fails("hire_swarm", object{"members": []object{member(w.worker, "1"), member(w.quick, "2")}})
			assert.Contains(t, reason, "members[1]: ")
			assert.NotContains(t, reason, "canceled")
			balance := user.do("check_balance", nil)
			assert.Equal(t, []any{"1000.00", "0.00"}, []any{balance["available"], balance["escrow"]})
			made := list(user.do("list_my_hirings", nil), "hirings")
			require.Len(t, made, c.hires-1, "a repeated hire hires once")
			for _, h := range made {
				assert.Equal(t, "cancelled", h["status"])
			}
			assert.Equal(t, c.hires, w.Count("POST /api/v1/agents/*"))
		})
	}
}

// Two responses are lost: the hiring is there, but hire_swarm cannot know which it is.
func TestLostResponsesAreReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user := w.session(streamable, w.token(w.user))
	w.Fault("POST /api/v1/agents/"+w.worker.DID+"/hire", agrentingtest.DropAfter().Times(2))
	reason := user.fails("hire_swarm", object{"members": []object{member(w.worker, "1")}})
	assert.Equal(t, "members[0]: the connection to the platform was closed. The agent may have been hired: see list_my_hirings", reason)
	assert.Len(t, list(user.do("list_my_hirings", nil), "hirings"), 1)
}

func TestSwarmKeysHireOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user := w.session(streamable, w.token(w.user))
	args := object{"members": []object{member(w.worker, "1")}, "client_idempotency_key": "k"}
	first := user.do("hire_swarm", args)
	again := user.do("hire_swarm", args)
	assert.Equal(t, []any{first["swarm_id"], list(first, "hirings")[0]["id"]}, []any{again["swarm_id"], list(again, "hirings")[0]["id"]})
	assert.Len(t, list(user.do("list_my_hirings", nil), "hirings"), 1)
	args["name"] = "another"
	assert.Contains(t, user.fails("hire_swarm", args), "IDEMPOTENCY_CONFLICT (HTTP 409)")
	other := w.session(streamable, w.token(w.owner))
	assert.NotEqual(t, first["swarm_id"], other.do("hire_swarm", args)["swarm_id"], "keys belong to their user")
}

func TestTeamsAreSuggestedAndListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user := w.session(hirerSSE, w.token(w.user))
	suggested := user.do("suggest_team", object{"capabilities": []string{"writing", "drawing", "singing"}})
	assert.Equal(t, object{
		"members": []any{
			object{"agent_did": w.worker.DID, "capability": "writing", "price": "2.50"},
			object{"agent_did": w.quick.DID, "capability": "drawing", "price": "1.25"},
		},
		"missing_capabilities": []any{"singing"}, "total_price": "3.75",
	}, suggested)
	cheap := user.do("suggest_team", object{"capabilities": []string{"writing"}, "sort_by": "price"})
	assert.Equal(t, []any{w.quick.DID, "1.25"}, []any{list(cheap, "members")[0]["agent_did"], cheap["total_price"]})
	assert.Contains(t, user.fails("suggest_team", object{"capabilities": []string{}}), "VALIDATION_ERROR")

	assert.Equal(t, object{"teams": []any{}}, user.do("list_saved_teams", nil))
	assert.Equal(t, object{"listings": []any{}}, user.do("list_team_listings", nil))
	saved := w.SaveTeam(w.user.ID, mcptest.Team{Name: "mine", Members: []mcptest.TeamMember{{AgentDID: w.worker.DID, Capability: "writing"}}})
	w.SaveTeam(w.owner.ID, mcptest.Team{Name: "not mine"})
	listed := w.ListTeam(mcptest.Team{ID: "t1", Name: "offered", Description: "for hire"})
	assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, saved.ID)
	assert.Equal(t, "t1", listed.ID)
	assert.Equal(t, object{"teams": []any{object{
		"id": saved.ID, "name": "mine", "members": []any{object{"agent_did": w.worker.DID, "capability": "writing"}},
	}}}, user.do("list_saved_teams", nil))
	assert.Equal(t, object{"listings": []any{object{
		"id": "t1", "name": "offered", "description": "for hire", "members": []any{},
	}}}, user.do("list_team_listings", nil))
}

func TestAccountToolsKeepTheirState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user, other := w.session(streamable, w.token(w.user)), w.session(streamable, w.token(w.owner))
	none := object{"configured": false, "updated_at": nil}
	assert.Equal(t, none, user.do("get_github_token_status", nil))
	set := user.do("set_github_token", object{"token": "ghp_made_up"})
	assert.Equal(t, true, set["configured"])
	at, err := time.Parse(time.RFC3339Nano, text(set, "updated_at"))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), at, time.Minute)
	assert.Equal(t, set, user.do("get_github_token_status", nil))
	assert.Equal(t, none, other.do("get_github_token_status", nil))
	assert.Equal(t, none, user.do("clear_github_token", nil))
	assert.Contains(t, user.fails("set_github_token", object{"token": " "}), "token can't be blank")

	address := user.do("generate_deposit_address", nil)
	assert.Regexp(t, `^simulated-usdc-[0-9a-f]{32}$`, address["address"])
	assert.Equal(t, address, user.do("generate_deposit_address", object{"currency": "usdc"}))
	assert.NotEqual(t, address["address"], user.do("generate_deposit_address", object{"currency": "BTC"})["address"])
	assert.NotEqual(t, address["address"], other.do("generate_deposit_address", nil)["address"])
	assert.Contains(t, user.fails("generate_deposit_address", object{"currency": "B T C"}), "VALIDATION_ERROR")
}

func TestOwnToolsCheckScopesAndUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	narrow := w.session(streamable, w.token(w.user, "hirings:read"))
	agent := w.session(streamable, w.key(w.own))
	for tool, scope := range map[string]string{
		"generate_deposit_address": "deposits:create", "set_github_token": "account:write", "clear_github_token": "account:write",
		"get_github_token_status": "account:read", "list_saved_teams": "account:read", "list_team_listings": "agents:discover",
	} {
		var args object
		if tool == "set_github_token" {
			args = object{"token": "x"}
		}
		assert.Equal(t, "FORBIDDEN (HTTP 403): the token lacks the scope "+scope, narrow.fails(tool, args))
		allowed := w.session(streamable, w.token(w.user, scope))
		allowed.do(tool, args)
		if scope == "deposits:create" || scope == "agents:discover" {
			agent.do(tool, args)
		} else {
			assert.Equal(t, "FORBIDDEN (HTTP 403): this tool is for users, not for agents", agent.fails(tool, args))
		}
	}
	assert.Contains(t, agent.fails("hire_swarm", object{"members": []object{member(w.worker, "1")}}), "FORBIDDEN (HTTP 403)")
}

// A call that waits for another hire_swarm ends when it is canceled.
func TestCanceledSwarmDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		release := make(chan struct{})
		defer w.OnChange(func(c agrentingtest.Change) {
			if c.Event == "hiring.created" {
				<-release
			}
		})()
		user := tools{t, w.connect(streamable, w.token(w.user))}
		defer func() { _ = user.Close() }()
		args := object{"members": []object{member(w.worker, "1")}}
		first := make(chan error, 1)
		go func() {
			_, err := user.try(t.Context(), "hire_swarm", args)
			first <- err
		}()
		synctest.Wait()

		header := w.token(w.user)
		began, _ := w.send("POST", streamable, header, initialize)
		header["Mcp-Session-Id"] = began.header["Mcp-Session-Id"]
		w.send("POST", streamable, header, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		arguments, err := json.Marshal(args)
		require.NoError(t, err)
		ended := make(chan string, 1)
		go func() {
			_, body := w.send("POST", streamable, header,
				`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"hire_swarm","arguments":`+string(arguments)+`}}`)
			ended <- body
		}()
		synctest.Wait()
		assert.Empty(t, ended, "one at a time")
		w.send("POST", streamable, header, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`)
		synctest.Wait()
		if assert.Len(t, ended, 1) {
			assert.Contains(t, <-ended, "context canceled")
		}
		close(release)
		require.NoError(t, <-first)
		assert.Len(t, list(user.do("list_my_hirings", nil), "hirings"), 1)
	})
}
