package otelagrenting_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/otelagrenting"
)

// attempts returns some attributes of the spans below a request.
func attempts(recorded tracetest.SpanStubs, request tracetest.SpanStub, keys ...attribute.Key) (out []string) {
	for _, s := range children(recorded, request) {
		var values []string
		for _, k := range keys {
			values = append(values, attr(s, k))
		}
		out = append(out, strings.Join(values, " "))
	}

	return out
}

func TestSpansShowResends(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	_, err := w.client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)
	w.platform.RevokeSessions()
	w.get(w.platform.URL + tasks + "?note=hidden")

	recorded := w.spans.GetSpans()
	requests := named(recorded, "agrenting GET")
	require.Len(t, requests, 2)

	keys := []attribute.Key{
		"http.response.status_code", "http.request.resend_count", otelagrenting.ReasonKey, otelagrenting.GenerationKey,
		otelagrenting.KindKey, otelagrenting.SourceKey,
	}
	assert.Equal(t, []string{"200  first 1 session WithCredential"}, attempts(recorded, requests[0], keys...))
	assert.Equal(t, []string{
		"401  first 1 session WithCredential", "200 1 renewed 2 session WithCredential",
	}, attempts(recorded, requests[1], keys...))
	assert.Equal(t, "2", attr(requests[1], otelagrenting.AttemptsKey))
	assert.Equal(t, codes.Unset, requests[1].Status.Code)

	cred, err := w.client.Credential(t.Context())
	require.NoError(t, err)

	last := children(recorded, requests[1])[1]
	assert.Equal(t, cred.Fingerprint(), attr(last, otelagrenting.FingerprintKey))
	assert.Equal(t, trace.SpanKindClient, last.SpanKind)
	assert.Equal(t, trace.SpanKindInternal, requests[1].SpanKind)
	assert.Equal(t, "GET", last.Name)
	assert.Equal(t, "GET", attr(last, "http.request.method"))
	assert.Equal(t, w.platform.URL+tasks, attr(last, "url.full"))
	assert.Equal(t, w.platform.URL, "http://"+attr(last, "server.address")+":"+attr(last, "server.port"))

	exchanges := named(recorded, "agrenting exchange")
	require.Len(t, exchanges, 2)

	for _, e := range exchanges {
		assert.False(t, e.Parent.IsValid(), "an exchange belongs to no request")
		assert.Equal(t, "exchange", attr(e, otelagrenting.PurposeKey))
		assert.Len(t, children(recorded, e), 1)
	}
}

func TestSpansShowTheKindOfTheCredential(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	_, err := w.client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)

	recorded := w.spans.GetSpans()
	for name, kind := range map[string]string{"agrenting exchange": "api_key", "agrenting GET": "session"} {
		requests := named(recorded, name)
		require.Len(t, requests, 1)
		assert.Equal(t, []string{kind}, attempts(recorded, requests[0], otelagrenting.KindKey))
	}
}

func TestSpansShowWaitsForTheCredential(t *testing.T) {
	t.Parallel()

	for exchange, wait := range map[time.Duration]string{
		0: "", 999 * time.Microsecond: "", time.Millisecond: "0.001", 2 * time.Second: "2",
	} {
		t.Run(exchange.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.platform.Fault("POST "+authenticate, agrentingtest.Delay(exchange).Always())
				for range 2 {
					_, err := w.client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
					require.NoError(t, err)
				}

				recorded := w.spans.GetSpans()
				requests := named(recorded, "agrenting GET")
				require.Len(t, requests, 2)
				assert.Equal(t, []string{wait}, attempts(recorded, requests[0], otelagrenting.WaitKey))
				assert.Equal(t, []string{""}, attempts(recorded, requests[1], otelagrenting.WaitKey), "the session is there")
			})
		})
	}
}

