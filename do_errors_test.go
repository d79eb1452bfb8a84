package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAMethodThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	_, err := keyed(t, answering(http.StatusOK, "{}")).Do(t.Context(), "GE T", "/x", nil, nil)
	require.ErrorIs(t, err, ErrInvalidOption)
	_, err = keyed(t, answering(http.StatusOK, "{}")).Do(nil, "GET", "/x", nil, nil) //nolint:staticcheck // this is what is tested
	require.ErrorIs(t, err, ErrInvalidOption)
	require.ErrorContains(t, err, "context is nil")
}

func TestContextErrorsComeThrough(t *testing.T) {
	t.Parallel()
	errShutdown := errors.New("the program shuts down")
	waiting := tripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	resetting := tripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, io.ErrUnexpectedEOF
	})
	hanging := tripFunc(func(req *http.Request) (*http.Response, error) {
		resp := reply(http.StatusOK, "")
		resp.Body = io.NopCloser(readFunc(func([]byte) (int, error) {
			<-req.Context().Done()
			return 0, req.Context().Err()
		}))
		return resp, nil
	})
	slowly := []Option{WithRetryPolicy(RetryPolicy{BaseDelay: time.Hour, MaxDelay: time.Hour}), WithTimeout(0)}
	cases := map[string]struct {
		base http.RoundTripper
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		opts []Option
		is   []error
		want string
	}{
		"cancelled":              {waiting, cancelled(nil), nil, []error{context.Canceled}, "context canceled"},
		"cancelled with a cause": {waiting, cancelled(errShutdown), nil, []error{context.Canceled, errShutdown}, "the program shuts down"},
		"cancelled, and the base says something else": {
			resetting, cancelled(errShutdown), nil,
			[]error{context.Canceled, errShutdown, io.ErrUnexpectedEOF},
			"shuts down, after: unexpected EOF",
		},
		"the caller's deadline": {waiting, deadline(time.Second), nil, []error{context.DeadlineExceeded}, "deadline exceeded"},
		"the client's timeout":  {waiting, nil, nil, []error{context.DeadlineExceeded}, "no answer within 1m0s, the client's WithTimeout"},
		"the client's own timeout": {
			waiting, nil,
			[]Option{WithTimeout(3 * time.Second)},
			[]error{context.DeadlineExceeded},
			"no answer within 3s, the client's WithTimeout",
		},
		"the caller's, being sooner": {
			waiting, deadline(time.Second),
			[]Option{WithTimeout(3 * time.Second)},
			[]error{context.DeadlineExceeded},
			"deadline exceeded",
		},
		"while the answer is read": {hanging, nil, nil, []error{context.DeadlineExceeded}, "the client's WithTimeout"},
		"cancelled while the answer is read": {
			hanging, cancelled(errShutdown), nil,
			[]error{context.Canceled, errShutdown},
			"the program shuts down",
		},
		"cancelled between attempts on a dead line": {
			answers(0), cancelled(nil), slowly,
			[]error{context.Canceled},
			"context canceled",
		},
		"cancelled between attempts on a busy platform": {
			answers(http.StatusServiceUnavailable), cancelled(errShutdown), slowly,
			[]error{context.Canceled, errShutdown},
			"the program shuts down",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.ctx != nil {
					var stop context.CancelFunc
					ctx, stop = tc.ctx(ctx)
					defer stop()
				}
				var out any
				_, err := keyed(t, tc.base, tc.opts...).Do(ctx, http.MethodGet, "/x?q=query-value", nil, &out)
				for _, is := range tc.is {
					require.ErrorIs(t, err, is)
				}
				require.ErrorContains(t, err, "agrenting: GET /x: ")
				require.ErrorContains(t, err, tc.want)
				assertClean(t, err.Error(), testKey)
			})
		})
	}
}

// cancelled ends a context after a second.
func cancelled(cause error) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(time.Second, func() { cancel(cause) })
		return ctx, func() {
			timer.Stop()
			cancel(nil)
		}
	}
}

