package agrentingtest

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// routes is the platform's table. Paths that no source publishes are marked.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	add := func(pattern string, a access, h func(*exchange) (reply, *failure)) {
		mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) { exchangeOf(r).platform(r, a, h) })
	}
	var (
		open     = access{level: levelOpen}
		optional = access{level: levelOptional}
		user     = access{level: levelUser}
	)
	known := func(mode agentMode, scopes ...string) access {
		return access{level: levelKnown, mode: mode, scopes: scopes}
	}
	userScoped := func(scopes ...string) access { return access{level: levelUser, scopes: scopes} }

	add("GET /api/v1/health", open, health)
	add("GET /api/v1/health/readiness", open, health)
	add("GET /api/v1/openapi.json", open, describe)

	add("POST "+s.cfg.authPath, access{level: levelExchange}, s.authenticate)
	add("DELETE /api/v1/auth/logout", known(agentIfGiven), s.logout)
	add("POST /api/v1/auth/rotate-key", known(agentMust, "credentials:write", "agents:write"), s.rotateKey)

	// The first token of a machine sign-up holds only read scopes and is meant
	// for registering owned agents: registration asks for no scope.
	add("POST /api/v1/agents/register", optional, s.registerAgent)
	add("POST /api/v1/agents", user, s.registerAgent)
	add("GET /api/v1/agents", optional.scoped("agents:discover", "agents:read"), s.listAgents)
	add("GET /api/v1/agents/mine", userScoped("agents:read"), s.listMine) // path assumed
	add("GET /api/v1/agents/{id}", optional.scoped("agents:read"), s.getAgent)
	add("PATCH /api/v1/agents/{id}", known(agentIfGiven, "agents:write"), s.patchAgent)

	add("POST /api/v1/agents/{id}/credentials", known(agentIfGiven, "credentials:write", "agents:write"), s.createKey)
	// The paths of the next two are assumed: "DELETE credential endpoint" is all
	// there is.
	add("GET /api/v1/agents/{id}/credentials", known(agentIfGiven, "credentials:read", "agents:read"), s.listKeys)
	add("DELETE /api/v1/agents/{id}/credentials/{cid}", known(agentIfGiven, "credentials:write", "agents:write"), s.deleteKey)

	add("GET /api/v1/user/tokens", userScoped("account:read"), s.listTokens)
	add("POST /api/v1/user/tokens", userScoped("account:write"), s.createToken)
	add("DELETE /api/v1/user/tokens/{id}", userScoped("account:write"), s.deleteToken)

	add("GET /api/v1/hirings", userScoped("hirings:read"), listHirings)
	add("GET /api/v1/hirings/pending", known(agentMust, "hirings:read"), listPendingHirings)
	add("POST /api/v1/tasks", known(agentMust, "tasks:write", "hire:create"), s.createTask)
	add("GET /api/v1/tasks", known(agentMust, "tasks:read"), s.listTasks)
	add("GET /api/v1/tasks/{id}", known(agentMust, "tasks:read"), s.getTask)
	return mux
}

func (a access) scoped(scopes ...string) access {
	a.scopes = scopes
	return a
}

// exchangeOf is never nil: the routes are reached only through serve.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// platform runs one of the platform's own routes.
func (x *exchange) platform(r *http.Request, a access, h func(*exchange) (reply, *failure)) {
	x.r = r // with the path's values
	if f := x.admit(a); f != nil {
		x.refuse(f)
		return
	}
	x.perform(r.Context(), func(context.Context) {
		body, f := x.readBody(maxPlatformBody)
		if f == nil {
			f = x.scripted()
		}
		var rep reply
		if f == nil {
			x.body = body
			rep, f = h(x)
		}
		if f != nil {
			x.refuse(f)
			return
		}
		x.send(rep.status, jsonType, encodeReply(rep, x.meta()))
	})
}

// scripted is the failure of [HandlerError].
func (x *exchange) scripted() *failure {
	if x.fault.kind != faultHandler {
		return nil
	}
	return x.fault.failure()
}