func TestSpansShowRetriesAndFailures(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.platform.Fault("GET "+tasks, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	w.get(w.platform.URL + tasks)
	require.NoError(t, w.client.Close())
	w.get(w.platform.URL + tasks)

	recorded := w.spans.GetSpans()
	requests := named(recorded, "agrenting GET")
	require.Len(t, requests, 2)
	assert.Equal(t, codes.Error, requests[0].Status.Code)
	assert.Equal(t, "4", attr(requests[0], otelagrenting.AttemptsKey))
	assert.Equal(t, "503", attr(requests[0], "http.response.status_code"))
	assert.Equal(t, "503", attr(requests[0], "error.type"))
	assert.Equal(t, []string{"first", "retry", "retry", "retry"}, attempts(recorded, requests[0], otelagrenting.ReasonKey))

	assert.Equal(t, codes.Error, requests[1].Status.Code)
	assert.Empty(t, requests[1].Status.Description)
	assert.NotEmpty(t, attr(requests[1], "error.type"))
	assert.Equal(t, "0", attr(requests[1], otelagrenting.AttemptsKey))
	assert.Empty(t, children(recorded, requests[1]))
}

func TestSpansOfOtherHostsHaveNoCredential(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	other := agrentingtest.NewServer()
	t.Cleanup(other.Close)
	client := w.open(otelagrenting.Option(w.settings...), agrenting.WithTransport(agrenting.NewBaseTransport()))
	resp, err := client.HTTPClient().Get(other.URL + "/api/v1/health")
	require.NoError(t, err)
	resp.Body.Close()

	requests := named(w.spans.GetSpans(), "agrenting GET")
	require.Len(t, requests, 1)
	assert.Equal(t, []string{" "}, attempts(w.spans.GetSpans(), requests[0], otelagrenting.FingerprintKey, otelagrenting.GenerationKey))
}

func TestMethodsOfSpansAreBounded(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	_, err := w.client.Do(t.Context(), "BREW", tasks, nil, nil)
	require.Error(t, err)

	requests := named(w.spans.GetSpans(), "agrenting _OTHER")
	require.Len(t, requests, 1)
	assert.Equal(t, []string{"_OTHER BREW"}, attempts(w.spans.GetSpans(), requests[0], "http.request.method", "http.request.method_original"))
}

func TestNoSecretReachesASpan(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	secrets := w.everything()
	recorded := w.spans.GetSpans()

	require.Len(t, named(recorded, "agrenting GET"), 9)
	require.GreaterOrEqual(t, len(secrets), 4, "the key, the query's and two sessions")

	for _, secret := range secrets {
		where, form := find(recorded, secret)
		assert.Empty(t, form, "a secret is in %s, as %s", where, form)

		for name := range w.values() {
			assert.NotContains(t, name, secret)
		}
	}
}

// TestFindFindsSecrets checks the search of the test above.
func TestFindFindsSecrets(t *testing.T) {
	t.Parallel()

	const key = "ap_0123456789abcdefghij"

	raw := []byte("a prefix that shifts it: " + key)
	for _, text := range []string{
		key, base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw[1:]),
		base64.RawURLEncoding.EncodeToString(raw[2:]), fmt.Sprintf("%X", raw), key[len(key)-10:],
	} {
		for name, span := range map[string]tracetest.SpanStub{
			"the name":        {Name: text},
			"an attribute":    {Attributes: []attribute.KeyValue{attribute.StringSlice("a", []string{text})}},
			"a key":           {Attributes: []attribute.KeyValue{attribute.Bool(text, true)}},
			"an event's name": {Events: []sdktrace.Event{{Name: text}}},
			"an event":        {Events: []sdktrace.Event{{Attributes: []attribute.KeyValue{attribute.String("a", text)}}}},
			"a link":          {Links: []sdktrace.Link{{Attributes: []attribute.KeyValue{attribute.String("a", text)}}}},
			"the status":      {Status: sdktrace.Status{Description: text}},
		} {
			_, form := find(tracetest.SpanStubs{{}, span}, key)
			assert.NotEmpty(t, form, "%s: %s", name, text)
		}
	}
}

func TestContextIsNotPropagatedByDefault(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.get(w.platform.URL + tasks)

	for _, r := range w.platform.Requests() {
		assert.Empty(t, r.Header.Get("Traceparent"))
	}
}

func TestPropagateWritesTheContextOfTheAttempt(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	client := w.open(otelagrenting.Option(w.settings...),
		agrenting.WithTransport(otelagrenting.Propagate(w.platform.Transport(), propagation.TraceContext{})))
	_, err := client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)

	recorded := w.spans.GetSpans()
	span := children(recorded, named(recorded, "agrenting GET")[0])[0].SpanContext
	all := w.platform.Requests()
	assert.Equal(t, fmt.Sprintf("00-%s-%s-01", span.TraceID(), span.SpanID()), all[len(all)-1].Header.Get("Traceparent"))
}

func TestOtelhttpAsTheBaseIsBelowTheAttempts(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	client := w.open(otelagrenting.Option(w.settings...), agrenting.WithTransport(otelhttp.NewTransport(w.platform.Transport(),
		otelhttp.WithTracerProvider(w.tracers), otelhttp.WithPropagators(propagation.TraceContext{}))))
	_, err := client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)

	recorded := w.spans.GetSpans()
	attempt := children(recorded, named(recorded, "agrenting GET")[0])[0]
	require.Len(t, children(recorded, attempt), 1)
	assert.Equal(t, "HTTP GET", children(recorded, attempt)[0].Name)
}

func TestTheGlobalProvidersAreTheDefault(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	_, err := w.open(otelagrenting.Option()).Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)
	assert.Empty(t, w.spans.GetSpans())
}
