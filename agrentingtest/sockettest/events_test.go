package sockettest_test

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

func TestTopicsAreOpenToTheirPartiesOnly(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		task, hiring := w.task(), w.hire()
		strangersKey, strangersToken := w.srv.NewKey(w.stranger.ID).Secret, w.srv.NewToken(w.other.ID, agrentingtest.TokenConfig{}).Secret
		w.sockets.Allow("negotiation:n", w.client.ID)
		w.sockets.Allow("payment:p", w.provider.ID, w.client.ID)
		const refused, unmatched = "unauthorized", "unmatched topic"
		for _, c := range []struct {
			path, topic                string
			provider, client, stranger any // for the hirer's socket: owner and stranger
		}{
			{agentPath, "agent:" + w.provider.ID, nil, refused, refused},
			{agentPath, "agent:", refused, refused, refused},
			{agentPath, "task_stream:" + task, nil, nil, refused},
			{agentPath, "task_stream:" + hiring, nil, refused, refused},
			{agentPath, "task_stream:unknown", refused, refused, refused},
			{agentPath, "hirer:" + w.user.ID, unmatched, unmatched, unmatched},
			{agentPath, "agents:discovery", unmatched, unmatched, unmatched},
			{agentPath, "agent", unmatched, unmatched, unmatched},
			{hirerPath, "hirer:" + w.user.ID, nil, nil, refused},
			{hirerPath, "task_stream:" + task, nil, nil, refused},
			{hirerPath, "task_stream:" + hiring, nil, nil, refused},
			{hirerPath, "agent:" + w.provider.ID, unmatched, unmatched, unmatched},
			{commonPath, "agents:discovery", nil, nil, nil},
			{commonPath, "agents:discovery:more", unmatched, unmatched, unmatched},
			{commonPath, "task:" + task, nil, nil, refused},
			{commonPath, "task:" + hiring, refused, refused, refused},
			{commonPath, "negotiation:n", refused, nil, refused},
			{commonPath, "negotiation:m", refused, refused, refused},
			{commonPath, "payment:p", nil, nil, refused},
			{commonPath, "analytics:agent:" + w.provider.ID, nil, refused, refused},
			{commonPath, "analytics:user:" + w.user.ID, nil, nil, refused},
			{commonPath, "analytics:global", nil, nil, nil},
			{commonPath, "task_stream:" + task, unmatched, unmatched, unmatched},
		} {
			secrets := []string{w.key.Secret, w.clientKey.Secret, strangersKey}
			if c.path == hirerPath {
				secrets = []string{w.token.Secret, w.token.Secret, strangersToken}
			}
			for i, want := range []any{c.provider, c.client, c.stranger} {
				p := w.connect(c.path, secrets[i])
				assert.Equal(t, want, p.join(c.topic), "%s %s %d", c.path, c.topic, i)
				require.NoError(t, p.conn.CloseNow())
			}
		}
	})
}

// An autonomous agent has no owner, and its topics are not those of an empty ID.
func TestAutonomousAgentHasNoUserTopic(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		free := w.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Free"})
		p := w.connect(commonPath, w.srv.NewKey(free.ID).Secret)
		assert.Equal(t, "unauthorized", p.join("analytics:user:"))
		assert.Nil(t, p.join("analytics:agent:"+free.ID))
	})
}

