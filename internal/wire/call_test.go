package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var target = &url.URL{Scheme: "https", Host: "a.test", Path: "/x", RawQuery: "q=query-value"}

// answering sends nothing and responds with a body.
func answering(status int, body io.Reader) Sender {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(body), Request: req}, nil
	}
}

func TestRequestEncodesEveryBody(t *testing.T) {
	t.Parallel()
	const jsonType = "application/json"
	for name, tc := range map[string]struct {
		in         any
		body, kind string
	}{
		"none":    {nil, "", ""},
		"reader":  {strings.NewReader("raw"), "raw", "application/octet-stream"},
		"bytes":   {[]byte("{}"), "{}", jsonType},
		"raw":     {json.RawMessage("[]"), "[]", jsonType},
		"encoded": {map[string]int{"a": 1}, `{"a":1}`, jsonType},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := Call{Method: http.MethodPost, URL: target, Header: http.Header{"X-Api-Key": {"k"}}, UserAgent: "ua", Body: tc.in}
			req, err := call.Request(t.Context())
			require.NoError(t, err)
			body, err := io.ReadAll(req.Body)
			require.NoError(t, err)
			assert.Equal(t, tc.body, string(body))
			assert.Equal(t, tc.kind, req.Header.Get("Content-Type"))
			assert.Equal(t, []string{jsonType}, req.Header["Accept"])
			assert.Equal(t, "ua", req.Header.Get("User-Agent"))
			assert.Equal(t, "k", req.Header.Get("X-Api-Key"))
		})
	}
}

func TestRequestKeepsTheCallersHeaders(t *testing.T) {
	t.Parallel()
	own := http.Header{"Accept": {"text/event-stream"}, "User-Agent": {"mine"}, "Content-Type": {"text/plain"}}
	req, err := Call{Method: http.MethodPut, URL: target, Header: own.Clone(), UserAgent: "ua", Body: []byte("x")}.Request(t.Context())
	require.NoError(t, err)
	assert.Equal(t, own, req.Header)
}

func TestRequestErrors(t *testing.T) {
	t.Parallel()
	_, err := Call{Method: "GE T", URL: target, Header: http.Header{}}.Request(t.Context())
	require.ErrorIs(t, err, ErrMethod)
	_, err = Call{Method: http.MethodPost, URL: target, Header: http.Header{}, Body: make(chan int)}.Request(t.Context())
	require.ErrorContains(t, err, "agrenting: POST /x: the request's body cannot be encoded")
}

func TestDoReadsTheEnvelope(t *testing.T) {
	t.Parallel()
	call := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}
	for name, tc := range map[string]struct {
		status  int
		body    string
		ok      bool
		jsonErr error
	}{
		"data":            {200, `{"data":1}`, true, nil},
		"no content":      {204, ``, true, nil},
		"page":            {200, `<html>`, true, ErrNotJSON},
		"errors":          {200, `{"errors":[{"code":"C"}]}`, false, nil},
		"errors and key":  {201, `{"data":{"api_key":"k-0123456789"},"errors":[{"code":"C"}]}`, false, nil},
		"failure and key": {500, `{"data":{"api_key":"k-0123456789"}}`, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call := call
			call.Header = http.Header{} // the call adds to it
			a, err := call.Do(t.Context(), answering(tc.status, strings.NewReader(tc.body)), 1<<10)
			require.NoError(t, err)
			assert.Equal(t, tc.ok, a.OK())
			assert.Equal(t, tc.body, string(a.Body))
			require.ErrorIs(t, a.JSONErr, tc.jsonErr)
			_, err = a.Page()
			assert.Equal(t, tc.jsonErr == nil, err == nil)
		})
	}
}

func TestFromPlatform(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"data":null}`:             true,
		`{"data":[]}`:               true,
		`{"errors":[]}`:             true,
		`{"errors":{"detail":"x"}}`: true,
		`{"error":"x"}`:             true,
		"\ufeff{\"data\":1}":        true,
		``:                          false,
		` `:                         false,
		`{}`:                        false,
		`[]`:                        false,
		`"x"`:                       false,
		`null`:                      false,
		`{"error":null}`:            false,
		`{"message":"Forbidden"}`:   false,
		`{"meta":{}}`:               false,
		`{"data":`:                  false,
		`<html>`:                    false,
	} {
		for _, status := range []int{200, 403, 502} {
			a, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(t.Context(), answering(status, strings.NewReader(body)), 1<<10)
			require.NoError(t, err)
			assert.Equal(t, want, a.FromPlatform(), "%d %s", status, body)
		}
	}
	broken := io.MultiReader(strings.NewReader(`{"data":1}`), errReader{io.ErrUnexpectedEOF})
	a, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(t.Context(), answering(200, broken), 1<<10)
	require.Error(t, err)
	assert.False(t, a.FromPlatform(), "it broke off")
}

func TestDoErrorNamesCall(t *testing.T) {
	t.Parallel()
	errDial := errors.New("connection refused")
	failing := func(err error) Sender { return func(*http.Request) (*http.Response, error) { return nil, err } }
	for name, tc := range map[string]struct {
		send Sender
		is   error
		want string
	}{
		"dial":      {failing(errDial), errDial, "agrenting: GET /x: connection refused"},
		"url error": {failing(&url.Error{Op: "Get", URL: target.String(), Err: errDial}), errDial, "agrenting: GET /x: connection refused"},
		"inner url": {failing(fmt.Errorf("p: %w", &url.Error{Op: "Get", URL: target.String(), Err: errDial})), errDial, `GET /x: p: Get "https://a.test/x": connection`},
		"bare EOF":  {failing(io.EOF), io.EOF, "the connection was closed before a response arrived: EOF"},
		"too large": {answering(200, strings.NewReader(strings.Repeat("x", 65))), ErrMalformed, "GET /x: malformed response: it has more than 64 bytes"},
		"cut off": {
			answering(200, io.MultiReader(strings.NewReader("{"), errReader{io.ErrUnexpectedEOF})),
			io.ErrUnexpectedEOF, "GET /x: unexpected EOF",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(t.Context(), tc.send, 64)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), "query-value")
		})
	}
}

func TestDoReportsTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("shutdown")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	call := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}
	_, err := call.Do(ctx, func(*http.Request) (*http.Response, error) { return nil, ctx.Err() }, 64)
	require.EqualError(t, err, "agrenting: GET /x: shutdown")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, cause)
	_, err = call.Do(ctx, func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 64)
	require.EqualError(t, err, "agrenting: GET /x: shutdown, after: unexpected EOF")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestNewUUIDIsRandom(t *testing.T) {
	t.Parallel()
	a, b := NewUUID(), NewUUID()
	assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, a)
	assert.NotEqual(t, a, b)
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
