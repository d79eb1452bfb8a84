package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

// world is a platform, a proxy in front of it, and a client without anything.
type world struct {
	t      *testing.T
	srv    *agrentingtest.Server
	agent  *agrentingtest.Agent
	key    agrentingtest.Key
	url    string
	client *http.Client
	stop   func() (cut int, err error)
	// expects is how many requests for an echo had an Expect.
	expects atomic.Int64
}

type setup struct {
	server  []agrentingtest.Option
	client  []agrenting.Option
	change  func(*proxy.Config)
	listen  string
	grace   time.Duration
	handler func(http.Handler) http.Handler
	base    func(http.RoundTripper) http.RoundTripper
	recipe  bool // serve the proxy of docs/agents.md instead
}

func start(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{t: t, srv: agrentingtest.NewServer(s.server...)}
	t.Cleanup(w.srv.Close)
	w.agent = w.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	w.key = w.srv.NewKey(w.agent.ID)
	var base http.RoundTripper = w.srv.Transport()
	if s.base != nil {
		base = s.base(base)
	}
	opts := append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(base),
		agrenting.WithCredential(agrenting.APIKey(w.key.Secret)),
	}, s.client...)
	client, err := agrenting.New(opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	upstream, err := url.Parse(w.srv.URL)
	require.NoError(t, err)
	if s.listen == "" {
		s.listen = "127.0.0.1:0"
	}
	l, err := proxy.Listen(t.Context(), s.listen)
	require.NoError(t, err)
	cfg := proxy.Config{Upstream: upstream, Transport: client.Transport(), Hosts: proxy.Hosts(l)}
	if s.change != nil {
		s.change(&cfg)
	}
	var h http.Handler = proxy.New(cfg)
	if s.recipe {
		h = newProxy(client, upstream, func(*http.Request) string { return w.agent.ID })
	}
	if s.handler != nil {
		h = s.handler(h)
	}
	if s.grace == 0 {
		s.grace = 5 * time.Second
	}
	ctx, cancel := context.WithCancel(t.Context())
	type result struct {
		cut int
		err error
	}
	done := make(chan result, 1)
	go func() {
		cut, err := proxy.Serve(ctx, l, h, s.grace)
		done <- result{cut, err}
	}()
	var r result
	stopped := false
	w.stop = func() (int, error) {
		cancel()
		if !stopped {
			r, stopped = <-done, true
		}
		return r.cut, r.err
	}
	t.Cleanup(func() { _, _ = w.stop() })
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	w.url = "http://" + l.Addr().String()
	if l.Addr().Network() == "unix" {
		w.url = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
		}
	}
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

// answer is a response that has been read.
type answer struct {
	StatusCode int
	Header     http.Header
	Proto      string
}

// send makes a request with headers in pairs; "Host" sets the host.
func (w *world) send(method, path, body string, header ...string) (answer, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, stringBody(body))
	require.NoError(w.t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	assert.NotContains(w.t, string(b), w.key.Secret, "the caller sees no key")
	return answer{resp.StatusCode, resp.Header, resp.Proto}, string(b)
}

func (w *world) status(method, path string, header ...string) int {
	w.t.Helper()
	resp, _ := w.send(method, path, "", header...)
	return resp.StatusCode
}

// arrived are the headers of the last request at the platform.
func (w *world) arrived() http.Header {
	w.t.Helper()
	all := w.srv.Requests()
	require.NotEmpty(w.t, all)
	return all[len(all)-1].Header
}
