package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Verdict is what the platform says about the credential when asked.
type Verdict int

const (
	// Unknown means that the platform could not be reached, or that its response says nothing
	// about the credential.
	Unknown Verdict = iota
	// Alive means that the platform accepts the credential.
	Alive
	// Dead means that the platform rejects the credential.
	Dead
)

// Health reports whether the credential that a proxy lends can be used. It is safe for
// concurrent use.
type Health struct {
	// Verify asks the platform about the credential in use. text is for people; it is not
	// used with [Unknown].
	Verify func(context.Context) (text string, v Verdict)
	// Tell is called when the credential can no longer be used, and when it can again,
	// with one line for people.
	Tell func(text string)

	failing atomic.Bool // there is a problem

	mu         sync.Mutex
	problem    string // "" if there is none
	renewals   int    // calls of Renewed
	generation uint64 // of the credential that was verified last
	verified   time.Time
	verifying  bool
	closed     bool
	running    sync.WaitGroup
}

// verifyEvery bounds how often the platform is asked because of refused requests, and while
// there is a problem. A route that refuses every caller would otherwise double the requests.
const verifyEvery = 10 * time.Second

// verifyLimit is how long to wait for the response of the platform.
const verifyLimit = 30 * time.Second

// Rejected records that the platform has refused a request of a caller. It asks the platform in
// the background whether that is because of the credential, at most every 10 s per generation.
func (h *Health) Rejected(ctx context.Context, generation uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verify(ctx, generation)
}

// Recheck asks the platform again in the background, at most every 10 s, if there is a
// problem. Only the verdict [Alive] and a new credential end a problem.
func (h *Health) Recheck(ctx context.Context) {
	if !h.failing.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.problem != "" {
		h.verify(ctx, h.generation)
	}
}

// verify asks the platform in the background, unless it was asked recently. While there is
// no problem, the interval applies to each generation separately.
func (h *Health) verify(ctx context.Context, generation uint64) {
	recently := !h.verified.IsZero() && time.Since(h.verified) < verifyEvery
	if h.closed || h.verifying || (recently && (h.problem != "" || h.generation == generation)) {
		return
	}
	h.verifying = true
	renewals := h.renewals
	h.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, verifyLimit)
		defer cancel()
		text, v := h.Verify(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.verifying, h.verified, h.generation = false, time.Now(), generation
		switch {
		case v == Alive:
			h.clear(text)
		case v == Dead && renewals == h.renewals: // otherwise, the verdict concerns the old credential
			h.change(text)
		}
	})
}

// Failed records that a credential is not available.
func (h *Health) Failed(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change(why)
}

// Renewed records that there is a new credential.
func (h *Health) Renewed(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renewals++
	h.clear(what)
}

// clear reports the end of a problem, if there is one.
func (h *Health) clear(what string) {
	if h.problem != "" && !h.closed {
		h.problem = ""
		h.failing.Store(false)
		h.Tell(what)
	}
}

// change reports a problem, unless there is one already.
func (h *Health) change(problem string) {
	if h.problem == "" && !h.closed {
		h.problem = problem
		h.failing.Store(true)
		h.Tell(problem)
	}
}

// Close waits for running calls of Verify. The contexts of [Health.Rejected] and [Health.Recheck]
// should have ended. After Close, Tell is not called.
func (h *Health) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
}

// Problem returns why the credential cannot be used, or "" without a known problem.
func (h *Health) Problem() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// Report is the body of /healthz, such as
//
//	{"status":"ok","generation":1,"credential":"sha256:ab12cd34ef"}
//
// Most programs only check Status.
type Report struct {
	// Status is "ok", "no credential", or "ending".
	Status string `json:"status"`
	// Problem says why the credential cannot be used.
	Problem string `json:"problem,omitempty"`
	// Generation and Credential identify the credential in use. Credential is a
	// fingerprint.
	Generation uint64 `json:"generation,omitempty"`
	Credential string `json:"credential,omitempty"`
	// Expires is when the credential expires; nil if that is not known.
	Expires *time.Time `json:"expires,omitempty"`
}

// Admin serves GET /healthz with the status 200 if report returns the status "ok", and
// 503 otherwise. It serves GET /metrics with metrics. hosts are the accepted values of Host, as in
// [Config].
func Admin(hosts []string, report func() Report, metrics http.Handler) http.Handler {
	g := newGuard(&Config{Hosts: hosts})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		r := report()
		status := http.StatusOK
		if r.Status != "ok" {
			status = http.StatusServiceUnavailable
		}
		h := w.Header()
		h.Set("Content-Type", jsonType)
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(r) // if it fails, the caller has disconnected
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "PROXY_NOT_FOUND", "this address serves only GET /healthz and GET /metrics", 0)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref := g.checkHost(r)
		if ref == nil {
			ref = g.checkPage(r)
		}
		if ref != nil {
			refuse(w, ref.status, ref.code, ref.text, 0)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ServeAdmin serves h on an address of [Listen] until stop is called. at is its URL.
func ServeAdmin(ctx context.Context, addr string, newHandler func(hosts []string) http.Handler) (at string, stop func(), err error) {
	l, err := Listen(ctx, addr)
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{
		Handler: newHandler(Hosts(l)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: silent,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // until it is closed
	}()
	at = "http://" + l.Addr().String()
	if l.Addr().Network() == "unix" {
		at = "unix:" + l.Addr().String()
	}
	return strings.TrimSuffix(at, "/"), func() {
		_ = srv.Close()
		<-done
	}, nil
}
