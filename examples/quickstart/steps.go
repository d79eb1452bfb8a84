package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// stage is the embedded platform with its agents.
type stage struct {
	*printer
	srv           *agrentingtest.Server
	user          *agrentingtest.User
	scribe, scout *agrentingtest.Agent
	shown         int // number of logged requests that were printed
}

// embedded runs all steps on a platform inside this process.
func embedded(ctx context.Context, p *printer) error {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	user := srv.NewUser("Ada")
	s := &stage{
		printer: p, srv: srv, user: user,
		scribe: srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}}),
		scout:  srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scout", Capabilities: []string{"search"}}),
	}
	p.line("%s", p.paint(bold, "Agrenting quickstart"))
	p.line("against a platform inside this process, at %s; secrets are shown as fingerprints", srv.URL)

	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"Everything from the environment", s.fromTheEnvironment},
		{"An agent's API key", s.apiKey},
		{"A user's token, acting as two agents", s.twoAgents},
		{"The sandbox refuses a production key", s.sandboxGuard},
		{"A redirect to another host gets no key", s.redirect},
		{"A key that was replaced in the meantime", s.renewal},
		{"An error with a type", s.typedError},
	} {
		p.begin(step.title)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("step %d, %q: %w", p.step, step.title, err)
		}
	}
	p.line("\n%s", p.paint(green, fmt.Sprintf("All %d steps worked as expected.", p.step)))
	return nil
}

// fresh prints and returns the requests that the platform has logged since the
// last call.
func (s *stage) fresh() []agrentingtest.Request {
	news := s.news()
	for i := range news {
		s.sent(news[i].Method, news[i].Path, news[i].Header)
	}
	return news
}

// want returns an error if the outcome of a step is wrong.
func want(what string, ok bool, got any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s: got %v", what, got)
}

// open creates a client of the embedded platform.
func (s *stage) open(opts ...agrenting.Option) (*agrenting.Client, error) {
	return agrenting.New(append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(s.srv.URL)}, opts...)...)
}

func (s *stage) fromTheEnvironment(ctx context.Context) error {
	env := map[string]string{"AGRENTING_URL": s.srv.URL, "AGRENTING_API_KEY": s.srv.NewKey(s.scribe.ID).Secret}
	client, err := agrenting.New(agrenting.WithLookupEnv(func(name string) (string, bool) {
		value, found := env[name]
		return value, found
	}))
	if err != nil {
		return err
	}
	defer client.Close()
	var agent agrenting.Agent
	resp, err := client.Do(ctx, http.MethodGet, "/api/v1/agents/"+s.scribe.ID, nil, &agent)
	if err != nil {
		return err
	}
	log := s.fresh()
	s.back(resp.StatusCode, "the agent %s, %d of %d requests left in this minute", agent.Name, resp.Rate.Remaining, resp.Rate.Limit)
	s.note("AGRENTING_URL and AGRENTING_API_KEY were set; New() needed no options")
	return errors.Join(
		want("the agent's name", agent.Name == "Scribe", agent.Name),
		want("one request by API key", len(log) == 1 && log[0].CredentialKind == agrentingtest.KindAPIKey, len(log)),
	)
}

func (s *stage) apiKey(ctx context.Context) error {
	client, err := s.open(agrenting.WithCredential(agrenting.APIKey(s.srv.NewKey(s.scribe.ID).Secret)))
	if err != nil {
		return err
	}
	defer client.Close()
	in := map[string]any{"agent_id": s.scout.ID, "task_type": "search", "input": map[string]string{"query": "gophers"}}
	var task struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	resp, err := client.Do(ctx, http.MethodPost, "/api/v1/tasks", in, &task)
	if err != nil {
		return err
	}
	log := s.fresh()
	s.back(resp.StatusCode, "the task %s… is %s", task.ID[:min(8, len(task.ID))], task.Status)
	s.note("a POST carries an idempotency key, so that it can be repeated safely")
	ours := len(log) == 1 && log[0].Principal == "agent:"+s.scribe.ID
	return errors.Join(
		want("status 201", resp.StatusCode == http.StatusCreated, resp.StatusCode),
		want("one request of the agent", ours, len(log)),
		want("an idempotency key", ours && log[0].Header.Get("X-Idempotency-Key") != "", "none"),
	)
}

func (s *stage) twoAgents(ctx context.Context) error {
	client, err := s.open(agrenting.WithCredential(
		agrenting.UserToken(s.srv.NewToken(s.user.ID, agrentingtest.TokenConfig{}).Secret)))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, agent := range []*agrentingtest.Agent{s.scribe, s.scout} {
		resp, err := client.As(agent.ID).Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
		if err != nil {
			return err
		}
		log := s.fresh()
		s.back(resp.StatusCode, "to %s", agent.Name)
		if err := want("a request as "+agent.Name, len(log) == 1 && log[0].AgentID == agent.ID, len(log)); err != nil {
			return err
		}
	}
	s.note("one token, one connection pool; only X-Agent-ID differs")
	return nil
}

