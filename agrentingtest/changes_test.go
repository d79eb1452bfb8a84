package agrentingtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// changeLog collects changes.
type changeLog struct {
	mu      sync.Mutex
	changes []agrentingtest.Change
}

func (l *changeLog) add(c agrentingtest.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, c)
}

// take returns the events so far, with the status after each, and forgets them.
func (l *changeLog) take() (events []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.changes {
		events = append(events, c.Event+" "+c.Status)
	}
	l.changes = nil
	return events
}

func TestOnChange_announcesEachTransitionOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(*market)
		want string
	}{
		"a task is completed": {func(m *market) {
			at := m.newTask(m.asToken())
			m.worker.post(at+"/messages", `{"message":"I begin"}`)
			m.worker.post(at+"/messages", `{"message":"I continue"}`)
			m.CompleteTask(idOf(at), "done")
		}, "task.created pending|task.claimed in_progress|task.in_progress in_progress|task.completed completed"},
		"a task is reassigned": {func(m *market) {
			at := m.newTask(m.asToken())
			m.FailTask(idOf(at), "no ink")
			m.asToken().post(at+"/reassign", `{}`)
			m.asToken().post(at+"/cancel", "")
		}, "task.created pending|task.failed failed|task.reassigned pending|task.cancelled cancelled"},
		"a task is paid": {func(m *market) {
			at := m.newTask(m.asToken())
			require.Equal(m.t, 201, m.asToken().post(at+"/payments", `{}`).status)
			m.CompleteTask(idOf(at), "done")
		}, "task.created pending|payment.confirmed escrowed|task.completed completed|payment.released released"},
		"a paid task fails": {func(m *market) {
			at := m.newTask(m.asToken())
			m.asToken().post(at+"/payments", `{}`)
			m.FailTask(idOf(at), "no ink")
		}, "task.created pending|payment.confirmed escrowed|task.failed failed|payment.refunded refunded"},
		"a hiring is retried": {func(m *market) {
			at := m.newHiring()
			hiringActions["failure"](m, at)
			hiringActions["retry"](m, at)
			hiringActions["begin"](m, at)
			hiringActions["result"](m, at)
			hiringActions["revision"](m, at)
			hiringActions["cancel"](m, at)
		}, "hiring.created paid|hiring.failed failed|hiring.retried queued|hiring.in_progress in_progress|hiring.completed completed|" +
			"hiring.revision_requested revision_requested|hiring.cancelled cancelled"},
		"money moves": {func(m *market) {
			m.asToken().post("/api/v1/ledger/deposit", `{"amount":"1"}`)
			m.asToken().post("/api/v1/ledger/withdraw", `{"amount":"1"}`)
			m.asToken().post("/api/v1/payments/create-intent", `{"amount":"1"}`)
		}, "payment.deposited completed|withdrawal.processed completed"},
		"an agent is suspended": {func(m *market) {
			m.SetAgentStatus(m.provider.ID, agrentingtest.AgentSuspended)
			m.SetAgentStatus(m.provider.ID, agrentingtest.AgentSuspended)
			m.SetAgentStatus(m.provider.ID, agrentingtest.AgentActive)
		}, "agent.status_changed suspended|agent.status_changed active"},
		"nothing is allowed": {func(m *market) {
			at := m.newTask(m.asToken())
			m.asToken().post(at+"/cancel", "")
			m.asToken().post(at+"/cancel", "")
			m.stranger.post(at+"/cancel", "")
			m.worker.get(at)
		}, "task.created pending|task.cancelled cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMarketOf(t, agrentingtest.AgentConfig{BasePrice: "2.50"})
			var l changeLog
			m.OnChange(l.add)
			c.act(m)
			assert.Equal(t, strings.Split(c.want, "|"), l.take())
		})
	}
}

func TestChange_identifiesTheParties(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	var l changeLog
	m.OnChange(l.add)
	begin := time.Now()
	task := m.newTask(m.asKey())
	hiring := m.newHiring()
	m.worker.post(hiring+"/result", `{"output":{"summary":"done"},"artifacts":[{"name":"a","content":"eA=="}]}`)
	require.Len(t, l.changes, 3)
	for i, want := range []agrentingtest.Change{
		{Event: "task.created", TaskID: idOf(task), ClientAgentID: m.agent.ID, Status: "pending"},
		{Event: "hiring.created", HiringID: idOf(hiring), Status: "paid"},
		{Event: "hiring.completed", HiringID: idOf(hiring), Status: "completed"},
	} {
		got := l.changes[i]
		assert.WithinRange(t, got.At, begin, time.Now())
		assert.Equal(t, want.TaskID+want.HiringID, got.Data["id"])
		assert.Equal(t, want.Status, got.Data["status"])
		want.UserID, want.AgentID, want.OwnerID = m.user.ID, m.provider.ID, m.provider.OwnerID
		got.At, got.Data = time.Time{}, nil
		assert.Equal(t, want, got)
	}
	artifacts, _ := l.changes[2].Data["artifacts"].([]map[string]any)
	require.Len(t, artifacts, 1, "the result is announced with its files")
	assert.True(t, strings.HasPrefix(fmt.Sprint(artifacts[0]["download_url"]), m.URL))
}

