package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// From docs/credentials.md: the places where New searches for a credential, without
// values.
func ExampleSources() {
	env := map[string]string{"AGRENTING_API_KEY": "made-up", "AGRENTING_SESSION_TOKEN": "made-up-too"}
	for _, source := range agrenting.Sources(agrenting.WithLookupEnv(func(name string) (string, bool) {
		value, found := env[name]
		return value, found
	})) {
		fmt.Printf("%s: %s\n", source.Name, source.State)
	}
	// Output:
	// AGRENTING_KEY_FILE: not set
	// AGRENTING_API_KEY: used
	// AGRENTING_SESSION_TOKEN: set, but shadowed by AGRENTING_API_KEY
}

// From docs/sessions.md: requests are sent with a session, and succeed although it
// was ended.
func ExampleWithSession() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithSession(),
	)
	must(err)
	defer client.Close()

	for range 2 {
		resp, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
		fmt.Println(resp.StatusCode, "with generation", resp.Generation)
		srv.RevokeSessions() // the platform ends all of them
	}
	fmt.Println(srv.Stats().Authenticates, "exchanges")
	for _, r := range srv.Requests() {
		if r.Path != "/api/v1/hirings/pending" { // where the SDK asks whether a session is dead
			fmt.Println(r.Path, r.CredentialKind, r.Status)
		}
	}
	// Output:
	// 200 with generation 1
	// 200 with generation 2
	// 2 exchanges
	// /api/v1/auth/authenticate api_key 200
	// /api/v1/tasks session 200
	// /api/v1/tasks  401
	// /api/v1/auth/authenticate api_key 200
	// /api/v1/tasks session 200
}

// From docs/sessions.md: processes that share a store make one exchange. The store is
// a folder, and two clients represent two processes.
func ExampleWithSession_shared() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	key := agrenting.APIKey(srv.NewKey(scribe.ID).Secret)
	folder, err := os.MkdirTemp("", "sessions")
	must(err)
	defer func() { must(os.RemoveAll(folder)) }()

	for range 2 {
		store, err := agrenting.FileStore(folder)
		must(err)
		client, err := agrenting.New(
			agrenting.WithBaseURL(srv.URL),
			agrenting.WithCredential(key),
			agrenting.WithSession(agrenting.SessionPolicy{Store: store}),
		)
		must(err)
		_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil)
		must(err)
		must(client.Close())
	}
	fmt.Println(srv.Stats().Authenticates, "exchange")
	// Output: 1 exchange
}

// From docs/stores.md: a key is sealed in a file and rotated on demand. A client that
// is opened later uses the new key, although it is given the old one.
func ExampleSealed() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	folder, err := os.MkdirTemp("", "keys")
	must(err)
	defer func() { must(os.RemoveAll(folder)) }()
	sealing := agrenting.NewSealingKey() // a program reads it with ParseSealingKey
	first := agrenting.APIKey(srv.NewKey(scribe.ID).Secret)

	open := func() *agrenting.Client {
		file, err := agrenting.FileStore(folder)
		must(err)
		sealed, err := agrenting.Sealed(file, "example/keys", sealing)
		must(err)
		client, err := agrenting.New(
			agrenting.WithBaseURL(srv.URL),
			agrenting.WithCredential(first), // the initial key, while the store is empty
			agrenting.WithStore(sealed),
		)
		must(err)
		return client
	}

	client := open()
	rotation, err := client.Rotate(context.Background())
	must(err)
	must(client.Close())
	fmt.Println("from the first:", rotation.From == first.Fingerprint(), "to generation", rotation.Generation)

	client = open()
	defer client.Close()
	now, err := client.Credential(context.Background())
	must(err)
	fmt.Println("still the first:", now.Equal(first))
	content, err := os.ReadFile(filepath.Join(folder, "key.record"))
	must(err)
	fmt.Println("in the file:", strings.Contains(string(content), now.Reveal()))
	fmt.Println("the first is alive:", srv.KeyAlive(first.Reveal()))
	// Output:
	// from the first: true to generation 2
	// still the first: false
	// in the file: false
	// the first is alive: false
}