func (s *stage) sandboxGuard(context.Context) error {
	client, err := s.open(
		agrenting.WithEnvironment(agrenting.Sandbox),
		agrenting.WithCredential(agrenting.APIKey(s.srv.NewKey(s.scribe.ID).Secret)),
	)
	if err == nil {
		return errors.Join(errors.New("the production key was accepted"), client.Close())
	}
	log := s.fresh()
	s.line("   %s New: agrenting.ErrEnvironmentMismatch", s.paint(cyan, "!!"))
	s.note("nothing was sent; AGRENTING_ENV=sandbox does the same")
	return errors.Join(
		want("ErrEnvironmentMismatch", errors.Is(err, agrenting.ErrEnvironmentMismatch), err),
		want("no request", len(log) == 0, len(log)),
	)
}

func (s *stage) redirect(ctx context.Context) error {
	foreign, err := listenElsewhere(ctx)
	if err != nil {
		return err
	}
	defer foreign.close()
	key := agrenting.APIKey(s.srv.NewKey(s.scribe.ID).Secret)
	s.srv.Fault("GET /api/v1/tasks", agrentingtest.Redirect(http.StatusFound, foreign.url).Times(2))

	transport, err := agrenting.NewTransport(agrenting.Static(key),
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(s.srv.URL), agrenting.WithAgentID(s.scribe.ID))
	if err != nil {
		return err
	}
	defer transport.Close()
	plain := &http.Client{Transport: transport}
	defer plain.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.srv.URL+"/api/v1/tasks", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := plain.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // only its headers matter
	s.fresh()
	s.back(http.StatusFound, "go to %s", foreign.url)
	arrived := foreign.requests()
	for _, h := range arrived {
		s.sent(http.MethodGet, "/ on the other host", h)
	}
	s.note("a plain http.Client followed it, without a credential")
	bare := len(arrived) == 1 && identity(arrived[0]) == identity(nil)
	if err := want("one request without a credential on the other host", bare, len(arrived)); err != nil {
		return err
	}

	client, err := s.open(agrenting.WithCredential(key))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	s.fresh()
	s.line("   %s Do: agrenting.ErrForeignOrigin", s.paint(cyan, "!!"))
	s.note("the Client does not follow it")
	return errors.Join(
		want("ErrForeignOrigin", errors.Is(err, agrenting.ErrForeignOrigin), err),
		want("no further request on the other host", len(foreign.requests()) == 1, len(foreign.requests())),
	)
}

// vault is a source with a key that can be replaced.
type vault struct {
	mu  sync.Mutex
	key agrentingtest.Key
}

func (v *vault) Credential(context.Context) (agrenting.Credential, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return agrenting.ParseCredential(v.key.Secret)
}

func (v *vault) replace(key agrentingtest.Key) (old agrentingtest.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old, v.key = v.key, key
	return old
}

// news returns the requests since the last call, except those with which the SDK
// checks whether a credential is dead.
func (s *stage) news() []agrentingtest.Request {
	all := s.srv.Requests()
	news := slices.DeleteFunc(all[s.shown:], func(r agrentingtest.Request) bool {
		return r.Path == "/api/v1/hirings/pending"
	})
	s.shown = len(all)
	return news
}

func (s *stage) renewal(ctx context.Context) error {
	source := &vault{key: s.srv.NewKey(s.scribe.ID)}
	client, err := s.open(agrenting.WithCredentialSource(source))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Credential(ctx); err != nil { // from now on, the first key is in use
		return err
	}
	old := source.replace(s.srv.NewKey(s.scribe.ID))
	s.srv.RevokeKey(old.ID)

	resp, err := client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	if err != nil {
		return err
	}
	log := s.news()
	for i := range log {
		s.sent(log[i].Method, log[i].Path, log[i].Header)
		s.back(log[i].Status, "%s", map[bool]string{true: "which the caller sees", false: "which the caller does not see"}[i == len(log)-1])
	}
	s.note("the key was revoked and replaced in its source; one Do, %d attempts", resp.Attempts)
	return errors.Join(
		want("the caller's 200", resp.StatusCode == http.StatusOK, resp.StatusCode),
		want("a 401 and a 200 on the platform", len(log) == 2 && log[0].Status == http.StatusUnauthorized && log[1].Status == http.StatusOK, len(log)),
	)
}

func (s *stage) typedError(ctx context.Context) error {
	client, err := s.open(agrenting.WithCredential(agrenting.APIKey(s.srv.NewKey(s.scribe.ID).Secret)))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Agents.Get(ctx, "did:web:nobody")
	log := s.fresh()
	var api *agrenting.APIError
	if !errors.As(err, &api) {
		return want("an *agrenting.APIError", false, err)
	}
	s.back(api.StatusCode, "%s, %q, request id %s", api.Code, api.Message, api.RequestID)
	s.note("errors.Is(err, agrenting.ErrNotFound) holds; the id finds it in the platform's log")
	return errors.Join(
		want("ErrNotFound", errors.Is(err, agrenting.ErrNotFound), err),
		want("the request id of the platform's log", len(log) == 1 && log[0].ID == api.RequestID, api.RequestID),
	)
}
