package proxy_test

import (
	_ "embed"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

//go:embed testdata/attacks.html
var attacksPage []byte

// attacked is the result of the attacks of a web page.
type attacked struct {
	Made []string          // the names of all attacks
	Read map[string]string // what the page could read
}

// chromium returns the browser, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	t.Skip("this takes chromium")
	return ""
}

// A visit is a browser that shows the page of attacks.
type visit struct {
	page    *httptest.Server
	results chan attacked
}

func newVisit(t *testing.T) *visit {
	t.Helper()
	v := &visit{results: make(chan attacked, 1)}
	v.page = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /":
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write(attacksPage)
		case "POST /result":
			var result attacked
			if json.NewDecoder(r.Body).Decode(&result) == nil {
				v.results <- result
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(v.page.Close)
	return v
}

// origin is that of the page under a name of this machine.
func (v *visit) origin(t *testing.T, name string) string {
	t.Helper()
	u, err := url.Parse(v.page.URL)
	require.NoError(t, err)
	return "http://" + name + ":" + u.Port()
}

// make opens the page, which attacks some URLs of the proxy, and returns what it could read.
func (v *visit) make(t *testing.T, browser, origin string, proxies ...string) attacked {
	t.Helper()
	folder, err := os.MkdirTemp("", "browser") //nolint:usetesting // processes that end may still write there
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	list, err := json.Marshal(proxies)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", // #nosec G204 -- a browser
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-popup-blocking",
		"--no-proxy-server", "--host-resolver-rules=MAP *.example 127.0.0.1", "--user-data-dir="+folder,
		"--remote-debugging-port=0", // keeps it open
		origin+"/?proxies="+url.QueryEscape(string(list)))
	cmd.Env = append(os.Environ(), "HOME="+folder)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is interrupted
	}()
	select {
	case result := <-v.results:
		t.Cleanup(func() { _ = cmd.Cancel(); <-ended })
		return result
	case <-ended:
		require.Fail(t, "the browser has ended", said.String())
	case <-time.After(2 * time.Minute):
		_ = cmd.Cancel()
		<-ended
		require.Fail(t, "the page has not ended", said.String())
	}
	return attacked{}
}

// arrivals counts the attacks that arrive somewhere, by name and status.
type arrivals struct {
	mu   sync.Mutex
	seen map[string]int // the highest status
}

func (a *arrivals) add(r *http.Request, status int) {
	if strings.HasPrefix(r.URL.Path, "/api/v1/attack/") {
		a.mu.Lock()
		defer a.mu.Unlock()
		name := path.Base(r.URL.Path)
		a.seen[name] = max(a.seen[name], status)
	}
}

func (a *arrivals) all() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.seen)
}

// recording remembers the status of a response.
type recording struct {
	http.ResponseWriter

	status int
}

// WriteHeader implements [http.ResponseWriter].
func (r *recording) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (r *recording) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func TestBrowserPagesOfOtherOriginsAreRefused(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	// The first is of the same site as the proxy, and the second of another one.
	for _, name := range []string{"127.0.0.1", "evil.example"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := &arrivals{seen: map[string]int{}}
			w := start(t, setup{handler: at.before})
			v := newVisit(t)
			u, err := url.Parse(w.url)
			require.NoError(t, err)
			before := len(w.srv.Requests())
			// The third is a name of the attacker that resolves to the proxy.
			result := v.make(t, browser, v.origin(t, name), w.url, "http://localhost:"+u.Port(), "http://evil.example:"+u.Port())
			assert.Empty(t, result.Read)
			require.Greater(t, len(result.Made), 60)
			missing := func() []string {
				all := at.all()
				return slices.DeleteFunc(slices.Clone(result.Made), func(name string) bool { return all[name] != 0 })
			}
			if !assert.Eventually(t, func() bool { return len(missing()) == 0 }, time.Minute, 20*time.Millisecond) {
				require.Empty(t, missing(), "all attacks arrive at the proxy")
			}
			for name, status := range at.all() {
				assert.Contains(t, []int{http.StatusForbidden, http.StatusMisdirectedRequest}, status, name)
			}
			assert.Len(t, w.srv.Requests(), before, "none arrives at the platform")
		})
	}
}

// A permitted page shows that the attacks work without protection.
func TestBrowserPageOfAPermittedOriginReads(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	at := &arrivals{seen: map[string]int{}}
	v := newVisit(t)
	origin := v.origin(t, "127.0.0.1")
	w := start(t, setup{handler: at.before, change: func(c *proxy.Config) { c.Origins = []string{origin} }})
	w.srv.Handle("/api/v1/attack/", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		assert.Equal(t, w.key.Secret, r.Header.Get("X-Api-Key"))
		_, _ = rw.Write([]byte("secret data"))
	}))
	result := v.make(t, browser, origin, w.url)
	for _, name := range []string{"fetch-0", "fetch-json-post-0", "fetch-delete-0", "worker-0"} {
		assert.Equal(t, "secret data", result.Read[name], name)
	}
	assert.NotContains(t, slices.Collect(maps.Values(result.Read)), w.key.Secret)
}

// before records what arrives at a proxy.
func (a *arrivals) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recording{w, http.StatusOK}
		defer func() { a.add(r, rec.status) }()
		next.ServeHTTP(rec, r)
	})
}
