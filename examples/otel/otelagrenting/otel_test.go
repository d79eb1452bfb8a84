package otelagrenting_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/examples/otel/otelagrenting"
)

const (
	tasks = "/api/v1/tasks"
	// querySecret needs escaping in every way there is.
	querySecret = "sig/+ü&=%:d41d8cd98f00b204e9800998ecf8427e"
)

func TestARenewalIsASecondAttemptWithTheNextGeneration(t *testing.T) {
	t.Parallel()

	w := newWorld(t, otelagrenting.Attempts)
	w.get(w.platform.URL + tasks)

	before, err := w.client.Credential(t.Context())
	require.NoError(t, err)

	w.platform.RevokeSessions()
	w.get(w.platform.URL + tasks)

	after, err := w.client.Credential(t.Context())
	require.NoError(t, err)

	recorded := w.spans.GetSpans()
	requests := named(recorded, "agrenting GET")
	require.Len(t, requests, 2)

	for i, want := range []struct {
		generation, fingerprint string
		statuses                []string
	}{
		{"1", before.Fingerprint(), []string{"200"}},
		{"2", after.Fingerprint(), []string{"401", "200"}},
	} {
		attempts := children(recorded, requests[i])

		var statuses []string
		for _, a := range attempts {
			statuses = append(statuses, attr(a, "http.response.status_code"))
		}

		assert.Equal(t, want.statuses, statuses)
		assert.Equal(t, strconv.Itoa(len(want.statuses)), attr(requests[i], otelagrenting.AttemptsKey))
		assert.Equal(t, want.generation, attr(requests[i], otelagrenting.GenerationKey))
		assert.Equal(t, want.fingerprint, attr(requests[i], otelagrenting.CredentialKey))
		assert.Equal(t, codes.Unset, requests[i].Status.Code)
	}

	assert.NotEqual(t, before.Fingerprint(), after.Fingerprint())

	exchanges := named(recorded, "HTTP POST")
	assert.Len(t, exchanges, 2)

	for _, e := range exchanges {
		assert.False(t, e.Parent.IsValid(), "an exchange belongs to no request")
	}
}

func TestNoSecretReachesASpan(t *testing.T) {
	t.Parallel()

	w := newWorld(t, otelagrenting.Attempts)
	secrets := w.everything()
	recorded := w.spans.GetSpans()

	require.Len(t, named(recorded, "agrenting GET"), 9)
	require.GreaterOrEqual(t, len(secrets), 4, "the key, the query's and two sessions")

	for _, secret := range secrets {
		where, form := find(recorded, secret)
		assert.Empty(t, form, "a secret is in %s, as %s", where, form)
	}
}

// TestTheSearchFindsWhatIsThere keeps the test above honest: without the layer
// that overwrites url.full, it fails.
func TestTheSearchFindsWhatIsThere(t *testing.T) {
	t.Parallel()

	w := newWorld(t, func(base http.RoundTripper, tp trace.TracerProvider) http.RoundTripper {
		return otelhttp.NewTransport(base, otelhttp.WithTracerProvider(tp))
	})
	secrets := w.everything()

	for _, secret := range []string{w.key, querySecret} {
		assert.Contains(t, secrets, secret)

		where, form := find(w.spans.GetSpans(), secret)
		assert.Equal(t, "HTTP GET: attribute url.full", where)
		assert.NotEmpty(t, form)
	}

	raw := []byte("a prefix that shifts it: " + w.key)
	for _, text := range []string{
		w.key, base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw[1:]),
		base64.RawURLEncoding.EncodeToString(raw[2:]), fmt.Sprintf("%X", raw), w.key[len(w.key)-10:],
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
			_, form := find(tracetest.SpanStubs{{}, span}, w.key)
			assert.NotEmpty(t, form, "%s: %s", name, text)
		}
	}
}

