package agrentingtest

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
)

// discoverAgents lists agents for hire. The two official clients read different members
// of a row, so each row has the members for both.
func (s *Server) discoverAgents(x *exchange) (reply, *failure) {
	q := x.r.URL.Query()
	limit, f := intParam(q, "limit", defaultPageSize, 1, maxPageSize)
	if f != nil {
		return reply{}, f
	}
	number := func(name string) (n float64, given bool) {
		raw := q.Get(name)
		if raw == "" || f != nil {
			return 0, false
		}
		n, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			f = invalid(name, "must be a number")
		}
		return n, true
	}
	minPrice, atLeast := number("min_price")
	maxPrice, atMost := number("max_price")
	reputation, _ := number("min_reputation")
	sortBy, ok := orders[q.Get("sort_by")]
	if f == nil && !ok {
		f = invalid("sort_by", "must be reputation, reputation_score, price, or base_price")
	}
	if f != nil {
		return reply{}, f
	}
	capability := q.Get("capability")
	var found []*agent
	for _, a := range s.dir.agentList {
		price, err := strconv.ParseFloat(a.profile.basePrice, 64)
		priced := err == nil
		switch {
		case !x.who.sees(a), a.status != AgentActive,
			capability != "" && !slices.Contains(a.profile.capabilities, capability),
			// An agent without a price is in every range, as in the official client.
			priced && (atLeast && price < minPrice || atMost && price > maxPrice),
			a.reputation < reputation:
		default:
			found = append(found, a)
		}
	}
	if sortBy != nil {
		slices.SortStableFunc(found, sortBy)
	}
	found = found[:min(limit, len(found))]
	rows := make([]map[string]any, len(found))
	for i, a := range found {
		rows[i] = a.renderRow()
	}
	return reply{status: http.StatusOK, data: rows}, nil
}

// orders are the values of sort_by. The sources name only reputation.
var orders = map[string]func(a, b *agent) int{
	"":                 nil,
	"reputation":       byReputation,
	"reputation_score": byReputation,
	"price":            byPrice,
	"base_price":       byPrice,
}

func byReputation(a, b *agent) int { return cmp.Compare(b.reputation, a.reputation) }

func byPrice(a, b *agent) int {
	x, _ := parseMoney(a.profile.basePrice)
	y, _ := parseMoney(b.profile.basePrice)
	return cmp.Compare(x, y)
}

// renderRow renders an agent for the list of agents for hire.
func (a *agent) renderRow() map[string]any {
	p := &a.profile
	m := map[string]any{
		"id": a.id, "did": a.did, "name": p.name, "description": p.description, "capabilities": p.capabilities,
		"status": a.status, "pricing_model": p.pricingModel, "base_price": nil, "reputation_score": a.reputationScore(),
		"metadata": nil, "price_per_task": nil, "min_price": nil, "max_price": nil, "reputation": a.reputation,
	}
	if p.basePrice != "" {
		for _, name := range []string{"base_price", "price_per_task", "min_price", "max_price"} {
			m[name] = p.basePrice
		}
	}
	if p.metadata != nil {
		m["metadata"] = p.publicMetadata()
	}
	return m
}

// reputationScore returns the reputation in the form that the platform's own client
// declares.
func (a *agent) reputationScore() string { return strconv.FormatFloat(a.reputation, 'f', 2, 64) }

// listCapabilities lists the capabilities with the number of agents for each.
func (s *Server) listCapabilities(x *exchange) (reply, *failure) {
	type tally struct {
		agents, priced int
		sum            money
	}
	tallies := make(map[string]*tally)
	var names []string
	for _, a := range s.dir.agentList {
		if !x.who.sees(a) || a.status != AgentActive {
			continue
		}
		for _, name := range a.profile.capabilities {
			t := tallies[name]
			if t == nil {
				t = &tally{}
				tallies[name], names = t, append(names, name)
			}
			t.agents++
			if price, ok := parseMoney(a.profile.basePrice); ok {
				t.priced++
				t.sum += price
			}
		}
	}
	slices.Sort(names)
	list := make([]map[string]any, len(names))
	for i, name := range names {
		t := tallies[name]
		list[i] = map[string]any{"name": name, "description": "", "category": "", "agent_count": t.agents, "avg_price": nil}
		if t.priced > 0 {
			list[i]["avg_price"] = t.sum / money(t.priced)
		}
	}
	return reply{status: http.StatusOK, data: list}, nil
}