// From docs/agents.md: the first in the order of precedence wins.
func ExampleCallAgent() {
	srv, user, scribe, scout := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret)),
		agrenting.WithAgentID(scout.ID),
	)
	must(err)
	defer client.Close()

	view := client.As(scribe.ID)
	ctx := context.Background()
	scoutCtx := agrenting.ContextWithAgent(ctx, scout.ID)
	asScribe, header := agrenting.CallAgent(scribe.ID), agrenting.CallHeader("X-Agent-ID", scout.ID)
	for _, call := range []struct {
		client *agrenting.Client
		ctx    context.Context
		opts   []agrenting.CallOption
	}{
		{client, ctx, nil},
		{view, ctx, nil},
		{view, scoutCtx, nil},
		{view, scoutCtx, []agrenting.CallOption{asScribe}},
		{view, scoutCtx, []agrenting.CallOption{asScribe, header}},
	} {
		_, err := call.client.Do(call.ctx, http.MethodGet, "/api/v1/tasks", nil, nil, call.opts...)
		must(err)
		sent := srv.Requests()
		fmt.Println(map[string]string{scribe.ID: "Scribe", scout.ID: "Scout"}[sent[len(sent)-1].AgentID])
	}
	// Output:
	// Scout
	// Scribe
	// Scout
	// Scribe
	// Scout
}

// From docs/migrating.md: code that makes its own requests gets another http.Client.
// It must not set the credential.
func ExampleClient_HTTPClient_migrating() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
	)
	must(err)
	defer client.Close()

	old := client.HTTPClient() // was: &http.Client{Timeout: …}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/api/v1/agents/nobody", http.NoBody)
	must(err)
	resp, err := old.Do(req)
	must(err)
	defer resp.Body.Close()

	err = agrenting.CheckResponse(resp) // was: if resp.StatusCode != 200
	fmt.Println(errors.Is(err, agrenting.ErrNotFound))
	fmt.Println("sent by key:", srv.Requests()[0].CredentialKind, "known to us:", req.Header.Get("X-API-Key") != "")
	// Output:
	// true
	// sent by key: api_key known to us: false
}

// From docs/performance.md: your own transport, with as many idle
// connections as there are requests at once.
func ExampleWithTransport() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	base := agrenting.NewBaseTransport()
	base.MaxIdleConnsPerHost = 500
	defer base.CloseIdleConnections() // it is ours: Close leaves it alone

	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithTransport(base),
	)
	must(err)
	defer client.Close()
	fmt.Println(client.Verify(context.Background()))
	// Output: <nil>
}

// From docs/testing.md: things go wrong as the test says, and the client handles
// it.
func Example_faults() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}),
	)
	must(err)
	defer client.Close()

	srv.Fault("POST /api/v1/tasks", agrentingtest.DropAfter()) // done, but the response is lost
	in := map[string]any{"agent_id": scribe.ID, "task_type": "writing", "input": map[string]any{}}
	resp, err := client.Do(context.Background(), http.MethodPost, "/api/v1/tasks", in, nil)
	must(err)
	fmt.Println(resp.StatusCode, "after", resp.Attempts, "attempts")

	var tasks []struct{}
	_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, &tasks)
	must(err)
	fmt.Println(len(tasks), "task, because both attempts had the same idempotency key")
	// Output:
	// 200 after 2 attempts
	// 1 task, because both attempts had the same idempotency key
}

// From docs/security-model.md: what an error shows, although the platform echoes
// the key and the caller has put it into a query.
func ExampleAPIError() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	key := srv.NewKey(scribe.ID)
	srv.HandlePublic("GET /api/v1/odd", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors": [{"code": "FORBIDDEN", "message": "%s may not"}]}`, r.Header.Get("X-API-Key"))
	}))
	client, err := agrenting.New(agrenting.WithBaseURL(srv.URL), agrenting.WithCredential(agrenting.APIKey(key.Secret)))
	must(err)
	defer client.Close()

	_, err = client.Do(context.Background(), http.MethodGet, "/api/v1/odd?q="+key.Secret, nil, io.Discard)
	fmt.Println(err)
	// Output: agrenting: GET /api/v1/odd: 403 Forbidden: [redacted] may not
}