// Handle adds a route of the caller's own behind the platform's authentication,
// limits and idempotency. Any valid credential is let in; scopes are the
// handler's business, see [Principal.Allows]. Patterns are those of
// http.ServeMux, and like it Handle panics on conflicting ones; a pattern that
// the platform serves too is taken from it.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelKnown, mode: agentIfClear}, h)
}

// HandleAgent is [Server.Handle] for a route that acts as an agent: users with
// several agents must send X-Agent-ID.
func (s *Server) HandleAgent(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelKnown, mode: agentMust}, h)
}

// HandlePublic adds a route that looks at no credential. It is logged, limited
// by source address, and faults befall it.
func (s *Server) HandlePublic(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelOpen}, h)
}

func (s *Server) handle(pattern string, a access, h http.Handler) {
	s.extra.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.r = r
		if f := x.admit(a); f != nil {
			x.refuse(f)
			return
		}
		x.perform(r.Context(), func(ctx context.Context) {
			if f := x.scripted(); f != nil {
				x.refuse(f)
				return
			}
			// x.r, not r: its body may have been read for the fingerprint.
			ctx = context.WithValue(ctx, principalKey{}, x.who.principal())
			h.ServeHTTP(x.out, x.r.WithContext(ctx))
		})
	})
}

// fields is a JSON object whose values are looked at one by one, so that a
// refusal can say everything that is wrong with it.
type fields map[string]json.RawMessage

func decodeObject(body []byte) (fields, *failure) {
	f := fields{}
	if strings.TrimSpace(string(body)) == "" {
		return f, nil
	}
	if err := json.Unmarshal(body, &f); err != nil || f == nil {
		return nil, fail(http.StatusUnprocessableEntity, CodeValidation, "the body must be a JSON object")
	}
	return f, nil
}

// validator collects complaints by field.
type validator struct {
	fields   fields
	details  map[string][]string
	optional bool // absent fields are fine
}

func (v *validator) complain(field, message string) {
	if v.details == nil {
		v.details = make(map[string][]string)
	}
	v.details[field] = append(v.details[field], message)
}

// get decodes a field and reports whether it is there and sound.
func (v *validator) get(field, what string, required bool, into any) bool {
	raw, ok := v.fields[field]
	if !ok || string(raw) == "null" {
		if required && !v.optional {
			v.complain(field, "can't be blank")
		}
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		v.complain(field, "must be "+what)
		return false
	}
	return true
}

func (v *validator) text(field string, required bool, maxLength int) (s string) {
	if !v.get(field, "a string", required, &s) {
		return ""
	}
	switch {
	case required && strings.TrimSpace(s) == "":
		v.complain(field, "can't be blank")
	case len(s) > maxLength:
		v.complain(field, "is too long")
	}
	return s
}

func (v *validator) list(field string, required bool) (l []string) {
	if !v.get(field, "a list of strings", required, &l) {
		return nil
	}
	switch {
	case required && len(l) == 0:
		v.complain(field, "must have at least 1 item")
	case len(slices.Compact(slices.Sorted(slices.Values(l)))) < len(l):
		v.complain(field, "must be unique")
	}
	return l
}

// failure is the 422 with everything that was found, or nil.
func (v *validator) failure() *failure {
	if v.details == nil {
		return nil
	}
	names := make([]string, 0, len(v.details))
	for name := range v.details {
		names = append(names, name)
	}
	slices.Sort(names)
	f := fail(http.StatusUnprocessableEntity, CodeValidation, "%s %s", names[0], v.details[names[0]][0])
	f.err.Field = names[0]
	f.err.Details = v.details
	return f
}

var (
	didForm   = regexp.MustCompile(`^did:[a-z0-9]+:\S+$`)
	scopeForm = regexp.MustCompile(`^[a-z_]+(:[a-z_]+)?$`)
)

func health(*exchange) (reply, *failure) {
	return reply{status: http.StatusOK, data: map[string]any{"status": "ok"}}, nil
}
