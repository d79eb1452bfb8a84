package agrentingtest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestStepsAreForTheirPartyAndStatus(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		step   agrentingtest.Step
		client bool // whose step it is
		value  any
		want   string
		output any
		reason string
	}{
		"begin":           {agrentingtest.StepBegin, false, nil, "in_progress", nil, ""},
		"complete":        {agrentingtest.StepComplete, false, "roses", "completed", "roses", ""},
		"fail":            {agrentingtest.StepFail, false, "no ink", "failed", nil, "no ink"},
		"fail for no one": {agrentingtest.StepFail, false, 7, "failed", nil, ""},
		"cancel":          {agrentingtest.StepCancel, true, nil, "cancelled", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			provider := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Provider"})
			stranger := w.NewAgent(nil, agrentingtest.AgentConfig{Name: "Stranger"})
			id := w.asKey().post(tasksPath, `{"provider_agent_id":"`+provider.ID+`","capability":"writing","input":"x"}`).text("id")
			refusal := func(agent string) int {
				var refused *agrentingtest.RefusedError
				require.ErrorAs(t, w.TakeStep(agent, id, c.step, c.value), &refused)
				return refused.Status
			}
			self, other := provider.ID, w.agent.ID
			if c.client {
				self, other = other, self
			}
			assert.Equal(t, 403, refusal(other))
			assert.Equal(t, 404, refusal(stranger.ID))
			assert.Equal(t, 404, refusal("unknown"))
			before, ok := w.Work(id)
			require.True(t, ok)
			assert.Equal(t, agrentingtest.Work{
				ID: id, Status: "pending", ClientUserID: w.user.ID, ClientAgentID: w.agent.ID, ProviderAgentID: provider.ID,
			}, before)
			var changes []string
			defer w.OnChange(func(c agrentingtest.Change) { changes = append(changes, c.Event) })()
			require.NoError(t, w.TakeStep(self, id, c.step, c.value))
			after, _ := w.Work(id)
			assert.Equal(t, []any{c.want, c.output, c.reason}, []any{after.Status, after.Output, after.Reason})
			assert.Contains(t, changes, "task."+c.want, "it is announced")
			if c.step == agrentingtest.StepBegin {
				require.NoError(t, w.TakeStep(self, id, c.step, nil), "a repeated begin is allowed")
				return
			}
			assert.Equal(t, 422, refusal(self))
		})
	}
}

func TestUnknownStepIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	provider := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Provider"})
	id := w.asKey().post(tasksPath, `{"provider_agent_id":"`+provider.ID+`","capability":"writing","input":"x"}`).text("id")
	require.ErrorContains(t, w.TakeStep(provider.ID, id, "dance", nil), `there is no step "dance"`)
	require.ErrorContains(t, w.TakeStep(provider.ID, "unknown", agrentingtest.StepBegin, nil), "NOT_FOUND")
}

func TestWorkIsATaskOrAHiring(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hiring := w.asToken().post("/api/v1/agents/"+w.agent.ID+"/hire",
		`{"task_description":"x","capability_requested":"writing","price":"1.00"}`).object()["hiring"]
	id, _ := object(hiring)["id"].(string)
	work, ok := w.Work(id)
	require.True(t, ok)
	assert.Equal(t, agrentingtest.Work{ID: id, Hiring: true, Status: "paid", ClientUserID: w.user.ID, ProviderAgentID: w.agent.ID}, work)
	_, ok = w.Work("unknown")
	assert.False(t, ok)
}
