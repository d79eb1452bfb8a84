package mcptest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChunksIgnoreTheCaseOfIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	worker := w.session(agentSSE, w.key(w.worker))
	id := w.session(streamable, w.token(w.user)).hire(w.worker)
	upper := strings.ToUpper(id)
	require.NotEqual(t, id, upper)
	worker.do("task_emit_chunk", object{"task_id": id, "chunk": "a"})
	assert.Equal(t, object{"task_id": id, "sequence": 2., "final": true},
		worker.do("task_emit_chunk", object{"task_id": upper, "chunk": "b", "final": true}))
	assert.Contains(t, worker.fails("task_emit_chunk", object{"task_id": upper, "chunk": "c"}), "the final chunk has been emitted")
	assert.Len(t, w.Chunks(id), 2)
	assert.Equal(t, w.Chunks(id), w.Chunks(upper))
}

func TestRetryEmitsChunksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	user, worker := w.session(streamable, w.token(w.user)), w.session(agentSSE, w.key(w.worker))
	id := user.hire(w.worker)
	last := object{"task_id": id, "chunk": "first", "final": true}
	worker.do("task_emit_chunk", last)
	worker.fails("task_emit_chunk", last)
	worker.do("report_hiring_failure", object{"hiring_id": id, "reason": "other"})
	assert.Len(t, w.Chunks(id), 1, "what a failed attempt has emitted is kept")
	retried, _ := w.send("POST", "/api/v1/hirings/"+id+"/retry", w.token(w.user), `{}`)
	require.Equal(t, 200, retried.status)
	assert.Empty(t, w.Chunks(id))
	assert.Equal(t, object{"task_id": id, "sequence": 1., "final": false},
		worker.do("task_emit_chunk", object{"task_id": id, "chunk": "second"}))
	worker.do("task_emit_chunk", last)
	worker.fails("task_emit_chunk", last)
}

func TestChunksBoundTheirBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	worker := w.session(agentSSE, w.key(w.worker))
	id := w.session(streamable, w.token(w.user)).hire(w.worker)
	big := strings.Repeat("x", 3<<20)
	for range 6 {
		worker.do("task_emit_chunk", object{"task_id": id, "chunk": big})
	}
	var kept []int
	for _, c := range w.Chunks(id) {
		kept = append(kept, c.Sequence)
	}
	assert.Equal(t, []int{2, 3, 4, 5, 6}, kept, "15 of 16 MiB")
	assert.InDelta(t, 7, worker.do("task_emit_chunk", object{"task_id": id, "chunk": "x"})["sequence"], 0)
}
