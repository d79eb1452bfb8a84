package agrenting

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
			resp, err := keyed(t, answering(tc.code, tc.body)).Do(t.Context(), http.MethodGet, "/x", nil, &out)
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
	c := keyed(t, answering(http.StatusOK, body))
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

func TestAWriterTakesWhatIsNoJSONAndHasNoBound(t *testing.T) {
	t.Parallel()
	const size = maxBody + 1<<10
	base := tripFunc(func(*http.Request) (*http.Response, error) {
		resp := reply(http.StatusOK, "")
		resp.Body = io.NopCloser(io.LimitReader(endless{}, size))
		return resp, nil
	})
	var n counter
	_, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/artifact", nil, &n)
	require.NoError(t, err)
	assert.EqualValues(t, size, n)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestAnOutThatCannotBeFilledIsRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	for _, out := range []any{struct{}{}, map[string]int{}, (*int)(nil), "text", func() {}} {
		_, err := c.Do(t.Context(), http.MethodPost, "/x", nil, out)
		require.ErrorIs(t, err, ErrInvalidOption)
		require.ErrorContains(t, err, fmt.Sprintf("%T", out))
	}
	assert.Empty(t, base.requests())
}

func TestAnAnswerThatDoesNotDecodeIsMalformed(t *testing.T) {
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
			resp, err := keyed(t, answering(http.StatusOK, tc.body, "Content-Type", "text/html")).
				Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, tc.out)
			require.ErrorIs(t, err, ErrMalformedResponse)
			require.ErrorContains(t, err, "GET /x: ")
			require.ErrorContains(t, err, tc.want)
			assertClean(t, err.Error(), testKey)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
	_, err := keyed(t, answering(http.StatusOK, "<html>")).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err, "what nobody wants to read need not be readable")
}

func TestAnAnswerIsReadUpToABound(t *testing.T) {
	t.Parallel()
	for code, limit := range map[int]int{http.StatusOK: maxBody, http.StatusBadRequest: maxErrorBody} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()
			var n counter
			base := tripFunc(func(*http.Request) (*http.Response, error) {
				resp := reply(code, "")
				resp.Body = io.NopCloser(io.TeeReader(endless{}, &n))
				return resp, nil
			})
			var out any
			resp, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, &out)
			if code == http.StatusOK {
				require.ErrorIs(t, err, ErrMalformedResponse)
				require.ErrorContains(t, err, "more than 33554432 bytes")
			} else {
				require.ErrorIs(t, err, ErrValidation)
				assert.Less(t, len(err.Error()), 1000)
			}
			assert.Equal(t, code, resp.StatusCode)
			assert.LessOrEqual(t, int(n), limit+64<<10)
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
				base := &recorder{then: func(n int, _ seen) *http.Response {
					if n == 1 {
						return reply(http.StatusServiceUnavailable, "{}")
					}
					return reply(http.StatusOK, "{}")
				}}
				resp, err := keyed(t, base).Do(t.Context(), http.MethodPost, "/x", tc.in, nil)
				got := base.requests()
				assert.Equal(t, tc.body, got[0].body)
				assert.Equal(t, tc.contentType, got[0].header.Get("Content-Type"))
				if !tc.again {
					require.ErrorIs(t, err, ErrServer)
					assert.Len(t, got, 1)
					return
				}
				require.NoError(t, err)
				require.Len(t, got, 2)
				assert.Equal(t, tc.body, got[1].body)
				assert.Equal(t, 2, resp.Attempts)
			})
		})
	}
}

func TestABodyThatDoesNotEncodeIsNotSent(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	_, err := keyed(t, base).Do(t.Context(), http.MethodPost, "/x?q=query-value", make(chan int), nil)
	require.ErrorContains(t, err, "agrenting: POST /x: the request's body does not encode")
	assertClean(t, err.Error())
	assert.Empty(t, base.requests())
}

func TestDoSaysWhoItIs(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	_, err := keyed(t, base, WithUserAgent("my-agent/1.2")).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	got := base.only(t)
	assert.Equal(t, "application/json", got.header.Get("Accept"))
	assert.True(t, strings.HasPrefix(got.header.Get("User-Agent"), "my-agent/1.2 agrenting-go/"+Version), got.header.Get("User-Agent"))
}
