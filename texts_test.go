package agrenting_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// hostile has what must not be in any text of the SDK.
const hostile = "a\x1b[2J\r\nb\x00\u0085\u200b\u200f\u202e\u2066\u2028\u2029\ufeff\u00ad\U000e0041\xff\xed\xa0\x80z"

// assertPrintable checks that text is one line of what is visible.
func assertPrintable(t *testing.T, name, text string) {
	t.Helper()
	assert.LessOrEqual(t, len(text), 8<<10, name)
	for _, r := range text {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			t.Errorf("%s: %q in %q", name, r, text)
			return
		}
	}
}

const textKey = "Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6Gh1Jk0Ms"

func textClient(t *testing.T, base http.RoundTripper, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(textKey)), agrenting.WithBaseURL("https://platform.test"),
		agrenting.WithTransport(base), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1, RenewalWait: -1}),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

type textTransport func(*http.Request) (*http.Response, error)

func (f textTransport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// responding is a base transport that responds with a body and with hostile headers.
func responding(status int, body string) textTransport {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Status: fmt.Sprint(status, hostile), Request: r, Body: io.NopCloser(strings.NewReader(body)),
			Header: http.Header{"Content-Type": {"text/" + hostile}, "X-Request-Id": {hostile}},
		}, nil
	}
}

func failing(err error) textTransport {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func TestTextsOfErrorsArePrintable(t *testing.T) {
	t.Parallel()
	list := `{"errors":[{"code":"C\u001b\u202e","message":"m\n\u200b\ud800","field":"f\u0000\ufeff"},{"message":"\u2066"}],"meta":{"request_id":"r\u0085"}}`
	for name, base := range map[string]textTransport{
		"errors":              responding(422, list),
		"errors of a success": responding(200, list),
		"text":                responding(500, hostile),
		"not JSON":            responding(200, "<"+hostile),
		"rejected":            responding(401, list),
		"error":               failing(errors.New(hostile)),
		"long error":          failing(errors.New(strings.Repeat(hostile+" ", 1<<12))),
		"URL in an error":     failing(&url.Error{Op: "Get", URL: "https://a.test/" + hostile, Err: io.EOF}),
		"proxy":               failing(&net.OpError{Op: "proxyconnect", Net: "tcp", Err: errors.New(hostile)}),
		"name of a host":      failing(&net.DNSError{Err: "no such host", Name: hostile}),
		"certificate":         failing(x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{hostile}}, Host: "a.test"}),
		"joined":              failing(errors.Join(errors.New("a"), errors.New(hostile))),
		"redirect": func(r *http.Request) (*http.Response, error) {
			resp, err := responding(302, "")(r)
			resp.Header.Set("Location", "https://evil.test/\u202e\u200b?"+url.QueryEscape(hostile))
			return resp, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, opts := range [][]agrenting.Option{nil, {agrenting.WithSession()}, {agrenting.WithStore(agrenting.MemoryStore())}} {
				var mu sync.Mutex
				var log bytes.Buffer
				c := textClient(t, base, append(opts,
					agrenting.WithTimeout(time.Minute), agrenting.WithLogger(slog.New(hearing{&mu, &log})),
					agrenting.WithObserver(func(e agrenting.Event) {
						mu.Lock()
						defer mu.Unlock()
						fmt.Fprint(&log, e.LogValue().String())
						if e.Err != nil {
							fmt.Fprint(&log, e.Err)
						}
					}))...)
				for _, path := range []string{"/x", "/x%0A%1B%5B8m%E2%80%AE%FF/é"} {
					_, err := c.Do(t.Context(), http.MethodGet, path, nil, new(any))
					require.Error(t, err)
					assertPrintable(t, "error", err.Error())
				}
				if err := c.Verify(t.Context()); err != nil {
					assertPrintable(t, "Verify", err.Error())
				}
				if s := c.Status(); s.LastError != nil {
					assertPrintable(t, "Status", s.LastError.Error())
				}
				require.NoError(t, c.Close())
				mu.Lock()
				text := log.String()
				mu.Unlock()
				for i := 0; i < len(text); i += 4 << 10 {
					assertPrintable(t, "log", strings.ToValidUTF8(text[i:min(len(text), i+4<<10)], ""))
				}
			}
		})
	}
}

// hearing is a handler of log records that writes the values without any escapes.
type hearing struct {
	mu  *sync.Mutex
	out *bytes.Buffer
}

