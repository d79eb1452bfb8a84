package agrenting_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// hintWorld is a platform with a revoked key and programs that make mistakes.
type hintWorld struct {
	t      *testing.T
	server *agrentingtest.Server
	key    string // live
	dead   string
	token  string // of a user
	folder string
}

func newHintWorld(t *testing.T) *hintWorld {
	t.Helper()
	srv := sdktest.MemoryServer(t)
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	w := &hintWorld{t: t, server: srv, key: srv.NewKey(agent.ID).Secret, folder: t.TempDir()}
	dead := srv.NewKey(agent.ID)
	srv.RevokeKey(dead.ID)
	w.dead = dead.Secret
	w.token = srv.NewToken(srv.NewUser("Ada").ID, agrentingtest.TokenConfig{}).Secret
	return w
}

func (w *hintWorld) file(text string) string {
	w.t.Helper()
	path := filepath.Join(w.folder, "key")
	require.NoError(w.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// call makes a client with opts, and one call with it.
func (w *hintWorld) call(out any, opts ...agrenting.Option) error {
	w.t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.server.URL), agrenting.WithTransport(w.server.Transport()),
		agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1, RenewalWait: -1}),
	}, opts...)...)
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_, err = c.Do(w.t.Context(), http.MethodGet, "/api/v1/tasks", nil, out)
	return err
}

// answeredBy is the base transport of a platform that is another server.
func answeredBy(status int, body string, header ...string) agrenting.Option {
	return agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		resp := sdktest.Reply(status, body, header...)
		resp.Request = r
		return resp, nil
	}))
}

