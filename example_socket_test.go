package agrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/agrenting/agrenting-go"
)

// Only the platform sees the credential: the request of the WebSocket library does not
// have it.
func ExampleClient_SocketHTTPClient() {
	platform := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("platform:", r.URL)
	}))
	defer platform.Close()
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(platform.URL),
		agrenting.WithCredential(agrenting.APIKey("not-a-real-key")),
	)
	must(err)
	defer client.Close()

	// A WebSocket library makes a request like this one.
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
		platform.URL+"/socket/agent/websocket?vsn=2.0.0", http.NoBody)
	must(err)
	resp, err := client.SocketHTTPClient().Do(req)
	must(err)
	defer resp.Body.Close()
	fmt.Println("library: ", resp.Request.URL.RequestURI())
	// Output:
	// platform: /socket/agent/websocket?vsn=2.0.0&api_key=not-a-real-key
	// library:  /socket/agent/websocket?vsn=2.0.0
}
