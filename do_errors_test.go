package agrenting_test

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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestInvalidMethodIsRefused(t *testing.T) {
	t.Parallel()
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}")).Do(t.Context(), "GE T", "/x", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	_, err = sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}")).Do(nil, "GET", "/x", nil, nil) //nolint:staticcheck // this is what is tested
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	require.ErrorContains(t, err, "context is nil")
}

func TestContextErrorsComeThrough(t *testing.T) {
	t.Parallel()
	errShutdown := errors.New("the program shuts down")
	waiting := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	resetting := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, io.ErrUnexpectedEOF
	})
	hanging := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := sdktest.Reply(http.StatusOK, "")
		resp.Body = io.NopCloser(readFunc(func([]byte) (int, error) {
			<-req.Context().Done()
			return 0, req.Context().Err()
		}))
		return resp, nil
	})
	slowly := []agrenting.Option{agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Hour, MaxDelay: time.Hour}), agrenting.WithTimeout(0)}
	cases := map[string]struct {
		base http.RoundTripper
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		opts []agrenting.Option
		is   []error
		want string
	}{
		"cancelled":             {waiting, cancelAfter(nil), nil, []error{context.Canceled}, "context canceled"},
		"canceled with a cause": {waiting, cancelAfter(errShutdown), nil, []error{context.Canceled, errShutdown}, "the program shuts down"},
		"canceled, and the base returns another error": {
			resetting, cancelAfter(errShutdown), nil,
			[]error{context.Canceled, errShutdown, io.ErrUnexpectedEOF},
			"shuts down, after: unexpected EOF",
		},
		"the caller's deadline": {waiting, deadline(time.Second), nil, []error{context.DeadlineExceeded}, "deadline exceeded"},
		"the client's timeout":  {waiting, nil, nil, []error{context.DeadlineExceeded}, "no response within 1m0s (the client's WithTimeout)"},
		"the client's own timeout": {
			waiting, nil,
			[]agrenting.Option{agrenting.WithTimeout(3 * time.Second)},
			[]error{context.DeadlineExceeded},
			"no response within 3s (the client's WithTimeout)",
		},
		"the caller's, being sooner": {
			waiting, deadline(time.Second),
			[]agrenting.Option{agrenting.WithTimeout(3 * time.Second)},
			[]error{context.DeadlineExceeded},
			"deadline exceeded",
		},
		"while the response is read": {hanging, nil, nil, []error{context.DeadlineExceeded}, "the client's WithTimeout"},
		"canceled while the response is read": {
			hanging, cancelAfter(errShutdown), nil,
			[]error{context.Canceled, errShutdown},
			"the program shuts down",
		},
		"canceled between attempts without a connection": {
			sdktest.Answers(0), cancelAfter(nil), slowly,
			[]error{context.Canceled},
			"context canceled",
		},
		"canceled between attempts with a busy platform": {
			sdktest.Answers(http.StatusServiceUnavailable), cancelAfter(errShutdown), slowly,
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
				_, err := sdktest.Keyed(t, tc.base, tc.opts...).Do(ctx, http.MethodGet, "/x?q=query-value", nil, &out)
				for _, is := range tc.is {
					require.ErrorIs(t, err, is)
				}
				require.ErrorContains(t, err, "agrenting: GET /x: ")
				require.ErrorContains(t, err, tc.want)
				sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			})
		})
	}
}

// cancelAfter ends a context after a second.
func cancelAfter(cause error) func(context.Context) (context.Context, context.CancelFunc) {
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
		base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			sdktest.LetPass(100 * time.Hour)
			return sdktest.Reply(http.StatusOK, "{}"), nil
		})
		_, err := sdktest.Keyed(t, base, agrenting.WithTimeout(0)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	})
}

func TestTimeoutErrorReportsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		_, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		var timeout interface{ Timeout() bool }
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
	})
}

func TestACallersTraceIsFilledByDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var trace agrenting.Trace
		ctx := agrenting.ContextWithTrace(t.Context(), &trace)
		_, err := sdktest.Keyed(t, sdktest.Answers(503, 200)).Do(ctx, http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, 2, trace.Attempts)
		assert.Equal(t, agrenting.APIKey(sdktest.TestKey).Fingerprint(), trace.Fingerprint)
	})
}

func TestConnectionErrorsOmitQuery(t *testing.T) {
	t.Parallel()
	errDial := errors.New("dial tcp: connection refused")
	cases := map[string]error{
		"plain": errDial,
		// A base may itself be built on an http.Client.
		"url error":        &url.Error{Op: "Get", URL: sdktest.APIURL + "/x?q=query-value", Err: errDial},
		"nested":           &url.Error{Op: "Get", URL: "u?q=query-value", Err: &url.Error{Op: "Get", URL: "v?q=query-value", Err: errDial}},
		"further in":       fmt.Errorf("proxy: %w", &url.Error{Op: "Get", URL: sdktest.APIURL + "/x?q=query-value", Err: errDial}),
		"bearer in a text": fmt.Errorf("sent Authorization: Bearer %s: %w", sdktest.TestKey, errDial),
	}
	for name, err := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) { return nil, err })
			resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodPatch, "/x?q=query-value", nil, nil)
			require.ErrorIs(t, err, errDial)
			require.ErrorContains(t, err, "agrenting: PATCH /x: ")
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			assert.Nil(t, resp)
		})
	}
}

// An error of a source may have a url.Error in it; cutting down to that one
// would lose what the caller has to know.
func TestARenewalErrorSurvivesTheSourcesURLError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errVault := errors.New("connection refused")
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			return agrenting.Credential{}, fmt.Errorf("vault: %w", &url.Error{Op: "Get", URL: "https://vault.example/v1?token=query-value", Err: errVault})
		})
		_, err := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}"), src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		renewal, ok := errors.AsType[*agrenting.RenewalError](err)
		require.True(t, ok, "%v", err)
		assert.False(t, renewal.RetryAt.IsZero())
		require.ErrorIs(t, err, errVault)
		sdktest.AssertClean(t, err.Error())
		sdktest.AssertClean(t, renewal.Error())
	})
}

func TestForeignRedirectIsRefusedAndResponseKept(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusFound, "", "Location", "https://evil.example/?q=query-value", "X-Request-Id", "req_1")
	resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
	require.ErrorContains(t, err, "https://evil.example")
	sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
	require.NotNil(t, resp)
	assert.Equal(t, http.StatusFound, resp.StatusCode)
	assert.Equal(t, "req_1", resp.RequestID)
	base.Only(t)
}

func TestARedirectWithinThePlatformIsFollowed(t *testing.T) {
	t.Parallel()
	base := &sdktest.Recorder{Then: func(n int, _ sdktest.Seen) *http.Response {
		if n == 1 {
			return sdktest.Reply(http.StatusTemporaryRedirect, "", "Location", "/y")
		}
		return sdktest.Reply(http.StatusOK, "{}")
	}}
	resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodPost, "/x", map[string]int{"a": 1}, nil)
	require.NoError(t, err)
	got := base.Requests()
	require.Len(t, got, 2)
	assert.Equal(t, got[0].Body, got[1].Body)
	assert.Equal(t, sdktest.TestKey, sdktest.SecretOf(got[1].Header))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}