func TestAgentsAndHirersLearnOfHirings(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		agent, hirer := w.connect(agentPath, w.key.Secret), w.connect(hirerPath, w.token.Secret)
		stranger := w.connect(agentPath, w.clientKey.Secret)
		agentTopic, hirerTopic := "agent:"+w.provider.ID, "hirer:"+w.user.ID
		require.Nil(t, agent.join(agentTopic))
		require.Nil(t, hirer.join(hirerTopic))
		require.Nil(t, stranger.join("agent:"+w.client.ID))
		first := w.hire()
		for _, payload := range []map[string]any{agent.expect(agentTopic, "hiring.created"), hirer.expect(hirerTopic, "hiring.created")} {
			assert.Equal(t, first, payload["id"])
			assert.Equal(t, "paid", payload["status"])
		}
		w.post("X-API-Key", w.key.Secret, "/api/v1/hirings/"+first+"/result", map[string]any{"result": map[string]any{"text": "roses"}})
		assert.Equal(t, "completed", agent.expect(agentTopic, "hiring.completed")["status"])
		assert.Equal(t, first, hirer.expect(hirerTopic, "hiring.completed")["id"])
		second := w.hire()
		w.post("Authorization", "Bearer "+w.token.Secret, "/api/v1/hirings/"+second+"/cancel", map[string]any{})
		agent.expect(agentTopic, "hiring.created")
		agent.expect(agentTopic, "hiring.cancelled")
		hirer.expect(hirerTopic, "hiring.created")
		assert.Equal(t, second, hirer.expect(hirerTopic, "hiring.cancelled")["id"])
		third := w.hire()
		w.post("X-API-Key", w.key.Secret, "/api/v1/hirings/"+third+"/failure", map[string]any{"error": "no ink", "reason": "other"})
		agent.expect(agentTopic, "hiring.created")
		hirer.expect(hirerTopic, "hiring.created")
		agent.quiet() // hiring.failed is not recorded
		hirer.quiet()
		stranger.quiet()
	})
}

func TestBothAgentsLearnOfTasks(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		provider, client := w.connect(agentPath, w.key.Secret), w.connect(agentPath, w.clientKey.Secret)
		providerTopic, clientTopic := "agent:"+w.provider.ID, "agent:"+w.client.ID
		require.Nil(t, provider.join(providerTopic))
		require.Nil(t, client.join(clientTopic))
		id := w.task()
		w.srv.CompleteTask(id, "roses")
		for _, p := range []struct {
			peer  *peer
			topic string
		}{{provider, providerTopic}, {client, clientTopic}} {
			assert.Equal(t, id, p.peer.expect(p.topic, "task.created")["id"])
			payload := p.peer.expect(p.topic, "task.completed")
			for payload["status"] == "in_progress" {
				payload = p.peer.expect(p.topic, "task.completed")
			}
			assert.Equal(t, "roses", payload["output"])
			p.peer.quiet()
		}
	})
}

func TestStreamOfATask(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		topic, agentTopic := "task_stream:"+id, "agent:"+w.provider.ID
		provider, hirer := w.connect(agentPath, w.key.Secret), w.connect(hirerPath, w.token.Secret)
		require.Nil(t, provider.join(agentTopic))
		require.Nil(t, hirer.join(topic))
		sleep(1500 * time.Millisecond)
		provider.push("ok", agentTopic, "task.stream_chunk", map[string]any{"task_id": id, "content": "Roses", "kind": "token"})
		chunk := hirer.expect(topic, "stream.chunk")
		assert.Equal(t, map[string]any{
			"seq": 1.0, "content": "Roses", "kind": "token", "metadata": map[string]any{}, "timestamp": time.Now().UTC().Format(time.RFC3339Nano),
		}, chunk)
		require.NoError(t, w.sockets.Emit(id, " are", "", map[string]any{"model": "m"}))
		chunk = hirer.expect(topic, "stream.chunk")
		assert.Equal(t, []any{2.0, " are", "text", map[string]any{"model": "m"}}, []any{chunk["seq"], chunk["content"], chunk["kind"], chunk["metadata"]})

		late := w.connect(agentPath, w.clientKey.Secret)
		require.Nil(t, late.join(topic))
		assert.InDelta(t, 1, late.expect(topic, "stream.chunk")["seq"], 0)
		assert.InDelta(t, 2, late.expect(topic, "stream.chunk")["seq"], 0)

		w.srv.CompleteTask(id, "roses are red")
		for _, p := range []*peer{hirer, late} {
			assert.Equal(t, map[string]any{"result": "roses are red"}, p.expect(topic, "stream.done"))
			p.quiet()
		}
		require.NoError(t, late.conn.CloseNow())
		after := w.connect(agentPath, w.clientKey.Secret)
		require.Nil(t, after.join(topic))
		after.expect(topic, "stream.chunk")
		after.expect(topic, "stream.chunk")
		after.expect(topic, "stream.done")
		after.quiet()
		require.ErrorContains(t, w.sockets.Emit(id, "more", "", nil), "already completed")
		require.ErrorContains(t, w.sockets.Emit("unknown", "more", "", nil), "no task or hiring")
		require.Len(t, w.sockets.Chunks(id), 2)
		assert.Equal(t, "Roses", w.sockets.Chunks(id)[0].Content)
		assert.Empty(t, w.sockets.Chunks("unknown"))
	})
}