func TestAFailureIsRecordedByItsKind(t *testing.T) {
	t.Parallel()

	w := newWorld(t, otelagrenting.Attempts)
	w.platform.Fault("GET "+tasks, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	w.get(w.platform.URL + tasks)
	require.NoError(t, w.client.Close())
	w.get(w.platform.URL + tasks)

	requests := named(w.spans.GetSpans(), "agrenting GET")
	require.Len(t, requests, 2)
	assert.Equal(t, codes.Error, requests[0].Status.Code)
	assert.Equal(t, "4", attr(requests[0], otelagrenting.AttemptsKey))
	assert.Equal(t, "503", attr(requests[0], "http.response.status_code"))
	assert.Equal(t, codes.Error, requests[1].Status.Code)
	assert.Empty(t, requests[1].Status.Description)
	assert.NotEmpty(t, attr(requests[1], "error.type"))
	assert.Empty(t, attr(requests[1], otelagrenting.AttemptsKey), "it was not sent")
}

func TestWhatIsNotThePlatformsHasNoCredential(t *testing.T) {
	t.Parallel()

	w := newWorld(t, otelagrenting.Attempts)
	other := agrentingtest.NewServer()
	t.Cleanup(other.Close)
	w.get(other.URL + "/api/v1/health")

	requests := named(w.spans.GetSpans(), "agrenting GET")
	require.Len(t, requests, 1)
	assert.Empty(t, requests[0].Attributes)
	assert.Len(t, children(w.spans.GetSpans(), requests[0]), 1)
}

func TestTheGlobalProviderIsTheDefault(t *testing.T) {
	t.Parallel()

	w := newWorld(t, func(base http.RoundTripper, _ trace.TracerProvider) http.RoundTripper {
		return otelagrenting.Attempts(base, nil)
	})
	w.http.Transport = otelagrenting.Transport(w.client.Transport(), nil)
	w.get(w.platform.URL + tasks)

	assert.EqualValues(t, 1, w.platform.Stats().Authenticates)
	assert.Empty(t, w.spans.GetSpans())
}

// world is a platform, a client of it, and what was recorded.
type world struct {
	t        *testing.T
	platform *agrentingtest.Server
	key      string
	client   *agrenting.Client
	http     *http.Client
	spans    *tracetest.InMemoryExporter
}

func newWorld(t *testing.T, attempts func(http.RoundTripper, trace.TracerProvider) http.RoundTripper) *world {
	t.Helper()

	w := &world{t: t, platform: agrentingtest.NewServer(), spans: tracetest.NewInMemoryExporter()}
	t.Cleanup(w.platform.Close)

	w.key = w.platform.NewKey(w.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID).Secret
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(w.spans))

	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(w.platform.URL),
		agrenting.WithCredential(agrenting.APIKey(w.key)),
		agrenting.WithSession(),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}),
		agrenting.WithTransport(attempts(w.platform.Transport(), tp)),
	)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })

	w.client, w.http = client, client.HTTPClient()
	w.http.Transport = otelagrenting.Transport(w.http.Transport, tp)

	return w
}

// get reads an answer to its end. That it may fail is a matter of the spans.
func (w *world) get(target string) {
	w.t.Helper()

	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, target, http.NoBody)
	require.NoError(w.t, err)

	resp, err := w.http.Do(req)
	if err != nil {
		return
	}

	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// everything makes nine requests, in all the ways in which they can end, with
