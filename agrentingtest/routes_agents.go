package agrentingtest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

var pricingModels = []string{"fixed", "auction", "hybrid"}

// registerAgent creates an agent: an autonomous one without a credential, or an owned
// one with a user token or the key of an owned agent.
func (s *Server) registerAgent(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	cfg, prof, f := parseRegistration(body)
	if f != nil {
		return reply{}, f
	}
	var owner *user
	switch {
	case x.who.token != nil:
		owner = x.who.token.user
		cfg.Sandbox = cfg.Sandbox || x.who.token.sandbox
	case x.who.key != nil:
		owner = x.who.key.agent.owner
		cfg.Sandbox = cfg.Sandbox || x.who.key.agent.sandbox
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	if s.dir.agentByDID[cfg.DID] != nil {
		return reply{}, invalid("did", "has already been taken")
	}
	if x.who.kind == "" && !s.limits.register(x.ip) {
		// The limit has no window, so a later retry does not succeed.
		return reply{}, forbidden("this address has reached the limit of anonymous registrations")
	}
	cfg.ID = newUUID()
	a, ok := s.dir.addAgent(owner, cfg, s.now())
	if !ok {
		return reply{}, invalid("did", "has already been taken")
	}
	a.profile = prof
	_, secret := s.dir.addKey(a, "", s.now(), s.nodes.cfg.KeyLag)
	s.stats.registrations.Add(1)
	s.stats.keysCreated.Add(1)
	return reply{status: http.StatusCreated, data: map[string]any{
		"agent":        a.renderFor(&x.who),
		s.cfg.keyField: secret,
		"message":      "Store this key safely: it is not shown again.",
		"legal":        map[string]any{"terms": map[string]any{"version": "tos-2026-07-v1"}},
	}}, nil
}

// parseRegistration reads the documented form {"agent": {…}} and the flat example of
// the sandbox page, {"name": …, "sandbox": true}.
func parseRegistration(body fields) (AgentConfig, profile, *failure) {
	v := validator{fields: body}
	raw, wrapped := body["agent"]
	if wrapped {
		inner, f := decodeObject(raw)
		if f != nil || string(raw) == "null" {
			return AgentConfig{}, profile{}, invalid("agent", "must be an object")
		}
		v.fields = inner
	}
	var cfg AgentConfig
	v.get("sandbox", "true or false", false, &cfg.Sandbox)
	if !wrapped && !cfg.Sandbox {
		return AgentConfig{}, profile{}, invalid("agent", "can't be blank")
	}
	prof := profile{pricingModel: "fixed", capabilities: []string{}}
	v.profile(&prof, wrapped)
	cfg.Name = prof.name
	cfg.DID = v.text("did", wrapped, 255)
	if cfg.DID != "" && !didForm.MatchString(cfg.DID) {
		v.complain("did", "must be did:[namespace]:[identifier]")
	}
	return cfg, prof, v.failure()
}

// profile reads the fields that may also be changed later. Missing fields keep their
// values in p.
func (v *validator) profile(p *profile, full bool) {
	if s := v.text("name", true, 255); s != "" {
		p.name = s
	}
	if l := v.list("capabilities", full); l != nil {
		p.capabilities = l
	}
	if s := v.text("pricing_model", full, 50); s != "" {
		if !slices.Contains(pricingModels, s) {
			v.complain("pricing_model", "is invalid: must be fixed, auction or hybrid")
		}
		p.pricingModel = s
	}
	if s := v.text("description", false, 5000); s != "" {
		p.description = s
	}
	if s := v.text("category", false, 255); s != "" {
		p.category = s
	}
	var price json.Number // a JSON number, or one in quotes
	if v.get("base_price", "a number", false, &price) {
		if n, err := price.Float64(); err != nil || n < 0 {
			v.complain("base_price", "must not be negative")
		}
		p.basePrice = price.String()
	}
	var metadata fields
	if v.get("metadata", "an object", false, &metadata) {
		p.metadata = metadata
		if strings.ContainsFunc(p.callback().authorization, notInHeaders) {
			v.complain("metadata."+metadataAuthorization, "must not have control characters")
		}
	}
}

// render returns the public profile. It needs the lock. The result does not, because
// the data that it refers to is replaced, never changed.
func (a *agent) render() map[string]any {
	p := &a.profile
	m := map[string]any{
		"id":               a.id,
		"did":              a.did,
		"name":             p.name,
		"description":      p.description,
		"category":         p.category,
		"capabilities":     p.capabilities,
		"pricing_model":    p.pricingModel,
		"status":           a.status,
		"environment":      a.environment(),
		"sandbox":          a.sandbox,
		"reputation_score": a.reputationScore(),
		"availability":     "available",
		"created_at":       timestamp(a.created),
	}
	if a.owner != nil {
		m["owner_id"] = a.owner.id
	}
	if p.basePrice != "" {
		m["base_price"] = p.basePrice
	}
	if p.metadata != nil {
		m["metadata"] = p.publicMetadata()
	}
	return m
}

// renderFor returns the profile with the fields that are visible to the actor.
func (a *agent) renderFor(w *actor) map[string]any {
	m := a.render()
	if w.manages(a) && a.profile.metadata != nil {
		m["metadata"] = a.profile.metadata
	}
	return m
}

// listAgents lists the agents of the marketplace, filtered by status and capability.
func (s *Server) listAgents(x *exchange) (reply, *failure) {
	q := x.r.URL.Query()
	status, capability := q.Get("status"), q.Get("capability")
	return s.agentPage(x, func(a *agent) bool {
		return x.who.sees(a) && (status == "" || status == a.status) &&
			(capability == "" || slices.Contains(a.profile.capabilities, capability))
	})
}

// listMine lists the agents of the user.
func (s *Server) listMine(x *exchange) (reply, *failure) {
	return s.agentPage(x, func(a *agent) bool { return x.who.manages(a) && x.who.sees(a) })
}

func (s *Server) agentPage(x *exchange, which func(*agent) bool) (reply, *failure) {
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	var agents []*agent
	for _, a := range s.dir.agentList {
		if which(a) {
			agents = append(agents, a)
		}
	}
	return page(x, agents, func(a *agent) uint64 { return a.seq }, func(a *agent) map[string]any { return a.renderFor(&x.who) })
}

// page renders one page of a list.
func page[T any](x *exchange, items []T, seq func(T) uint64, render func(T) map[string]any) (reply, *failure) {
	items, info, f := paginate(x.r.URL.Query(), items, seq)
	if f != nil {
		return reply{}, f
	}
	data := make([]map[string]any, len(items))
	for i, item := range items {
		data[i] = render(item)
	}
	return reply{status: http.StatusOK, data: data, page: info}, nil
}

// getAgent returns one public profile, by UUID or DID.
func (s *Server) getAgent(x *exchange) (reply, *failure) {
	if !agentPath(x.r.PathValue("id")) {
		return reply{}, routeNotFound(x.r)
	}
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	a := s.dir.find(x.r.PathValue("id"))
	if a == nil || !x.who.sees(a) {
		return reply{}, notFound("agent")
	}
	return reply{status: http.StatusOK, data: a.renderFor(&x.who)}, nil
}

// agentPath reports whether a path segment can identify an agent. Otherwise it may
// name a collection that this server does not have.
func agentPath(idOrDID string) bool { return isUUID(idOrDID) || strings.HasPrefix(idOrDID, "did:") }

// patchAgent changes the profile of the agent itself, or of one that the user
// owns. Identity fields are ignored.
func (s *Server) patchAgent(x *exchange) (reply, *failure) {
	if !agentPath(x.r.PathValue("id")) {
		return reply{}, routeNotFound(x.r)
	}
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	if body["agent"] == nil {
		return reply{}, invalid("agent", `is missing (want {"agent": {…}} with the fields to change)`)
	}
	inner, f := decodeObject(body["agent"])
	if f != nil {
		return reply{}, invalid("agent", "must be an object")
	}
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	a, f := s.managedAgent(x)
	if f != nil {
		return reply{}, f
	}
	prof := a.profile
	v := validator{fields: inner, optional: true}
	v.profile(&prof, true)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	a.profile = prof
	return reply{status: http.StatusOK, data: a.renderFor(&x.who)}, nil
}

// managedAgent returns the agent in the path if the actor may administer it. It needs
// the lock.
func (s *Server) managedAgent(x *exchange) (*agent, *failure) {
	a := s.dir.find(x.r.PathValue("id"))
	switch {
	case a == nil || !x.who.sees(a):
		return nil, notFound("agent")
	case !x.who.manages(a):
		return nil, forbidden("only the agent itself and its owner may do this")
	}
	return a, nil
}
