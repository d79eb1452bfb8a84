package agrenting_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestResponseHasMetadata(t *testing.T) {
	t.Parallel()
	const meta = `{"request_id":"req_meta","pagination":{"total_count":7,"cursor":"c","has_more":true}}`
	base := sdktest.Answering(http.StatusOK, `{"data":[],"meta":`+meta+`}`, "X-Request-Id", "req_header", "X-RateLimit-Limit", "100",
		"X-RateLimit-Remaining", "42", "Sunset", "Sat, 31 Oct 2026 23:59:59 GMT", "X-Other", "kept")
	c := sdktest.Keyed(t, base)
	assert.False(t, c.Status().Rate.Known)
	resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "kept", resp.Header.Get("X-Other"))
	assert.Equal(t, "req_meta", resp.RequestID, "the envelope's wins")
	assert.Equal(t, 1, resp.Attempts)
	assert.Equal(t, agrenting.Rate{Known: true, Limit: 100, Remaining: 42}, resp.Rate)
	assert.Equal(t, resp.Rate, c.Status().Rate)
	assert.True(t, time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC).Equal(resp.Sunset))
	assert.Equal(t, &agrenting.Pagination{TotalCount: 7, Cursor: "c", HasMore: true}, resp.Pagination)
	assert.JSONEq(t, meta, string(resp.Meta))
	assert.EqualValues(t, 1, resp.Generation)
	assert.Equal(t, agrenting.APIKey(sdktest.TestKey).Fingerprint(), resp.Fingerprint)
}

func TestRequestIDFallsBackToHeader(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		resp, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}", name, "req_1")).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, "req_1", resp.RequestID)
	}
}

func TestInvalidRateLimitHeadersAreUnknown(t *testing.T) {
	t.Parallel()
	for _, header := range [][]string{
		nil, {"X-RateLimit-Limit", "100"}, {"X-RateLimit-Limit", "many", "X-RateLimit-Remaining", "4"},
	} {
		c := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}", header...))
		resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.False(t, resp.Rate.Known)
		assert.False(t, c.Status().Rate.Known)
	}
}

func TestAnAnonymousResponseNamesNoCredential(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(base), agrenting.WithAnonymous())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	resp, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Empty(t, resp.Fingerprint)
	assert.Zero(t, resp.Generation)
	assert.Empty(t, base.Only(t).Credentials())
}

