package agrenting_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestDoDecodesEveryDocumentedShape(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		code      int
		body      string
		want      string
		requestID string
	}{
		"envelope":               {200, `{"data":{"name":"x"},"meta":{"request_id":"req_1","timestamp":"2026-01-01T00:00:00Z"}}`, "x", "req_1"},
		"envelope with version":  {200, `{"data":{"name":"x"},"meta":{"version":"1.0","timestamp":"2026-01-01T00:00:00Z"}}`, "x", ""},
		"data alone":             {200, `{"data":{"name":"x"}}`, "x", ""},
		"empty errors":           {200, `{"data":{"name":"x"},"errors":[]}`, "x", ""},
		"null errors and meta":   {200, `{"data":{"name":"x"},"errors":null,"meta":null}`, "x", ""},
		"no envelope":            {200, `{"name":"x"}`, "x", ""},
		"unknown members":        {200, `{"data":{"name":"x","new":[1]},"links":{},"meta":{"future":true}}`, "x", ""},
		"odd meta":               {200, `{"data":{"name":"x"},"meta":17}`, "x", ""},
		"odd request id":         {200, `{"data":{"name":"x"},"meta":{"request_id":17}}`, "x", ""},
		"created":                {201, `{"data":{"name":"x"}}`, "x", ""},
		"byte order mark":        {200, "\xef\xbb\xbf" + `{"data":{"name":"x"}}`, "x", ""},
		"white space around":     {200, " \n{\"data\":\t{\"name\":\"x\"}}\n", "x", ""},
		"null data":              {200, `{"data":null,"meta":{}}`, "", ""},
		"meta without data":      {200, `{"meta":{"request_id":"req_2"}}`, "", "req_2"},
		"empty body":             {200, "", "", ""},
		"no content":             {204, "", "", ""},
		"null error of no error": {200, `{"name":"x","error":null}`, "x", ""},
		"data that has an error": {200, `{"data":{"name":"x","error":"of the task"}}`, "x", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out struct {
				Name string `json:"name"`
			}
			resp, err := sdktest.Keyed(t, sdktest.Answering(tc.code, tc.body)).Do(t.Context(), http.MethodGet, "/x", nil, &out)
			require.NoError(t, err)
			assert.Equal(t, tc.want, out.Name)
			assert.Equal(t, tc.code, resp.StatusCode)
			assert.Equal(t, tc.requestID, resp.RequestID)
		})
	}
}

func TestDoPutsTheDataWhereItIsWanted(t *testing.T) {
	t.Parallel()
	const body = `{"data": [1, 2], "meta": {"request_id": "r"}}`
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, body))
	do := func(out any) error {
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, out)
		return err
	}
	var numbers []int
	require.NoError(t, do(&numbers))
	assert.Equal(t, []int{1, 2}, numbers)
	var raw json.RawMessage
	require.NoError(t, do(&raw))
	assert.Equal(t, "[1, 2]", string(raw))
	var whole bytes.Buffer
	require.NoError(t, do(&whole))
	assert.Equal(t, body, whole.String(), "a writer takes the body as it is") //nolint:testifylint // byte for byte
	require.NoError(t, do(nil))
	var anything any
	require.NoError(t, do(&anything))
	assert.Equal(t, []any{1.0, 2.0}, anything)
}

func TestWriterGetsUnlimitedBodyOfAnyType(t *testing.T) {
	t.Parallel()
	const size = agrenting.MaxBody + 1<<10
	base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
		resp := sdktest.Reply(http.StatusOK, "")
		resp.Body = io.NopCloser(io.LimitReader(sdktest.Endless{}, size))
		return resp, nil
	})
	var n sdktest.Counter
	_, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/artifact", nil, &n)
	require.NoError(t, err)
	assert.Equal(t, size, n.Bytes())
}

func TestInvalidOutIsRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	for _, out := range []any{struct{}{}, map[string]int{}, (*int)(nil), "text", func() {}} {
		_, err := c.Do(t.Context(), http.MethodPost, "/x", nil, out)
		require.ErrorIs(t, err, agrenting.ErrInvalidOption)
		require.ErrorContains(t, err, fmt.Sprintf("%T", out))
	}
	assert.Empty(t, base.Requests())
}

