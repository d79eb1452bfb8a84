package k8sstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/k8sstore"
)

const namespace = "production"

// sealingKey is one for all tests.
var sealingKey = agrenting.NewSealingKey()

// fakeAPI is an API server that knows the Secrets of one namespace. Its tests make it
// fail in ways in which a real one cannot be made to.
type fakeAPI struct {
	srv *httptest.Server

	mu        sync.Mutex
	version   int
	secrets   map[string]*corev1.Secret
	history   []change
	compacted int           // changes up to this version are forgotten
	changed   chan struct{} // closed after each change
	cutOff    chan struct{} // closed to end all streams
	requests  []*http.Request
	// before may respond in place of the server. after may replace a response to a
	// request that has taken effect.
	before, after func(w http.ResponseWriter, r *http.Request) bool
}

type change struct {
	kind    string
	secret  *corev1.Secret
	version int
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	f := unstartedFakeAPI(t)
	f.srv.Start()
	return f
}

func unstartedFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	f := &fakeAPI{version: 10, secrets: map[string]*corev1.Secret{}, changed: make(chan struct{}), cutOff: make(chan struct{})}
	f.srv = httptest.NewUnstartedServer(f)
	t.Cleanup(f.close)
	return f
}

// pipes is a listener for connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newPipes() *pipes {
	done := make(chan struct{})
	return &pipes{conns: make(chan net.Conn), done: done, close: sync.OnceFunc(func() { close(done) })}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.close(); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// virtualFakeAPI returns a server and a store for tests with virtual time.
func virtualFakeAPI(t *testing.T) (*fakeAPI, *k8sstore.Store) {
	t.Helper()
	p, f := newPipes(), &fakeAPI{version: 10, secrets: map[string]*corev1.Secret{}, changed: make(chan struct{}), cutOff: make(chan struct{})}
	f.srv = &httptest.Server{Listener: p, Config: &http.Server{Handler: f}} // #nosec G112 -- a server in memory
	f.srv.Start()
	t.Cleanup(f.close)
	return f, open(t, k8sstore.Config{REST: &rest.Config{Host: f.srv.URL, Dial: p.dial}, Namespace: namespace, Name: "writer"})
}

func (f *fakeAPI) close() {
	f.cut()
	f.srv.CloseClientConnections()
	f.srv.Close()
}

// config is how to reach the server.
func (f *fakeAPI) config() *rest.Config { return &rest.Config{Host: f.srv.URL, Dial: dialUnlabeled} }

