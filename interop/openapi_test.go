package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/api"
)

// document is the description as a validator reads it. It is taken for any
// server's.
func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.JSON())
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	doc.Servers = nil
	return doc
}

// route is "METHOD /path" with {} for each wildcard.
func route(method, path string) string {
	return method + " " + regexp.MustCompile(`\{[^/]*\}`).ReplaceAllString(path, "{}")
}

func TestDocumentPassesTheValidatorInBothForms(t *testing.T) {
	t.Parallel()
	document(t)
	doc, err := openapi3.NewLoader().LoadFromData(api.YAML())
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	fromYAML, err := doc.MarshalJSON()
	require.NoError(t, err)
	again, err := openapi3.NewLoader().LoadFromData(api.JSON())
	require.NoError(t, err)
	fromJSON, err := again.MarshalJSON()
	require.NoError(t, err)
	assert.JSONEq(t, string(fromYAML), string(fromJSON))
}

// someID can be the ID of anything, and is that of nothing.
const someID = "00000000-0000-4000-8000-000000000000"

// platformRoutes reads the embedded platform's table out of its source.
func platformRoutes(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../agrentingtest/routes.go", nil, 0)
	require.NoError(t, err)
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "add" {
			return true
		}
		switch pattern := call.Args[0].(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(pattern.Value)
			require.NoError(t, err)
			method, path, _ := strings.Cut(text, " ")
			found = append(found, route(method, path))
		case *ast.BinaryExpr: // the path of authenticate is an option
			found = append(found, "POST /api/v1/auth/authenticate", "POST /auth/authenticate")
		default:
			t.Errorf("a route whose pattern this test cannot read: %T", pattern)
		}
		return true
	})
	slices.Sort(found)
	return found
}

func TestOpenAPIListsEmbeddedRoutes(t *testing.T) {
	t.Parallel()
	var described []string
	for path, item := range document(t).Paths.Map() {
		for method := range item.Operations() {
			described = append(described, route(method, path))
		}
	}
	slices.Sort(described)
	assert.Equal(t, platformRoutes(t), described)

	// And the platform knows them when it is asked.
	for _, r := range described {
		var opts []agrentingtest.Option
		if strings.HasSuffix(r, " /auth/authenticate") {
			opts = append(opts, agrentingtest.WithAuthPath("/auth/authenticate"))
		}
		srv := agrentingtest.NewServer(opts...)
		method, path, _ := strings.Cut(r, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+strings.ReplaceAll(path, "{}", someID), http.NoBody)
		require.NoError(t, err)
		resp, err := srv.Transport().RoundTrip(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.NotContains(t, string(body), `"code":"`+agrentingtest.CodeRouteNotFound, r)
		srv.Close()
	}
}

// witness holds every exchange that passes through it against the document.
type witness struct {
	base   http.RoundTripper
	router routers.Router
	codes  map[string][]string // documented error codes by status

	mu       sync.Mutex
	answers  map[string][]int // operation → statuses
	problems []string
}

func newWitness(t *testing.T, base http.RoundTripper) *witness {
	t.Helper()
	doc := document(t)
	// Clients ignore members that they do not know, so the document permits
	// them. Here none may be missing from it.
	seen := map[*openapi3.Schema]bool{}
	for _, s := range doc.Components.Schemas {
		closeSchema(s, seen)
	}
	for _, r := range doc.Components.Responses {
		closeContent(r.Value.Content, seen)
	}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			if op.RequestBody != nil {
				closeContent(op.RequestBody.Value.Content, seen)
			}
			for _, r := range op.Responses.Map() {
				closeContent(r.Value.Content, seen)
			}
		}
	}
	router, err := gorillamux.NewRouter(doc)
	require.NoError(t, err)
	w := &witness{base: base, router: router, codes: map[string][]string{}, answers: map[string][]int{}}
	raw, err := json.Marshal(doc.Components.Responses["Failure"].Value.Extensions["x-error-codes"])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &w.codes))
	return w
}

func closeContent(content openapi3.Content, seen map[*openapi3.Schema]bool) {
	for _, media := range content {
		closeSchema(media.Schema, seen)
	}
}

