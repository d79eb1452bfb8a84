package agrenting_test

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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestPostAndPutCarryAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	for _, method := range []string{"POST", "PUT", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "POST"} {
		base := sdktest.Answering(http.StatusOK, "{}")
		_, err := sdktest.Keyed(t, base).Do(t.Context(), method, "/x", nil, nil)
		require.NoError(t, err)
		got := base.Only(t).Header.Values("X-Idempotency-Key")
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
		base := sdktest.Answering(http.StatusOK, "{}")
		c := sdktest.Keyed(t, base)
		_, err := c.Do(t.Context(), method, "/x", nil, nil, agrenting.CallIdempotencyKey("mine"))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), method, "/x", nil, nil, agrenting.CallHeader("x-idempotency-key", "by header"))
		require.NoError(t, err)
		got := base.Requests()
		assert.Equal(t, []string{"mine"}, got[0].Header["X-Idempotency-Key"], method)
		assert.Equal(t, []string{"by header"}, got[1].Header["X-Idempotency-Key"], method)
	}
}

func TestIdempotencyKeyIsTheSameInAllAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("old-key")
		base := &sdktest.Recorder{}
		base.Then = func(n int, s sdktest.Seen) *http.Response {
			switch {
			case n == 1:
				return sdktest.Reply(http.StatusServiceUnavailable, "{}")
			case sdktest.SecretOf(s.Header) == "old-key":
				src.Replace(agrenting.APIKey("new-key"))
				return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
			case n == 3:
				return sdktest.Reply(http.StatusConflict, `{"errors":[{"code":"IDEMPOTENCY_PENDING","message":"wait"}]}`)
			default:
				return sdktest.Reply(http.StatusCreated, `{"data":{"id":"t1"}}`)
			}
		}
		resp, err := sdktest.ClientOver(t, sdktest.Verifying("new-key", base), src).Do(t.Context(), http.MethodPost, "/tasks", map[string]string{"a": "b"}, nil)
		require.NoError(t, err)
		assert.Equal(t, 4, resp.Attempts)
		keys := map[string]bool{}
		for _, s := range base.Requests() {
			keys[s.Header.Get("X-Idempotency-Key")] = true
			assert.JSONEq(t, `{"a":"b"}`, s.Body)
		}
		require.Len(t, keys, 1)
		for key := range keys {
			assert.Regexp(t, uuid4, key)
		}
	})
}

func TestLostResponseDoesNotRepeatWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory())
		defer srv.Close()
		agent := srv.NewAgent(nil, agrentingtest.AgentConfig{})
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()),
			agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agent.ID).Secret)))
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		srv.Fault("POST /api/v1/tasks", agrentingtest.DropAfter())
		_, err = c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", map[string]string{"agent_id": agent.ID, "task_type": "x"}, nil)
		require.NoError(t, err)
		n := 0
		for _, err := range agrenting.List[json.RawMessage](t.Context(), c, "/api/v1/tasks") {
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
			base := sdktest.Answering(http.StatusOK, "{}")
			opts := []agrenting.Option{sdktest.LookupIn(map[string]string{"AGRENTING_AGENT_ID": "environment"})}
			if i >= 1 {
				opts = append(opts, agrenting.WithAgentID("option"))
			}
			c := sdktest.Keyed(t, base, opts...)
			if i >= 2 {
				c = c.As("as")
			}
			ctx := t.Context()
			if i >= 3 {
				ctx = agrenting.ContextWithAgent(ctx, "context")
			}
			var call []agrenting.CallOption
			if i >= 4 {
				call = append(call, agrenting.CallAgent("call-option"))
			}
			if i >= 5 {
				call = append(call, agrenting.CallHeader("X-Agent-ID", "header"))
			}
			_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, call...)
			require.NoError(t, err)
			assert.Equal(t, []string{want}, base.Only(t).Header.Values("X-Agent-ID"))
		})
	}
}

func TestQueriesOfPathAndOptionsAreMerged(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	first := url.Values{"b": {"2", "3"}, "a": {"over the path's"}}
	_, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x?a=1&c=%26", nil, nil,
		agrenting.CallQuery(first), agrenting.CallQuery(url.Values{"b": {"the later wins"}}), agrenting.CallQuery(nil))
	require.NoError(t, err)
	u, err := url.Parse(base.Only(t).URL)
	require.NoError(t, err)
	assert.Equal(t, url.Values{"a": {"over the path's"}, "b": {"the later wins"}, "c": {"&"}}, u.Query())
	assert.Equal(t, url.Values{"b": {"2", "3"}, "a": {"over the path's"}}, first, "the caller's map is unchanged")
}