func TestUndecodableResponseIsMalformed(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		body string
		out  any
		want string
	}{
		"html":            {"<html>login</html>", new(any), "200 text/html"},
		"half a document": {`{"data":{"name":`, new(any), "200 text/html"},
		"another type":    {`{"data":"text"}`, new(struct{ Name string }), "cannot unmarshal"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, tc.body, "Content-Type", "text/html")).
				Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, tc.out)
			require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
			require.ErrorContains(t, err, "GET /x: ")
			require.ErrorContains(t, err, tc.want)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "<html>")).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err, "a body that is not decoded may be malformed")
}

func TestAnAnswerIsReadUpToABound(t *testing.T) {
	t.Parallel()
	for code, limit := range map[int]int{http.StatusOK: agrenting.MaxBody, http.StatusBadRequest: agrenting.MaxErrorBody} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()
			var n sdktest.Counter
			base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
				resp := sdktest.Reply(code, "")
				resp.Body = io.NopCloser(io.TeeReader(sdktest.Endless{}, &n))
				return resp, nil
			})
			var out any
			resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, &out)
			if code == http.StatusOK {
				require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
				require.ErrorContains(t, err, "more than 33554432 bytes")
			} else {
				require.ErrorIs(t, err, agrenting.ErrValidation)
				assert.Less(t, len(err.Error()), 1000)
			}
			assert.Equal(t, code, resp.StatusCode)
			assert.LessOrEqual(t, n.Bytes(), limit+64<<10)
		})
	}
}

func TestDoSendsEveryKindOfBody(t *testing.T) {
	t.Parallel()
	const asJSON, asBytes = "application/json", "application/octet-stream"
	cases := map[string]struct {
		in          any
		body        string
		contentType string
		again       bool // it can be sent more than once
	}{
		"none":          {nil, "", "", true},
		"struct":        {struct{ A int }{1}, `{"A":1}`, asJSON, true},
		"map":           {map[string]string{"a": "<&>"}, `{"a":"\u003c\u0026\u003e"}`, asJSON, true},
		"bytes":         {[]byte(`{"b":2}`), `{"b":2}`, asJSON, true},
		"raw message":   {json.RawMessage(`[3]`), `[3]`, asJSON, true},
		"buffer":        {bytes.NewBufferString("4"), "4", asBytes, true},
		"bytes reader":  {bytes.NewReader([]byte("5")), "5", asBytes, true},
		"string reader": {strings.NewReader("6"), "6", asBytes, true},
		"other reader":  {io.MultiReader(strings.NewReader("7")), "7", asBytes, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := &sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
					if n == 1 {
						return sdktest.Reply(http.StatusServiceUnavailable, "{}")
					}
					return sdktest.Reply(http.StatusOK, "{}")
				}}
				resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodPost, "/x", tc.in, nil)
				got := base.Requests()
				assert.Equal(t, tc.body, got[0].Body)
				assert.Equal(t, tc.contentType, got[0].Header.Get("Content-Type"))
				if !tc.again {
					require.ErrorIs(t, err, agrenting.ErrServer)
					assert.Len(t, got, 1)
					return
				}
				require.NoError(t, err)
				require.Len(t, got, 2)
				assert.Equal(t, tc.body, got[1].Body)
				assert.Equal(t, 2, resp.Attempts)
			})
		})
	}
}

func TestUnencodableBodyIsNotSent(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	_, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodPost, "/x?q=query-value", make(chan int), nil)
	require.ErrorContains(t, err, "agrenting: POST /x: the request's body cannot be encoded")
	sdktest.AssertClean(t, err.Error())
	assert.Empty(t, base.Requests())
}

func TestDoSetsUserAgent(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	_, err := sdktest.Keyed(t, base, agrenting.WithUserAgent("my-agent/1.2")).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	got := base.Only(t)
	assert.Equal(t, "application/json", got.Header.Get("Accept"))
	assert.True(t, strings.HasPrefix(got.Header.Get("User-Agent"), "my-agent/1.2 agrenting-go/"+agrenting.Version), got.Header.Get("User-Agent"))
}