// closeSchema forbids members that are not described, all the way down.
func closeSchema(ref *openapi3.SchemaRef, seen map[*openapi3.Schema]bool) {
	if ref == nil || seen[ref.Value] {
		return
	}
	s := ref.Value
	seen[s] = true
	if s.Type.Includes("object") && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		// Unlike additionalProperties, this keyword has the validator apply JSON Schema
		// as OpenAPI 3.1 does, such as null where there is no type.
		s.UnevaluatedProperties.Has = new(false)
	}
	closeSchema(s.Items, seen)
	for _, p := range s.Properties {
		closeSchema(p, seen)
	}
	for _, p := range s.OneOf {
		closeSchema(p, seen)
	}
}

var errNoCredential = errors.New("the request lacks what the security scheme asks for")

// authenticated checks that a request carries what one of the security schemes
// asks for.
func authenticated(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	h := in.RequestValidationInput.Request.Header
	switch s := in.SecurityScheme; {
	case s.Type == "apiKey" && s.In == "header" && h.Get(s.Name) != "":
		return nil
	case s.Type == "http" && s.Scheme == "bearer" && strings.HasPrefix(h.Get("Authorization"), "Bearer "):
		return nil
	default:
		return errNoCredential
	}
}

// RoundTrip implements http.RoundTripper.
func (v *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		var err error
		if sent, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
	}
	out := req.Clone(req.Context())
	out.Body = io.NopCloser(bytes.NewReader(sent))
	resp, err := v.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	received, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(received))

	seen := req.Clone(req.Context())
	seen.Body = io.NopCloser(bytes.NewReader(sent))
	v.judge(seen, resp, received)
	return resp, nil
}

func (v *witness) judge(req *http.Request, resp *http.Response, received []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	what := fmt.Sprintf("%s %s: %d", req.Method, req.URL.Path, resp.StatusCode)
	problem := func(format string, args ...any) {
		v.problems = append(v.problems, what+": "+fmt.Sprintf(format, args...))
	}
	found, params, err := v.router.FindRoute(req)
	if err != nil {
		problem("%v", err)
		return
	}
	name := route(found.Method, found.Path)
	v.answers[name] = append(v.answers[name], resp.StatusCode)
	options := &openapi3filter.Options{AuthenticationFunc: authenticated, MultiError: true, IncludeResponseStatus: true}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: found, Options: options}
	if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil && resp.StatusCode < 300 {
		problem("the platform took what the document forbids: %v", err)
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Options: options,
	}
	answer.SetBodyBytes(received)
	if err := openapi3filter.ValidateResponse(req.Context(), answer); err != nil {
		problem("%v", err)
	}
	for _, h := range []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining"} {
		if resp.Header.Get(h) == "" {
			problem("no %s", h)
		}
	}
	if resp.StatusCode >= 300 {
		var env struct{ Errors []struct{ Code string } }
		_ = json.Unmarshal(received, &env) // the schema has been checked
		status := strconv.Itoa(resp.StatusCode)
		if len(env.Errors) == 0 || !slices.Contains(v.codes[status], env.Errors[0].Code) {
			problem("a code that is not documented for this status: %v", env.Errors)
		}
	}
}

// verdict fails the test over everything that was seen.
func (v *witness) verdict(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.problems {
		t.Error(p)
	}
}

// raw calls a route without the SDK.
func (v *witness) raw(t *testing.T, method, target, body string, header ...string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := v.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// truncated sends a request whose body is not what its header says.
func (v *witness) truncated(t *testing.T, srv *agrentingtest.Server, credential string) (status int) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(srv.URL, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "POST /api/v1/tasks HTTP/1.1\r\nHost: platform\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n", credential)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/api/v1/tasks", http.NoBody)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	require.NoError(t, err)
	received, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	v.judge(req, resp, received)
	return resp.StatusCode
}

