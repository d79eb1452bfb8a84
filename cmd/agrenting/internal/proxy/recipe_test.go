package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The code from here to the end of noContinue is that of docs/agents.md.

const keep = 1 << 20 // longer bodies are not kept

func newProxy(client *agrenting.Client, platform *url.URL, agentOf func(*http.Request) string) http.Handler {
	proxy := &httputil.ReverseProxy{Transport: client.Transport(), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(platform)
		for _, name := range []string{"Authorization", "X-API-Key", "Api-Key", "X-Agent-ID"} {
			r.Out.Header.Del(name) // what is set on a request wins
		}
		r.Out = r.Out.WithContext(agrenting.ContextWithAgent(r.Out.Context(), agentOf(r.In)))
		keepBody(r.In, r.Out)
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(noContinue{w}, r) })
}

// keepBody makes it possible to send the request again.
func keepBody(in, out *http.Request) {
	if out.Body == nil {
		return
	}
	head, err := io.ReadAll(io.LimitReader(in.Body, keep+1))
	if err != nil || len(head) > keep {
		// The rest exists only once. It waits until the platform has accepted the credential.
		out.Header.Set("Expect", "100-continue")
		out.Body = io.NopCloser(io.MultiReader(bytes.NewReader(head), in.Body))
		return
	}
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }
	out.Body, _ = out.GetBody()
	out.ContentLength, out.TransferEncoding = int64(len(head)), nil
	out.Header.Del("Expect")
}

// noContinue hides the platform's response to Expect from callers. Those that wait for one
// get it from net/http, and others may not expect it.
type noContinue struct{ http.ResponseWriter }

func (w noContinue) WriteHeader(status int) {
	if status != http.StatusContinue {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w noContinue) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestRecipeIsInTheGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../../../docs/agents.md")
	require.NoError(t, err)
	this, err := os.ReadFile("recipe_test.go")
	require.NoError(t, err)
	_, code, _ := strings.Cut(string(this), "docs/agents.md.\n\n")
	code, _, _ = strings.Cut(code, "\nfunc TestRecipe")
	assert.Contains(t, string(guide), "```go\n"+code+"```\n")
}

func TestRecipeSurvivesDeadSession(t *testing.T) {
	t.Parallel()
	w := startMortal(t, setup{recipe: true}, http.MethodPost)
	for _, n := range []int{1, keep, keep + 1} {
		for _, known := range []bool{true, false} {
			content := sized(n)
			var body io.Reader = bytes.NewReader(content)
			if !known {
				body = chunked{body}
			}
			w.srv.RevokeSessions()
			w.sendBody(t, http.MethodPost, content, body)
		}
	}
}

func TestRecipeRetriesSafeRequests(t *testing.T) {
	t.Parallel()
	w := start(t, setup{recipe: true, client: []agrenting.Option{agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: 1, MaxDelay: 1})}})
	w.srv.Fault("PUT /echo", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	resp, _ := w.send(http.MethodPut, "/echo", "body")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.Equal(t, 4, w.srv.Count("PUT /echo"))
}
