package agrenting

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestPostAndPutCarryAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	for _, method := range []string{"POST", "PUT", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "POST"} {
		base := answering(http.StatusOK, "{}")
		_, err := keyed(t, base).Do(t.Context(), method, "/x", nil, nil)
		require.NoError(t, err)
		got := base.only(t).header.Values("X-Idempotency-Key")
		if method != http.MethodPost && method != http.MethodPut {
			assert.Empty(t, got, method)
			continue
		}
		require.Len(t, got, 1, method)
		assert.Regexp(t, uuid4, got[0])
		assert.NotContains(t, keys, got[0], "each call has its own")
		keys[got[0]] = true
	}
}

func TestTheCallersIdempotencyKeyWins(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "PATCH", "GET", "DELETE"} {
		base := answering(http.StatusOK, "{}")
		c := keyed(t, base)
		_, err := c.Do(t.Context(), method, "/x", nil, nil, CallIdempotencyKey("mine"))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), method, "/x", nil, nil, CallHeader("x-idempotency-key", "by header"))
		require.NoError(t, err)
		got := base.requests()
		assert.Equal(t, []string{"mine"}, got[0].header["X-Idempotency-Key"], method)
		assert.Equal(t, []string{"by header"}, got[1].header["X-Idempotency-Key"], method)
	}
}

func TestTheIdempotencyKeyIsTheSameOverRetriesAndReplays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("old-key")
		base := &recorder{}
		base.then = func(n int, s seen) *http.Response {
			switch {
			case n == 1:
				return reply(http.StatusServiceUnavailable, "{}")
			case secretOf(s.header) == "old-key":
				src.replace(APIKey("new-key"))
				return reply(http.StatusUnauthorized, revokedBody)
			case n == 3:
				return reply(http.StatusConflict, `{"errors":[{"code":"IDEMPOTENCY_PENDING","message":"wait"}]}`)
			default:
				return reply(http.StatusCreated, `{"data":{"id":"t1"}}`)
			}
		}
		resp, err := clientOver(t, base, src).Do(t.Context(), http.MethodPost, "/tasks", map[string]string{"a": "b"}, nil)
		require.NoError(t, err)
		assert.Equal(t, 4, resp.Attempts)
		keys := map[string]bool{}
		for _, s := range base.requests() {
			keys[s.header.Get("X-Idempotency-Key")] = true
			assert.JSONEq(t, `{"a":"b"}`, s.body)
		}
		require.Len(t, keys, 1)
		for key := range keys {
			assert.Regexp(t, uuid4, key)
		}
	})
}

func TestALostAnswerDoesNotDoTheWorkTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory())
		defer srv.Close()
		agent := srv.NewAgent(nil, agrentingtest.AgentConfig{})
		c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithTransport(srv.Transport()),
			WithCredential(APIKey(srv.NewKey(agent.ID).Secret)))
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		srv.Fault("POST /api/v1/tasks", agrentingtest.DropAfter())
		_, err = c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", map[string]string{"agent_id": agent.ID, "task_type": "x"}, nil)
		require.NoError(t, err)
		n := 0
		for _, err := range List[json.RawMessage](t.Context(), c, "/api/v1/tasks") {
			require.NoError(t, err)
			n++
		}
		assert.Equal(t, 1, n)
		assert.Equal(t, 2, srv.Count("POST /api/v1/tasks"))
	})
}

func TestAgentPrecedence(t *testing.T) {
	t.Parallel()
	// From the weakest to the strongest; each case uses all up to its own.
	steps := []string{"environment", "option", "as", "context", "call-option", "header"}
	for i, want := range steps {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusOK, "{}")
			opts := []Option{lookupIn(map[string]string{"AGRENTING_AGENT_ID": "environment"})}
			if i >= 1 {
				opts = append(opts, WithAgentID("option"))
			}
			c := keyed(t, base, opts...)
			if i >= 2 {
				c = c.As("as")
			}
			ctx := t.Context()
			if i >= 3 {
				ctx = ContextWithAgent(ctx, "context")
			}
			var call []CallOption
			if i >= 4 {
				call = append(call, CallAgent("call-option"))
			}
			if i >= 5 {
				call = append(call, CallHeader("X-Agent-ID", "header"))
			}
			_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, call...)
			require.NoError(t, err)
			assert.Equal(t, []string{want}, base.only(t).header.Values("X-Agent-ID"))
		})
	}
}

func TestQueriesOfPathAndOptionsAreMerged(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	first := url.Values{"b": {"2", "3"}, "a": {"over the path's"}}
	_, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/x?a=1&c=%26", nil, nil,
		CallQuery(first), CallQuery(url.Values{"b": {"the later wins"}}), CallQuery(nil))
	require.NoError(t, err)
	u, err := url.Parse(base.only(t).url)
	require.NoError(t, err)
	assert.Equal(t, url.Values{"a": {"over the path's"}, "b": {"the later wins"}, "c": {"&"}}, u.Query())
	assert.Equal(t, url.Values{"b": {"2", "3"}, "a": {"over the path's"}}, first, "the caller's map is unchanged")
}

func TestCallOptionsRefuseWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	t.Cleanup(func() { assert.Empty(t, base.requests()) })
	cases := map[string]struct {
		opt CallOption
		is  error
	}{
		"nil":                 {nil, ErrInvalidOption},
		"empty key":           {CallIdempotencyKey(""), ErrInvalidOption},
		"key with a space":    {CallIdempotencyKey("a b"), ErrInvalidOption},
		"key with a newline":  {CallIdempotencyKey("a\nb"), ErrInvalidOption},
		"key beyond ASCII":    {CallIdempotencyKey("é"), ErrInvalidOption},
		"long key":            {CallIdempotencyKey(strings.Repeat("k", 257)), ErrInvalidOption},
		"empty header":        {CallHeader("", "v"), ErrInvalidOption},
		"header with a colon": {CallHeader("a:b", "v"), ErrInvalidOption},
		"header with a space": {CallHeader("a b", "v"), ErrInvalidOption},
		"value with a break":  {CallHeader("X-Note", "v\r\nX-Evil: "+testKey), ErrInvalidOption},
		"value with a zero":   {CallHeader("X-Note", "v\x00"), ErrInvalidOption},
		"empty agent":         {CallAgent(""), ErrInvalidAgentID},
		"agent with a break":  {CallAgent("a\nb"), ErrInvalidAgentID},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, tc.opt)
			require.ErrorIs(t, err, tc.is)
			assertClean(t, err.Error(), testKey)
			assert.Nil(t, resp)
			for _, err := range List[int](t.Context(), c, "/x", tc.opt) {
				require.ErrorIs(t, err, tc.is)
			}
		})
	}
}

func TestTheCallersCredentialHeaderWins(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Authorization", "X-API-Key", "api-key"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"you sent `+testKey+`"}]}`)
			c := clientOver(t, base, newMint("the-client's-own-key"))
			resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, CallHeader(name, "Bearer "+testKey))
			require.ErrorIs(t, err, ErrUnauthorized)
			assertClean(t, err.Error(), testKey)
			assert.Equal(t, testKey, secretOf(base.only(t).header), "one credential, and no replay")
			assert.Empty(t, resp.Fingerprint, "none of the SDK's was used")
			assert.Equal(t, 1, resp.Attempts)
		})
	}
}

func TestPathsThatLeadElsewhereAreRefused(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	t.Cleanup(func() { assert.Empty(t, base.requests()) })
	cases := map[string]error{
		"":                            ErrInvalidOption,
		"api/v1/agents":               ErrInvalidOption,
		"?q=query-value":              ErrInvalidOption,
		"/a/../b":                     ErrInvalidOption,
		"/a/%2e%2e/b":                 ErrInvalidOption,
		"/a/%2E./b":                   ErrInvalidOption,
		"/..":                         ErrInvalidOption,
		"/a/./b":                      ErrInvalidOption,
		"/a/%2F..%2Fb":                ErrInvalidOption,
		"/a\\b":                       ErrInvalidOption,
		"/a/%5c..%5cb":                ErrInvalidOption,
		"/\\evil.example":             ErrInvalidOption,
		"/a#fragment":                 ErrInvalidOption,
		"/a#":                         ErrInvalidOption,
		"/a\nb":                       ErrInvalidOption,
		"/a%zz":                       ErrInvalidOption,
		"/a?x=1;y=2":                  ErrInvalidOption,
		"/a?x=%zz":                    ErrInvalidOption,
		"//evil.example/a":            ErrForeignOrigin,
		"//evil.example":              ErrForeignOrigin,
		"///evil.example":             ErrForeignOrigin,
		"https://evil.example/a":      ErrForeignOrigin,
		"HTTPS://evil.example":        ErrForeignOrigin,
		"http:/evil":                  ErrForeignOrigin,
		"mailto:x@evil.example":       ErrForeignOrigin,
		"https://u:" + testKey + "@e": ErrForeignOrigin,
	}
	for path, is := range cases {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
			require.ErrorIs(t, err, is)
			assertClean(t, err.Error(), testKey)
			if path != "" { // which is the default, for a route
				require.ErrorIs(t, WithRoutes(Routes{MyAgents: path})(&config{}), is, "routes have the same rules")
			}
		})
	}
}

func TestPathsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	for base, prefix := range map[string]string{
		apiURL:                        "",
		apiURL + "/":                  "",
		apiURL + "/tenant/a%2Fb":      "/tenant/a%2Fb",
		apiURL + "/tenant/a%2Fb/":     "/tenant/a%2Fb",
		strings.ToUpper(apiURL) + "/": "",
	} {
		rec := answering(http.StatusOK, "{}")
		c := keyed(t, rec, WithBaseURL(base))
		for _, path := range []string{"/", "/api/v1/agents", "/a/did%3Aagrenting%3Ax%2Fy", "/a//b", "/a/...", "/a/%252e%252e", "/a/b/", "/a;v=1", "/ü"} {
			_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
			require.NoError(t, err, path)
			got := rec.requests()
			want := strings.ReplaceAll(apiURL+prefix+path, "ü", "%C3%BC")
			assert.Equal(t, want, got[len(got)-1].url)
		}
	}
}