// A mock result arrives when it is due, even if no request follows.
func TestOnChange_announcesMockResultWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t, agrentingtest.WithClockSkew(-time.Hour))
		mock := m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Mock", MockAfter: 3 * time.Second})
		toy := m.NewAgent(m.user, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
		begin := time.Now()
		var at []time.Duration
		var l changeLog
		m.OnChange(func(c agrentingtest.Change) {
			l.add(c)
			at = append(at, time.Since(begin))
		})
		ask := func(id string) {
			require.Equal(t, 201, m.asToken().post(tasksPath, `{"provider_agent_id":"`+id+`","capability":"x","input":"y"}`).status)
		}
		ask(mock.ID)
		ask(toy.ID)
		advance(time.Second)
		ask(mock.ID)
		assert.Equal(t, []string{"task.created pending", "task.created pending", "task.completed completed", "task.created pending"}, l.take())
		advance(time.Minute)
		synctest.Wait()
		assert.Equal(t, []string{"task.completed completed", "task.completed completed"}, l.take())
		assert.Equal(t, []time.Duration{0, 0, 0, time.Second, 3 * time.Second, 4 * time.Second}, at)
		ask(mock.ID) // Close ends the wait
	})
}

func TestOnChange_listenerCallsTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		var l changeLog
		m.OnChange(l.add)
		var seen []string
		var stop func()
		stop = m.OnChange(func(c agrentingtest.Change) {
			seen = append(seen, m.asToken().get(tasksPath+"/"+c.TaskID).text("status"))
			switch c.Event {
			case "task.created":
				m.CompleteTask(c.TaskID, "done")
				assert.Equal(t, []string{"task.created pending"}, l.take(), "the next change waits")
			case "task.completed":
				stop()
			}
		})
		m.newTask(m.asToken())
		assert.Equal(t, []string{"pending", "completed"}, seen)
		assert.Equal(t, []string{"task.completed completed"}, l.take())
	})
}

func TestOnChange_stopEndsQueuedCalls(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newTask(m.asToken())
	var l changeLog
	var stop func()
	stop = m.OnChange(func(c agrentingtest.Change) {
		l.add(c)
		stop()
	})
	m.worker.post(at+"/messages", `{"message":"I begin"}`) // makes two changes
	m.CompleteTask(idOf(at), "done")
	assert.Equal(t, []string{"task.claimed in_progress"}, l.take())
}

func TestOnChange_keepsOrderUnderConcurrency(t *testing.T) {
	t.Parallel()
	m := newMarket(t, agrentingtest.WithoutRateLimits())
	var l changeLog
	m.OnChange(l.add)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				at := m.newTask(m.asToken())
				m.CompleteTask(idOf(at), "done")
			}
		})
	}
	wg.Wait()
	require.Len(t, l.changes, 160)
	status := map[string]string{}
	for i, c := range l.changes {
		if c.Event == "task.completed" {
			assert.Equal(t, "pending", status[c.TaskID])
		}
		status[c.TaskID] = c.Status
		assert.False(t, i > 0 && c.At.Before(l.changes[i-1].At), "the order is that of the changes")
	}
}

func TestOnChange_survivesPanickingListener(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	var l changeLog
	panicking := true
	m.OnChange(func(agrentingtest.Change) {
		if panicking {
			panicking = false
			panic("a listener's mistake")
		}
	})
	m.OnChange(l.add)
	_, err := m.asToken().try(http.MethodPost, tasksPath, `{"provider_agent_id":"`+m.provider.ID+`","capability":"writing","input":"x"}`)
	require.Error(t, err, "the request's connection is closed")
	m.newTask(m.asToken())
	assert.Equal(t, []string{"task.created pending"}, l.take())
}

func TestSetAgentStatus_keepsWorkAway(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	open := m.newHiring()
	m.SetAgentStatus(m.provider.DID, agrentingtest.AgentBanned)
	task := `{"provider_agent_id":"` + m.provider.ID + `","capability":"writing","input":"x"}`
	for name, a := range map[string]answer{
		"hire":     m.hire(m.asToken(), ""),
		"task":     m.asToken().post(tasksPath, task),
		"reassign": m.asToken().post(m.canceledTask()+"/reassign", `{"new_provider_agent_did":"`+m.provider.DID+`"}`),
	} {
		assert.Equal(t, []any{503, agrentingtest.CodeAgentUnavailable}, []any{a.status, a.code()}, name)
	}
	assert.NotContains(t, m.asToken().get("/api/v1/agents/discover").names("id"), m.provider.ID)
	assert.Equal(t, "banned", m.asToken().get("/api/v1/agents/"+m.provider.ID).text("status"))
	assert.Equal(t, []string{m.provider.ID}, m.asToken().get("/api/v1/agents?status=banned").names("id"))
	assert.Equal(t, 200, m.worker.post(open+"/result", `{"output":"done"}`).status, "work in progress can be finished")
	m.SetAgentStatus(m.provider.ID, agrentingtest.AgentActive)
	assert.Equal(t, 201, m.asToken().post(tasksPath, task).status)

	assert.PanicsWithValue(t, `agrentingtest: SetAgentStatus: "gone" is not a status of agents`, func() { m.SetAgentStatus(m.agent.ID, "gone") })
	assert.PanicsWithValue(t, `agrentingtest: SetAgentStatus: no agent "x" on this server`, func() { m.SetAgentStatus("x", "active") })
}

// canceledTask returns the path of a task that can be reassigned.
func (m *market) canceledTask() string {
	other := m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Other"})
	at := tasksPath + "/" + m.asToken().post(tasksPath, `{"provider_agent_id":"`+other.ID+`","capability":"x","input":"y"}`).text("id")
	m.asToken().post(at+"/cancel", "")
	return at
}