// Each mistake has a text that names the source and the remedy, and no secret.
func TestErrorNamesSourceAndRemedy(t *testing.T) {
	t.Parallel()
	from := func(kv ...string) agrenting.Option {
		vars := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			vars[kv[i]] = kv[i+1]
		}
		return sdktest.LookupIn(vars)
	}
	fixed := func(c agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredential(c)}
	}
	fingerprint := func(secret string) string { return agrenting.APIKey(secret).Fingerprint() }
	for name, tc := range map[string]struct {
		err  func(*hintWorld) error
		is   error
		want []string
	}{
		"revoked key of a variable": {
			func(w *hintWorld) error { return w.call(nil, from("AGRENTING_API_KEY", w.dead)) },
			agrenting.ErrUnauthorized,
			[]string{"api key sha256:", "from AGRENTING_API_KEY", "put a valid one into AGRENTING_API_KEY", "api-keys"},
		},
		"revoked key of a file": {
			func(w *hintWorld) error {
				return w.call(nil, from("AGRENTING_KEY_FILE", w.file(w.dead)))
			},
			agrenting.ErrUnauthorized,
			[]string{"api key sha256:", `from AGRENTING_KEY_FILE ("`, `/key")`, "confirmed", `key", the file of AGRENTING_KEY_FILE`},
		},
		"revoked key of an option": {
			func(w *hintWorld) error { return w.call(nil, fixed(agrenting.APIKey(w.dead))...) },
			agrenting.ErrUnauthorized,
			[]string{"from WithCredential", "pass a valid one to WithCredential"},
		},
		"revoked key of a source": {
			func(w *hintWorld) error {
				return w.call(nil, agrenting.WithCredentialSource(sdktest.NewSource(w.dead)))
			},
			agrenting.ErrUnauthorized,
			[]string{"from WithCredentialSource (*sdktest.Source)", "make sure that WithCredentialSource (*sdktest.Source) returns a valid one"},
		},
		"revoked key of a store": {
			func(w *hintWorld) error {
				store, err := agrenting.FileStore(filepath.Join(w.folder, "store"))
				require.NoError(w.t, err)
				return w.call(nil, from("AGRENTING_API_KEY", w.dead), agrenting.WithStore(store))
			},
			agrenting.ErrUnauthorized,
			[]string{"api key sha256:", "from WithStore (agrenting.FileStore(", "into AGRENTING_API_KEY; the store adopts it"},
		},
		"revoked key behind sessions": {
			func(w *hintWorld) error {
				return w.call(nil, from("AGRENTING_API_KEY", w.dead), agrenting.WithSession())
			},
			agrenting.ErrUnauthorized,
			[]string{"api key sha256:", "from AGRENTING_API_KEY", "put a valid one into AGRENTING_API_KEY"},
		},
		"revoked user token": {
			func(w *hintWorld) error {
				return w.call(nil, from("AGRENTING_API_KEY", "ap_0123456789abcdef0123456789"))
			},
			agrenting.ErrUnauthorized,
			[]string{"user token sha256:", "put a valid one into AGRENTING_API_KEY"},
		},
		"anonymous client": {
			func(w *hintWorld) error { return w.call(nil, agrenting.WithAnonymous()) },
			agrenting.ErrUnauthorized,
			[]string{"no credential", "WithAnonymous", "AGRENTING_API_KEY"},
		},
		"base URL with the prefix of the routes": {
			func(w *hintWorld) error {
				return w.call(nil, append(fixed(agrenting.APIKey(w.key)), agrenting.WithBaseURL(w.server.URL+"/api/v1"))...)
			},
			agrenting.ErrRouteNotFound,
			[]string{"/api/v1 twice", "AGRENTING_URL", "without /api/v1"},
		},
		"base URL with the prefix of the routes, and sessions": {
			func(w *hintWorld) error {
				return w.call(nil, append(fixed(agrenting.APIKey(w.key)), agrenting.WithBaseURL(w.server.URL+"/api/v1"), agrenting.WithSession())...)
			},
			agrenting.ErrNotFound,
			[]string{"/api/v1 twice", "without /api/v1"},
		},
		"session that has expired": {
			func(w *hintWorld) error {
				token, _ := w.server.NewSession(w.key)
				w.server.RevokeSession(token)
				return w.call(nil, fixed(agrenting.SessionToken(token, time.Now().Add(-time.Hour)))...)
			},
			agrenting.ErrUnauthorized,
			[]string{"session sha256:", "from WithCredential", "expired at", "not renewed", "WithSession"},
		},
		"session that has ended": {
			func(w *hintWorld) error {
				token, _ := w.server.NewSession(w.key)
				w.server.RevokeSession(token)
				return w.call(nil, from("AGRENTING_SESSION_TOKEN", token))
			},
			agrenting.ErrUnauthorized,
			[]string{"from AGRENTING_SESSION_TOKEN", "is not renewed", "WithSession"},
		},
		"user token with sessions": {
			func(w *hintWorld) error {
				_, err := agrenting.New(from("AGRENTING_API_KEY", w.token), agrenting.WithSession())
				return err
			},
			agrenting.ErrInvalidCredential,
			[]string{"AGRENTING_API_KEY", "user token", "remove WithSession", "AGRENTING_CREDENTIAL_TYPE"},
		},
		"user token with rotation": {
			func(w *hintWorld) error {
				_, err := agrenting.New(from("AGRENTING_API_KEY", w.token), agrenting.WithStore(agrenting.MemoryStore()),
					agrenting.WithRotation(agrenting.RotationPolicy{}))
				return err
			},
			agrenting.ErrInvalidCredential,
			[]string{"user token", "remove WithRotation"},
		},
		"user token of a source with sessions": {
			func(w *hintWorld) error {
				src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.UserToken(w.token), nil })
				return w.call(nil, agrenting.WithCredentialSource(src), agrenting.WithSession(), agrenting.WithRetryPolicy(agrenting.RetryPolicy{}))
			},
			agrenting.ErrInvalidCredential,
			[]string{"from WithCredentialSource", "user token", "remove WithSession"},
		},
		"user token of a file with rotation": {
			func(w *hintWorld) error {
				return w.call(nil, from("AGRENTING_KEY_FILE", w.file(w.token)), agrenting.WithStore(agrenting.MemoryStore()),
					agrenting.WithRotation(agrenting.RotationPolicy{}), agrenting.WithRetryPolicy(agrenting.RetryPolicy{}))
			},
			agrenting.ErrInvalidCredential,
			[]string{"user token", "remove WithRotation"},
		},
		"agent key as a user token": {
			func(w *hintWorld) error { return w.call(nil, fixed(agrenting.UserToken(w.key))...) },
			agrenting.ErrUnauthorized,
			[]string{"user token sha256:", "does not begin with ap_", "bearer token", "with APIKey instead of UserToken"},
		},
		"agent key as a user token by a variable": {
			func(w *hintWorld) error {
				return w.call(nil, from("AGRENTING_API_KEY", w.key, "AGRENTING_CREDENTIAL_TYPE", "user_token"))
			},
			agrenting.ErrUnauthorized,
			[]string{"does not begin with ap_", "bearer token", "unset AGRENTING_CREDENTIAL_TYPE"},
		},
		"user token as an API key": {
			func(w *hintWorld) error { return w.call(nil, fixed(agrenting.APIKey(w.token+"x"))...) },
			agrenting.ErrUnauthorized,
			[]string{"begins with ap_", "sent as an API key", "with UserToken instead of APIKey"},
		},
		"slow source": {
			func(w *hintWorld) error {
				src := agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
					<-ctx.Done()
					return agrenting.Credential{}, ctx.Err()
				})
				return w.call(nil, agrenting.WithCredentialSource(src), agrenting.WithTimeout(50*time.Millisecond))
			},
			context.DeadlineExceeded,
			[]string{"waiting for a credential from WithCredentialSource", "WithTimeout"},
		},
		"web page": {
			func(w *hintWorld) error {
				return w.call(new(any), append(fixed(agrenting.APIKey(w.key)), answeredBy(200, "<html>hi</html>", "Content-Type", "text/html; charset=utf-8"))...)
			},
			agrenting.ErrMalformedResponse,
			[]string{"127.77.", "text/html", "AGRENTING_URL"},
		},
		"web page with an error status": {
			func(w *hintWorld) error {
				return w.call(new(any), append(fixed(agrenting.APIKey(w.key)), answeredBy(404, "<html>hi</html>", "Content-Type", "text/html"))...)
			},
			agrenting.ErrNotFound,
			[]string{"127.77.", "text/html", "AGRENTING_URL"},
		},
		"list into a struct": {
			func(w *hintWorld) error {
				var one struct{ ID string }
				return w.call(&one, append(fixed(agrenting.APIKey(w.key)), answeredBy(200, `{"data":[{"id":"1"}]}`, "Content-Type", "application/json"))...)
			},
			agrenting.ErrMalformedResponse,
			[]string{"is a list", "slice", "List"},
		},
		"one object into a slice": {
			func(w *hintWorld) error {
				var all []struct{ ID string }
				return w.call(&all, append(fixed(agrenting.APIKey(w.key)), answeredBy(200, `{"data":{"id":"1"}}`, "Content-Type", "application/json"))...)
			},
			agrenting.ErrMalformedResponse,
			[]string{"not a list", "struct"},
		},
		"server in memory without its transport": {
			func(w *hintWorld) error {
				return w.call(nil, append(fixed(agrenting.APIKey(w.key)), agrenting.WithTransport(sdktest.Loopback(w.t)))...)
			},
			nil,
			[]string{"127.77.", "agrentingtest", "WithTransport"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHintWorld(t)
			err := tc.err(w)
			require.Error(t, err)
			t.Log(err)
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			sdktest.AssertNoSecret(t, err.Error(), w.key, w.dead, w.token)
			if api, ok := errors.AsType[*agrenting.APIError](err); ok {
				assert.NotEmpty(t, api.Hint)
				if strings.Contains(api.Hint, "sha256:") && strings.Contains(name, "revoked key") {
					assert.Contains(t, api.Hint, fingerprint(w.dead))
				}
			}
		})
	}
}