func TestStreamEndsWithTheReasonOfAFailure(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		failed, canceled, hiring := w.task(), w.task(), w.hire()
		hirer := w.connect(hirerPath, w.token.Secret)
		for _, id := range []string{failed, canceled, hiring} {
			require.Nil(t, hirer.join("task_stream:"+id))
		}
		w.srv.FailTask(failed, "no ink")
		assert.Equal(t, map[string]any{"error": "no ink"}, hirer.expect("task_stream:"+failed, "stream.error"))
		w.post("X-API-Key", w.clientKey.Secret, "/api/v1/tasks/"+canceled+"/cancel", map[string]any{})
		assert.Equal(t, map[string]any{"error": "cancelled"}, hirer.expect("task_stream:"+canceled, "stream.error"))
		w.post("X-API-Key", w.key.Secret, "/api/v1/hirings/"+hiring+"/failure", map[string]any{"error": "no ink", "reason": "other"})
		assert.NotEmpty(t, hirer.expect("task_stream:"+hiring, "stream.error")["error"])
		hirer.quiet()
	})
}

func TestNewAttemptHasNewStream(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.hire()
		require.NoError(t, w.sockets.Emit(id, "first", "", nil))
		w.post("X-API-Key", w.key.Secret, "/api/v1/hirings/"+id+"/failure", map[string]any{"error": "no ink", "reason": "other"})
		w.post("Authorization", "Bearer "+w.token.Secret, "/api/v1/hirings/"+id+"/retry", map[string]any{})
		assert.Empty(t, w.sockets.Chunks(id))
		require.NoError(t, w.sockets.Emit(id, "second", "", nil))
		hirer := w.connect(hirerPath, w.token.Secret)
		require.Nil(t, hirer.join("task_stream:"+id))
		chunk := hirer.expect("task_stream:"+id, "stream.chunk")
		assert.Equal(t, []any{1.0, "second"}, []any{chunk["seq"], chunk["content"]})
		hirer.quiet()
	})
}

func TestOnlyTheProviderEmitsChunks(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		client, provider := w.connect(agentPath, w.clientKey.Secret), w.connect(agentPath, w.key.Secret)
		clientTopic, providerTopic := "agent:"+w.client.ID, "agent:"+w.provider.ID
		require.Nil(t, client.join(clientTopic))
		require.Nil(t, provider.join(providerTopic))
		assert.Equal(t, "unauthorized", client.push("error", clientTopic, "task.stream_chunk", map[string]any{"task_id": id, "content": "x"}))
		assert.Equal(t, "unauthorized", provider.push("error", providerTopic, "task.stream_chunk", map[string]any{"task_id": "unknown", "content": "x"}))
		for _, payload := range []any{nil, "text", map[string]any{"task_id": id}, map[string]any{"task_id": id, "content": 7}} {
			assert.Contains(t, provider.push("error", providerTopic, "task.stream_chunk", payload), "invalid payload")
		}
		assert.Empty(t, w.sockets.Chunks(id))
		w.srv.FailTask(id, "no ink")
		provider.expect(providerTopic, "task.failed")
		assert.Equal(t, "the task is failed", provider.push("error", providerTopic, "task.stream_chunk", map[string]any{"task_id": id, "content": "x"}))
	})
}

func TestStreamKeepsTheLatestChunks(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		for i := range 10_001 {
			require.NoError(t, w.sockets.Emit(id, strconv.Itoa(i+1), "", nil))
		}
		kept := w.sockets.Chunks(id)
		require.Len(t, kept, 10_000)
		assert.Equal(t, 2, kept[0].Seq)
		assert.Equal(t, "10001", kept[9999].Content)
	})
}

// A client that joins late is not treated as slow, even with many chunks.
func TestLateJoinerGetsCompleteStream(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		topic := "task_stream:" + id
		for i := range 10_000 {
			require.NoError(t, w.sockets.Emit(id, strconv.Itoa(i+1), "", nil))
		}
		hirer := w.connect(hirerPath, w.token.Secret)
		require.Nil(t, hirer.join(topic))
		for i := range 10_000 {
			require.InDelta(t, i+1, hirer.expect(topic, "stream.chunk")["seq"], 0)
		}
		hirer.quiet()
	}, sockettest.WithQueue(1))
}

