package agrentingtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// caller sends requests with the same headers each time.
type caller struct {
	t         *testing.T
	client    *http.Client
	transport *http.Transport
	base      string
	header    http.Header
	server    *agrentingtest.Server
}

// answer is a response with its decoded envelope.
type answer struct {
	status int
	header http.Header
	raw    string
	env    struct {
		Data any `json:"data"`
		Meta struct {
			Version    string `json:"version"`
			Timestamp  string `json:"timestamp"`
			RequestID  string `json:"request_id"`
			Pagination *struct {
				Total  int    `json:"total_count"`
				Cursor string `json:"cursor"`
				More   bool   `json:"has_more"`
			} `json:"pagination"`
		} `json:"meta"`
		Errors []struct {
			Code    string              `json:"code"`
			Message string              `json:"message"`
			Field   string              `json:"field"`
			Details map[string][]string `json:"details"`
		} `json:"errors"`
	}
}

// newServer starts an in-memory platform that is closed when the test ends.
func newServer(t *testing.T, opts ...agrentingtest.Option) *agrentingtest.Server {
	t.Helper()
	s := agrentingtest.NewServer(append([]agrentingtest.Option{agrentingtest.InMemory()}, opts...)...)
	t.Cleanup(s.Close)
	return s
}

func newCaller(t *testing.T, s *agrentingtest.Server, header ...string) caller {
	t.Helper()
	transport := s.Transport()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return caller{t: t, client: client, transport: transport, base: s.URL, server: s}.with(header...)
}

// with returns a caller that sends other headers.
func (c caller) with(header ...string) caller {
	c.header = http.Header{}
	for i := 0; i < len(header); i += 2 {
		c.header.Add(header[i], header[i+1])
	}
	return c
}

func (c caller) key(secret string) caller   { return c.with("X-API-Key", secret) }
func (c caller) bearer(token string) caller { return c.with("Authorization", "Bearer "+token) }

func (c caller) and(name, value string) caller {
	c.header = c.header.Clone()
	c.header.Add(name, value)
	return c
}

func (c caller) try(method, path, body string) (answer, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, r)
	require.NoError(c.t, err)
	req.Header = c.header.Clone()
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if err != nil {
		return a, err
	}
	_ = json.Unmarshal(raw, &a.env) // some answers are broken on purpose
	c.record(req, body, a)
	return a, nil
}

// record appends an exchange to the file that AGRENTINGTEST_TRAFFIC names. A test of
// the API document compares the exchanges with it.
func (c caller) record(req *http.Request, body string, a answer) {
	file := os.Getenv("AGRENTINGTEST_TRAFFIC")
	if file == "" || c.server == nil || len(body) > 2<<20 {
		return
	}
	fault := ""
	if c.server.Stats().Faults > 0 {
		for _, r := range slices.Backward(c.server.Requests()) {
			if r.ID == a.env.Meta.RequestID || a.env.Meta.RequestID == "" && r.Method == req.Method && r.Path == req.URL.Path {
				fault = r.Fault
				break
			}
		}
	}
	line, err := json.Marshal(map[string]any{
		"test": c.t.Name(), "method": req.Method, "url": req.URL.String(), "header": req.Header, "body": body, "fault": fault,
		"status": a.status, "response_header": a.header, "response": []byte(a.raw),
	})
	require.NoError(c.t, err)
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	_, err = f.Write(append(line, '\n')) // one write, because other tests write at the same time
	require.NoError(c.t, err)
	require.NoError(c.t, f.Close())
}

func (c caller) call(method, path, body string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body)
	require.NoError(c.t, err)
	return a
}

func (c caller) get(path string) answer { c.t.Helper(); return c.call(http.MethodGet, path, "") }

func (c caller) post(path, body string) answer {
	c.t.Helper()
	return c.call(http.MethodPost, path, body)
}

func (c caller) del(path string) answer { c.t.Helper(); return c.call(http.MethodDelete, path, "") }

func (a answer) code() string {
	if len(a.env.Errors) == 0 {
		return ""
	}
	return a.env.Errors[0].Code
}

func (a answer) field() string {
	if len(a.env.Errors) == 0 {
		return ""
	}
	return a.env.Errors[0].Field
}

func (a answer) object() map[string]any { return object(a.env.Data) }

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func (a answer) text(name string) string {
	s, _ := a.object()[name].(string)
	return s
}

func (a answer) items() []map[string]any {
	list, _ := a.env.Data.([]any)
	out := make([]map[string]any, len(list))
	for i, v := range list {
		out[i] = object(v)
	}
	return out
}

// world is a user with a production agent and its key.
type world struct {
	*agrentingtest.Server
	user  *agrentingtest.User
	agent *agrentingtest.Agent
	key   agrentingtest.Key
	token agrentingtest.Token
	caller
}

func newWorld(t *testing.T, opts ...agrentingtest.Option) *world {
	t.Helper()
	s := newServer(t, opts...)
	u := s.NewUser("Ada")
	a := s.NewAgent(u, agrentingtest.AgentConfig{Name: "Scribe"})
	return &world{
		Server: s,
		user:   u,
		agent:  a,
		key:    s.NewKey(a.ID),
		token:  s.NewToken(u.ID, agrentingtest.TokenConfig{Name: "all"}),
		caller: newCaller(t, s),
	}
}

func (w *world) asKey() caller   { return w.caller.key(w.key.Secret) }
func (w *world) asToken() caller { return w.bearer(w.token.Secret) }

const (
	tasksPath  = "/api/v1/tasks"
	authPath   = "/api/v1/auth/authenticate"
	rotatePath = "/api/v1/auth/rotate-key"
	logoutPath = "/api/v1/auth/logout"
)

// advance advances virtual time. It may be used only in bubbles.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where tests wait
