package gate

import "sync"

// A Set makes the gates of a client. Between Hold and Release, the gates that it makes
// are shut from the start: a session that is obtained with the old key while the
// platform replaces that key would become invalid with it. The zero value is ready for
// use.
type Set struct {
	mu      sync.Mutex
	recent  []*Gate // the latest, which may be used soon
	holding bool
	held    []*Gate
}

// maxRecent is how many gates may be made between the creation of a gate and its use.
// Some gates are for sessions from a store that turn out to be unusable.
const maxRecent = 4

// New returns a new gate.
func (s *Set) New() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := new(Gate)
	if s.holding {
		g.Shut()
		s.held = append(s.held, g)
	}
	s.recent = append(s.recent[max(0, len(s.recent)+1-maxRecent):], g)
	return g
}

// Hold shuts the recent gates, and those that New makes until Release. The returned
// channels are closed when the requests inside have left.
func (s *Set) Hold() (drained []<-chan struct{}) {
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

// Release opens these gates again, except those that are over, because a late request
// would be sent with a dead key. Waiters then use the current credential.
func (s *Set) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.held {
		if !g.Over() {
			g.Open()
		}
	}
	s.holding, s.held = false, nil
}