// secrets wherever a URL has room for one. It returns the secrets.
func (w *world) everything() []string {
	w.t.Helper()

	first, err := w.client.Credential(w.t.Context())
	require.NoError(w.t, err)

	q := url.Values{
		"key": {w.key}, "session": {first.Reveal()}, "sig": {querySecret},
		"basic": {base64.StdEncoding.EncodeToString([]byte("user:" + w.key))},
	}
	target := w.platform.URL + tasks + "?" + q.Encode()
	withUser := strings.Replace(target, "://", "://user:"+w.key+"@", 1)

	for _, f := range []agrentingtest.Fault{
		agrentingtest.Status(http.StatusServiceUnavailable, ""),
		agrentingtest.Status(http.StatusTooManyRequests, agrentingtest.CodeRateLimited),
		agrentingtest.Status(http.StatusForbidden, agrentingtest.CodeForbidden),
		agrentingtest.MalformedJSON(),
		agrentingtest.ResetMidBody(10),
		agrentingtest.DropAfter().Times(2),
		agrentingtest.RevokeNow(),
	} {
		w.platform.Fault("GET "+tasks, f)
		w.get(target + "#" + url.PathEscape(w.key))
		w.platform.ClearFaults()
	}

	w.platform.RevokeSessions()
	w.get(target)
	w.platform.Close() // connections are refused
	w.get(withUser)

	secrets := []string{querySecret}

	for _, r := range w.platform.Requests() {
		for _, h := range []string{"X-Api-Key", "Authorization"} {
			if v := strings.TrimPrefix(r.Header.Get(h), "Bearer "); v != "" {
				secrets = append(secrets, v)
			}
		}
	}

	slices.Sort(secrets)

	return slices.Compact(secrets)
}

func named(spans tracetest.SpanStubs, name string) tracetest.SpanStubs {
	var out tracetest.SpanStubs

	for _, s := range spans {
		if s.Name == name {
			out = append(out, s)
		}
	}

	return out
}

func children(spans tracetest.SpanStubs, parent tracetest.SpanStub) tracetest.SpanStubs {
	var out tracetest.SpanStubs

	for _, s := range spans {
		if s.Parent.IsValid() && s.Parent.SpanID() == parent.SpanContext.SpanID() {
			out = append(out, s)
		}
	}

	return out
}

// attr is an attribute as text, "" if there is none.
func attr(span tracetest.SpanStub, key attribute.Key) string {
	for _, kv := range span.Attributes {
		if kv.Key == key {
			return kv.Value.String()
		}
	}

	return ""
}

// find says where a secret is in the spans and in which form; "" for nowhere.
func find(spans tracetest.SpanStubs, secret string) (where, form string) {
	forms := formsOf(secret)

	for _, span := range spans {
		texts := map[string]string{
			"name":        span.Name,
			"status":      span.Status.Description,
			"trace state": span.SpanContext.TraceState().String(),
			"scope":       span.InstrumentationScope.Name + " " + span.InstrumentationScope.Version,
			"resource":    span.Resource.String(),
		}
		add := func(what string, attrs []attribute.KeyValue) {
			for _, kv := range attrs {
				texts[what+" "+string(kv.Key)] = string(kv.Key) + "=" + kv.Value.String()
			}
		}
		add("attribute", span.Attributes)

		for _, e := range span.Events {
			texts["event "+e.Name] = e.Name
			add("event "+e.Name, e.Attributes)
		}

		for _, l := range span.Links {
			add("link", l.Attributes)
		}

		for what, text := range texts {
			for part, form := range forms {
				if strings.Contains(text, part) || (form == "hex" && strings.Contains(strings.ToLower(text), part)) {
					return span.Name + ": " + what, form
				}
			}
		}
	}

	return "", ""
}

// formsOf are all the texts that betray a secret: any ten bytes of it, as they
// are, escaped, or encoded, wherever in a longer text they were.
func formsOf(secret string) map[string]string {
	const window = 10

	forms := map[string]string{}

	for i := range len(secret) - window + 1 {
		part := secret[i : i+window]
		forms[part] = "itself"
		forms[url.QueryEscape(part)] = "a query"
		forms[url.PathEscape(part)] = "a path"
		forms[hex.EncodeToString([]byte(part))] = "hex"
	}

	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString(append(make([]byte, shift), secret...))
			// The first and last characters share bits with what is around it.
			for i := 4; i+window < len(text)-4; i++ {
				forms[text[i:i+window]] = "base64"
				forms[url.QueryEscape(text[i:i+window])] = "base64 in a query"
			}
		}
	}

	return forms
}