func (h hearing) Enabled(context.Context, slog.Level) bool { return true }
func (h hearing) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h hearing) WithGroup(string) slog.Handler            { return h }
func (h hearing) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprint(h.out, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprint(h.out, " ", a.Value.Resolve().String())
		return true
	})
	return nil
}

func TestTextsOfSourcesAndStoresArePrintable(t *testing.T) {
	t.Parallel()
	broken := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.Credential{}, fmt.Errorf("%s: %w", hostile, agrenting.ErrNoCredential)
	})
	for name, opts := range map[string][]agrenting.Option{
		"source": {agrenting.WithCredentialSource(broken)},
		"store":  {agrenting.WithStore(hostileStore{})},
		"file":   {agrenting.WithCredentialSource(agrenting.FileSource("/nowhere/" + strings.ReplaceAll(hostile, "\x00", "")))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := agrenting.New(append(opts, agrenting.WithoutEnvironment(), agrenting.WithBaseURL("https://platform.test"),
				agrenting.WithTransport(responding(200, `{}`)), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1, RenewalWait: -1}))...)
			require.NoError(t, err)
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			assertPrintable(t, "error", err.Error())
			if e, ok := errors.AsType[*agrenting.RenewalError](err); ok {
				assertPrintable(t, "cause", e.Err.Error())
			}
			s := c.Status()
			for _, err := range []error{s.LastError, s.StoreError} {
				if err != nil {
					assertPrintable(t, "Status", err.Error())
				}
			}
			assertPrintable(t, "Source", s.Source)
			_ = c.Close()
		})
	}
}

type hostileStore struct{}

func (hostileStore) Load(context.Context, string) (agrenting.Record, error) {
	return agrenting.Record{}, errors.New(hostile)
}

func (hostileStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	return "", errors.New(hostile)
}

func TestPathsInErrorsAreEscapedAndRedacted(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]textTransport{"response": responding(404, `{}`), "no response": failing(io.ErrUnexpectedEOF)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := textClient(t, base)
			for path, want := range map[string]string{
				"/a%0Ab%20c":                       " /a%0Ab%20c: ",
				"/é":                               " /%C3%A9: ",
				"/tokens/" + textKey:               "/tokens/",
				"/tokens/ap_" + textKey + "1":      "[redacted]",
				"/" + strings.Repeat("long/", 100): " /" + strings.Repeat("long/", 51) + "…: ",
			} {
				_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
				require.ErrorContains(t, err, want)
				if api, ok := errors.AsType[*agrenting.APIError](err); ok {
					assert.NotContains(t, err.Error(), textKey)
					assert.Contains(t, err.Error(), " "+api.Path+": ")
				}
			}
		})
	}
}

func TestErrorsKeepTwentyEntries(t *testing.T) {
	t.Parallel()
	body := `{"errors":[` + strings.Repeat(`{"message":"no"},`, 29_999) + `{"message":"no"}]}`
	_, err := textClient(t, responding(422, body)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	e, ok := errors.AsType[*agrenting.APIError](err)
	require.True(t, ok)
	assert.Len(t, e.Others, 19)
	assert.Contains(t, err.Error(), "29980 errors not shown")
}

// net/http quotes up to 10 MB of a response that is not HTTP.
func TestErrorOfNetHTTPIsBounded(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/x"+strings.Repeat("token a ", 128<<10)+"\r\n\r\n")
		_ = conn.Close()
	}))
	t.Cleanup(srv.Close)
	c := textClient(t, new(http.Transport), agrenting.WithBaseURL(srv.URL))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.Error(t, err)
	assertPrintable(t, "error", err.Error())
}

func TestRotationErrorStatesResultAndAdvice(t *testing.T) {
	t.Parallel()
	err := &agrenting.RotationError{Stage: agrenting.StageIssue, Strategy: agrenting.Overlap, Err: agrenting.ErrForbidden}
	require.EqualError(t, err, "agrenting: rotation (overlap) failed at stage issue: forbidden")
	err.State, err.Advice = "Nothing was created; the current key is live", "Set RotationPolicy.Owner"
	require.EqualError(t, err, "agrenting: rotation (overlap) failed at stage issue: forbidden. "+
		"Nothing was created; the current key is live. Set RotationPolicy.Owner")
}
