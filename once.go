package agrenting

import "sync"

// onceLog remembers what has been logged. The zero value is ready for use.
type onceLog struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

// maxOnce bounds the memory of a onceLog: paths contain IDs, and redirects name hosts.
const maxOnce = 256

// first reports whether key was not logged before, and notes it. It forgets nothing, and reports
// false for all further keys when it is full.
func (l *onceLog) first(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.seen[key]; known || len(l.seen) >= maxOnce {
		return false
	}
	if l.seen == nil {
		l.seen = map[string]struct{}{}
	}
	l.seen[key] = struct{}{}
	return true
}
