package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// A readiness probe, before and after the key is revoked.
func ExampleClient_ReadyHandler() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "writer"}).ID)
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(key.Secret)))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	mux := http.NewServeMux()
	mux.Handle("/readyz", client.ReadyHandler())
	probe := func() int {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/readyz", nil))
		return w.Code
	}

	fmt.Println(probe(), client.Status().State)
	srv.RevokeKey(key.ID)
	err = client.Verify(context.Background())
	fmt.Println(probe(), client.Status().State, errors.Is(err, agrenting.ErrUnauthorized))

	// Output:
	// 200 ready
	// 503 rejected true
}
