package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/agrenting/agrenting-go"
)

// The command of this example prints the content of a file. A program names a vault's command
// here, such as CommandSource("vault", "kv", "get", "-field=key", "secret/agrenting").
func ExampleCommandSource() {
	dir, err := os.MkdirTemp("", "example")
	must(err)
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "output")
	must(os.WriteFile(file, []byte(`{"kind": "session", "secret": "st_5f1c", "expires": "2099-03-01T12:00:00Z"}`), 0o600))
	program, err := os.Executable()
	must(err)

	source := agrenting.CommandSource(program, asCommand, file)

	credential, err := source.Credential(context.Background())
	must(err)
	fmt.Println(credential.Kind(), "until", credential.Expires().Format(time.DateOnly))
	// Output: session until 2099-03-01
}

// A mounted secret is used if there is one, and else a command is asked.
func ExampleChain() {
	source := agrenting.Chain(
		agrenting.FileSource("/run/secrets/agrenting-that-is-not-mounted"),
		agrenting.Static(agrenting.APIKey("key-of-the-command")),
	)

	credential, err := source.Credential(context.Background())
	must(err)
	fmt.Println(credential.Reveal())

	_, err = agrenting.Chain(agrenting.FileSource("")).Credential(context.Background())
	fmt.Println(errors.Is(err, agrenting.ErrNoCredential), err)
	// Output:
	// key-of-the-command
	// true agrenting: no credential: source 1: the path of the key file is empty
}

// The vault gives no expiry, so it is asked every five minutes.
func ExampleRefreshEvery() {
	vault := agrenting.CommandSource("vault", "kv", "get", "-field=key", "secret/agrenting")

	source := agrenting.RefreshEvery(vault, 5*time.Minute)

	fmt.Println(source)
	// Output: agrenting.RefreshEvery(CommandSource("vault"), 5m0s)
}

// A key that was created with a lifetime.
func ExampleCredential_WithExpiry() {
	created := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	key := agrenting.APIKey("0f1e2d3c").WithExpiry(created.Add(30 * 24 * time.Hour))

	fmt.Println(key)
	// Output: agrenting.Credential(api key, sha256:7bb9417802, expires 2026-03-31T12:00:00Z)
}

// Another SDK sends its own key, and the platform gets ours.
func ExampleWithCredentialOverride() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithCredentialOverride(),
	)
	must(err)
	defer client.Close()

	req, err := http.NewRequest(http.MethodGet, srv.URL+"/api/v1/agents", http.NoBody)
	must(err)
	req.Header.Set("Authorization", "Bearer placeholder") // what the other SDK does
	resp, err := client.HTTPClient().Do(req)
	must(err)
	resp.Body.Close()
	fmt.Println(resp.StatusCode, srv.Requests()[0].Header.Values("Authorization"))
	// Output: 200 []
}

// A search is answered soon or not at all, and is not repeated while the platform is being
// maintained.
func ExampleCallTimeout() {
	srv, _, scribe, _ := world()
	defer srv.Close()
	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{
			Decide: func(o agrenting.RetryOutcome) bool { return o.Retry && o.StatusCode != http.StatusServiceUnavailable },
		}),
	)
	must(err)
	defer client.Close()

	resp, err := client.Do(context.Background(), http.MethodGet, "/api/v1/agents", nil, nil, agrenting.CallTimeout(5*time.Second))
	must(err)
	fmt.Println(resp.StatusCode, resp.Attempts)
	// Output: 200 1
}
