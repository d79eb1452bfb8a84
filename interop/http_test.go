package interop_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/go-resty/resty/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/agrenting/agrenting-go"
)

// echoServer responds with what it was sent.
func (w *world) echoServer() string {
	return w.serve(w.guard(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(out, r.Body) // the client may have gone
	})))
}

// post sends a text and wants it back. The body of every second request can be
// had only once, as that of a stream.
func post(ctx context.Context, c *http.Client, target string, n int) error {
	text := fmt.Sprint("message ", n)
	var body io.Reader = strings.NewReader(text)
	once := n%2 == 0
	if once {
		body = struct{ io.Reader }{body}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, body)
	if err != nil {
		return err
	}
	if once {
		// The body stays here until the server has taken the credential.
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := agrenting.CheckResponse(resp); err != nil {
		return err
	}
	return echoed(text, string(answer))
}

func restyClient(w *world) contact {
	target := w.echoServer()
	client := resty.NewWithClient(w.client().HTTPClient())
	return contact{exchange: func(ctx context.Context, n int) error {
		text := fmt.Sprint("message ", n)
		resp, err := client.R().SetContext(ctx).SetBody(text).Post(target)
		if err != nil {
			return err
		}
		if resp.IsError() {
			return fmt.Errorf("%w: %s", errWrongEcho, resp.Status())
		}
		return echoed(text, resp.String())
	}}
}

// reverseProxy is asked by clients without any credential.
func reverseProxy(w *world) contact {
	target, err := url.Parse(w.echoServer())
	require.NoError(w.t, err)
	client := w.client()
	proxy := w.listen(&httputil.ReverseProxy{
		Transport: client.Transport(),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if r.Out.ContentLength != 0 {
				// The body is streamed and can be read only once. It stays
				// with the caller until the server has taken the credential.
				r.Out.Header.Set("Expect", "100-continue")
			}
		},
	})
	caller := &http.Client{Transport: w.base()}
	return contact{exchange: func(ctx context.Context, n int) error { return post(ctx, caller, proxy, n) }}
}

// otelAbove has one span around all that the SDK does for a request.
func otelAbove(w *world) contact {
	target := w.echoServer()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	c := &http.Client{Transport: otelhttp.NewTransport(w.client().Transport(), otelhttp.WithTracerProvider(provider))}
	w.t.Cleanup(func() {
		spans := recorder.Ended()
		assert.Len(w.t, spans, exchanges, "a span for each exchange")
		w.noSecretIn(spans)
	})
	return contact{exchange: func(ctx context.Context, n int) error { return post(ctx, c, target, n) }}
}

// otelBelow has a span for each attempt, and for the calls that the SDK makes by
// itself.
func otelBelow(w *world) contact {
	target := w.echoServer()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	c := w.client(agrenting.WithTransport(otelhttp.NewTransport(w.base(), otelhttp.WithTracerProvider(provider)))).HTTPClient()
	w.t.Cleanup(func() {
		spans := recorder.Ended()
		assert.GreaterOrEqual(w.t, len(spans), exchanges+expiries+w.platform.Count("POST /api/v1/auth/authenticate"),
			"a span for each attempt, including refused ones, and for each session that is obtained")
		w.noSecretIn(spans)
	})
	return contact{exchange: func(ctx context.Context, n int) error { return post(ctx, c, target, n) }}
}

// noSecretIn searches the exported spans for credentials.
func (w *world) noSecretIn(spans []sdktrace.ReadOnlySpan) {
	for _, span := range spans {
		text := fmt.Sprint(span.Name(), span.Attributes(), span.Events(), span.Status())
		for _, r := range w.platform.Requests() {
			for _, name := range []string{"X-Api-Key", "Authorization"} {
				if secret := strings.TrimPrefix(r.Header.Get(name), "Bearer "); secret != "" && strings.Contains(text, secret) {
					w.t.Fatalf("a span shows the credential of %s %s", r.Method, r.Path)
				}
			}
		}
	}
}
