package socket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/socket"
)

const (
	probeSecret = "sk_sandbox_Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"
	address     = "https://api.agrenting.test/socket/agent/websocket?vsn=2.0.0"
	revealed    = address + "&api_key=" + probeSecret
)

// tripFunc is a base transport.
type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// assertClean fails if text has a part of the secret.
func assertClean(t *testing.T, text string) {
	t.Helper()
	const private = "Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"
	for i := range len(private) - 5 {
		part := private[i : i+6]
		for _, form := range []string{part, url.QueryEscape(part), url.PathEscape(part)} {
			assert.NotContains(t, text, form)
		}
	}
}

// dial sends a request whose base transport answers with err.
func dial(t *testing.T, err error) error {
	t.Helper()
	base := tripFunc(func(*http.Request) (*http.Response, error) { return nil, err })
	_, err = socket.NewTransport(base).RoundTrip(newRequest(t, address)) //nolint:bodyclose // there is no response
	return err
}

// newRequest is a request with the credential in its query.
func newRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	req.URL = socket.WithCredential(req.URL, credential(secret.KindAPIKey))
	return req
}

func credential(kind secret.Kind) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: kind, Secret: probeSecret})
}

func TestKindOfTheCredentialChoosesTheParameter(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]map[secret.Kind]string{
		address: {
			secret.KindAPIKey: address + "&api_key=", secret.KindUserToken: address + "&api_key=",
			secret.KindSession: address + "&session_token=",
		},
		"https://api.agrenting.test/socket":          {secret.KindAPIKey: "https://api.agrenting.test/socket?api_key="},
		"https://api.agrenting.test/socket?a=1+%26":  {secret.KindAPIKey: "https://api.agrenting.test/socket?a=1+%26&api_key="},
		"https://api.agrenting.test/socket?vsn=1&b=": {secret.KindSession: "https://api.agrenting.test/socket?vsn=1&b=&session_token="},
	} {
		for kind, want := range want {
			u, err := url.Parse(target)
			require.NoError(t, err)
			assert.Equal(t, want+escaped(), socket.WithCredential(u, credential(kind)).String())
			assert.Equal(t, target, u.String(), "the URL of the caller is not changed")
		}
	}
}

func escaped() string { return url.QueryEscape(probeSecret) }

func TestRequestsWithoutACredentialPassUnchanged(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	base := tripFunc(func(out *http.Request) (*http.Response, error) {
		assert.Same(t, req, out)
		return nil, io.EOF
	})
	_, err := socket.NewTransport(base).RoundTrip(req) //nolint:bodyclose // there is no response
	assert.Equal(t, io.EOF, err)
}

func TestHasCredentialReadsNamesAsServersDo(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"": false, "vsn=2.0.0": false, "key=1&api_keys=2": false,
		"api_key=x": true, "vsn=1&api_key=": true, "api%5fkey=x": true, "API_KEY=x": true, "session_token": true, "Session_Token=x": true,
	} {
		assert.Equal(t, want, socket.HasCredential(&url.URL{RawQuery: query}), query)
	}
}

// leakyError is an error of a library that shows what it dialed.
type leakyError struct {
	text  string
	cause []error
}

func (e *leakyError) Error() string   { return e.text }
func (e *leakyError) Unwrap() []error { return e.cause }

func TestRedactedErrorsStillMatchButDoNotShow(t *testing.T) {
	t.Parallel()
	op := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}

	err := dial(t, fmt.Errorf("socket: %w", &url.Error{Op: "Get", URL: revealed, Err: op}))
	assertClean(t, err.Error())
	assert.Contains(t, err.Error(), address, "where it went is told")
	assert.Contains(t, err.Error(), "deadline exceeded")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	found, ok := errors.AsType[*net.OpError](err)
	assert.True(t, ok)
	assert.Same(t, op, found)
	_, ok = errors.AsType[*url.Error](err)
	assert.False(t, ok, "it has the URL")
	for e := err; e != nil; e = errors.Unwrap(e) {
		assertClean(t, fmt.Sprintf("%v %+v %#v", e, e, e))
	}

	several := dial(t, &leakyError{text: "dialing " + revealed, cause: []error{io.EOF, errors.New(revealed)}})
	assertClean(t, several.Error())
	require.ErrorIs(t, several, io.EOF)
	_, ok = errors.AsType[*leakyError](several)
	assert.False(t, ok)
	joined := dial(t, errors.Join(io.EOF, fmt.Errorf("x: %w", &url.Error{URL: revealed, Err: op})))
	_, ok = errors.AsType[*url.Error](joined)
	assert.False(t, ok, "nothing beneath a joint is handed out")
	require.ErrorIs(t, joined, io.EOF)

	// A joint that shows nothing itself, but has what does beneath.
	quiet := dial(t, fmt.Errorf("x: %w", &url.Error{URL: "wss://api.agrenting.test", Err: &leakyError{
		text: "no luck", cause: []error{&leakyError{text: revealed}},
	}}))
	require.Error(t, quiet)
	_, ok = errors.AsType[*leakyError](quiet)
	assert.False(t, ok)
	assertClean(t, fmt.Sprintf("%#v %+v", quiet, errors.Unwrap(quiet)))

	assert.Same(t, op, dial(t, op), "an error that shows nothing is left alone")
	assert.Equal(t, io.EOF, dial(t, io.EOF))
}