// dialUnlabeled opens connections that do not have the labels of the goroutine that
// needs them first. They belong to the store and outlive its watches.
func dialUnlabeled(ctx context.Context, network, address string) (net.Conn, error) {
	pprof.SetGoroutineLabels(context.Background()) //nolint:contextcheck // a context without labels
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (f *fakeAPI) open(t *testing.T, opts ...k8sstore.Option) *k8sstore.Store {
	t.Helper()
	return open(t, k8sstore.Config{REST: f.config(), Namespace: namespace, Name: "writer"}, opts...)
}

// open opens a sealed store, unless there are options.
func open(t *testing.T, cfg k8sstore.Config, opts ...k8sstore.Option) *k8sstore.Store {
	t.Helper()
	if len(opts) == 0 {
		opts = []k8sstore.Option{k8sstore.WithSealingKey(sealingKey)}
	}
	s, err := k8sstore.Open(cfg, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// do calls fn with the server locked.
func (f *fakeAPI) do(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeAPI) cut() {
	f.do(func() {
		close(f.cutOff)
		f.cutOff = make(chan struct{})
	})
}

// bookmark sends a bookmark with a new version to all streams.
func (f *fakeAPI) bookmark() (version int) {
	f.do(func() {
		f.version++
		version = f.version
		f.record("BOOKMARK", &corev1.Secret{})
	})
	return version
}

// record adds a change. The server is locked.
func (f *fakeAPI) record(kind string, s *corev1.Secret) {
	s = s.DeepCopy()
	s.ResourceVersion = strconv.Itoa(f.version)
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	f.history = append(f.history, change{kind, s, f.version})
	close(f.changed)
	f.changed = make(chan struct{})
}

// put writes a Secret as another client would. nil deletes it.
func (f *fakeAPI) put(name string, s *corev1.Secret) {
	f.do(func() { f.write(name, s) })
}

func (f *fakeAPI) write(name string, s *corev1.Secret) *corev1.Secret {
	old := f.secrets[name]
	f.version++
	switch {
	case s == nil && old == nil:
	case s == nil:
		delete(f.secrets, name)
		f.record("DELETED", old)
	default:
		s = s.DeepCopy()
		s.Name, s.Namespace, s.ResourceVersion = name, namespace, strconv.Itoa(f.version)
		kind := "MODIFIED"
		if old == nil {
			kind, s.UID = "ADDED", types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", f.version))
		} else {
			s.UID = old.UID
		}
		f.secrets[name] = s
		f.record(kind, s)
	}
	return s
}

// key returns a copy of the Secret of the key, nil if there is none.
func (f *fakeAPI) key() (s *corev1.Secret) {
	f.do(func() { s = f.secrets["writer.key"].DeepCopy() })
	return s
}

// sent returns the requests with a method, "WATCH" for streams.
func (f *fakeAPI) sent(method string) (out []*http.Request) {
	f.do(func() {
		for _, r := range f.requests {
			m := r.Method
			if r.URL.Query().Get("watch") == "true" {
				m = "WATCH"
			}
			if m == method {
				out = append(out, r)
			}
		}
	})
	return out
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(statusOf(code, reason, message))
}

// denied is the message for an account that lacks a verb on Secrets.
func denied(verb string) string {
	return `secrets "writer.key" is forbidden: User "writer" cannot ` + verb + ` resource "secrets" in API group "" in the namespace "production"`
}

func statusOf(code int, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure",
		Code: int32(code), Reason: reason, Message: message, // #nosec G115 -- an HTTP status
	}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/"+namespace+"/secrets")
	name = strings.TrimPrefix(name, "/")
	switch {
	case !ok:
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "namespace")
	case r.URL.Query().Get("watch") == "true":
		f.watch(w, r)
	default:
		response := httptest.NewRecorder()
		f.serve(response, r, name)
		if after == nil || !after(w, r) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(response.Code)
			_, _ = w.Write(response.Body.Bytes())
		}
	}
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var given corev1.Secret
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&given); err != nil {
			status(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
			return
		}
	}
	if r.Method == http.MethodPost {
		name = given.Name
	}
	current := f.secrets[name]
	switch {
	case r.Method == http.MethodPost && current != nil:
		status(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, "exists")
		return
	case r.Method == http.MethodPost:
		current = f.write(name, &given)
	case current == nil:
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "secrets "+name)
		return
	case r.Method == http.MethodPut:
		if given.UID != "" && given.UID != current.UID || given.ResourceVersion != "" && given.ResourceVersion != current.ResourceVersion {
			status(w, http.StatusConflict, metav1.StatusReasonConflict, "changed")
			return
		}
		current = f.write(name, &given)
	}
	_ = json.NewEncoder(w).Encode(withKind(current))
}

func withKind(s *corev1.Secret) *corev1.Secret {
	s = s.DeepCopy()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	return s
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	f.mu.Lock()
	cutOff, at := f.cutOff, f.version
	var first []change
	if from := r.URL.Query().Get("resourceVersion"); from != "" {
		at, _ = strconv.Atoi(from)
	} else if s := f.secrets[name]; s != nil {
		first = append(first, change{"ADDED", withKind(s), f.version})
	}
	expired := at < f.compacted
	f.mu.Unlock()
	if expired {
		status(w, http.StatusGone, metav1.StatusReasonExpired, "too old resource version")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	send := func(kind string, object any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": object})
		_ = http.NewResponseController(w).Flush()
	}
	for {
		for _, c := range first {
			send(c.kind, c.secret)
		}
		f.mu.Lock()
		first = nil
		for _, c := range f.history {
			if c.version > at && (c.kind == "BOOKMARK" || c.secret.Name == name) {
				first = append(first, c)
			}
		}
		expired = at < f.compacted
		at = f.version
		changed := f.changed
		f.mu.Unlock()
		switch {
		case expired:
			send("ERROR", statusOf(http.StatusGone, metav1.StatusReasonExpired, "too old resource version"))
			return
		case len(first) > 0:
			continue
		}
		select {
		case <-changed:
		case <-cutOff:
			return
		case <-r.Context().Done():
			return
		}
	}
}

const key = "key"

func save(t *testing.T, s agrenting.Store, data string, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), key, []byte(data), previous)
	require.NoError(t, err)
	return rev
}

func load(t *testing.T, s agrenting.Store) (string, agrenting.Revision) {
	t.Helper()
	rec, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	return string(rec.Data), rec.Revision
}

// seen is what a watch yields.
type seen struct {
	data string
	err  error
}

// watched watches the record until the test ends or the watch does.
func watched(t *testing.T, s *k8sstore.Store) <-chan seen {
	t.Helper()
	out := make(chan seen, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer close(out)
		for rec, err := range s.Watch(ctx, key) {
			out <- seen{string(rec.Data), err}
		}
	}()
	return out
}

// next waits for what a watch yields.
func next(t *testing.T, c <-chan seen) seen {
	t.Helper()
	select {
	case got, ok := <-c:
		require.True(t, ok, "the watch has ended")
		return got
	case <-time.After(20 * time.Second):
		t.Fatal("the watch yields nothing")
		return seen{}
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 5*time.Millisecond, what)
}
