package agrenting

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

// apiURL is the base URL of tests that need no server.
const apiURL = "https://api.agrenting.test"

// revokedBody is what the platform says about a credential that is dead.
const revokedBody = `{"errors":[{"code":"UNAUTHORIZED","message":"the key was revoked"}]}`

// isVerify reports whether the SDK asks about the credential of a request.
func isVerify(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == (&Routes{}).withDefaults().Verify
}

// verdict is the response to such a call.
func verdict(alive bool) *http.Response {
	if alive {
		return reply(http.StatusOK, `{"data":[]}`)
	}
	return reply(http.StatusUnauthorized, revokedBody)
}

// verifying is a base that answers the SDK's questions about credentials apart from all
// other requests: every secret but the valid one is dead.
func verifying(valid string, base http.RoundTripper) tripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if isVerify(r) {
			return verdict(secretOf(r.Header) == valid), nil
		}
		return base.RoundTrip(r)
	}
}

// tripFunc makes a base of a function.
type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// reply is a response that needs no connection; header holds names and values in
// turn.
func reply(code int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// swallow reads and closes a request's body, as a base has to.
func swallow(req *http.Request) string {
	if req.Body == nil {
		return ""
	}
	b, _ := io.ReadAll(req.Body)
	_ = req.Body.Close()
	return string(b)
}

// script answers the n-th request, from 1, by a function, and counts.
type script struct {
	calls  atomic.Int64
	answer func(n int, req *http.Request) (*http.Response, error)
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	if isVerify(req) {
		return reply(http.StatusNotFound, "{}"), nil
	}
	return s.answer(int(s.calls.Add(1)), req)
}

func (s *script) count() int { return int(s.calls.Load()) }

// answers is a script of status codes; the last one is repeated. A zero is a
// dropped connection. It does not count calls of Routes.Verify, and does not serve that
// route.
func answers(codes ...int) *script {
	return &script{answer: func(n int, req *http.Request) (*http.Response, error) {
		swallow(req)
		code := codes[min(n, len(codes))-1]
		if code == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		return reply(code, http.StatusText(code)), nil
	}}
}

// seen is a request as a base got it.
type seen struct {
	method, url, host, body string
	header                  http.Header
}

func look(req *http.Request) seen {
	return seen{
		method: req.Method, url: req.URL.String(), host: req.Host,
		header: req.Header.Clone(), body: swallow(req),
	}
}

// credentials are the credential headers of a request, under canonical names.
func (s seen) credentials() map[string][]string { return credentialsOf(s.header) }

func credentialsOf(h http.Header) map[string][]string {
	out := map[string][]string{}
	for name, values := range h {
		switch canon := http.CanonicalHeaderKey(name); canon {
		case "Authorization", "X-Api-Key", "Api-Key":
			out[canon] = append(out[canon], values...)
		}
	}
	return out
}

// secretOf is the one credential that a request carries, as the secret alone;
// empty when there is none or more than one.
func secretOf(h http.Header) string {
	var all []string
	for _, values := range credentialsOf(h) {
		all = append(all, values...)
	}
	if len(all) != 1 {
		return ""
	}
	return strings.TrimPrefix(all[0], "Bearer ")
}

// recorder is a base that remembers what it was sent, and returns 200 or what
// then says.
type recorder struct {
	mu   sync.Mutex
	got  []seen
	then func(n int, s seen) *http.Response
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	s := look(req)
	r.mu.Lock()
	r.got = append(r.got, s)
	n := len(r.got)
	r.mu.Unlock()
	if r.then != nil {
		return r.then(n, s), nil
	}
	return reply(http.StatusOK, "{}"), nil
}

func (r *recorder) requests() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// platform is a base that accepts one secret at a time and echoes bodies. It does not
// record the calls of Routes.Verify.
type platform struct {
	recorder
	accepted atomic.Pointer[string]
	asked    atomic.Int64 // calls of Routes.Verify
}

func newPlatform(secret string) *platform {
	p := &platform{}
	p.accept(secret)
	p.then = func(_ int, s seen) *http.Response {
		if secretOf(s.header) != *p.accepted.Load() {
			return reply(http.StatusUnauthorized, revokedBody)
		}
		return reply(http.StatusOK, s.body)
	}
	return p
}

func (p *platform) RoundTrip(req *http.Request) (*http.Response, error) {
	if isVerify(req) {
		p.asked.Add(1)
		return verdict(secretOf(req.Header) == *p.accepted.Load()), nil
	}
	return p.recorder.RoundTrip(req)
}

func (p *platform) accept(secret string) { p.accepted.Store(&secret) }

// count is how many requests came with a secret.
func (p *platform) count(secret string) int {
	n := 0
	for _, s := range p.requests() {
		if secretOf(s.header) == secret {
			n++
		}
	}
	return n
}

// mint is a source whose credential can be replaced. It counts how often it is
// asked, and may keep the asker waiting.
type mint struct {
	mu      sync.Mutex
	cred    Credential
	err     error
	fetches int
	held    chan struct{} // fetches wait until it is closed
}

func newMint(secret string) *mint { return &mint{cred: APIKey(secret)} }

func (m *mint) Credential(ctx context.Context) (Credential, error) {
	m.mu.Lock()
	m.fetches++
	held := m.held
	m.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return Credential{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cred, m.err
}

func (m *mint) replace(c Credential) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cred = c
}

// hold makes the fetches from now on wait for the returned function.
func (m *mint) hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := make(chan struct{})
	m.held = held
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = nil
		close(held)
	}
}