func TestTrafficMatchesOpenAPI(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	t.Cleanup(srv.Close)
	v := newWitness(t, srv.Transport())
	ada := srv.NewUser("Ada")
	scribe := srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Scribe"})
	connect := func(opts ...agrenting.Option) *agrenting.Client {
		c, err := agrenting.New(append([]agrenting.Option{
			agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(v),
		}, opts...)...)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, c.Close()) })
		return c
	}
	ok := func(_ *agrenting.Response, err error) { t.Helper(); require.NoError(t, err) }
	do := func(c *agrenting.Client, method, path string, in any, opts ...agrenting.CallOption) {
		t.Helper()
		ok(c.Do(ctx, method, path, in, nil, opts...))
	}

	// No one.
	nobody := connect(agrenting.WithAnonymous())
	for _, path := range []string{"/api/v1/health", "/api/v1/health/readiness", "/api/v1/openapi.json"} {
		do(nobody, http.MethodGet, path, nil)
	}
	scout, err := nobody.Agents.Register(ctx, agrenting.AgentRegistration{
		Name: "Scout", DID: "did:agrenting:scout", Capabilities: []string{"search"}, PricingModel: "fixed", BasePrice: "1.50",
		Description: "Finds things", Category: "research", Metadata: map[string]any{"callback_url": "https://scout.example"},
	})
	require.NoError(t, err)
	sandboxed := map[string]any{"name": "Flat", "sandbox": true}
	do(nobody, http.MethodPost, "/api/v1/agents/register", sandboxed)

	// A user.
	user := connect(agrenting.WithCredential(agrenting.UserToken(srv.NewToken(ada.ID, agrentingtest.TokenConfig{Name: "all"}).Secret)))
	do(user, http.MethodPost, "/api/v1/agents", map[string]any{"agent": map[string]any{
		"name": "Second", "did": "did:agrenting:second", "capabilities": []string{"writing"}, "pricing_model": "hybrid",
	}})
	for a, err := range user.Agents.Mine(ctx, agrenting.CallQuery(url.Values{"limit": {"1"}})) {
		require.NoError(t, err)
		_, err = user.Agents.Get(ctx, a.DID)
		require.NoError(t, err)
	}
	token, err := user.Tokens.Create(ctx, agrenting.TokenRequest{Name: "ci", Scopes: []string{"read", "hire:create"}, ExpiresIn: time.Hour})
	require.NoError(t, err)
	for _, err := range user.Tokens.List(ctx) {
		require.NoError(t, err)
	}
	require.NoError(t, user.Tokens.Revoke(ctx, token.ID))
	do(user, http.MethodGet, "/api/v1/hirings", nil)
	do(user.As(scribe.ID), http.MethodGet, "/api/v1/hirings/pending", nil)
	do(user.As(scribe.ID), http.MethodGet, "/api/v1/tasks", nil)
	do(user.As(scribe.ID), http.MethodPost, "/api/v1/auth/rotate-key", map[string]any{"key_id": srv.NewKey(scribe.ID).ID})

	// An agent with its key.
	keyed := connect(agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)))
	issued, err := keyed.Keys.Create(ctx, scribe.ID, "second")
	require.NoError(t, err)
	for _, err := range keyed.Keys.List(ctx, scribe.ID, agrenting.CallQuery(url.Values{"limit": {"1"}})) {
		require.NoError(t, err)
	}
	require.NoError(t, keyed.Keys.Revoke(ctx, scribe.ID, issued.ID))
	for _, err := range keyed.Keys.List(ctx, scribe.ID) { // with a revoked one
		require.NoError(t, err)
	}
	do(keyed, http.MethodPatch, "/api/v1/agents/"+scribe.ID, map[string]any{"agent": map[string]any{"base_price": "2.5"}})
	alias := connect(agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)), agrenting.WithAPIKeyHeader("Api-Key"))
	for _, shape := range []agrentingtest.SessionShape{agrentingtest.ShapeLive, agrentingtest.ShapeDocs, agrentingtest.ShapeBoth} {
		shaped := agrentingtest.NewServer(agrentingtest.WithSessionShape(shape))
		t.Cleanup(shaped.Close)
		key := shaped.NewKey(shaped.NewAgent(nil, agrentingtest.AgentConfig{Name: "Shaped"}).ID).Secret
		status := v.raw(t, http.MethodPost, shaped.URL+"/api/v1/auth/authenticate", "", "Api-Key", key)
		require.Equal(t, http.StatusOK, status)
	}
	_, err = alias.Sessions.Authenticate(ctx)
	require.NoError(t, err)

	// A session.
	seated := connect(agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)), agrenting.WithSession())
	task := map[string]any{"agent_id": scout.Agent.ID, "task_type": "search", "input": map[string]any{"q": "go"}}
	var made struct{ ID string }
	for range 2 { // the second is answered from memory
		_, err = seated.Do(ctx, http.MethodPost, "/api/v1/tasks", task, &made, agrenting.CallIdempotencyKey("one"))
		require.NoError(t, err)
	}
	do(seated, http.MethodPost, "/api/v1/tasks", map[string]any{"agent_id": scout.Agent.ID, "task_type": "search"})
	do(seated, http.MethodGet, "/api/v1/tasks?limit=1", nil)
	do(seated, http.MethodGet, "/api/v1/tasks/"+made.ID, nil)
	do(seated, http.MethodGet, "/api/v1/agents?status=active&capability=search", nil)
	do(seated, http.MethodPost, "/api/v1/auth/rotate-key", nil)
	require.NoError(t, seated.Sessions.Logout(ctx))

	// The other path of authenticate.
	old := agrentingtest.NewServer(agrentingtest.WithAuthPath("/auth/authenticate"))
	t.Cleanup(old.Close)
	key := old.NewKey(old.NewAgent(nil, agrentingtest.AgentConfig{Name: "Old"}).ID).Secret
	status := v.raw(t, http.MethodPost, old.URL+"/auth/authenticate", "", "X-API-Key", key)
	require.Equal(t, http.StatusOK, status)

	exerciseMarketplace(t, v, srv)
	for _, r := range platformRoutes(t) {
		assert.True(t, slices.ContainsFunc(v.answers[r], func(status int) bool { return status < 300 }), "%s never got a successful response", r)
	}
	v.verdict(t)
}