func TestRefusalOfAUserTokenIsNotRetried(t *testing.T) {
	t.Parallel()
	asked := 0
	src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		asked++
		return agrenting.UserToken("ap_0123456789abcdef"), nil
	})
	base := sdktest.Answering(http.StatusOK, "{}")
	_, err := sdktest.ClientOver(t, base, src, agrenting.WithSession()).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	assert.Equal(t, 1, asked)
	assert.Empty(t, base.Requests(), "nothing is sent")
}

func TestTimeoutAfterPartOfTheResponseSaysSo(t *testing.T) {
	t.Parallel()
	for name, out := range map[string]any{"writer": io.Discard, "value": new(any)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					resp := sdktest.Reply(http.StatusOK, "")
					begin := strings.NewReader(`{"data":`)
					resp.Body = io.NopCloser(io.MultiReader(begin, readFunc(func([]byte) (int, error) {
						<-r.Context().Done()
						return 0, r.Context().Err()
					})))
					return resp, nil
				})
				once := agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1})
				_, err := sdktest.Keyed(t, base, once, agrenting.WithTimeout(300*time.Millisecond)).Do(t.Context(), http.MethodGet, "/x", nil, out)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "the response was not complete within 300ms (the client's WithTimeout)")
				assert.NotContains(t, err.Error(), "no response")

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err = sdktest.Keyed(t, base, once).Do(ctx, http.MethodGet, "/x", nil, out)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "waiting for the rest of the response: context deadline exceeded")
			})
		})
	}
}

func TestSlowSourceIsNamedAfterItsFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			return agrenting.Credential{}, errors.New("vault is sealed")
		})
		c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}"), src)
		ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/x", http.NoBody).WithContext(ctx))
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		require.ErrorContains(t, err, "vault is sealed")
		require.ErrorContains(t, err, "from WithCredentialSource")
	})
}

