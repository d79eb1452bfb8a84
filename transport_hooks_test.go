package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// headersIn returns a context whose hooks hear the headers of requests and of 1xx responses.
func headersIn(ctx context.Context) (traced context.Context, heard func() string) {
	var mu sync.Mutex
	var b strings.Builder
	note := func(values ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintln(&b, values...)
	}
	traced = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:          func(hostPort string) { note(hostPort) },
		WroteHeaderField: func(name string, values []string) { note(name, values) },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			note(code, header)
			return nil
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) { note(info.Err) },
	})
	return traced, func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

// echoing answers each request with its credential: in a 103, and as a session.
func echoing(t *testing.T, mu *sync.Mutex, got *[]string) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := sdktest.SecretOf(r.Header)
		if q := r.URL.Query(); s == "" {
			s = q.Get("api_key") + q.Get("session_token")
		}
		mu.Lock()
		*got = append(*got, s)
		mu.Unlock()
		w.Header().Set("X-Echo", s)
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"data":{"session_token":"`+sdktest.TestKey+`x","expires_at":"2999-01-01T00:00:00Z"}}`)
	})
}

func TestHooks_ofCaller_seeNoCredential(t *testing.T) {
	t.Parallel()
	const own = "aB3dE5gH7jK9mN1pQ3sT5"
	for _, cred := range []agrenting.Credential{
		agrenting.APIKey(sdktest.TestKey), agrenting.UserToken("ap_" + sdktest.TestKey), agrenting.SessionToken(sdktest.TestKey, time.Time{}),
	} {
		for name, open := range protocols {
			t.Run(name+" "+cred.Kind().String(), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				var got []string
				srv, base := open(t, echoing(t, &mu, &got))
				t.Cleanup(srv.Close)
				c := sdktest.ClientOver(t, base, agrenting.Static(cred), agrenting.WithBaseURL(srv.URL), agrenting.WithAgentID("agent-1"))
				ctx, heard := headersIn(t.Context())
				send := func(h *http.Client, header ...string) {
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/x", http.NoBody)
					require.NoError(t, err)
					for i := 0; i < len(header); i += 2 {
						req.Header[header[i]] = []string{header[i+1]}
					}
					resp, err := h.Do(req)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
				}
				_, err := c.Do(ctx, http.MethodPost, "/x", map[string]string{"a": "b"}, nil)
				require.NoError(t, err)
				send(c.HTTPClient())
				send(c.SocketHTTPClient())
				send(c.HTTPClient(), "Authorization", "Bearer "+own)
				send(c.HTTPClient(), "Api-Key", own)
				require.NoError(t, c.Verify(ctx))
				_, _ = c.Sessions.Authenticate(ctx)
				_, _ = c.Keys.Create(ctx, "agent-1", "name")
				_ = c.Keys.Revoke(ctx, "agent-1", "key-1")
				_ = c.Sessions.Logout(ctx)
				text := heard()
				for _, s := range []string{sdktest.TestKey, own} {
					assert.NotContains(t, text, s)
				}
				assert.Contains(t, strings.ToLower(text), "user-agent", "the hooks are called")
				assert.Contains(t, strings.ToLower(text), "x-agent-id [agent-1]")
				assert.Contains(t, text, "103 map[")
				mu.Lock()
				defer mu.Unlock()
				assert.GreaterOrEqual(t, len(got), 9)
				for _, s := range got {
					assert.NotEmpty(t, s, "each request had its credential")
					assert.NotContains(t, s, "[redacted]")
				}
			})
		}
	}
}

// The calls that obtain a session may run under the context of a request.
func TestHooks_ofCaller_seeNoExchange(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	srv, base := protocols["HTTP/1.1"](t, echoing(t, &mu, &got))
	t.Cleanup(srv.Close)
	c := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey(sdktest.TestKey)), agrenting.WithBaseURL(srv.URL), agrenting.WithSession())
	ctx, heard := headersIn(t.Context())
	_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.NotContains(t, heard(), sdktest.TestKey)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []string{sdktest.TestKey, sdktest.TestKey + "x"}, got)
}

// quotingSource fails with an error that quotes a secret that the client has not seen.
type quotingSource struct {
	secret string
	panics bool
}

func (s quotingSource) Credential(context.Context) (agrenting.Credential, error) {
	err := fmt.Errorf("op: denied for %s: %w", s.secret, io.ErrUnexpectedEOF)
	if s.panics {
		panic(err)
	}
	return agrenting.Credential{}, err
}

func TestQuotingSource_showsNoSecret(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c", sdktest.TestKey, "ap_abcdefghijklmnopq", "sk_sandbox_abcdefghij"} {
		for _, panics := range []bool{false, true} {
			src := quotingSource{secret, panics}
			for name, opts := range map[string][]agrenting.Option{
				"source":  nil,
				"session": {agrenting.WithSession()},
				"store":   {agrenting.WithStore(agrenting.MemoryStore())},
			} {
				o := newOutlets()
				c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, `{"data":{}}`), src,
					append(append(o.options(), agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1})), opts...)...)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil)
				require.Error(t, err, name)
				if !panics {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
				}
				o.hear("error", err)
				o.hearAll(c)
				_, err = c.Sessions.Authenticate(ctx)
				cancel()
				if err != nil {
					o.hear("error", err)
				}
				require.NoError(t, c.Close())
				for outlet, said := range o {
					assert.NotContains(t, said.String(), secret, "%s, %s, panics %v", name, outlet, panics)
				}
			}
		}
	}
}

// fresh is a new secret that a client has not seen.
const fresh = "nEwNeWnEw7Zq8Xw9Cv0Bn1Mm2Ll3Kk4Jj5"

func TestIssueResponse_error_isNotShown(t *testing.T) {
	t.Parallel()
	message := `"the key is now ` + fresh + `"`
	bodies := map[string]string{
		"errors":       `{"errors":[{"code":"` + fresh + `","message":` + message + `,"field":"` + fresh + `","details":{"key":` + message + `}}]}`,
		"several":      `{"data":null,"errors":[{"code":"MAIL_FAILED","message":` + message + `},{"message":` + message + `}]}`,
		"error":        `{"error":` + message + `}`,
		"error object": `{"error":{"code":"` + fresh + `","detail":` + message + `}}`,
		"message":      `{"message":` + message + `}`,
		"request ID":   `{"data":null,"meta":{"request_id":"` + fresh + `"},"errors":[{"message":"x"}]}`,
		"text":         fresh,
		"page":         "<html>" + fresh,
	}
	calls := map[string]func(context.Context, *agrenting.Client) error{
		"create key": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Keys.Create(ctx, "agent-1", "name")
			return err
		},
		"create token": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Tokens.Create(ctx, agrenting.TokenRequest{Name: "name"})
			return err
		},
		"register": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Agents.Register(ctx, agrenting.AgentRegistration{Name: "x"})
			return err
		},
		"authenticate": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Sessions.Authenticate(ctx)
			return err
		},
		"any path": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Do(ctx, http.MethodPost, "/api/v1/auth//%72otate-key/", nil, new(struct{ X int }))
			return err
		},
		"HTTP client": func(ctx context.Context, c *agrenting.Client) error {
			return check(ctx, c, "/api/v1/user/tokens")
		},
		"credential of the caller": func(ctx context.Context, c *agrenting.Client) error {
			return check(ctx, c, "/api/v1/agents/a/credentials", "Authorization", "Bearer mine")
		},
	}
	for name, call := range calls {
		for form, body := range bodies {
			for _, status := range []int{200, 201, 302, 307, 400, 401, 403, 409, 422, 429, 500, 503} {
				base := sdktest.Answering(status, body, "Location", "https://"+fresh+".test/"+fresh, "X-Request-Id", fresh, "Content-Type", fresh)
				o := newOutlets()
				c := sdktest.Keyed(t, base, append(o.options(), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}))...)
				err := call(t.Context(), c)
				if err != nil {
					o.hear("error", err)
				}
				o.hearAll(c)
				require.NoError(t, c.Close())
				for outlet, said := range o {
					assert.NotContains(t, strings.ToLower(said.String()), strings.ToLower(fresh), "%s, %s, %d: %s", name, form, status, outlet)
				}
				if status >= http.StatusBadRequest && err != nil && !errors.Is(err, agrenting.ErrLockedOut) {
					assert.Contains(t, err.Error(), strconv.Itoa(status), "the status is shown")
				}
			}
		}
	}
}

// check sends a POST by the HTTP client, and returns what CheckResponse says.
func check(ctx context.Context, c *agrenting.Client, path string, header ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, sdktest.APIURL+path, http.NoBody)
	if err != nil {
		return err
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	h := c.HTTPClient()
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return agrenting.CheckResponse(resp)
}

func TestIssueResponse_error_showsCode(t *testing.T) {
	t.Parallel()
	const id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	base := sdktest.Answering(http.StatusUnprocessableEntity, `{"data":null,"meta":{"request_id":"`+id+
		`"},"errors":[{"code":"VALIDATION_ERROR","message":"name is missing","field":"name","details":{"name":["is missing"]}}]}`)
	_, err := sdktest.Keyed(t, base).Keys.Create(t.Context(), "agent-1", "")
	var api *agrenting.APIError
	require.ErrorAs(t, err, &api)
	require.EqualError(t, err, "agrenting: POST /api/v1/agents/agent-1/credentials: 422 Unprocessable Entity VALIDATION_ERROR (field name) [request "+id+"]")
	assert.JSONEq(t, `{"name":["is missing"]}`, string(api.Details))
	_, err = sdktest.Keyed(t, base).Do(t.Context(), http.MethodPost, "/api/v1/tasks", nil, nil)
	require.ErrorContains(t, err, "name is missing", "other calls show the message")
	_, err = sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/api/v1/user/tokens", nil, nil)
	require.ErrorContains(t, err, "name is missing", "a list has no secret")
}
