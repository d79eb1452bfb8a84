package sdktest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// Scribe is a registration that uses every field.
var Scribe = agrenting.AgentRegistration{
	Name: "Scribe", DID: "did:agrenting:scribe", Capabilities: []string{"writing"}, PricingModel: "fixed", BasePrice: "1.50",
	Description: "writes", Category: "text", Metadata: map[string]any{"callback_url": "https://scribe.example"},
}

// Refuser returns a source that yields k1 once and k2 after that.
func Refuser() agrenting.CredentialSource {
	var n atomic.Int64
	return agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.APIKey(fmt.Sprintf("k%d", min(2, n.Add(1)))), nil
	})
}

// Loopback returns a separate transport. Its connections end with the test.
func Loopback(t *testing.T) *http.Transport {
	t.Helper()
	tr := &http.Transport{ExpectContinueTimeout: time.Hour}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Answering returns a base that always sends the same response.
func Answering(code int, body string, header ...string) *Recorder {
	return &Recorder{Then: func(int, Seen) *http.Response { return Reply(code, body, header...) }}
}

// Endless is a body that never ends.
type Endless struct{}

// Read implements io.Reader.
func (Endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// Counter counts the bytes that are written to it. It is safe for concurrent use,
// because a body may still be read after the call that read it has returned.
type Counter struct{ n atomic.Int64 }

// Write implements io.Writer.
func (c *Counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// Bytes returns the count so far.
func (c *Counter) Bytes() int { return int(c.n.Load()) }

// APIURL is the base URL of tests that need no server.
const APIURL = "https://api.agrenting.test"

// RevokedBody is the response body with which a [Platform] refuses a credential.
const RevokedBody = "the key was revoked"

// RoundTripFunc turns a function into a base.
type RoundTripFunc func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f RoundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Reply returns a response that needs no connection. header contains alternating names
// and values.
func Reply(code int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// ReadBody reads and closes a request's body, as a base must do.
func ReadBody(req *http.Request) string {
	if req.Body == nil {
		return ""
	}
	b, _ := io.ReadAll(req.Body)
	_ = req.Body.Close()
	return string(b)
}

// Script answers the n-th request, counted from 1, with a function, and counts the
// requests.
type Script struct {
	calls  atomic.Int64
	Answer func(n int, req *http.Request) (*http.Response, error)
}

// RoundTrip implements http.RoundTripper.
func (s *Script) RoundTrip(req *http.Request) (*http.Response, error) {
	return s.Answer(int(s.calls.Add(1)), req)
}

// Count returns the number of requests so far.
func (s *Script) Count() int { return int(s.calls.Load()) }

// Answers returns a script of status codes. The last one is repeated. A zero means a
// dropped connection.
func Answers(codes ...int) *Script {
	return &Script{Answer: func(n int, req *http.Request) (*http.Response, error) {
		ReadBody(req)
		code := codes[min(n, len(codes))-1]
		if code == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		return Reply(code, http.StatusText(code)), nil
	}}
}

// Seen is a request as a base received it.
type Seen struct {
	Method, URL, Host, Body string
	Header                  http.Header
}

// Capture reads a request as a base receives it.
func Capture(req *http.Request) Seen {
	return Seen{
		Method: req.Method, URL: req.URL.String(), Host: req.Host,
		Header: req.Header.Clone(), Body: ReadBody(req),
	}
}

// Credentials returns the credential headers of a request, under canonical names.
func (s Seen) Credentials() map[string][]string { return CredentialsOf(s.Header) }

// CredentialsOf returns the credential headers of h, under canonical names.
func CredentialsOf(h http.Header) map[string][]string {
	out := map[string][]string{}
	for name, values := range h {
		switch canon := http.CanonicalHeaderKey(name); canon {
		case "Authorization", "X-Api-Key", "Api-Key":
			out[canon] = append(out[canon], values...)
		}
	}
	return out
}

// SecretOf returns the secret of the only credential that a request carries. It returns
// "" if there are none or several.
func SecretOf(h http.Header) string {
	var all []string
	for _, values := range CredentialsOf(h) {
		all = append(all, values...)
	}
	if len(all) != 1 {
		return ""
	}
	return strings.TrimPrefix(all[0], "Bearer ")
}

// Recorder is a base that records its requests. It responds with 200, or as then says.
type Recorder struct {
	mu   sync.Mutex
	got  []Seen
	Then func(n int, s Seen) *http.Response
}

// RoundTrip implements http.RoundTripper.
func (r *Recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	s := Capture(req)
	r.mu.Lock()
	r.got = append(r.got, s)
	n := len(r.got)
	r.mu.Unlock()
	if r.Then != nil {
		return r.Then(n, s), nil
	}
	return Reply(http.StatusOK, "{}"), nil
}

// Requests returns the requests that were sent so far.
func (r *Recorder) Requests() []Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// Only returns the only request that a base received.
func (r *Recorder) Only(tb testing.TB) Seen {
	tb.Helper()
	got := r.Requests()
	require.Len(tb, got, 1)
	return got[0]
}

// Platform is a base that accepts one secret at a time and echoes bodies.
type Platform struct {
	Recorder
	accepted atomic.Pointer[string]
}

// NewPlatform returns a platform that accepts a secret.
func NewPlatform(secret string) *Platform {
	p := &Platform{}
	p.Accept(secret)
	p.Then = func(_ int, s Seen) *http.Response {
		if SecretOf(s.Header) != *p.accepted.Load() {
			return Reply(http.StatusUnauthorized, RevokedBody)
		}
		return Reply(http.StatusOK, s.Body)
	}
	return p
}

// Accept makes the platform accept another secret from now on.
func (p *Platform) Accept(secret string) { p.accepted.Store(&secret) }

// Count returns how many requests came with a secret.
func (p *Platform) Count(secret string) int {
	n := 0
	for _, s := range p.Requests() {
		if SecretOf(s.Header) == secret {
			n++
		}
	}
	return n
}

// Request returns a request for APIURL, unless the target is a whole URL.
func Request(tb testing.TB, method, target string, body io.Reader) *http.Request {
	tb.Helper()
	if strings.HasPrefix(target, "/") {
		target = APIURL + target
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, target, body)
	require.NoError(tb, err)
	return req
}

// ReadAll reads a response to its end and closes it.
func ReadAll(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	require.NoError(tb, resp.Body.Close())
	return string(b)
}

// Failure sends a request that must not get a response, and returns the error.
func Failure(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if resp != nil {
		_ = resp.Body.Close()
	}
	return err
}

// Get sends a GET and returns the status and the body. It may be called from any
// goroutine.
func Get(ctx context.Context, rt http.RoundTripper, target string) (int, string, error) {
	if strings.HasPrefix(target, "/") {
		target = APIURL + target
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// SpyBody is a body that can be read only once. It counts reads and closes.
type SpyBody struct {
	io.Reader
	Bytes, closes atomic.Int64
}

// NewSpyBody returns a body with the given content.
func NewSpyBody(content string) *SpyBody { return &SpyBody{Reader: strings.NewReader(content)} }

// Read implements io.Reader.
func (b *SpyBody) Read(p []byte) (int, error) {
	if b.closes.Load() > 0 {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.Reader.Read(p)
	b.Bytes.Add(int64(n))
	return n, err
}

// Close implements io.Closer.
func (b *SpyBody) Close() error {
	b.closes.Add(1)
	return nil
}

// Closed returns how often the body was closed.
func (b *SpyBody) Closed() int { return int(b.closes.Load()) }

// Freeze records all visible parts of a request. It returns a check that none of them
// has changed: the fields, the header map, the slices in it, and the content of those.
func Freeze(tb testing.TB, req *http.Request) (check func()) {
	tb.Helper()
	before, header, ctx := *req, req.Header.Clone(), req.Context()
	slicesBefore, u := maps.Clone(req.Header), *req.URL
	return func() {
		tb.Helper()
		assert.Equal(tb, header, req.Header, "the header's content")
		for name, values := range req.Header {
			if len(values) > 0 && len(slicesBefore[name]) > 0 {
				assert.Same(tb, &slicesBefore[name][0], &values[0], "the slice under %s", name)
			}
		}
		assert.Equal(tb, u, *req.URL)
		assert.Equal(tb, ctx, req.Context())
		a, b := reflect.ValueOf(before), reflect.ValueOf(*req)
		for i := range a.NumField() {
			if field := a.Type().Field(i); field.IsExported() {
				assert.True(tb, identical(a.Field(i), b.Field(i)), "the field %s", field.Name)
			}
		}
	}
}

// identical compares references by their targets, not by content.
func identical(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Interface:
		return a.IsNil() == b.IsNil() && (a.IsNil() || identical(a.Elem(), b.Elem()))
	case reflect.Func, reflect.Map, reflect.Pointer, reflect.Chan:
		return a.Pointer() == b.Pointer()
	default:
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}
}

// Trusting returns a [Loopback] transport that trusts the given servers.
func Trusting(t *testing.T, servers ...*httptest.Server) *http.Transport {
	t.Helper()
	tr := Loopback(t)
	pool := x509.NewCertPool()
	for _, s := range servers {
		pool.AddCert(s.Certificate())
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return tr
}

// AnyPort is an address for servers to listen at.
const AnyPort = "127.0.0.1:0"

// Sleepless retries almost without pauses, for tests with real connections.
var Sleepless = agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: 1, MaxDelay: 1})

// Between is a base that may respond in place of the platform. If answer returns nil,
// the request is sent to base.
func Between(base http.RoundTripper, answer func(*http.Request) *http.Response) http.RoundTripper {
	return RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		if resp := answer(req); resp != nil {
			ReadBody(req)
			return resp, nil
		}
		return base.RoundTrip(req)
	})
}
