package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// keyedClient is a client of srv as the agent.
func keyedClient(srv *agrentingtest.Server, agentID string) *agrenting.Client {
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agentID).Secret)),
	)
	must(err)
	return client
}

// Anything that takes an http.Client gets authenticated access: a generated
// client, a WebSocket dialer, an MCP transport, or a plain request.
func ExampleClient_HTTPClient() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client := keyedClient(srv, scribe.ID)
	defer client.Close()

	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+"/api/v1/tasks", http.NoBody)
	must(err)
	resp, err := client.HTTPClient().Do(req)
	must(err)
	defer resp.Body.Close()

	fmt.Println(resp.StatusCode)
	fmt.Println("the request itself is unchanged:", len(req.Header) == 0)
	// Output:
	// 200
	// the request itself is unchanged: true
}

// An instrumentation of the program's own. otelagrenting and promagrenting have ready-made
// ones.
func ExampleWithInstrumentation() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithSession(),
		agrenting.WithInstrumentation(agrenting.Instrumentation{
			Request: func(ctx context.Context, r agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
				return ctx, func(res agrenting.RequestResult) {
					fmt.Println(r.Method, r.Path, r.Purpose, res.StatusCode, "attempts:", res.Attempts)
				}
			},
		}),
	)
	must(err)
	defer client.Close()

	srv.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
	must(err)
	// Output:
	// POST /api/v1/auth/authenticate exchange 200 attempts: 1
	// GET /api/v1/tasks  200 attempts: 2
}

// A library that takes neither an http.Client nor a RoundTripper takes headers. They
// are for one request to one URL. After a 401, Rejected returns renewed ones.
func ExampleClient_Authorize() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithSession(),
	)
	must(err)
	defer client.Close()
	handshake := func(header http.Header) int { // as such a library makes it
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+"/api/v1/tasks", http.NoBody)
		must(err)
		req.Header = header
		resp, err := http.DefaultTransport.RoundTrip(req)
		must(err)
		must(resp.Body.Close())
		return resp.StatusCode
	}

	ctx := context.Background()
	_, err = client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	must(err)
	srv.RevokeSessions() // the platform ends all of them

	auth, err := client.Authorize(ctx, srv.URL+"/api/v1/tasks")
	for err == nil {
		status := handshake(auth.Header())
		fmt.Println(status)
		if status != http.StatusUnauthorized {
			break
		}
		auth, err = auth.Rejected(ctx)
	}
	must(err)

	_, err = client.Authorize(ctx, "wss://elsewhere.example/socket")
	fmt.Println(errors.Is(err, agrenting.ErrForeignOrigin))
	// Output:
	// 401
	// 200
	// true
}

// A reverse proxy that adds the credential to what passes through it.
func ExampleNewTransport() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	target, err := url.Parse(srv.URL)
	must(err)

	transport, err := agrenting.NewTransport(
		agrenting.Static(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithBaseURL(srv.URL),
	)
	must(err)
	defer transport.Close()
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
	})
	defer proxy.Close()

	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, proxy.URL+"/api/v1/tasks", http.NoBody)
	must(err)
	resp, err := proxy.Client().Do(req) // without any credential
	must(err)
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, srv.Requests()[0].Principal == "agent:"+scribe.ID)
	// Output:
	// 200 true
}

// The same errors for callers that use the http.Client.
func ExampleCheckResponse() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client := keyedClient(srv, scribe.ID)
	defer client.Close()

	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+"/api/v1/user/tokens", http.NoBody)
	must(err)
	resp, err := client.HTTPClient().Do(req)
	must(err)
	defer resp.Body.Close()

	err = agrenting.CheckResponse(resp)
	fmt.Println(errors.Is(err, agrenting.ErrForbidden))
	if api, ok := errors.AsType[*agrenting.APIError](err); ok {
		fmt.Println(api.Method, api.Path, api.StatusCode, api.Message)
	}
	// Output:
	// true
	// GET /api/v1/user/tokens 403 this endpoint is for users, not for agents
}