func TestFailuresMatchOpenAPI(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer(agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1000}))
	t.Cleanup(srv.Close)
	v := newWitness(t, srv.Transport())
	ada := srv.NewUser("Ada")
	scribe, second := srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Scribe"}), srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Second"})
	stranger := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Stranger"})
	key := srv.NewKey(scribe.ID).Secret
	token := srv.NewToken(ada.ID, agrentingtest.TokenConfig{Name: "all"}).Secret
	narrow := srv.NewToken(ada.ID, agrentingtest.TokenConfig{Name: "narrow", Scopes: []string{"balance:read"}}).Secret

	cases := []struct {
		method, path, body string
		header             []string
		status             int
	}{
		{method: "GET", path: "/api/v1/tasks", status: 401},
		{method: "GET", path: "/api/v1/tasks", header: []string{"X-API-Key", "unknown"}, status: 401},
		{method: "GET", path: "/api/v1/user/tokens", header: []string{"X-API-Key", key}, status: 403},
		{method: "GET", path: "/api/v1/user/tokens", header: []string{"Authorization", "Bearer " + narrow}, status: 403},
		{method: "GET", path: "/api/v1/agents/" + stranger.ID + "/credentials", header: []string{"X-API-Key", key}, status: 403},
		{method: "GET", path: "/api/v1/tasks", header: []string{"Authorization", "Bearer " + token}, status: 422},
		{method: "GET", path: "/api/v1/tasks", header: []string{"Authorization", "Bearer " + token, "X-Agent-ID", second.ID}, status: 200},
		{method: "GET", path: "/api/v1/tasks/none", header: []string{"X-API-Key", key}, status: 404},
		{method: "DELETE", path: "/api/v1/agents/" + scribe.ID + "/credentials/none", header: []string{"X-API-Key", key}, status: 404},
		{method: "GET", path: "/api/v1/tasks?limit=101", header: []string{"X-API-Key", key}, status: 422},
		{method: "GET", path: "/api/v1/tasks?cursor=none", header: []string{"X-API-Key", key}, status: 422},
		{method: "POST", path: "/api/v1/tasks", body: "{}", header: []string{"X-API-Key", key}, status: 422},
		{method: "POST", path: "/api/v1/tasks", body: "[]", header: []string{"X-API-Key", key}, status: 422},
		{method: "POST", path: "/api/v1/agents/register", body: `{"agent":{"name":"X"}}`, status: 422},
		{method: "POST", path: "/api/v1/user/tokens", body: `{"name":"","scopes":[]}`, header: []string{"Authorization", "Bearer " + token}, status: 422},
		{method: "POST", path: "/api/v1/tasks", body: "{}", header: []string{"X-API-Key", key, "X-Idempotency-Key", "k"}, status: 422},
		{method: "POST", path: "/api/v1/tasks", body: `{"a":1}`, header: []string{"X-API-Key", key, "X-Idempotency-Key", "k"}, status: 422},
		{method: "POST", path: "/api/v1/tasks", body: `"` + strings.Repeat("x", 1<<20) + `"`, header: []string{"X-API-Key", key}, status: 413},
		{method: "POST", path: "/api/v1/auth/authenticate", header: []string{"Authorization", "Bearer " + token}, status: 403},
	}
	for _, c := range cases {
		status := v.raw(t, c.method, srv.URL+c.path, c.body, c.header...)
		assert.Equal(t, c.status, status, "%s %s", c.method, c.path)
	}
	for _, r := range platformRoutes(t) {
		method, path, _ := strings.Cut(r, " ")
		if path == "/auth/authenticate" { // the other path is served here
			continue
		}
		for want, fault := range map[int]agrentingtest.Fault{
			401: agrentingtest.Status(401, ""), 403: agrentingtest.Status(403, ""), 404: agrentingtest.Status(404, ""),
			402: agrentingtest.Status(402, "PAYMENT_FAILED"), 409: agrentingtest.Status(409, agrentingtest.CodeIdempotencyPending),
			410: agrentingtest.Gone(), 422: agrentingtest.Status(422, ""), 423: agrentingtest.Status(423, "ESCROW_LOCKED"),
			429: agrentingtest.StatusWithRetryAfter(429, "7"), 500: agrentingtest.Status(500, ""), 503: agrentingtest.Status(503, ""),
		} {
			srv.Fault("*", fault)
			status := v.raw(t, method, srv.URL+strings.ReplaceAll(path, "{}", someID), "", "Authorization", "Bearer "+token)
			assert.Equal(t, want, status, r)
		}
	}
	assert.Equal(t, http.StatusBadRequest, v.truncated(t, srv, "Authorization: Bearer "+token))
	for range 11 { // the lockout
		status := v.raw(t, http.MethodPost, srv.URL+"/api/v1/auth/authenticate", "", "X-API-Key", "unknown")
		assert.Contains(t, []int{401, 429}, status)
	}
	v.verdict(t)
}

