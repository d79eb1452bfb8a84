package sockettest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Clients get their events on the topic that they joined, as Phoenix clients expect.
func TestIDsAreCaseInsensitive(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		upper := strings.ToUpper(id)
		require.NotEqual(t, id, upper)
		stream, task := "task_stream:"+upper, "task:"+upper
		listener, late := w.connect(agentPath, w.clientKey.Secret), w.connect(agentPath, w.clientKey.Secret)
		client, provider := w.connect(commonPath, w.clientKey.Secret), w.connect(commonPath, w.key.Secret)
		require.Nil(t, listener.join(stream))
		require.Nil(t, client.join(task))
		require.Nil(t, provider.join("task:"+id))

		require.NoError(t, w.sockets.Emit(id, "roses", "", nil))
		assert.Equal(t, "roses", listener.expect(stream, "stream.chunk")["content"])
		require.Nil(t, provider.push("ok", "task:"+id, "output_stream", map[string]any{"chunk": "a", "seq": 1}))
		assert.Equal(t, "a", client.expect(task, "output_stream")["chunk"])
		require.Nil(t, client.push("ok", task, "input_stream", map[string]any{"chunk": "b", "seq": 1}))
		assert.Equal(t, "b", provider.expect("task:"+id, "input_stream")["chunk"])
		require.Nil(t, provider.push("ok", "task:"+id, "checkpoint", map[string]any{"state": "s", "seq": 2}))
		assert.Equal(t, 2, w.sockets.Push(task, "task.note", map[string]any{"n": 1}))
		client.expect(task, "task.note")
		provider.expect("task:"+id, "task.note")
		assert.Len(t, w.sockets.Chunks(upper), 1)
		_, known := w.sockets.Checkpoint(upper)
		assert.True(t, known)

		provider.send("task:"+id, "complete", map[string]any{"result": "done"})
		client.expect(task, "task_completed")
		listener.expect(stream, "stream.done")
		require.Nil(t, late.join(stream))
		late.expect(stream, "stream.chunk")
		late.expect(stream, "stream.done")
		require.Nil(t, client.push("ok", task, "phx_leave", map[string]any{}))
		assert.Equal(t, 1, w.sockets.Push(task, "task.note", map[string]any{"n": 2}), "only the provider is left")
	})
}
