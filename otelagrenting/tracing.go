package otelagrenting

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/agrenting/agrenting-go"
)

// The attributes that are not in the semantic conventions.
const (
	AttemptsKey    = attribute.Key("agrenting.attempts")
	RequestIDKey   = attribute.Key("agrenting.request_id")
	PurposeKey     = attribute.Key("agrenting.purpose")
	ReasonKey      = attribute.Key("agrenting.attempt.reason")
	GenerationKey  = attribute.Key("agrenting.credential.generation")
	KindKey        = attribute.Key("agrenting.credential.kind")
	FingerprintKey = attribute.Key("agrenting.credential.fingerprint")
	SourceKey      = attribute.Key("agrenting.credential.source")
	WaitKey        = attribute.Key("agrenting.credential.wait")
)

const scope = "github.com/agrenting/agrenting-go/otelagrenting"

type config struct {
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	attrs   []attribute.KeyValue
}

// A Setting configures [Option].
type Setting func(*config)

// WithTracerProvider uses p for spans. The default is that of [otel.GetTracerProvider].
func WithTracerProvider(p trace.TracerProvider) Setting {
	return func(c *config) { c.tracers = p }
}

// WithMeterProvider uses p for metrics. The default is that of [otel.GetMeterProvider].
func WithMeterProvider(p metric.MeterProvider) Setting {
	return func(c *config) { c.meters = p }
}

// WithAttributes adds attributes to all spans and metrics, for example to tell clients apart.
func WithAttributes(attrs ...attribute.KeyValue) Setting {
	return func(c *config) { c.attrs = append(c.attrs, attrs...) }
}

// Option returns the option that traces and measures a client. Give it to [agrenting.New] or
// [agrenting.NewTransport]. The same option may be given to several clients: gauges then
// describe all of them, and agrenting.key.age is the age of the oldest key. Clients with separate
// options need different [WithAttributes]. An instrument that the provider refuses is
// reported to [otel.Handle].
func Option(settings ...Setting) agrenting.Option {
	cfg := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, set := range settings {
		set(&cfg)
	}
	t := &tracing{tracer: cfg.tracers.Tracer(scope, trace.WithInstrumentationVersion(agrenting.Version)), attrs: cfg.attrs}
	m := newMetrics(cfg.meters.Meter(scope, metric.WithInstrumentationVersion(agrenting.Version)), cfg.attrs)
	return agrenting.WithInstrumentation(agrenting.Instrumentation{
		Request: func(ctx context.Context, r agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
			ctx, end := t.request(ctx, r)
			return ctx, func(res agrenting.RequestResult) {
				m.request(ctx, r, res) // in the span, for exemplars
				end(res)
			}
		},
		Attempt: func(ctx context.Context, a agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
			m.attempt(ctx, a)
			return t.attempt(ctx, a)
		},
		Event: m.event,
		Start: m.start,
	})
}

type tracing struct {
	tracer trace.Tracer
	attrs  []attribute.KeyValue // of all spans
}

// requestKey is the key of the RequestInfo in the context of a request.
type requestKey struct{}

func (t *tracing) request(ctx context.Context, r agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
	name := "agrenting " + method(r.Method)
	attrs := slices.Clone(t.attrs)
	if r.Purpose != "" {
		name = "agrenting " + r.Purpose
		attrs = append(attrs, PurposeKey.String(r.Purpose))
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(attrs...))
	return context.WithValue(ctx, requestKey{}, r), func(res agrenting.RequestResult) {
		defer span.End()
		span.SetAttributes(AttemptsKey.Int(res.Attempts))
		if res.RequestID != "" {
			span.SetAttributes(RequestIDKey.String(res.RequestID))
		}
		end(span, res.StatusCode, res.Err)
	}
}

func (t *tracing) attempt(ctx context.Context, a agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
	r, _ := ctx.Value(requestKey{}).(agrenting.RequestInfo)
	attrs := append(slices.Clone(t.attrs), address(r)...)
	attrs = append(attrs, semconv.HTTPRequestMethodKey.String(method(r.Method)), ReasonKey.String(a.Reason))
	if method(r.Method) != r.Method {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(r.Method))
	}
	if a.Number > 1 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(a.Number-1))
	}
	if a.Fingerprint != "" {
		kind := strings.ReplaceAll(a.Kind.String(), " ", "_")
		attrs = append(attrs, KindKey.String(kind), FingerprintKey.String(a.Fingerprint))
	}
	if a.Generation > 0 {
		attrs = append(attrs, GenerationKey.Int64(int64(a.Generation)), SourceKey.String(a.Source)) // #nosec G115 -- it counts renewals
	}
	if a.Waited >= time.Millisecond { // below is the time that the SDK itself takes
		attrs = append(attrs, WaitKey.Float64(a.Waited.Seconds()))
	}
	ctx, span := t.tracer.Start(ctx, method(r.Method), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	return ctx, func(res agrenting.AttemptResult) {
		defer span.End()
		end(span, res.StatusCode, res.Err)
	}
}

// address are the attributes of the URL. A query string and user information are not in it.
func address(r agrenting.RequestInfo) []attribute.KeyValue {
	u := url.URL{Scheme: r.Scheme, Host: r.Host}
	attrs := []attribute.KeyValue{semconv.URLFull(u.String() + r.Path), semconv.ServerAddress(u.Hostname())}
	port, err := strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case r.Scheme == "http":
		port = 80
	default:
		port = 443
	}
	return append(attrs, semconv.ServerPort(port))
}

// end records a status or an error: its type only, because texts of errors may quote what a
// server sent.
func end(span trace.Span, status int, err error) {
	switch {
	case err != nil:
		span.SetAttributes(semconv.ErrorType(err))
	case status == 0: // the base transport panicked
		span.SetAttributes(semconv.ErrorTypeOther)
	default:
		span.SetAttributes(semconv.HTTPResponseStatusCode(status))
		if status < http.StatusBadRequest {
			return
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
	}
	span.SetStatus(codes.Error, "")
}

// method returns the method in the form of the semantic conventions: one of a known few.
func method(m string) string {
	switch m {
	case http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
		http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodTrace:
		return m
	default:
		return "_OTHER"
	}
}

// Propagate returns base with the trace context of each attempt in the headers of its request,
// written by p. It makes no spans. A nil p is that of [otel.GetTextMapPropagator], which
// writes nothing unless the program has set one. Use it with [agrenting.WithTransport]:
//
//	agrenting.WithTransport(otelagrenting.Propagate(agrenting.NewBaseTransport(), propagation.TraceContext{}))
//
// The platform and all other hosts of the client's requests receive the headers.
func Propagate(base http.RoundTripper, p propagation.TextMapPropagator) http.RoundTripper {
	if p == nil {
		p = otel.GetTextMapPropagator()
	}
	return &propagating{base, p}
}

type propagating struct {
	base       http.RoundTripper
	propagator propagation.TextMapPropagator
}

// RoundTrip implements [http.RoundTripper].
func (t *propagating) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	t.propagator.Inject(req.Context(), propagation.HeaderCarrier(out.Header))
	return t.base.RoundTrip(out)
}

// CloseIdleConnections closes the idle connections of the base.
func (t *propagating) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