// Pages are fetched as the loop needs them.
func ExampleList() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	for i := range 5 {
		srv.NewAgent(nil, agrentingtest.AgentConfig{Name: fmt.Sprint("Extra ", i)})
	}
	client := keyedClient(srv, scribe.ID)
	defer client.Close()

	type agent struct {
		Name string `json:"name"`
	}
	limit := agrenting.CallQuery(url.Values{"limit": {"3"}})
	for a, err := range agrenting.List[agent](context.Background(), client, "/api/v1/agents", limit) {
		must(err)
		if a.Name == "Extra 1" {
			break
		}
		fmt.Println(a.Name)
	}
	fmt.Println("pages:", srv.Count("GET /api/v1/agents"))
	// Output:
	// Scribe
	// Scout
	// Extra 0
	// pages: 2
}

// Production keys are refused in the sandbox, and vice versa, regardless of their
// source.
func ExampleWithEnvironment() {
	production := agrenting.APIKey("4f1c9a0e5b7d")
	_, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithEnvironment(agrenting.Sandbox),
		agrenting.WithCredential(production),
	)
	fmt.Println(errors.Is(err, agrenting.ErrEnvironmentMismatch))
	// Output:
	// true
}

// What happens to the credential, in order and without secrets.
func ExampleWithObserver() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	current := srv.NewKey(scribe.ID)
	source := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.APIKey(current.Secret), nil
	})
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredentialSource(source),
		agrenting.WithObserver(func(e agrenting.Event) { fmt.Println(e.Type, "because:", e.Reason) }),
	)
	must(err)
	for range 2 {
		_, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
		srv.RevokeKey(current.ID)
		current = srv.NewKey(scribe.ID)
	}
	must(client.Close()) // waits for the last event
	// Output:
	// renewed because: first
	// rejected because: rejected
	// renewed because: rejected
}

// A POST is repeated with the same idempotency key when its response is lost, so
// that the work is done once.
func ExampleCallIdempotencyKey() {
	srv, _, scribe, scout := world()
	defer srv.Close()
	client := keyedClient(srv, scribe.ID)
	defer client.Close()
	srv.Fault("POST /api/v1/tasks", agrentingtest.DropAfter())

	in := map[string]string{"agent_id": scout.ID, "task_type": "search"}
	_, err := client.Do(context.Background(), http.MethodPost, "/api/v1/tasks", in, nil,
		agrenting.CallIdempotencyKey("order-4711")) // a random UUID without it
	must(err)

	fmt.Println("sent:", srv.Count("POST /api/v1/tasks"), "replayed:", srv.Stats().IdempotentReplays)
	// Output:
	// sent: 2 replayed: 1
}

// An agent without a key registers itself. The key is shown this once.
func ExampleAgentService_Register() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	anonymous, err := agrenting.New(agrenting.WithBaseURL(srv.URL), agrenting.WithAnonymous())
	must(err)
	defer anonymous.Close()

	registered, err := anonymous.Agents.Register(context.Background(), agrenting.AgentRegistration{
		Name: "Scribe", DID: "did:agrenting:scribe", Capabilities: []string{"writing"}, PricingModel: "fixed", BasePrice: "1.50",
	})
	must(err)
	fmt.Println(registered.Agent.Name, registered.Credential.Kind(), srv.KeyAlive(registered.Credential.Reveal()))
	// Output:
	// Scribe api key true
}

// Your own http.Client over a redirect to somewhere else: the request
// arrives there bare.
func ExampleTransport() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "key %q, agent %q", r.Header.Get("X-API-Key"), r.Header.Get("X-Agent-ID"))
	}))
	defer elsewhere.Close()
	srv.Fault("GET /api/v1/tasks", agrentingtest.Redirect(http.StatusFound, elsewhere.URL))

	transport, err := agrenting.NewTransport(
		agrenting.Static(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithBaseURL(srv.URL), agrenting.WithAgentID(scribe.ID),
	)
	must(err)
	defer transport.Close()

	client := &http.Client{Transport: transport}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL+"/api/v1/tasks", http.NoBody)
	must(err)
	resp, err := client.Do(req)
	must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(err)
	fmt.Println(string(body))
	// Output:
	// key "", agent ""
}