func TestASunsetIsLoggedOncePerRoute(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	var ids []string
	for range 3 {
		ids = append(ids, srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	}
	srv.SetSunset("*", time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC))
	var out bytes.Buffer
	c := sdktest.ClientOf(t, srv, agrenting.WithCredential(agrenting.APIKey(srv.NewKey(ids[0]).Secret)), agrenting.WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
	for range 2 {
		for _, id := range ids {
			_, err := c.Agents.Get(t.Context(), id, agrenting.CallQuery(url.Values{"q": {"query-value"}}))
			require.NoError(t, err)
		}
		_, err := sdktest.Collect[agrenting.Agent](t, c, "/api/v1/agents")
		require.NoError(t, err)
		_, _ = c.Do(t.Context(), http.MethodDelete, "/api/v1/agents/"+ids[0], nil, nil) // another method is another route
	}
	require.NoError(t, c.Close())
	assert.Equal(t, 3, strings.Count(out.String(), "a route will be retired"), out.String())
	assert.Contains(t, out.String(), "level=WARN")
	assert.Contains(t, out.String(), "sunset=2026-10-31T23:59:59.000Z")
	sdktest.AssertClean(t, out.String())
}

func TestTheMemoryOfRoutesIsBounded(t *testing.T) {
	t.Parallel()
	var log agrenting.SunsetLog
	first := 0
	for i := range 10 * agrenting.MaxSunsets {
		for range 2 {
			if log.First(http.MethodGet, fmt.Sprintf("/r%d", i)) {
				first++
			}
		}
	}
	assert.Equal(t, agrenting.MaxSunsets, first)
}

func TestAnErrorIsFoundInEveryShape(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		code int
		body string
		want agrenting.APIError
	}{
		"conventions": {
			422, `{"data":null,"meta":{"request_id":"req_1"},"errors":[{"code":"VALIDATION_ERROR","message":"is bad","field":"name"}]}`,
			agrenting.APIError{Code: "VALIDATION_ERROR", Message: "is bad", Field: "name", RequestID: "req_1"},
		},
		"details as an object": {
			422, `{"errors":[{"code":"VALIDATION_ERROR","message":"m","details":{"name":["is bad"]}}]}`,
			agrenting.APIError{Code: "VALIDATION_ERROR", Message: "m", Details: json.RawMessage(`{"name":["is bad"]}`)},
		},
		"details as an array": {
			409, `{"errors":[{"code":"AGENT_BUSY","message":"m","details":[{"slot":1}]}]}`,
			agrenting.APIError{Code: "AGENT_BUSY", Message: "m", Details: json.RawMessage(`[{"slot":1}]`)},
		},
		"several": {
			422, `{"errors":[{"code":"A","message":"a"},{"code":"B","message":"b"}]}`,
			agrenting.APIError{Code: "A", Message: "a", Others: []*agrenting.APIError{{StatusCode: 422, Code: "B", Message: "b"}}},
		},
		"odd entries": {
			400, `{"errors":[17,{"message":"m","code":5}]}`,
			agrenting.APIError{Message: "an error that could not be read", Others: []*agrenting.APIError{{StatusCode: 400, Message: "m"}}},
		},
		"without data":    {429, `{"errors":[{"code":"RATE_LIMIT_EXCEEDED","message":"m"}]}`, agrenting.APIError{Code: "RATE_LIMIT_EXCEEDED", Message: "m"}},
		"in a success":    {200, `{"data":{"x":1},"errors":[{"code":"PARTIAL","message":"m"}]}`, agrenting.APIError{Code: "PARTIAL", Message: "m"}},
		"in a creation":   {201, `{"errors":["just text"]}`, agrenting.APIError{Message: "just text"}},
		"error as a text": {400, `{"error":"m"}`, agrenting.APIError{Message: "m"}},
		"error as object": {400, `{"error":{"code":"C","message":"m"}}`, agrenting.APIError{Code: "C", Message: "m"}},
		"one for many":    {400, `{"errors":{"code":"C","detail":"m"}}`, agrenting.APIError{Code: "C", Message: "m"}},
		"title":           {400, `{"errors":[{"title":"m"}]}`, agrenting.APIError{Message: "m"}},
		"bare message":    {400, `{"message":"m","code":"C"}`, agrenting.APIError{Code: "C", Message: "m"}},
		"plain text":      {502, "upstream\n is  away\n", agrenting.APIError{Message: "upstream is away"}},
		"html":            {502, "<html>secret things</html>", agrenting.APIError{}},
		"half of JSON":    {500, `{"errors":[{"message":"m"`, agrenting.APIError{}},
		"no body":         {404, "", agrenting.APIError{}},
		"unknown members": {404, `{"errors":[{"code":"NOT_FOUND","message":"m","hint":{"a":1}}],"x":1}`, agrenting.APIError{Code: "NOT_FOUND", Message: "m"}},
		"null data":       {404, `{"data":null,"errors":[]}`, agrenting.APIError{}},
		"a message in the data of a failure is none": {404, `{"data":{"message":"m"}}`, agrenting.APIError{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out any
			resp, err := sdktest.Keyed(t, sdktest.Answering(tc.code, tc.body), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1})).
				Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, &out)
			var got *agrenting.APIError
			require.ErrorAs(t, err, &got)
			want := tc.want
			want.StatusCode, want.Method, want.Path, want.Attempts = tc.code, "GET", "/x", 1
			assert.Equal(t, &want, got)
			assert.Equal(t, tc.code, resp.StatusCode)
			assert.Nil(t, out)
			sdktest.AssertClean(t, err.Error())
		})
	}
}

