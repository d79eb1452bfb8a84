package otelagrenting_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/otelagrenting"
)

// Three requests: one that succeeds at once, one that the platform fails at first, and one
// whose session has been revoked.
func ExampleOption() {
	platform := agrentingtest.NewServer()
	defer platform.Close()
	key := platform.NewKey(platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	spans := tracetest.NewInMemoryExporter()

	client, err := agrenting.New(
		otelagrenting.Option(otelagrenting.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))),
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(platform.URL),
		agrenting.WithCredential(agrenting.APIKey(key.Secret)),
		agrenting.WithSession(),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	list := func() {
		if _, err := client.Do(context.Background(), http.MethodGet, "/api/v1/tasks", nil, nil); err != nil {
			fmt.Println(err)
		}
	}
	list()
	platform.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	list()
	platform.RevokeSessions()
	list()

	recorded := spans.GetSpans()
	for _, span := range recorded {
		if span.Name != "agrenting GET" {
			continue
		}
		var reasons []string
		for _, attempt := range children(recorded, span) {
			reasons = append(reasons, attr(attempt, otelagrenting.ReasonKey))
		}
		fmt.Println(span.Name, strings.Join(reasons, ", "))
	}
	// Output:
	// agrenting GET first
	// agrenting GET first, retry
	// agrenting GET first, renewed
}
