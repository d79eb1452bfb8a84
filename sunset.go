package agrenting

import (
	"strings"
	"sync"
)

// sunsetLog remembers which routes have been reported.
type sunsetLog struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxSunsets bounds the memory of routes, because paths contain IDs.
const maxSunsets = 256

func (s *sunsetLog) first(method, path string) bool {
	route := method + " " + routeOf(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[route] || len(s.seen) >= maxSunsets {
		return false
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[route] = true
	return true
}

// routeOf replaces the IDs in a path: UUIDs, DIDs, and other segments of eight or more
// characters that have a digit.
func routeOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "did:") || (len(s) >= 8 && strings.ContainsAny(s, "0123456789")) {
			segments[i] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}