func TestABareMessageInASuccessIsData(t *testing.T) {
	t.Parallel()
	var out struct{ Message, Code string }
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"message":"stored","code":"C"}`)).Do(t.Context(), http.MethodPost, "/x", nil, &out)
	require.NoError(t, err)
	assert.Equal(t, "stored", out.Message)
}

func TestEchoedSecretIsRedacted(t *testing.T) {
	t.Parallel()
	const key = "Zq7+Wm/3Xp9=Rt5&Kv2~Ln8"
	forms := map[string]string{
		"as it is":   key,
		"in a query": "?api_key=" + url.QueryEscape(key),
		"in a path":  url.PathEscape(key),
		"base64":     base64.StdEncoding.EncodeToString([]byte(key)),
		"basic auth": base64.StdEncoding.EncodeToString([]byte("user:" + key + ":rest")),
		"base64 url": base64.RawURLEncoding.EncodeToString([]byte(key)),
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quoted, err := json.Marshal("you sent " + form + " to us")
			require.NoError(t, err)
			q := string(quoted)
			bodies := map[string]string{
				"message": `{"errors":[{"code":"UNAUTHORIZED","message":` + q + `}]}`,
				"details": `{"errors":[{"code":"C","message":"m","details":{"sent":` + q + `}}]}`,
				"field":   `{"errors":[{"code":` + q + `,"message":"m","field":` + q + `}]}`,
				"others":  `{"errors":[{"code":"C"},{"message":` + q + `,"details":[` + q + `]}]}`,
				"meta":    `{"meta":{"request_id":` + q + `},"errors":[{"code":"C"}]}`,
				"text":    "you sent " + form,
				"loose":   `{"message":` + q + `}`,
			}
			for where, body := range bodies {
				c := sdktest.ClientOver(t, sdktest.Answering(http.StatusForbidden, body), agrenting.Static(agrenting.APIKey(key)))
				_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				var api *agrenting.APIError
				require.ErrorAs(t, err, &api)
				whole, jerr := json.Marshal(api)
				require.NoError(t, jerr)
				for _, text := range []string{err.Error(), string(whole), string(api.Details)} {
					sdktest.AssertNoSecret(t, text, key)
				}
				if where == "details" {
					var m map[string]string
					require.NoError(t, json.Unmarshal(api.Details, &m), "what is left is JSON still")
					assert.Contains(t, m["sent"], "[redacted]")
				}
			}
		})
	}
}

func TestDetailsKeepEverythingButTheSecret(t *testing.T) {
	t.Parallel()
	const key = "12345678901234567890"
	for details, want := range map[string]string{
		`{"n":` + key + `}`:                         `{"n":"[redacted]"}`,
		`{"` + key + `":[1.50,true,null]}`:          `{"[redacted]":[1.50,true,null]}`,
		`[{"a":"x` + key + `y"},12345678901234567]`: `[{"a":"x[redacted]y"},12345678901234567]`,
		`{ "as" : "it was" }`:                       `{ "as" : "it was" }`,
	} {
		c := sdktest.ClientOver(t, sdktest.Answering(http.StatusForbidden, `{"errors":[{"code":"C","details":`+details+`}]}`), agrenting.Static(agrenting.APIKey(key)))
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		var api *agrenting.APIError
		require.ErrorAs(t, err, &api)
		assert.Equal(t, want, string(api.Details))
	}
}

func TestCheckResponseMakesATypedError(t *testing.T) {
	t.Parallel()
	const body = `{"meta":{"request_id":"req_1"},"errors":[{"code":"NOT_FOUND","message":"no such thing"}]}`
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusNotFound, body))
	resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/x?q=query-value", nil))
	require.NoError(t, err)
	err = agrenting.CheckResponse(resp)
	require.ErrorIs(t, err, agrenting.ErrNotFound)
	require.ErrorContains(t, err, "agrenting: GET /x: 404 Not Found: no such thing [request req_1")
	sdktest.AssertClean(t, err.Error())
	assert.Equal(t, body, readAll(t, resp), "the body can be read still") //nolint:testifylint // byte for byte
}

func TestCheckResponseLeavesASuccessAlone(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusOK, http.StatusNoContent, http.StatusSwitchingProtocols} {
		body := sdktest.NewSpyBody("stream")
		resp := sdktest.Reply(code, "") //nolint:bodyclose // it is in memory
		resp.Body = body
		require.NoError(t, agrenting.CheckResponse(resp))
		assert.Zero(t, body.Closed())
		assert.Zero(t, body.Bytes.Load())
	}
}

func TestCheckResponseReadsUpToABound(t *testing.T) {
	t.Parallel()
	var n sdktest.Counter
	resp := sdktest.Reply(http.StatusBadGateway, "")
	resp.Body = io.NopCloser(io.TeeReader(sdktest.Endless{}, &n))
	err := agrenting.CheckResponse(resp)
	require.ErrorIs(t, err, agrenting.ErrServer)
	assert.Less(t, len(err.Error()), 1000)
	assert.LessOrEqual(t, n.Bytes(), agrenting.MaxErrorBody+64<<10)
	require.NoError(t, resp.Body.Close())
}

func TestCheckResponseTakesABareResponse(t *testing.T) {
	t.Parallel()
	resp := &http.Response{StatusCode: http.StatusTeapot}
	require.EqualError(t, agrenting.CheckResponse(resp), "agrenting: 418 I'm a teapot")
	assert.Empty(t, readAll(t, resp))
}

func TestCheckResponseReportsNotReplayable(t *testing.T) {
	t.Parallel()
	src := sdktest.NewSource("old-key")
	base := &sdktest.Recorder{Then: func(_ int, s sdktest.Seen) *http.Response {
		src.Replace(agrenting.APIKey(sdktest.SecretOf(s.Header) + "-again"))
		return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
	}}
	c := sdktest.ClientOver(t, base, src)
	req := sdktest.Request(t, http.MethodPost, "/x", io.MultiReader(strings.NewReader("once")))
	resp, err := c.HTTPClient().Do(req)
	require.NoError(t, err)
	err = agrenting.CheckResponse(resp)
	require.NoError(t, resp.Body.Close())
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	require.ErrorIs(t, err, agrenting.ErrNotReplayable)

	_, err = sdktest.ClientOver(t, base, newMintFor(src)).Do(t.Context(), http.MethodPatch, "/x", io.MultiReader(strings.NewReader("once")), nil)
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	require.ErrorIs(t, err, agrenting.ErrNotReplayable, "Do says the same")
}

// newMintFor is a source that yields what another does.
func newMintFor(m *sdktest.Source) agrenting.CredentialSource {
	return agrenting.CredentialSourceFunc(m.Credential)
}

func TestCheckResponseRedactsTheCallersOwnCredential(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusForbidden, "you sent "+sdktest.TestKey))
	req := sdktest.Request(t, http.MethodGet, "/x", nil)
	req.Header.Set("Authorization", "Bearer "+sdktest.TestKey)
	resp, err := c.HTTPClient().Do(req)
	require.NoError(t, err)
	sdktest.AssertClean(t, agrenting.CheckResponse(resp).Error(), sdktest.TestKey)
	require.NoError(t, resp.Body.Close())
}

func TestCheckResponseRedactsSentCredential(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			resp, err := sdktest.Keyed(t, sdktest.Answering(code, "you sent "+sdktest.TestKey)).HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/x", nil))
			require.NoError(t, err)
			sdktest.AssertClean(t, agrenting.CheckResponse(resp).Error(), sdktest.TestKey)
			require.NoError(t, resp.Body.Close())
		})
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		resp, err := sdktest.Keyed(t, sdktest.Answers(503, 0, 429, 200)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, 4, resp.Attempts)
		resp, err = sdktest.Keyed(t, sdktest.Answers(503)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorContains(t, err, "[4 attempts]")
		assert.Equal(t, 4, resp.Attempts)
	})
}