func TestValidatorFindsMismatches(t *testing.T) {
	t.Parallel()
	const meta = `"meta":{"version":"1.0"}`
	answers := map[string]struct {
		status int
		body   string
	}{
		"a member that is not described": {200, `{"data":{"status":"ok","mood":"fine"},` + meta + `}`},
		"a member that is missing":       {200, `{"data":{},` + meta + `}`},
		"another type":                   {200, `{"data":{"status":1},` + meta + `}`},
		"a failure without errors":       {503, `{"data":null,` + meta + `}`},
		"a code of another status":       {503, `{"errors":[{"code":"NOT_FOUND","message":"m"}]}`},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newWitness(t, answering(func(*http.Request) (int, string) { return a.status, a.body }))
			v.raw(t, http.MethodGet, "https://platform.example/api/v1/health", "")
			assert.NotEmpty(t, v.problems)
		})
	}
	t.Run("a request without its credential", func(t *testing.T) {
		t.Parallel()
		v := newWitness(t, answering(func(*http.Request) (int, string) { return 200, `{"data":[],` + meta + `}` }))
		v.raw(t, http.MethodGet, "https://platform.example/api/v1/hirings/pending", "")
		assert.Len(t, v.problems, 1)
		v.raw(t, http.MethodGet, "https://platform.example/api/v1/hirings/pending", "", "X-API-Key", "k")
		assert.Len(t, v.problems, 1)
	})
}

// answering is a server that may say anything.
type answering func(*http.Request) (status int, body string)

// RoundTrip implements http.RoundTripper.
func (f answering) RoundTrip(req *http.Request) (*http.Response, error) {
	status, body := f(req)
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{
			"Content-Type": {"application/json"}, "X-Ratelimit-Limit": {"100"}, "X-Ratelimit-Remaining": {"99"},
		},
		Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}
