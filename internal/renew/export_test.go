package renew

import "time"

// Held reports whether a rejection of a generation would be held back.
func (e *Engine[T]) Held(generation uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last != nil && e.last.Number == generation && !e.rejected && time.Now().Before(e.holdUntil)
}
