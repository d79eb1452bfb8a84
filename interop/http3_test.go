package interop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// The contract of http.RoundTripper over HTTP/3; the root module has the same tests for
// the protocols of net/http.

// http3World is a server of HTTP/3 and a transport of the SDK over it.
type http3World struct {
	url string
	tr  *agrenting.Transport

	mu   sync.Mutex
	seen []string // the credential of each attempt
}

// newHTTP3World returns a world whose client starts with a dead credential. The first
// request with the next one gets a 503.
func newHTTP3World(t *testing.T, next http.HandlerFunc) *http3World {
	t.Helper()
	certified := httptest.NewUnstartedServer(http.NotFoundHandler())
	certified.StartTLS() // for its certificate
	t.Cleanup(certified.Close)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())

	w := &http3World{}
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	w.url = "https://" + conn.LocalAddr().String()
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(certified.TLS.Clone()),
		Logger:    slog.New(slog.DiscardHandler),
		Handler:   w.guard(next),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	base := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	t.Cleanup(func() {
		assert.NoError(t, base.Close())
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
		assert.NoError(t, conn.Close())
	})

	keys := []string{"k1", "k2"}
	src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		key := keys[0]
		keys = keys[len(keys)-1:]
		return agrenting.APIKey(key), nil
	})
	w.tr, err = agrenting.NewTransport(src, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.url),
		agrenting.WithTransport(base), agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.tr.Close()) })
	return w
}

func (w *http3World) guard(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Api-Key")
		if strings.HasSuffix(r.URL.Path, "/pending") { // the SDK asks about the credential
			if key != "k2" {
				out.WriteHeader(http.StatusUnauthorized)
			}
			_, _ = io.WriteString(out, `{"data":[]}`)
			return
		}
		w.mu.Lock()
		w.seen = append(w.seen, key)
		busy := len(w.seen) == 2
		w.mu.Unlock()
		out.Header().Set("Link", "</style.css>; rel=preload")
		out.WriteHeader(http.StatusEarlyHints)
		switch {
		case key != "k2":
			_, _ = io.Copy(io.Discard, r.Body)
			out.WriteHeader(http.StatusUnauthorized)
		case busy:
			_, _ = io.Copy(io.Discard, r.Body)
			out.WriteHeader(http.StatusServiceUnavailable)
		default:
			next(out, r)
		}
	})
}

func (w *http3World) attempts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// summedBody sets a trailer of its request at its end.
type summedBody struct {
	io.Reader
	trailer http.Header
}

func (s summedBody) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		s.trailer.Set("X-Sum", "of the request")
	}
	return n, err
}

func (summedBody) Close() error { return nil }

func TestHTTP3RequestsAreSentAgain(t *testing.T) {
	t.Parallel()
	w := newHTTP3World(t, func(out http.ResponseWriter, r *http.Request) {
		assert.Equal(t, 3, r.ProtoMajor)
		out.Header().Set("Trailer", "X-Answer-Sum")
		b, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		_, _ = io.WriteString(out, string(b)+" with "+r.Trailer.Get("X-Sum"))
		out.Header().Set("X-Answer-Sum", "of the response")
	})
	var hints []int
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		hints = append(hints, code)
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, w.url+"/x", http.NoBody)
	require.NoError(t, err)
	req.Trailer = http.Header{"X-Sum": nil}
	req.ContentLength = -1
	req.GetBody = func() (io.ReadCloser, error) { return summedBody{strings.NewReader("body"), req.Trailer}, nil }
	req.Body, _ = req.GetBody()
	resp, err := w.tr.RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, 3, resp.ProtoMajor)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "body with of the request", string(b))
	assert.Equal(t, http.Header{"X-Answer-Sum": {"of the response"}}, resp.Trailer)
	assert.Equal(t, []string{"k1", "k2", "k2"}, w.attempts())
	assert.Equal(t, []int{103, 103, 103}, hints)
}

func TestHTTP3CanceledRequestIsNotSentAgain(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	w := newHTTP3World(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	reason := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(reason)
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/x", http.NoBody)
	require.NoError(t, err)
	resp, err := w.tr.RoundTrip(req)
	if resp != nil {
		_ = resp.Body.Close()
	}
	require.Error(t, err)
	require.ErrorIs(t, context.Cause(ctx), reason)
	assert.Equal(t, []string{"k1", "k2", "k2"}, w.attempts())
}

// docs/performance.md names HTTP/3 as a base that sends the body at once.
func TestExpectContinueHoldsNoBodyOverHTTP3(t *testing.T) {
	t.Parallel()
	w := newHTTP3World(t, func(http.ResponseWriter, *http.Request) {})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/x", struct{ io.Reader }{strings.NewReader("body")})
	require.NoError(t, err)
	req.Header.Set("Expect", "100-continue")
	resp, err := w.tr.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.ErrorIs(t, agrenting.CheckResponse(resp), agrenting.ErrNotReplayable)
	assert.Equal(t, []string{"k1"}, w.attempts())
}