func TestRevocationClosesSocketDuringReplay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		half := strings.Repeat("x", 1<<19)
		for range 16 {
			require.NoError(t, w.sockets.Emit(id, half, "", nil))
		}
		provider := w.connect(agentPath, w.key.Secret)
		require.Nil(t, provider.join("agent:"+w.provider.ID))
		require.Nil(t, provider.join("task_stream:"+id))
		synctest.Wait() // the writer waits for the client to read
		w.srv.RevokeKey(w.key.ID)
		provider.expect("task_stream:"+id, "stream.chunk")
		synctest.Wait()
		provider.send("agent:"+w.provider.ID, "task.stream_chunk", map[string]any{"task_id": id, "content": "late"})
		synctest.Wait()
		assert.Len(t, w.sockets.Chunks(id), 16)
		assert.Equal(t, websocket.StatusGoingAway, provider.closed())
	})
}

func TestStreamBoundsItsBytes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		half := strings.Repeat("x", 1<<19)
		for range 40 {
			require.NoError(t, w.sockets.Emit(id, half, half, nil))
		}
		kept := w.sockets.Chunks(id)
		require.Len(t, kept, 16)
		assert.Equal(t, []int{25, 40}, []int{kept[0].Seq, kept[15].Seq})
		require.NoError(t, w.sockets.Emit(id, strings.Repeat("x", 17<<20), "", nil))
		kept = w.sockets.Chunks(id)
		require.Len(t, kept, 1, "the new chunk is kept")
		require.NoError(t, w.sockets.Emit(id, "small", "", nil))
		assert.Equal(t, "small", w.sockets.Chunks(id)[0].Content)
	})
}

func TestTaskChannelConnectsTheParties(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		topic := "task:" + id
		provider, client := w.connect(commonPath, w.key.Secret), w.connect(commonPath, w.clientKey.Secret)
		require.Nil(t, provider.join(topic))
		require.Nil(t, client.join(topic))
		client.push("ok", topic, "input_stream", map[string]any{"chunk": "line", "seq": 1})
		assert.Equal(t, map[string]any{"chunk": "line", "seq": 1.0}, provider.expect(topic, "input_stream"))
		client.push("ok", topic, "input_complete", map[string]any{"checksum": "c", "total_size": 4})
		work, _ := w.srv.Work(id)
		assert.Equal(t, "pending", work.Status)
		provider.push("ok", topic, "progress", map[string]any{"percent": 50, "message": "half"})
		assert.Equal(t, map[string]any{"percent": 50.0, "message": "half"}, client.expect(topic, "progress"))
		work, _ = w.srv.Work(id)
		assert.Equal(t, "in_progress", work.Status, "the work has begun")
		provider.push("ok", topic, "output_stream", map[string]any{"chunk": "roses", "seq": 1})
		client.expect(topic, "output_stream")
		provider.push("ok", topic, "output_complete", map[string]any{"checksum": "c", "total_size": 5})
		provider.push("ok", topic, "checkpoint", map[string]any{"state": "s", "seq": 1})
		checkpoint, ok := w.sockets.Checkpoint(id)
		require.True(t, ok)
		assert.JSONEq(t, `{"state":"s","seq":1}`, string(checkpoint))
		_, ok = w.sockets.Checkpoint("unknown")
		assert.False(t, ok)
		client.quiet()

		provider.send(topic, "complete", map[string]any{"result": map[string]any{"text": "roses"}})
		task, _ := provider.expect(topic, "task_completed")["task"].(map[string]any)
		assert.Equal(t, "completed", task["status"])
		assert.Equal(t, map[string]any{"text": "roses"}, task["result"])
		assert.Equal(t, "phx_reply", provider.next().Event)
		client.expect(topic, "task_completed")
		assert.Equal(t, "the task is completed", client.push("error", topic, "cancel", map[string]any{"reason": "late"}))
	})
}

