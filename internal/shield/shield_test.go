package shield_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/shield"
)

const (
	ours   = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"
	theirs = "aB3dE5gH7jK9mN1pQ3sT5"
)

var (
	credential = secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: ours})
	none       secret.Credential
)

type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func failing(err error) http.RoundTripper {
	return tripFunc(func(*http.Request) (*http.Response, error) { return nil, err })
}

func newRequest(tb testing.TB, target string, header ...string) *http.Request {
	tb.Helper()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, target, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = []string{header[i+1]}
	}
	return req
}

// places are the places of a request that may have a credential of the caller.
var places = map[string]func(testing.TB) *http.Request{
	"Authorization": func(tb testing.TB) *http.Request {
		tb.Helper()
		return newRequest(tb, "https://a.test/", "Authorization", "Bearer "+theirs)
	},
	"password": func(tb testing.TB) *http.Request {
		tb.Helper()
		req := newRequest(tb, "https://a.test/")
		req.SetBasicAuth("agent", theirs)
		return req
	},
	"X-Api-Key": func(tb testing.TB) *http.Request {
		tb.Helper()
		return newRequest(tb, "https://a.test/", "X-Api-Key", theirs)
	},
	"Api-Key": func(tb testing.TB) *http.Request {
		tb.Helper()
		return newRequest(tb, "https://a.test/", "api_key", theirs)
	},
	"Proxy-Authorization": func(tb testing.TB) *http.Request {
		tb.Helper()
		return newRequest(tb, "https://a.test/", "Proxy-Authorization", "Basic "+theirs)
	},
	"query": func(tb testing.TB) *http.Request {
		tb.Helper()
		return newRequest(tb, "https://a.test/?api_key="+theirs)
	},
	"user information": func(tb testing.TB) *http.Request {
		tb.Helper()
		req := newRequest(tb, "https://a.test/")
		req.URL.User = url.UserPassword("agent", theirs)
		return req
	},
}

func TestSend_error_showsNoCredential(t *testing.T) {
	t.Parallel()
	for name, request := range places {
		_, err := shield.Send(failing(errors.New("sent "+ours+" and "+theirs)), request(t), credential) //nolint:bodyclose // there is no response
		require.EqualError(t, err, "sent [redacted] and [redacted]", name)
	}
	_, err := shield.Send(failing(io.EOF), newRequest(t, "https://a.test/"), credential) //nolint:bodyclose // there is no response
	assert.Equal(t, io.EOF, err)
}

// A transport may remove the header before it fails.
func TestSend_baseChangesHeader(t *testing.T) {
	t.Parallel()
	base := tripFunc(func(req *http.Request) (*http.Response, error) {
		sent := fmt.Sprint(req.Header)
		req.Header = http.Header{}
		return nil, errors.New(sent)
	})
	_, err := shield.Send(base, newRequest(t, "https://a.test/", "X-Api-Key", ours), credential) //nolint:bodyclose // there is no response
	require.EqualError(t, err, "map[X-Api-Key:[[redacted]]]")
}

func TestSend_shortCallerCredential_isKept(t *testing.T) {
	t.Parallel()
	_, err := shield.Send(failing(errors.New("no route to host")), newRequest(t, "https://a.test/?api_key=a"), none) //nolint:bodyclose // there is no response
	require.EqualError(t, err, "no route to host")
}

// panicOf returns the value of the panic of Send, and the stack where it is recovered.
func panicOf(t *testing.T, value any) (got any, stack string) {
	t.Helper()
	defer func() { got, stack = recover(), string(debug.Stack()) }()
	_, err := shield.Send(tripFunc(func(*http.Request) (*http.Response, error) { panicking(value); return nil, io.EOF }), //nolint:bodyclose // there is no response
		newRequest(t, "https://a.test/"), credential)
	return err, ""
}

func panicking(value any) { panic(value) }

func TestSend_panic_showsNoCredential(t *testing.T) {
	t.Parallel()
	for _, value := range []any{"sent " + ours, errors.New("sent " + ours), fmt.Errorf("%s: %w", ours, http.ErrAbortHandler), []string{ours}} {
		got, _ := panicOf(t, value)
		assert.NotContains(t, fmt.Sprintf("%v %+v %#v", got, got, got), ours)
		assert.Contains(t, fmt.Sprint(got), "[redacted]")
	}
	for _, value := range []any{http.ErrAbortHandler, "a bug", io.EOF, 7} {
		got, stack := panicOf(t, value)
		assert.Equal(t, value, got)
		assert.Contains(t, stack, "shield_test.panicking", "the frames of the base remain")
	}
}

type brokenBody struct{ err error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }
func (brokenBody) Close() error               { return nil }

func TestBody_error_showsNoCredential(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		errors.New("read for " + ours): "read for [redacted]", io.ErrUnexpectedEOF: "unexpected EOF",
	} {
		resp := &http.Response{StatusCode: http.StatusOK, Body: brokenBody{err}}
		shield.Body(newRequest(t, "https://a.test/"), credential, resp)
		_, got := io.ReadAll(resp.Body)
		require.EqualError(t, got, want)
	}
	resp := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("body"))}
	shield.Body(newRequest(t, "https://a.test/"), credential, resp)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, "body", string(b))
	connection := brokenBody{}
	resp = &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: connection}
	shield.Body(newRequest(t, "https://a.test/"), credential, resp)
	assert.Equal(t, connection, resp.Body)
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestSend_withoutHooks_doesNotAllocate(t *testing.T) {
	resp := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}
	base := tripFunc(func(*http.Request) (*http.Response, error) { return resp, nil })
	req := newRequest(t, "https://a.test/?x=y", "X-Api-Key", ours)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := shield.Send(base, req, credential); err != nil { //nolint:bodyclose // it has none
			t.Fatal(err)
		}
	}))
}

func BenchmarkSend(b *testing.B) {
	resp := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}
	base := http.RoundTripper(tripFunc(func(*http.Request) (*http.Response, error) { return resp, nil }))
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "https://a.test/", http.NoBody)
	b.Run("base", func(b *testing.B) {
		for b.Loop() {
			_, _ = base.RoundTrip(req) //nolint:bodyclose // it has none
		}
	})
	b.Run("shield", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = shield.Send(base, req, credential) //nolint:bodyclose // it has none
		}
	})
}
