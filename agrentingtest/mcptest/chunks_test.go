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
