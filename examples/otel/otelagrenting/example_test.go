package otelagrenting_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/examples/otel/otelagrenting"
)

// Three requests: an ordinary one, one that the platform fails at first, and one
// whose session has been revoked meanwhile.
func ExampleTransport() {
	platform := agrentingtest.NewServer()
	defer platform.Close()
	key := platform.NewKey(platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)

	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))

	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(platform.URL),
		agrenting.WithCredential(agrenting.APIKey(key.Secret)),
		agrenting.WithSession(),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}),
		agrenting.WithTransport(otelagrenting.Attempts(platform.Transport(), tp)),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	hc := client.HTTPClient()
	hc.Transport = otelagrenting.Transport(hc.Transport, tp)
	list := func() {
		resp, err := hc.Get(platform.URL + "/api/v1/tasks?cursor=not-for-everybody")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}

	list()
	platform.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	list()
	platform.RevokeSessions()
	list()

	recorded := spans.GetSpans()
	var attempts []tracetest.SpanStub
	for _, span := range recorded {
		if !strings.HasPrefix(span.Name, "agrenting ") {
			continue
		}
		attempts = children(recorded, span)
		fmt.Printf("%s: attempts %s, generation %s, attempt spans %d\n", span.Name,
			attr(span, otelagrenting.AttemptsKey), attr(span, otelagrenting.GenerationKey), len(attempts))
	}

	// The URL of an attempt has no query string.
	fmt.Println(strings.TrimPrefix(attr(attempts[len(attempts)-1], "url.full"), platform.URL))
	// Output:
	// agrenting GET: attempts 1, generation 1, attempt spans 1
	// agrenting GET: attempts 2, generation 1, attempt spans 2
	// agrenting GET: attempts 2, generation 2, attempt spans 2
	// /api/v1/tasks
}