func (m *mint) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches
}

// transportOver is a transport for apiURL that ignores the environment and ends
// with the test.
func transportOver(tb testing.TB, base http.RoundTripper, src CredentialSource, opts ...Option) *Transport {
	tb.Helper()
	opts = append([]Option{WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(base)}, opts...)
	tr, err := NewTransport(src, opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, tr.Close()) })
	return tr
}

// clientOver is the same with a client.
func clientOver(tb testing.TB, base http.RoundTripper, src CredentialSource, opts ...Option) *Client {
	tb.Helper()
	opts = append([]Option{WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(base), WithCredentialSource(src)}, opts...)
	c, err := New(opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, c.Close()) })
	return c
}

// request makes one for apiURL, unless the target is a whole URL.
func request(tb testing.TB, method, target string, body io.Reader) *http.Request {
	tb.Helper()
	if strings.HasPrefix(target, "/") {
		target = apiURL + target
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, target, body)
	require.NoError(tb, err)
	return req
}

// readAll reads a response to its end and closes it.
func readAll(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	require.NoError(tb, resp.Body.Close())
	return string(b)
}

// failure sends a request that is expected to get no answer.
func failure(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if resp != nil {
		_ = resp.Body.Close()
	}
	return err
}

// get sends a GET, also from other goroutines than the test's, and returns
// status and body.
func get(ctx context.Context, rt http.RoundTripper, target string) (int, string, error) {
	if strings.HasPrefix(target, "/") {
		target = apiURL + target
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

// spyBody is a body that cannot be made again. It counts.
type spyBody struct {
	io.Reader
	read, closes atomic.Int64
}

func newSpyBody(content string) *spyBody { return &spyBody{Reader: strings.NewReader(content)} }

func (b *spyBody) Read(p []byte) (int, error) {
	if b.closes.Load() > 0 {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.Reader.Read(p)
	b.read.Add(int64(n))
	return n, err
}

func (b *spyBody) Close() error {
	b.closes.Add(1)
	return nil
}

func (b *spyBody) closed() int { return int(b.closes.Load()) }

func wallNow() time.Time { return time.Now().Round(0) }

// saveRecord saves a key record, without a lease.
func saveRecord(ctx context.Context, s Store, rec record.Key, previous Revision) (Revision, error) { //nolint:unparam // as Save of a store
	e, err := keySlot(s).Save(ctx, record.Entry[record.Key]{Body: rec, Revision: string(previous)})
	return Revision(e.Revision), err
}

func keySlot(s Store) *record.Slot[record.Key] {
	return record.Keys(record.Config{Store: recordStore(s), Mismatch: newMismatch})
}

// storeWith is a memory store that has a key.
func storeWith(key Credential) Store {
	s := MemoryStore()
	_, err := saveRecord(context.Background(), s, record.Key{
		Generation: 1, Lineage: record.LineageOf(key.c), Current: record.StoredKey{Credential: key.c, Created: wallNow()},
	}, "")
	if err != nil {
		panic(err)
	}
	return s
}
