package interop_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/httptrace/otelhttptrace"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/agrenting/agrenting-go"
)

// The client trace of OpenTelemetry writes the headers of requests into spans.
func TestClientTraceShowsNoCredential(t *testing.T) {
	t.Parallel()
	const key = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"
	for name, opts := range map[string][]otelhttptrace.ClientTraceOption{
		"default":          nil,
		"all headers":      {otelhttptrace.WithInsecureHeaders()},
		"without subspans": {otelhttptrace.WithoutSubSpans(), otelhttptrace.WithInsecureHeaders()},
	} {
		for _, http2 := range []bool{false, true} {
			var sent string
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sent = r.Header.Get("X-Api-Key")
				w.WriteHeader(http.StatusNoContent)
			}))
			srv.EnableHTTP2 = http2
			srv.StartTLS()
			recorder := tracetest.NewSpanRecorder()
			provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
			client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
				agrenting.WithTransport(srv.Client().Transport), agrenting.WithCredential(agrenting.APIKey(key)))
			require.NoError(t, err)
			traced := &http.Client{Transport: otelhttp.NewTransport(client.Transport(), otelhttp.WithTracerProvider(provider),
				otelhttp.WithClientTrace(func(ctx context.Context) *httptrace.ClientTrace {
					return otelhttptrace.NewClientTrace(ctx, append(opts, otelhttptrace.WithTracerProvider(provider))...)
				}))}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/x", http.NoBody)
			require.NoError(t, err)
			resp, err := traced.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			srv.Close()
			require.NoError(t, client.Close())
			assert.Equal(t, key, sent, name)
			var spans strings.Builder
			for _, span := range tracetest.SpanStubsFromReadOnlySpans(recorder.Ended()) {
				attributes := span.Attributes
				for _, e := range span.Events {
					attributes = append(attributes, e.Attributes...)
				}
				for _, kv := range attributes {
					fmt.Fprintf(&spans, "%s=%s\n", kv.Key, kv.Value.String())
				}
			}
			headers := spans.String()
			assert.NotContains(t, headers, key, name)
			assert.Contains(t, headers, "[redacted]", name)
		}
	}
}
