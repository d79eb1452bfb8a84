// Package otelagrenting shows how to trace requests of the SDK with
// OpenTelemetry. Copy it; it is an example and has no version of its own.
//
// There are two layers, one on either side of the SDK's transport:
//
//	client, err := agrenting.New(
//		agrenting.WithSession(),
//		agrenting.WithTransport(otelagrenting.Attempts(base, tp)),
//	)
//	…
//	hc := client.HTTPClient()
//	hc.Transport = otelagrenting.Transport(hc.Transport, tp)
//
// [Transport] makes one span for each request of the program, which tells how
// often it was sent and with which credential. Under it, [Attempts] makes one
// span for each time it was on the wire. Both layers are needed: from above,
// retries and replays cannot be seen, and from below, they cannot be told from
// other requests.
//
// The SDK's own exchanges of keys for sessions are spans of [Attempts] too.
// They belong to no request, since many may wait for one, and so each begins a
// trace of its own.
//
// [agrenting.Client.Do] does not pass through Transport: start a span around it
// and take Attempts, Generation and Fingerprint from its Response.
//
// # Secrets
//
// Credentials travel in headers, and neither layer records any of these. A
// credential is shown by its fingerprint, which cannot be turned back. Query
// strings can carry secrets too, and otelhttp records them in url.full: Attempts
// overwrites that. Paths are recorded as they are.
package otelagrenting

import (
	"net/http"
	"net/url"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/agrenting/agrenting-go"
)

// Attributes of the spans of [Transport].
const (
	// AttemptsKey is how often the request was sent.
	AttemptsKey = attribute.Key("agrenting.attempts")
	// GenerationKey counts the credentials that the client has had in use, up
	// to the one that the request was last sent with.
	GenerationKey = attribute.Key("agrenting.generation")
	// CredentialKey is the fingerprint of that credential.
	CredentialKey = attribute.Key("agrenting.credential")
)

// Transport returns base, which is the transport of an [agrenting.Client], with
// a span for each request. A nil tp is the global provider.
//
// The span ends when the header of the answer is there; the last attempt's span
// ends with the body and may outlast it. The attributes are missing where the
// SDK added no credential: elsewhere than at the platform, and where the
// caller's own is used. An [agrenting.Trace] that the caller put into the
// context stays empty.
func Transport(base http.RoundTripper, tp trace.TracerProvider) http.RoundTripper {
	if tp == nil {
		tp = otel.GetTracerProvider()
	}
	return &transport{base: base, tracer: tp.Tracer("github.com/agrenting/agrenting-go/examples/otel")}
}

type transport struct {
	base   http.RoundTripper
	tracer trace.Tracer
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, span := t.tracer.Start(req.Context(), "agrenting "+req.Method)
	defer span.End()

	var tr agrenting.Trace
	resp, err := t.base.RoundTrip(req.WithContext(agrenting.ContextWithTrace(ctx, &tr)))

	if tr.Attempts > 0 {
		span.SetAttributes(AttemptsKey.Int(tr.Attempts))
	}
	if tr.Fingerprint != "" {
		span.SetAttributes(
			GenerationKey.Int64(int64(tr.Generation)), // #nosec G115 -- nobody renews that often
			CredentialKey.String(tr.Fingerprint),
		)
	}
	switch {
	case err != nil:
		// The type only: texts of errors may quote URLs and what a peer sent.
		span.SetAttributes(semconv.ErrorType(err))
		span.SetStatus(codes.Error, "")
	case resp.StatusCode >= http.StatusBadRequest:
		span.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
		span.SetStatus(codes.Error, "")
	}
	return resp, err
}

// Attempts returns base with a span for each request on the wire, which is
// otelhttp's but for the query string. It is meant for
// [agrenting.WithTransport]. A nil tp is the global provider.
//
// When base fails, otelhttp records the text of its error. Those of an
// [http.Transport] quote neither headers nor query strings of the request, but
// may quote an answer that is not HTTP.
func Attempts(base http.RoundTripper, tp trace.TracerProvider) http.RoundTripper {
	return otelhttp.NewTransport(withoutQuery{base}, otelhttp.WithTracerProvider(tp))
}

// withoutQuery runs within the span of otelhttp, which has set url.full by
// then. The later value of an attribute replaces the earlier one.
type withoutQuery struct{ base http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t withoutQuery) RoundTrip(req *http.Request) (*http.Response, error) {
	// What may be shown is picked, so that nothing else of a URL is forgotten.
	shown := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path, RawPath: req.URL.RawPath}
	trace.SpanFromContext(req.Context()).SetAttributes(semconv.URLFull(shown.String()))
	return t.base.RoundTrip(req)
}
