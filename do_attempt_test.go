package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// fileOf opens a new file, and closes it with the test.
func fileOf(t *testing.T, content string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	file, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// onlySeeker hides all methods of a file except those of io.ReadSeeker.
type onlySeeker struct{ io.ReadSeeker }

func TestDoSendsAFileAgain(t *testing.T) {
	t.Parallel()
	const head, content = "head", "the rest of the file"
	for fault, attempts := range map[string]int{"session ends": 2, "503": 2, "connection breaks": 2, "307": 2, "none": 1} {
		for name, in := range map[string]func(*os.File) io.Reader{
			"file":    func(f *os.File) io.Reader { return f },
			"seeker":  func(f *os.File) io.Reader { return onlySeeker{f} },
			"section": func(f *os.File) io.Reader { return io.NewSectionReader(f, int64(len(head)), int64(len(content))) },
		} {
			t.Run(fault+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewSessionWorld(t)
					var bodies []string
					var moved bool
					// A DELETE has no idempotency key, so the platform serves each attempt.
					w.Server.HandleAgent("DELETE /api/v1/files/{id}", http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
						b, err := io.ReadAll(r.Body)
						assert.NoError(t, err)
						bodies = append(bodies, string(b))
						switch {
						case len(bodies) > 1 || fault == "none" || fault == "session ends":
							_, _ = io.WriteString(out, `{"data":{}}`)
						case fault == "503":
							out.WriteHeader(http.StatusServiceUnavailable)
						case fault == "307":
							moved = true
							http.Redirect(out, r, "/api/v1/files/2", http.StatusTemporaryRedirect)
						default:
							conn, _, err := http.NewResponseController(out).Hijack()
							if assert.NoError(t, err) {
								_ = conn.Close()
							}
						}
					}))
					c := w.Client()
					require.NoError(t, w.Call(c))
					sdktest.LetPass(time.Minute) // the session is no longer young
					if fault == "session ends" {
						w.Server.RevokeSessions()
					}
					file := fileOf(t, head+content)
					_, err := file.Seek(int64(len(head)), io.SeekStart)
					require.NoError(t, err)
					resp, err := c.Do(t.Context(), http.MethodDelete, "/api/v1/files/1", in(file), nil)
					require.NoError(t, err)
					assert.Equal(t, attempts, resp.Attempts)
					assert.Equal(t, fault == "307", moved)
					assert.NotEmpty(t, bodies)
					for _, body := range bodies {
						assert.Equal(t, content, body)
					}
					_, err = file.Stat()
					assert.Equal(t, name == "file", errors.Is(err, os.ErrClosed), "what can be closed is closed, as net/http does")
				})
			})
		}
	}
}

// brokenAfter is a response that breaks off after a part of its body.
func brokenAfter(code int, part string, err error) *http.Response {
	resp := sdktest.Reply(code, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(part), iotest.ErrReader(err)))
	return resp
}

func TestDoRetriesTruncatedResponse(t *testing.T) {
	t.Parallel()
	const half, whole = `{"data":{"name":"h`, `{"data":{"name":"whole"}}`
	once := []agrenting.Option{agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1})}
	for name, tc := range map[string]struct {
		method   string
		code     int // of the responses that break off
		broken   int // how many do
		cause    error
		in       any
		opts     []agrenting.Option
		attempts int
		want     string // the name, or the error
	}{
		"GET":                  {method: http.MethodGet, broken: 1, attempts: 2, want: "whole"},
		"twice":                {method: http.MethodGet, broken: 2, attempts: 3, want: "whole"},
		"created":              {method: http.MethodPost, code: 201, broken: 1, in: "body", attempts: 2, want: "whole"},
		"to the end":           {method: http.MethodGet, broken: 9, attempts: 4, want: "unexpected EOF"},
		"not repeatable":       {method: http.MethodPatch, broken: 1, attempts: 1, want: "unexpected EOF"},
		"a body sent once":     {method: http.MethodPut, broken: 1, in: io.MultiReader(strings.NewReader("x")), attempts: 1, want: "unexpected EOF"},
		"no retries":           {method: http.MethodGet, broken: 1, opts: once, attempts: 1, want: "unexpected EOF"},
		"canceled by the base": {method: http.MethodGet, broken: 1, cause: context.Canceled, attempts: 1, want: "canceled"},
		"error status":         {method: http.MethodGet, code: 404, broken: 1, attempts: 1, want: "404"},
	} {
		for _, session := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, session %t", name, session), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					cause := io.ErrUnexpectedEOF
					if tc.cause != nil {
						cause = tc.cause
					}
					var keys []string
					base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
						sdktest.ReadBody(r)
						keys = append(keys, r.Header.Get("X-Idempotency-Key"))
						if n <= tc.broken {
							return brokenAfter(max(tc.code, 200), half, cause), nil
						}
						return sdktest.Reply(http.StatusOK, whole), nil
					}}
					src := agrenting.Static(agrenting.APIKey("k1"))
					if session {
						src = agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
							return agrenting.SessionToken("s1", time.Now().Add(time.Hour)), nil
						})
					}
					c := sdktest.ClientOver(t, base, src, tc.opts...)
					var out struct{ Name string }
					resp, err := c.Do(t.Context(), tc.method, "/x", tc.in, &out)
					require.NotNil(t, resp, "the last response is never discarded")
					assert.Equal(t, tc.attempts, resp.Attempts)
					assert.Equal(t, tc.attempts, base.Count())
					for _, key := range keys {
						assert.Equal(t, keys[0], key)
					}
					if tc.want != "whole" {
						require.ErrorContains(t, err, tc.want)
						return
					}
					require.NoError(t, err)
					assert.Equal(t, "whole", out.Name)
				})
			})
		}
	}
}

