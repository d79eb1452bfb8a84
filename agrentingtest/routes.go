package agrentingtest

import (
	"context"
	"net/http"
)

// routes returns the platform's routes. Comments mark the paths that no source
// publishes.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	add := func(pattern string, a access, h func(*exchange) (reply, *failure)) {
		s.patterns = append(s.patterns, pattern)
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

	// The first token of a user who signs up by program has only read scopes. It is meant
	// for registering owned agents, so registration does not require a scope.
	add("POST /api/v1/agents/register", optional, s.registerAgent)
	add("POST /api/v1/agents", user, s.registerAgent)
	add("GET /api/v1/agents", optional.scoped("agents:discover", "agents:read"), s.listAgents)
	add("GET /api/v1/agents/mine", userScoped("agents:read"), s.listMine) // the path is an assumption
	add("GET /api/v1/agents/discover", known(agentIfGiven, "agents:discover"), s.working(s.discoverAgents))
	add("GET /api/v1/capabilities", optional.scoped("agents:discover", "agents:read"), s.working(s.listCapabilities))
	add("GET /api/v1/agents/{id}", optional.scoped("agents:read"), s.getAgent)
	add("PATCH /api/v1/agents/{id}", known(agentIfGiven, "agents:write"), s.patchAgent)

	add("POST /api/v1/agents/{id}/credentials", known(agentIfGiven, "credentials:write", "agents:write"), s.createKey)
	// The paths of the next two are assumptions: the sources only say "DELETE credential
	// endpoint".
	add("GET /api/v1/agents/{id}/credentials", known(agentIfGiven, "credentials:read", "agents:read"), s.listKeys)
	add("DELETE /api/v1/agents/{id}/credentials/{cid}", known(agentIfGiven, "credentials:write", "agents:write"), s.deleteKey)

	add("GET /api/v1/user/tokens", userScoped("account:read"), s.listTokens)
	add("POST /api/v1/user/tokens", userScoped("account:write"), s.createToken)
	add("DELETE /api/v1/user/tokens/{id}", userScoped("account:write"), s.deleteToken)

	// The scope that a token needs for tasks, documents, and webhooks is not published. The
	// most similar scopes of the dashboard's list are accepted too. A user need not act as
	// an agent where the official clients do not send X-Agent-ID.
	taskRead := known(agentIfClear, "tasks:read", "hirings:read")
	taskWrite := known(agentIfClear, "tasks:write", "hire:create")
	add("GET /api/v1/tasks", known(agentMust, "tasks:read"), s.working(s.listTasks))
	add("POST /api/v1/tasks", taskWrite, s.working(s.createTask))
	add("GET /api/v1/tasks/pending", known(agentMust, "tasks:read"), s.working(s.listPendingTasks))
	add("GET /api/v1/tasks/{id}", taskRead, s.task((*job).taskData))
	add("GET /api/v1/tasks/{id}/timeline", taskRead, s.task((*job).timeline))
	add("GET /api/v1/tasks/{id}/attempts", taskRead, s.task((*job).attemptList))
	add("GET /api/v1/tasks/{id}/messages", taskRead, s.working(s.listTaskMessages))
	add("POST /api/v1/tasks/{id}/messages", taskWrite, s.working(s.sendTaskMessage))
	add("POST /api/v1/tasks/{id}/cancel", known(agentIfClear, "tasks:write", "hirings:cancel"), s.working(s.cancelTask))
	add("POST /api/v1/tasks/{id}/reassign", taskWrite, s.working(s.reassignTask))
	add("GET /api/v1/tasks/{id}/payments", taskRead, s.working(s.getPayment))
	add("POST /api/v1/tasks/{id}/payments", taskWrite, s.working(s.payTask))

	hiringRead := known(agentIfGiven, "hirings:read")
	hiringWrite := userScoped("hire:create")
	hiringWork := known(agentMust, "hirings:write") // the scope is an assumption; workers use their key
	add("POST /api/v1/agents/{id}/hire", hiringWrite, s.working(s.hireAgent))
	add("GET /api/v1/hirings", userScoped("hirings:read"), s.working(s.listHirings))
	add("GET /api/v1/hirings/pending", known(agentMust, "hirings:read"), s.working(s.listPendingHirings))
	add("GET /api/v1/hirings/{id}", hiringRead, s.working(s.getHiring))
	add("POST /api/v1/hirings/{id}/messages", known(agentIfGiven, "hire:create"), s.working(s.sendHiringMessage))
	add("POST /api/v1/hirings/{id}/cancel", userScoped("hirings:cancel"), s.working(s.cancelHiring))
	add("POST /api/v1/hirings/{id}/retry", hiringWrite, s.working(s.retryHiring))
	add("POST /api/v1/hirings/{id}/revision", hiringWrite, s.working(s.reviseHiring)) // the path is an assumption
	add("POST /api/v1/hirings/{id}/result", hiringWork, s.working(s.submitResult))
	add("POST /api/v1/hirings/{id}/failure", hiringWork, s.working(s.reportFailure))
	add("GET /api/v1/artifacts/{id}/download", known(agentIfGiven, "artifacts:read"), s.download(true))

	documentWrite := known(agentIfClear, "documents:write", "hire:create")
	add("POST /api/v1/documents", documentWrite, s.working(s.createDocument))
	add("POST /api/v1/uploads", documentWrite, s.working(s.createDocument))
	add("GET /api/v1/documents/{id}/download", known(agentIfClear, "documents:read", "artifacts:read"), s.download(false))

	money := known(agentIfClear, "deposits:create")
	add("GET /api/v1/ledger/balance", known(agentIfClear, "balance:read"), s.working(s.getBalance))
	add("GET /api/v1/ledger/transactions", known(agentIfClear, "balance:read"), s.working(s.listTransactions))
	add("POST /api/v1/ledger/deposit", money, s.working(s.deposit))
	add("POST /api/v1/ledger/withdraw", known(agentIfClear, "account:write"), s.working(s.withdraw)) // the scope is an assumption
	add("POST /api/v1/payments/create-intent", money, s.working(s.createPaymentIntent))

	add("GET /api/v1/webhooks", known(agentIfGiven, "account:read"), s.working(s.listWebhooks))
	add("POST /api/v1/webhooks", known(agentIfGiven, "account:write"), s.working(s.createWebhook))
	add("DELETE /api/v1/webhooks/{id}", known(agentIfGiven, "account:write"), s.working(s.deleteWebhook))
	return mux
}

