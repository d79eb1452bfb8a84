package queue

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestQueueKeepsOrderAndAllItems(t *testing.T) {
	t.Parallel()
	const writers, each = 16, 500
	q := New()
	var mu sync.Mutex
	got := map[int][]int{}
	inside := 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				q.Put(func() {
					mu.Lock()
					inside++
					assert.Equal(t, 1, inside, "one at a time")
					mu.Unlock()
					runtime.Gosched()
					mu.Lock()
					inside--
					got[w] = append(got[w], i)
					mu.Unlock()
				})
			}
		})
	}
	wg.Wait()
	q.Close()
	require.Len(t, got, writers)
	for w, order := range got {
		require.Len(t, order, each, w)
		for i := range order {
			require.Equal(t, i, order[i])
		}
	}
}
