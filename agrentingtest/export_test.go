package agrentingtest

import (
	"fmt"
	"slices"
)

// Patterns returns the platform's own routes, such as "GET /api/v1/health".
func (s *Server) Patterns() []string { return slices.Clone(s.patterns) }

// ChaosMix returns the names and weights of the mix, such as "stray_401 20".
func ChaosMix() (mix []string) {
	for _, m := range &chaosMix {
		mix = append(mix, fmt.Sprintf("%s %d", m.name, m.weight))
	}
	return mix
}

// KindFields returns the required and the optional fields of each kind of fault.
func KindFields() map[string][2][]string {
	kinds := map[string][2][]string{}
	for _, k := range &faultKinds {
		kinds[k.name] = [2][]string{k.required, k.optional}
	}
	return kinds
}

// LimitCounts sets how many different methods and paths are counted.
func (s *Server) LimitCounts(n int) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.distinct = n
}

// Counts returns how many counts are kept.
func (s *Server) Counts() int {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return len(s.log.counts)
}