func (a access) scoped(scopes ...string) access {
	a.scopes = scopes
	return a
}

// exchangeOf never returns nil in a route, because routes are called only by serve.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// platform runs one of the platform's own routes.
func (x *exchange) platform(r *http.Request, a access, h func(*exchange) (reply, *failure)) {
	x.r = r // has the path's values
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
		if rep.file != nil {
			x.send(rep.status, rep.file.contentType, rep.file.content)
			return
		}
		x.send(rep.status, jsonType, encodeReply(rep, x.meta()))
	})
}

// scripted returns the failure of [HandlerError].
func (x *exchange) scripted() *failure {
	if x.fault.response != respondFailure {
		return nil
	}
	return x.fault.failure()
}

// Handle adds the caller's own route, with the platform's authentication, rate limits,
// and idempotency. It accepts any valid credential, and the handler checks the scopes;
// see [Principal.Allows]. Patterns are those of http.ServeMux. Like it, Handle panics on
// conflicting patterns. A route with a pattern of the platform replaces the platform's
// route.
//
// The context of a request to such a route ends when the client leaves or the server is
// closed. The handler may pass requests with that context to [Server.Handler], to use
// other routes for the same caller. Such requests are authorized and logged, and faults
// apply to them, like any request. They are not rate-limited again, because the limit
// was applied to the first request. With the same credential headers, they are also
// served if the credential has expired or was revoked since the first request arrived,
// unless the fault [RevokeNow] applies to them.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelKnown, mode: agentIfClear}, h)
}

// HandleAgent is like [Server.Handle] for a route that requires an acting agent: users
// with several agents must send X-Agent-ID.
func (s *Server) HandleAgent(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelKnown, mode: agentMust}, h)
}

// HandleUser is like [Server.Handle] for a route on which users act for themselves: the
// principal of a user token has no agent, unless X-Agent-ID names one. Agents are
// accepted too.
func (s *Server) HandleUser(pattern string, h http.Handler) {
	s.handle(pattern, access{level: levelKnown, mode: agentIfGiven}, h)
}

// HandlePublic adds a route that does not check credentials. Its requests are logged and
// rate-limited by source address, and faults apply to them.
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
			ctx, cancel := context.WithCancel(context.WithValue(ctx, principalKey{}, x.who.principal()))
			defer cancel()
			stop := context.AfterFunc(s.alive, cancel) //nolint:contextcheck // the server ends, too
			defer stop()
			h.ServeHTTP(x.out, x.r.WithContext(ctx))
		})
	})
}

func health(*exchange) (reply, *failure) {
	return reply{status: http.StatusOK, data: map[string]any{"status": "ok"}}, nil
}
