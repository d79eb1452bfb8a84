package agrentingtest

import "strings"

// collection keeps resources of one kind in the order of their creation.
type collection[T comparable] struct {
	byID  map[string]T
	items []T
}

func (c *collection[T]) add(id string, item T) {
	if c.byID == nil {
		c.byID = make(map[string]T)
	}
	c.byID[id] = item
	c.items = append(c.items, item)
}

// get returns the zero value for an unknown ID.
func (c *collection[T]) get(id string) T { return c.byID[strings.ToLower(id)] }

func (c *collection[T]) remove(id string, item T) {
	delete(c.byID, id)
	for i, other := range c.items {
		if other == item {
			c.items = append(c.items[:i:i], c.items[i+1:]...)
			return
		}
	}
}

// where returns the items for which keep is true.
func (c *collection[T]) where(keep func(T) bool) []T {
	var kept []T
	for _, item := range c.items {
		if keep(item) {
			kept = append(kept, item)
		}
	}
	return kept
}

// party is the client of some work: an agent, or a user who acts without an agent.
// The user is also set for an agent with an owner.
type party struct {
	user  *user
	agent *agent
}

func (w *actor) party() party {
	p := party{agent: w.agent}
	switch {
	case w.token != nil:
		p.user = w.token.user
	case w.agent != nil:
		p.user = w.agent.owner
	}
	return p
}

// is reports whether the actor acts for the party. A user without agent context acts
// for all of the user's agents.
func (p party) is(w *actor) bool {
	if w.agent != nil && p.agent != nil {
		return w.agent == p.agent
	}
	return w.token != nil && p.user == w.token.user
}

// account returns the party's money. Agents share the account of their owner.
func (p party) account() *account {
	if p.user != nil {
		return &p.user.account
	}
	return &p.agent.account
}

// agentID renders the ID of the agent, or null for a user who acts without one.
func (p party) agentID() any {
	if p.agent == nil {
		return nil
	}
	return p.agent.id
}

// name returns the name of the party for display. It needs the lock.
func (p party) name() string {
	if p.agent != nil {
		return p.agent.profile.name
	}
	return p.user.name
}
