package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The examples show what programs say, and programs are in an environment; this
// one has nothing that would change what they do. Only the SDK's own variables
// go: tests tell child processes what they are by others.
var _ = withoutVariables()

func withoutVariables() error {
	var errs []error
	for _, name := range []string{
		"AGRENTING_ENV", "AGRENTING_AGENT_ID", "AGRENTING_URL", "AGRENTING_CREDENTIAL_TYPE",
		"AGRENTING_KEY_FILE", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY", "AGRENTING_SESSION_TOKEN",
	} {
		errs = append(errs, os.Unsetenv(name))
	}
	return errors.Join(errs...)
}

// must keeps examples short; programs look at their errors.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// world is an embedded platform with a user and two of her agents.
func world() (srv *agrentingtest.Server, user *agrentingtest.User, scribe, scout *agrentingtest.Agent) {
	srv = agrentingtest.NewServer()
	user = srv.NewUser("Ada")
	scribe = srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}})
	scout = srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scout", Capabilities: []string{"search"}})
	return srv, user, scribe, scout
}

// Without options everything comes from the environment. WithLookupEnv is used
// for it here; a program says agrenting.New().
func Example() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	env := map[string]string{
		"AGRENTING_URL":     srv.URL,
		"AGRENTING_API_KEY": srv.NewKey(scribe.ID).Secret,
	}

	client, err := agrenting.New(agrenting.WithLookupEnv(func(name string) (string, bool) {
		value, found := env[name]
		return value, found
	}))
	must(err)
	defer client.Close()

	for agent, err := range client.Agents.List(context.Background()) {
		must(err)
		fmt.Println(agent.Name, agent.Capabilities)
	}
	// Output:
	// Scribe [writing]
	// Scout [search]
}

func ExampleWithCredential() {
	srv, _, scribe, _ := world()
	defer srv.Close()

	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
	)
	must(err)
	defer client.Close()

	agent, err := client.Agents.Get(context.Background(), scribe.DID)
	must(err)
	fmt.Println(agent.Name)

	sent := srv.Requests()[0]
	fmt.Println("in X-API-Key:", sent.Header.Get("X-API-Key") != "")
	fmt.Println("in Authorization:", sent.Header.Get("Authorization") != "")
	// Output:
	// Scribe
	// in X-API-Key: true
	// in Authorization: false
}

// A user acts as one agent or another; the views share credentials and
// connections.
func ExampleClient_As() {
	srv, user, scribe, scout := world()
	defer srv.Close()

	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret)),
	)
	must(err)
	defer client.Close()

	asScribe, asScout := client.As(scribe.ID), client.As(scout.ID)
	for _, view := range []*agrenting.Client{asScribe, asScout} {
		_, err := view.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
	}
	for _, sent := range srv.Requests() {
		fmt.Println(sent.AgentID == scribe.ID, sent.AgentID == scout.ID)
	}
	// Output:
	// true false
	// false true
}

// If requests are made for different agents, the context says for which.
func ExampleContextWithAgent() {
	srv, user, scribe, scout := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret)),
		agrenting.WithAgentID(scribe.ID),
	)
	must(err)
	defer client.Close()

	ctx := agrenting.ContextWithAgent(context.Background(), scout.ID)
	_, err = client.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
	must(err)

	id, found := agrenting.AgentFromContext(ctx)
	fmt.Println(id == scout.ID, found)
	fmt.Println(srv.Requests()[0].Header.Get("X-Agent-ID") == scout.ID)
	// Output:
	// true true
	// true
}

// A mounted secret is read again when it changes, and when the platform rejects
// what it held.
func ExampleFileSource() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	dir, err := os.MkdirTemp("", "agrenting")
	must(err)
	defer func() { must(os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "key")
	old := srv.NewKey(scribe.ID)
	must(os.WriteFile(path, []byte(old.Secret+"\n"), 0o600))

	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredentialSource(agrenting.FileSource(path)),
	)
	must(err)
	defer client.Close()
	get := func() {
		resp, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
		fmt.Println(resp.StatusCode, "with generation", resp.Generation)
	}

	get()
	must(os.WriteFile(path, []byte(srv.NewKey(scribe.ID).Secret+"\n"), 0o600))
	srv.RevokeKey(old.ID)
	get()
	// Output:
	// 200 with generation 1
	// 200 with generation 2
}

// Your own source: a vault, a sidecar, or anything else that yields a credential. It is
// asked once for all requests, and again after a 401, which no caller sees.
func ExampleCredentialSourceFunc() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	current := srv.NewKey(scribe.ID)
	vault := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.ParseCredential(current.Secret)
	})

	client, err := agrenting.New(agrenting.WithBaseURL(srv.URL), agrenting.WithCredentialSource(vault))
	must(err)
	defer client.Close()

	for range 2 {
		resp, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
		fmt.Println("the caller sees", resp.StatusCode)
		// The owner replaces the key.
		srv.RevokeKey(current.ID)
		current = srv.NewKey(scribe.ID)
	}
	for _, r := range srv.Requests() {
		if r.Path == "/api/v1/tasks" { // the SDK also asks whether the key is dead
			fmt.Println("the platform saw", r.Status)
		}
	}
	// Output:
	// the caller sees 200
	// the caller sees 200
	// the platform saw 200
	// the platform saw 401
	// the platform saw 200
}

func ExampleClient_Do() {
	srv, _, scribe, scout := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
	)
	must(err)
	defer client.Close()
	ctx := context.Background()

	var task struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	in := map[string]any{"agent_id": scout.ID, "task_type": "search", "input": map[string]string{"query": "gophers"}}
	resp, err := client.Do(ctx, http.MethodPost, "/api/v1/tasks", in, &task)
	must(err)
	fmt.Println(resp.StatusCode, task.Status, "with a request id:", resp.RequestID != "")

	_, err = client.Do(ctx, http.MethodGet, "/api/v1/tasks/unknown", nil, &task)
	if api, ok := errors.AsType[*agrenting.APIError](err); ok {
		fmt.Println(errors.Is(err, agrenting.ErrNotFound), api.Code, "with a request id:", api.RequestID != "")
	}
	// Output:
	// 201 pending with a request id: true
	// true NOT_FOUND with a request id: true
}

func ExampleNoCredentialError() {
	_, err := agrenting.New(agrenting.WithoutEnvironment())
	if none, ok := errors.AsType[*agrenting.NoCredentialError](err); ok {
		for _, source := range none.Tried {
			fmt.Printf("%s: %s\n", source.Name, source.State)
		}
	}
	// Output:
	// AGRENTING_KEY_FILE: not set
	// AGRENTING_API_KEY: not set
	// AGRENTING_SESSION_TOKEN: not set
}

// A credential prints as a summary whatever holds it. Reveal is the only way to
// the secret.
func ExampleCredential() {
	key := agrenting.APIKey("sk_sandbox_4f1c9a")
	holder := struct{ Key agrenting.Credential }{key}

	fmt.Println(key)
	fmt.Printf("%+v\n", holder)
	fmt.Println(len(key.Reveal()), key.Kind(), key.Environment())
	// Output:
	// agrenting.Credential(api key, sandbox, sha256:8e21ed2787)
	// {Key:agrenting.Credential(api key, sandbox, sha256:8e21ed2787)}
	// 17 api key sandbox
}
