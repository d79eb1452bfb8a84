package otelagrenting_test

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/otelagrenting"
)

const (
	tasks        = "/api/v1/tasks"
	authenticate = "/api/v1/auth/authenticate"
	// querySecret needs escaping in every way there is.
	querySecret = "sig/+ü&=%:d41d8cd98f00b204e9800998ecf8427e"
)

// world is a platform, a client of it, and what was recorded.
type world struct {
	t        *testing.T
	platform *agrentingtest.Server
	agent    string
	key      string
	settings []otelagrenting.Setting
	client   *agrenting.Client
	http     *http.Client
	spans    *tracetest.InMemoryExporter
	tracers  *sdktrace.TracerProvider
	reader   *sdkmetric.ManualReader
}

func newWorld(t *testing.T) *world {
	t.Helper()

	w := &world{
		t: t, platform: agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()),
		spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader(),
	}
	t.Cleanup(w.platform.Close)

	w.agent = w.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID
	w.key = w.platform.NewKey(w.agent).Secret
	w.tracers = sdktrace.NewTracerProvider(sdktrace.WithSyncer(w.spans))
	w.settings = []otelagrenting.Setting{
		otelagrenting.WithTracerProvider(w.tracers),
		otelagrenting.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader))),
	}
	w.client = w.open(otelagrenting.Option(w.settings...))
	w.http = w.client.HTTPClient()

	return w
}

// open returns another client.
func (w *world) open(opts ...agrenting.Option) *agrenting.Client {
	w.t.Helper()

	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(w.platform.URL),
		agrenting.WithCredential(agrenting.APIKey(w.key)),
		agrenting.WithSession(),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}),
		agrenting.WithTransport(w.platform.Transport()),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })

	return c
}

// get reads a response to its end. The spans show whether it failed.
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

// everything makes nine requests, in all the ways in which they can end, with secrets
// wherever a URL has room for one. It returns the secrets.
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

// values are the measurements by name and attributes, those of histograms by count.
func (w *world) values() map[string]float64 {
	w.t.Helper()

	var all metricdata.ResourceMetrics
	require.NoError(w.t, w.reader.Collect(w.t.Context(), &all))

	out := map[string]float64{}

	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			name := func(set attribute.Set) string {
				text := strings.TrimPrefix(m.Name, "agrenting.")
				if set.Len() > 0 {
					text += "{" + set.Encoded(attribute.DefaultEncoder()) + "}"
				}
				return text
			}

			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					out[name(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					out[name(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					out[name(p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					out[name(p.Attributes)] = float64(p.Count)
				}
			}
		}
	}

	return out
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

// find returns where a secret is in the spans and in which form; "" for nowhere.
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

// formsOf are all texts that reveal a secret: any ten bytes of it, unchanged, escaped, or
// encoded, wherever in a longer text they were.
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