func TestHandshakeOverHTTPClientNamesSocketHTTPClient(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		var log bytes.Buffer
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) { return sdktest.Reply(status, ""), nil })
		c := sdktest.Keyed(t, base, agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		for i, client := range []*http.Client{c.HTTPClient(), c.HTTPClient(), c.SocketHTTPClient()} {
			req := sdktest.Request(t, http.MethodGet, "/socket/agent/websocket", http.NoBody)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
			resp, err := client.Do(req)
			require.NoError(t, err)
			err = agrenting.CheckResponse(resp)
			require.NoError(t, resp.Body.Close())
			require.Error(t, err)
			if i == 2 {
				assert.NotContains(t, err.Error(), "SocketHTTPClient")
			} else {
				require.ErrorContains(t, err, "SocketHTTPClient")
			}
		}
		require.NoError(t, c.Close()) // events are logged from another goroutine
		assert.Equal(t, 1, strings.Count(log.String(), `msg="agrenting: WebSocket handshake refused"`), log.String())
		assert.Contains(t, log.String(), "SocketHTTPClient")
	}
}

// A request without a credential of the SDK is logged once, and its 401 says why.
func TestRequestWithoutCredentialIsExplained(t *testing.T) {
	t.Parallel()
	const own = "Xy7Qm3Zp9Rt5Kv2Ln8Bc4Df6Gh1Jk0Ms"
	for name, tc := range map[string]struct {
		target, header string
		want           []string
	}{
		"another origin":     {"https://api.example.com/x?token=query-value", "", []string{"api.example.com", "is not a pinned origin", "WithAllowedOrigins"}},
		"alias":              {"https://www.agrenting.test/x?token=query-value", "", []string{"are different hosts", "WithAllowedOrigins", "AGRENTING_URL"}},
		"own credential":     {"https://agrenting.test/x?token=query-value", "Authorization", []string{"caller's own credential", "the header Authorization", "Remove that"}},
		"own key":            {"https://agrenting.test/x?token=query-value", "x_api_key", []string{"the header X-API-Key"}},
		"own key, elsewhere": {"https://api.example.com/x?token=query-value", "X-Api-Key", []string{"is not a pinned origin", "the header X-API-Key", "WithAllowedOrigins"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			base := sdktest.Answering(http.StatusUnauthorized, sdktest.RevokedBody)
			c := sdktest.Keyed(t, base, agrenting.WithBaseURL("https://agrenting.test"), agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
			for range 3 {
				req := sdktest.Request(t, http.MethodGet, tc.target, http.NoBody)
				if tc.header != "" {
					req.Header[tc.header] = []string{"Bearer " + own}
				}
				resp, err := c.HTTPClient().Do(req)
				require.NoError(t, err)
				err = agrenting.CheckResponse(resp)
				require.NoError(t, resp.Body.Close())
				require.ErrorIs(t, err, agrenting.ErrUnauthorized)
				for _, want := range tc.want {
					require.ErrorContains(t, err, want)
				}
				sdktest.AssertNoSecret(t, err.Error(), own, sdktest.TestKey)
				assert.NotContains(t, err.Error(), "query-value")
			}
			assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
			for _, not := range []string{own, "query-value", sdktest.TestKey} {
				assert.NotContains(t, log.String(), not)
			}
		})
	}
}

func TestCallWithOwnHeaderIsExplained(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusUnauthorized, sdktest.RevokedBody))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallHeader("X-API-Key", "mine"))
	require.ErrorContains(t, err, "the caller's own credential, in the header X-API-Key")
}

func TestWarningsAboutHostsAreBounded(t *testing.T) {
	t.Parallel()
	var log sdktest.Counter
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}"), agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	for i := range 2 * agrenting.MaxSunsets {
		resp, err := c.Transport().RoundTrip(sdktest.Request(t, http.MethodGet, "https://h"+strings.Repeat("x", i%50)+".example"+strings.Repeat(".a", i/50), http.NoBody))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	before := log.Bytes()
	resp, err := c.Transport().RoundTrip(sdktest.Request(t, http.MethodGet, "https://late.example", http.NoBody))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, before, log.Bytes(), "the memory is full")
}

func TestAnonymousForeignRequestsAreNotLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithAnonymous(), agrenting.WithTransport(sdktest.Answering(http.StatusOK, "{}")),
		agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	resp, err := c.Transport().RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example.com/x", http.NoBody))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Empty(t, log.String())
}

// A request that the SDK has not sent has the credential of Authorize, which is not the caller's.
func TestHandshakeWithAuthorize_isNotExplained(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(srv.Close)
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	auth, err := c.Authorize(t.Context(), srv.URL+"/socket")
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		client *http.Client
		want   bool
	}{"another client": {srv.Client(), false}, "the client's transport": {c.HTTPClient(), true}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/socket", http.NoBody)
		require.NoError(t, err)
		req.Header = auth.Header()
		resp, err := tc.client.Do(req)
		require.NoError(t, err)
		err = agrenting.CheckResponse(resp)
		require.NoError(t, resp.Body.Close())
		require.ErrorIs(t, err, agrenting.ErrUnauthorized)
		assert.Equal(t, tc.want, strings.Contains(err.Error(), "The SDK added no credential"), name)
	}
}