func deadline(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestNoTimeoutMeansNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := tripFunc(func(*http.Request) (*http.Response, error) {
			letPass(100 * time.Hour)
			return reply(http.StatusOK, "{}"), nil
		})
		_, err := keyed(t, base, WithTimeout(0)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	})
}

func TestATimeoutIsOneForThoseWhoAskAnyError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := tripFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		_, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		var timeout interface{ Timeout() bool }
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
	})
}

func TestACallersTraceIsFilledByDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var trace Trace
		ctx := ContextWithTrace(t.Context(), &trace)
		_, err := keyed(t, answers(503, 200)).Do(ctx, http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, 2, trace.Attempts)
		assert.Equal(t, APIKey(testKey).Fingerprint(), trace.Fingerprint)
	})
}

func TestErrorsOfTheConnectionComeThroughWithoutTheQuery(t *testing.T) {
	t.Parallel()
	errDial := errors.New("dial tcp: connection refused")
	cases := map[string]error{
		"plain": errDial,
		// A base may itself be built on an http.Client.
		"url error":        &url.Error{Op: "Get", URL: apiURL + "/x?q=query-value", Err: errDial},
		"nested":           &url.Error{Op: "Get", URL: "u?q=query-value", Err: &url.Error{Op: "Get", URL: "v?q=query-value", Err: errDial}},
		"further in":       fmt.Errorf("proxy: %w", &url.Error{Op: "Get", URL: apiURL + "/x?q=query-value", Err: errDial}),
		"bearer in a text": fmt.Errorf("sent Authorization: Bearer %s: %w", testKey, errDial),
	}
	for name, err := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := tripFunc(func(*http.Request) (*http.Response, error) { return nil, err })
			resp, err := keyed(t, base).Do(t.Context(), http.MethodPatch, "/x?q=query-value", nil, nil)
			require.ErrorIs(t, err, errDial)
			require.ErrorContains(t, err, "agrenting: PATCH /x: ")
			assertClean(t, err.Error(), testKey)
			assert.Nil(t, resp)
		})
	}
}

// An error of a source may have a url.Error in it; cutting down to that one
// would lose what the caller has to know.
func TestARenewalErrorSurvivesTheSourcesURLError(t *testing.T) {
	t.Parallel()
	errVault := errors.New("connection refused")
	src := CredentialSourceFunc(func(context.Context) (Credential, error) {
		return Credential{}, fmt.Errorf("vault: %w", &url.Error{Op: "Get", URL: "https://vault.example/v1?token=query-value", Err: errVault})
	})
	_, err := clientOver(t, answering(http.StatusOK, "{}"), src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	renewal, ok := errors.AsType[*RenewalError](err)
	require.True(t, ok, "%v", err)
	assert.False(t, renewal.RetryAt.IsZero())
	require.ErrorIs(t, err, errVault)
	assertClean(t, err.Error())
	assertClean(t, renewal.Error())
}

func TestARedirectElsewhereIsRefusedAndItsAnswerKept(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusFound, "", "Location", "https://evil.example/?q=query-value", "X-Request-Id", "req_1")
	resp, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, nil)
	require.ErrorIs(t, err, ErrForeignOrigin)
	require.ErrorContains(t, err, "https://evil.example")
	assertClean(t, err.Error(), testKey)
	require.NotNil(t, resp)
	assert.Equal(t, http.StatusFound, resp.StatusCode)
	assert.Equal(t, "req_1", resp.RequestID)
	base.only(t)
}

func TestARedirectWithinThePlatformIsFollowed(t *testing.T) {
	t.Parallel()
	base := &recorder{then: func(n int, _ seen) *http.Response {
		if n == 1 {
			return reply(http.StatusTemporaryRedirect, "", "Location", "/y")
		}
		return reply(http.StatusOK, "{}")
	}}
	resp, err := keyed(t, base).Do(t.Context(), http.MethodPost, "/x", map[string]int{"a": 1}, nil)
	require.NoError(t, err)
	got := base.requests()
	require.Len(t, got, 2)
	assert.Equal(t, got[0].body, got[1].body)
	assert.Equal(t, testKey, secretOf(got[1].header))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}