func TestCallOptionsRefuseInvalidValues(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	t.Cleanup(func() { assert.Empty(t, base.Requests()) })
	cases := map[string]struct {
		opt agrenting.CallOption
		is  error
	}{
		"nil":                 {nil, agrenting.ErrInvalidOption},
		"empty key":           {agrenting.CallIdempotencyKey(""), agrenting.ErrInvalidOption},
		"key with a space":    {agrenting.CallIdempotencyKey("a b"), agrenting.ErrInvalidOption},
		"key with a newline":  {agrenting.CallIdempotencyKey("a\nb"), agrenting.ErrInvalidOption},
		"key beyond ASCII":    {agrenting.CallIdempotencyKey("é"), agrenting.ErrInvalidOption},
		"long key":            {agrenting.CallIdempotencyKey(strings.Repeat("k", 257)), agrenting.ErrInvalidOption},
		"empty header":        {agrenting.CallHeader("", "v"), agrenting.ErrInvalidOption},
		"header with a colon": {agrenting.CallHeader("a:b", "v"), agrenting.ErrInvalidOption},
		"header with a space": {agrenting.CallHeader("a b", "v"), agrenting.ErrInvalidOption},
		"value with a break":  {agrenting.CallHeader("X-Note", "v\r\nX-Evil: "+sdktest.TestKey), agrenting.ErrInvalidOption},
		"value with a zero":   {agrenting.CallHeader("X-Note", "v\x00"), agrenting.ErrInvalidOption},
		"empty agent":         {agrenting.CallAgent(""), agrenting.ErrInvalidAgentID},
		"agent with a break":  {agrenting.CallAgent("a\nb"), agrenting.ErrInvalidAgentID},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, tc.opt)
			require.ErrorIs(t, err, tc.is)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			assert.Nil(t, resp)
			for _, err := range agrenting.List[int](t.Context(), c, "/x", tc.opt) {
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
			base := sdktest.Answering(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"you sent `+sdktest.TestKey+`"}]}`)
			c := sdktest.ClientOver(t, base, sdktest.NewSource("the-client's-own-key"))
			resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallHeader(name, "Bearer "+sdktest.TestKey))
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			assert.Equal(t, sdktest.TestKey, sdktest.SecretOf(base.Only(t).Header), "one credential, and no replay")
			assert.Empty(t, resp.Fingerprint, "none of the SDK's was used")
			assert.Equal(t, 1, resp.Attempts)
		})
	}
}

func TestForeignPathsAreRefused(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	t.Cleanup(func() { assert.Empty(t, base.Requests()) })
	cases := map[string]error{
		"":                                    agrenting.ErrInvalidOption,
		"api/v1/agents":                       agrenting.ErrInvalidOption,
		"?q=query-value":                      agrenting.ErrInvalidOption,
		"/a/../b":                             agrenting.ErrInvalidOption,
		"/a/%2e%2e/b":                         agrenting.ErrInvalidOption,
		"/a/%2E./b":                           agrenting.ErrInvalidOption,
		"/..":                                 agrenting.ErrInvalidOption,
		"/a/./b":                              agrenting.ErrInvalidOption,
		"/a/%2F..%2Fb":                        agrenting.ErrInvalidOption,
		"/a\\b":                               agrenting.ErrInvalidOption,
		"/a/%5c..%5cb":                        agrenting.ErrInvalidOption,
		"/\\evil.example":                     agrenting.ErrInvalidOption,
		"/a#fragment":                         agrenting.ErrInvalidOption,
		"/a#":                                 agrenting.ErrInvalidOption,
		"/a\nb":                               agrenting.ErrInvalidOption,
		"/a%zz":                               agrenting.ErrInvalidOption,
		"/a?x=1;y=2":                          agrenting.ErrInvalidOption,
		"/a?x=%zz":                            agrenting.ErrInvalidOption,
		"//evil.example/a":                    agrenting.ErrForeignOrigin,
		"//evil.example":                      agrenting.ErrForeignOrigin,
		"///evil.example":                     agrenting.ErrForeignOrigin,
		"https://evil.example/a":              agrenting.ErrForeignOrigin,
		"HTTPS://evil.example":                agrenting.ErrForeignOrigin,
		"http:/evil":                          agrenting.ErrForeignOrigin,
		"mailto:x@evil.example":               agrenting.ErrForeignOrigin,
		"https://u:" + sdktest.TestKey + "@e": agrenting.ErrForeignOrigin,
	}
	for path, is := range cases {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
			require.ErrorIs(t, err, is)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			if path != "" { // which is the default, for a route
				require.ErrorIs(t, agrenting.WithRoutes(agrenting.Routes{MyAgents: path})(&agrenting.Config{}), is, "routes have the same rules")
			}
		})
	}
}

func TestPathsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	for base, prefix := range map[string]string{
		sdktest.APIURL:                        "",
		sdktest.APIURL + "/":                  "",
		sdktest.APIURL + "/tenant/a%2Fb":      "/tenant/a%2Fb",
		sdktest.APIURL + "/tenant/a%2Fb/":     "/tenant/a%2Fb",
		strings.ToUpper(sdktest.APIURL) + "/": "",
	} {
		rec := sdktest.Answering(http.StatusOK, "{}")
		c := sdktest.Keyed(t, rec, agrenting.WithBaseURL(base))
		for _, path := range []string{"/", "/api/v1/agents", "/a/did%3Aagrenting%3Ax%2Fy", "/a//b", "/a/...", "/a/%252e%252e", "/a/b/", "/a;v=1", "/ü"} {
			_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
			require.NoError(t, err, path)
			got := rec.Requests()
			want := strings.ReplaceAll(sdktest.APIURL+prefix+path, "ü", "%C3%BC")
			assert.Equal(t, want, got[len(got)-1].URL)
		}
	}
}

func TestFullURLsOfPinnedOriginsAreCalled(t *testing.T) {
	t.Parallel()
	rec := sdktest.Answering(http.StatusOK, "{}")
	const files = "https://files.agrenting.test"
	c := sdktest.Keyed(t, rec, agrenting.WithAllowedOrigins(files))
	for _, target := range []string{sdktest.APIURL + "/api/v1/agents?b=2&a=1", files + "/artifacts/1"} {
		_, err := c.Do(t.Context(), http.MethodGet, target, nil, nil)
		require.NoError(t, err)
		got := rec.Requests()
		assert.Equal(t, target, got[len(got)-1].URL)
		assert.Equal(t, sdktest.TestKey, sdktest.SecretOf(got[len(got)-1].Header))
	}
	_, err := c.Do(t.Context(), http.MethodGet, "https://www.files.agrenting.test/artifacts/1", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
	require.ErrorContains(t, err, "WithAllowedOrigins")
	require.ErrorContains(t, err, "are different hosts")
	assert.Len(t, rec.Requests(), 2)
}
