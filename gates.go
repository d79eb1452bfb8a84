package agrenting

import "sync"

// gates makes the gates of a client. While the platform replaces a key in place,
// those that are made begin shut: a session that is bought with the old key in that
// moment would die with it.
type gates struct {
	mu      sync.Mutex
	recent  []*gate // the latest, which may be about to come into use
	holding bool
	held    []*gate
}

// maxRecent is how many gates may be made between the making of one and its use:
// some are for sessions of a store that turn out to be of no use.
const maxRecent = 4

func (s *gates) make() *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := new(gate)
	if s.holding {
		g.shut()
		s.held = append(s.held, g)
	}
	s.recent = append(s.recent[max(0, len(s.recent)+1-maxRecent):], g)
	return g
}

// hold shuts the recent gates, and those to come. The channels are closed once the
// requests inside have left.
func (s *gates) hold() (drained []<-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = true
	for _, g := range s.recent {
		if done, ok := g.shutIfOpen(); ok {
			s.held = append(s.held, g)
			drained = append(drained, done)
		}
	}
	return drained
}

// release opens them again. Whoever waits there looks for the credential in use.
func (s *gates) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.held {
		g.open()
	}
	s.holding, s.held = false, nil
}
