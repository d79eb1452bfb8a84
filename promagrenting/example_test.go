package promagrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/promagrenting"
)

// A program serves the registry with promhttp. Here, two of the metrics are compared.
func Example() {
	platform := agrentingtest.NewServer()
	defer platform.Close()
	key := platform.NewKey(platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)

	metrics := promagrenting.New()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	client, err := agrenting.New(metrics.Option(),
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(platform.URL), agrenting.WithCredential(agrenting.APIKey(key.Secret)),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer client.Close()

	platform.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	if _, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}

	fmt.Println(testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP agrenting_requests_total Requests of the program by the class of their final status, or error without a response.
# TYPE agrenting_requests_total counter
agrenting_requests_total{code="2xx"} 1
# HELP agrenting_retries_total Requests sent again after a transient failure.
# TYPE agrenting_retries_total counter
agrenting_retries_total 1
`), "agrenting_requests_total", "agrenting_retries_total"))
	// Output: <nil>
}