func TestTaskChannelEndsTasks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		event   string
		payload any
		client  bool
		status  string
		reason  string
		output  any
	}{
		"error":                {"error", map[string]any{"type": "timeout", "details": "too slow"}, false, "failed", "timeout: too slow", nil},
		"error with an object": {"error", map[string]any{"details": map[string]any{"a": 1}}, false, "failed", `{"a":1}`, nil},
		"error without more":   {"error", map[string]any{}, false, "failed", "", nil},
		"cancel":               {"cancel", map[string]any{"reason": "changed"}, true, "cancelled", "", nil},
		"complete":             {"complete", map[string]any{}, false, "completed", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(w *world) {
				t := w.t
				id := w.task()
				secrets := []string{w.key.Secret, w.clientKey.Secret}
				if c.client {
					secrets = []string{w.clientKey.Secret, w.key.Secret}
				}
				topic := "task:" + id
				for i, status := range []string{"error", "ok"} { // the other party, and the right one
					p := w.connect(commonPath, secrets[1-i])
					require.Nil(t, p.join(topic))
					p.send(topic, c.event, c.payload)
					e := p.next()
					if e.Event == "task_completed" {
						e = p.next()
					}
					require.Equal(t, status, e.Payload["status"])
					require.NoError(t, p.conn.CloseNow())
				}
				work, ok := w.srv.Work(id)
				require.True(t, ok)
				assert.Equal(t, c.status, work.Status)
				assert.Equal(t, c.reason, work.Reason)
			})
		})
	}
}

func TestTaskChannelRefusesEventsOfTheOtherParty(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		topic := "task:" + id
		provider, client := w.connect(commonPath, w.key.Secret), w.connect(commonPath, w.clientKey.Secret)
		require.Nil(t, provider.join(topic))
		require.Nil(t, client.join(topic))
		for _, event := range []string{"input_stream", "input_complete", "cancel"} {
			assert.Equal(t, "unauthorized", provider.push("error", topic, event, struct{}{}), event)
		}
		for _, event := range []string{"output_stream", "output_complete", "progress", "checkpoint", "complete", "error"} {
			assert.Equal(t, "unauthorized", client.push("error", topic, event, struct{}{}), event)
		}
		provider.quiet()
		client.quiet()
		work, _ := w.srv.Work(id)
		assert.Equal(t, "pending", work.Status)
		_, ok := w.sockets.Checkpoint(id)
		assert.False(t, ok)
	})
}

func TestTaskChannelRefusesOtherPayloads(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		topic := "task:" + w.task()
		provider := w.connect(commonPath, w.key.Secret)
		require.Nil(t, provider.join(topic))
		for _, payload := range []any{nil, "text", []any{}} {
			assert.Contains(t, provider.push("error", topic, "progress", payload), "invalid payload")
		}
		provider.send(topic, "unknown", map[string]any{})
		assert.Equal(t, "phx_error", provider.next().Event)
	})
}

// Many clients and changes at once, for the race detector.
func TestSocketsAtTheSameTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		ids := make([]string, 8)
		for i := range ids {
			ids[i] = w.task()
		}
		done := make(chan int, len(ids))
		for _, id := range ids {
			hirer := w.connect(hirerPath, w.token.Secret)
			require.Nil(t, hirer.join("task_stream:"+id))
			go func() {
				n := 0
				for hirer.next().Event == "stream.chunk" {
					n++
				}
				done <- n
			}()
			go func() {
				for range 50 {
					assert.NoError(t, w.sockets.Emit(id, "x", "", nil))
				}
				w.srv.CompleteTask(id, nil)
			}()
		}
		for range ids {
			assert.Equal(t, 50, <-done)
		}
		synctest.Wait()
	}, sockettest.WithQueue(100))
}

func TestMockResultIsPushedWhenItIsDue(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		mock := w.srv.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Mock", MockAfter: 5 * time.Second, BasePrice: "1.00"})
		hirer := w.connect(hirerPath, w.token.Secret)
		topic := "hirer:" + w.user.ID
		require.Nil(t, hirer.join(topic))
		w.provider = mock
		w.hire()
		hirer.expect(topic, "hiring.created")
		begin := time.Now()
		hirer.expect(topic, "hiring.completed")
		assert.Equal(t, 5*time.Second, time.Since(begin))
	})
}