func TestTruncatedResponseInWriterIsNotRetried(t *testing.T) {
	t.Parallel()
	base := &sdktest.Script{Answer: func(int, *http.Request) (*http.Response, error) {
		return brokenAfter(http.StatusOK, "part", io.ErrUnexpectedEOF), nil
	}}
	var out strings.Builder
	resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, &out)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Equal(t, "part", out.String())
	assert.Equal(t, 1, resp.Attempts)
}

func TestAnIssuedKeyIsNotRequestedAgain(t *testing.T) {
	t.Parallel()
	const secret = "sk_live_0123456789abcdef"
	for name, tc := range map[string]struct {
		part  string
		calls int
	}{
		"after the key":  {`{"data":{"id":"1","api_key":"` + secret + `"}}`, 1},
		"before the key": {`{"data":{"id":"1","api_k`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var keys []string
				base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
					keys = append(keys, r.Header.Get("X-Idempotency-Key"))
					if n == 1 {
						return brokenAfter(http.StatusCreated, tc.part, io.ErrUnexpectedEOF), nil
					}
					return sdktest.Reply(http.StatusCreated, `{"data":{"id":"1","api_key":"`+secret+`"}}`), nil
				}}
				k, err := sdktest.Keyed(t, base).Keys.Create(t.Context(), "agent-1", "")
				require.NoError(t, err)
				assert.Equal(t, secret, k.Credential.Reveal())
				require.Len(t, keys, tc.calls)
				for _, key := range keys {
					assert.Equal(t, keys[0], key, "the platform issues one key")
				}
			})
		})
	}
}

func TestTheRetryOfABrokenAnswerIsLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		base := &sdktest.Script{Answer: func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return brokenAfter(http.StatusOK, "{", io.ErrUnexpectedEOF), nil
			}
			return sdktest.Reply(http.StatusOK, "{}"), nil
		}}
		_, err := sdktest.Keyed(t, base, agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Contains(t, log.String(), "retrying request")
		assert.Contains(t, log.String(), `status=200 error="unexpected EOF"`)
	})
}

// A refusal that is returned after all is never cut with a clean end.
func TestLargeResponseIsCompleteOrError(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 128<<10)
	lost := errors.New("the file is gone")
	for _, code := range []int{http.StatusUnauthorized, http.StatusServiceUnavailable} {
		for size, body := range map[string]string{"large": large, "small": "refused"} {
			for _, getBody := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d, %s, GetBody %t", code, size, getBody), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						src := sdktest.NewSource("k1")
						tr := sdktest.TransportOver(t, sdktest.Verifying("k2", sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
							sdktest.ReadBody(r)
							src.Replace(agrenting.APIKey("k2"))
							return sdktest.Reply(code, body), nil
						})), src)
						req := sdktest.Request(t, http.MethodPut, "/x", sdktest.NewSpyBody("body"))
						if getBody {
							req.GetBody = func() (io.ReadCloser, error) { return nil, lost }
						}
						resp, err := tr.RoundTrip(req)
						require.NoError(t, err)
						defer resp.Body.Close()
						require.Equal(t, code, resp.StatusCode)
						b, err := io.ReadAll(resp.Body)
						if err != nil {
							assert.Equal(t, "large", size)
							assert.True(t, strings.HasPrefix(body, string(b)))
							return
						}
						assert.Len(t, b, len(body))
					})
				})
			}
		}
	}
}

func TestCheckResponseDoesNotEndAPartCleanly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body io.Reader
		is   error
	}{
		"whole":  {strings.NewReader("{}"), nil},
		"broken": {io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		"large":  {strings.NewReader(strings.Repeat("x", agrenting.MaxErrorBody+1)), agrenting.ErrMalformedResponse},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := &http.Response{StatusCode: http.StatusNotFound, Body: io.NopCloser(tc.body)}
			require.ErrorIs(t, agrenting.CheckResponse(resp), agrenting.ErrNotFound)
			_, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, tc.is)
			require.NoError(t, resp.Body.Close())
		})
	}
}
