package sockettest

import (
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The topics. Some of them are followed by an ID.
const (
	topicAgent          = "agent:"
	topicHirer          = "hirer:"
	topicStream         = "task_stream:"
	topicDiscovery      = "agents:discovery"
	topicTask           = "task:"
	topicNegotiation    = "negotiation:"
	topicPayment        = "payment:"
	topicAgentAnalytics = "analytics:agent:"
	topicUserAnalytics  = "analytics:user:"
	topicAnalytics      = "analytics:global"
)

// The reasons of refusals. The first one is from the documentation of Phoenix, and the
// second one is what Phoenix itself sends.
const (
	reasonUnauthorized = "unauthorized"
	reasonUnmatched    = "unmatched topic"
)

// endpoint is one of the platform's sockets.
type endpoint struct {
	path   string
	kinds  []agrentingtest.CredentialKind
	topics []string
}

var endpoints = []endpoint{
	{
		path:   "/socket/agent/websocket",
		kinds:  []agrentingtest.CredentialKind{agrentingtest.KindAPIKey},
		topics: []string{topicAgent, topicStream},
	},
	{
		path:   "/socket/hirer/websocket",
		kinds:  []agrentingtest.CredentialKind{agrentingtest.KindUserToken},
		topics: []string{topicHirer, topicStream},
	},
	{
		path:  "/socket/websocket",
		kinds: []agrentingtest.CredentialKind{agrentingtest.KindAPIKey, agrentingtest.KindSession},
		topics: []string{
			topicDiscovery, topicTask, topicNegotiation, topicPayment,
			topicAgentAnalytics, topicUserAnalytics, topicAnalytics,
		},
	},
}

// match splits a topic into a topic of the endpoint and an ID.
func (e endpoint) match(topic string) (kind, id string, ok bool) {
	for _, kind := range e.topics {
		if !strings.HasSuffix(kind, ":") {
			if topic == kind {
				return kind, "", true
			}
			continue
		}
		if id, ok := strings.CutPrefix(topic, kind); ok {
			return kind, id, true
		}
	}
	return "", "", false
}

// canonical returns the ID of a task or hiring in the server's spelling, because IDs are
// case-insensitive. It returns an unknown ID unchanged. It must be called without the
// lock.
func (s *Sockets) canonical(id string) string {
	if w, ok := s.srv.Work(id); ok {
		return w.ID
	}
	return id
}

// canonicalTopic returns a topic with the canonical ID if its ID is that of a task or
// hiring. It must be called without the lock.
func (s *Sockets) canonicalTopic(topic string) string {
	for _, kind := range []string{topicStream, topicTask} {
		if id, ok := strings.CutPrefix(topic, kind); ok {
			return kind + s.canonical(id)
		}
	}
	return topic
}

// authorized reports whether a client may join a topic. It must be called without the
// lock, because it calls the server.
func (s *Sockets) authorized(who agrentingtest.Principal, kind, id string) bool {
	switch kind {
	case topicDiscovery, topicAnalytics:
		return true
	case topicAgent, topicAgentAnalytics:
		return id == who.AgentID && id != ""
	case topicHirer, topicUserAnalytics:
		return id == who.UserID && id != ""
	case topicStream:
		w, ok := s.srv.Work(id)
		if who.Kind == agrentingtest.KindUserToken {
			return ok && w.ClientUserID == who.UserID
		}
		return ok && party(w, who.AgentID)
	case topicTask:
		w, ok := s.srv.Work(id)
		return ok && !w.Hiring && party(w, who.AgentID)
	default: // negotiations and payment channels
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.allowed[kind+id], who.AgentID)
	}
}

// party reports whether an agent is one of the two parties of a task or hiring.
func party(w agrentingtest.Work, agentID string) bool {
	return agentID == w.ProviderAgentID || agentID == w.ClientAgentID
}
