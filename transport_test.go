package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jarcoal/httpmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEachRequestCarriesOneCredentialByItsKind(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		cred        Credential
		opts        []Option
		name, value string
	}{
		"api key":          {APIKey("k1"), nil, "X-Api-Key", "k1"},
		"api key, alias":   {APIKey("k1"), []Option{WithAPIKeyHeader("Api-Key")}, "Api-Key", "k1"},
		"api key, default": {APIKey("k1"), []Option{WithAPIKeyHeader("x-api-key")}, "X-Api-Key", "k1"},
		"session":          {SessionToken("s1", time.Time{}), nil, "Authorization", "Bearer s1"},
		"session, alias":   {SessionToken("s1", time.Time{}), []Option{WithAPIKeyHeader("Api-Key")}, "Authorization", "Bearer s1"},
		"user token":       {UserToken("ap_1"), nil, "Authorization", "Bearer ap_1"},
	}
	sources := map[string]func(Credential) CredentialSource{
		"static": Static,
		"cached": func(c Credential) CredentialSource {
			return CredentialSourceFunc(func(context.Context) (Credential, error) { return c, nil })
		},
	}
	for name, tc := range cases {
		for kind, source := range sources {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var base recorder
				tr := transportOver(t, &base, source(tc.cred), tc.opts...)
				for range 3 {
					resp, err := tr.RoundTrip(request(t, http.MethodGet, "/api/v1/agents", nil))
					require.NoError(t, err)
					readAll(t, resp)
				}
				got := base.requests()
				require.Len(t, got, 3)
				for _, s := range got {
					assert.Equal(t, map[string][]string{tc.name: {tc.value}}, s.credentials())
				}
			})
		}
	}
}

func TestACredentialOfTheCallerWins(t *testing.T) {
	t.Parallel()

	for _, name := range []string{
		"Authorization", "X-Api-Key", "Api-Key", "X-API-Key", "x-api-key", "X-API-KEY",
		"AUTHORIZATION", "authorization", "aUTHORIZATION", "api-key", "API-KEY",
		"X_API_KEY", "x_api_key", "X-Api_Key", "Api_Key", // which some servers read alike
	} {
		for kind, values := range map[string][]string{"one": {"mine"}, "two": {"mine", "also"}, "empty": {""}, "no value": nil} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				src := newMint("ours")
				base := recorder{then: func(int, seen) *http.Response { return reply(http.StatusUnauthorized, revokedBody) }}
				tr := transportOver(t, &base, src, WithAgentID("agent-1"))
				req := request(t, http.MethodPut, "/x", strings.NewReader("body"))
				req.Header = http.Header{name: values, "Accept": {"a"}}
				check := freeze(t, req)

				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.Equal(t, revokedBody, readAll(t, resp))
				assert.Same(t, req, resp.Request)
				check()

				got := base.requests()
				require.Len(t, got, 1, "nothing is replayed")
				assert.Equal(t, http.Header{name: values, "Accept": {"a"}}, got[0].header, "nothing is added")
				assert.Equal(t, "body", got[0].body)
				assert.Zero(t, src.count(), "the source was not asked")
			})
		}
	}
}

func TestHeadersThatOnlyLookLikeCredentialsDoNotCount(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"X-Api-Kex", "Api-Kez", "Authorizations", "Authorizatiox", "X-Api-Key-2", "Api.Key"} {
		var base recorder
		req := request(t, http.MethodGet, "/x", nil)
		req.Header[name] = []string{"v"}
		resp, err := transportOver(t, &base, Static(APIKey("k1"))).RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, "k1", secretOf(base.requests()[0].header), name)
	}
}

func TestACredentialSetByCallHeaderWins(t *testing.T) {
	t.Parallel()

	src := newMint("ours")
	base := recorder{then: func(int, seen) *http.Response { return reply(http.StatusUnauthorized, revokedBody) }}
	c := clientOver(t, &base, src, WithAgentID("agent-1"))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, CallHeader("x-api-key", "mine"))
	require.ErrorIs(t, err, ErrUnauthorized)
	got := base.requests()
	require.Len(t, got, 1)
	assert.Equal(t, map[string][]string{"X-Api-Key": {"mine"}}, got[0].credentials())
	assert.Empty(t, got[0].header.Values("X-Agent-Id"))
	assert.Zero(t, src.count())
}

// A caller's request must survive all that can happen to it.
func TestTheCallersRequestIsNeverChanged(t *testing.T) {
	t.Parallel()

	const secret = "k1"
	cases := map[string]struct {
		codes []int
		edit  func(*http.Request)
	}{
		"success":            {codes: []int{200}},
		"no header":          {codes: []int{200}, edit: func(r *http.Request) { r.Header = nil }},
		"refused":            {codes: []int{403}},
		"replayed":           {codes: []int{401, 200}},
		"replayed in vain":   {codes: []int{401, 401}},
		"retried":            {codes: []int{503, 0, 200}},
		"retried to the end": {codes: []int{503}},
		"retried, replayed":  {codes: []int{503, 401, 200}},
		"not replayable":     {codes: []int{401, 200}, edit: func(r *http.Request) { r.GetBody = nil }},
		"another host":       {codes: []int{200}, edit: func(r *http.Request) { r.Host = "other.test" }},
		"elsewhere":          {codes: []int{200}, edit: func(r *http.Request) { r.URL.Host = "other.test" }},
		"redirected elsewhere": {codes: []int{200}, edit: func(r *http.Request) {
			r.Header["authorization"] = []string{"mine"}
			r.URL.Host = "other.test"
			r.Response = &http.Response{Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "api.agrenting.test"}}}
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := answers(tc.codes...)
				src := newMint(secret)
				tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(r)
					if resp != nil {
						resp.Request = r // as http.Transport does
						if resp.StatusCode == http.StatusUnauthorized {
							src.replace(APIKey(secret + "x"))
						}
					}
					return resp, err
				}), src, WithAgentID("agent-1"))
				req := request(t, http.MethodPut, "/x?q=1", strings.NewReader("body"))
				req.Header.Set("Accept", "application/json")
				req.Header["X-Many"] = []string{"1", "2"}
				req.Trailer = http.Header{"X-T": {"1"}}
				if tc.edit != nil {
					tc.edit(req)
				}
				check := freeze(t, req)

				resp, err := tr.RoundTrip(req)
				check()
				require.NoError(t, err)
				defer resp.Body.Close()
				if resp.StatusCode < http.StatusBadRequest {
					assert.Same(t, req, resp.Request)
				}
				assert.Equal(t, req.Header, resp.Request.Header)
				for _, values := range resp.Request.Header {
					assert.NotContains(t, strings.Join(values, " "), secret, "a response leads to no credential")
				}
			})
		})
	}
}

func TestABaseThatWritesToItsHeadersReachesNoOtherRequest(t *testing.T) {
	t.Parallel()

	var got []string
	tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
		got = append(got, strings.Join(r.Header.Values("X-Api-Key"), ",")+" "+strings.Join(r.Header.Values("X-Agent-Id"), ","))
		r.Header.Add("X-Api-Key", "added")
		r.Header.Add("X-Agent-Id", "added")
		return reply(http.StatusOK, ""), nil
	}), Static(APIKey("k1")), WithAgentID("agent-1"))
	for range 2 {
		resp, err := tr.RoundTrip(request(t, http.MethodGet, "/x", nil))
		require.NoError(t, err)
		readAll(t, resp)
	}
	assert.Equal(t, []string{"k1 agent-1", "k1 agent-1"}, got)
}

func TestPlainHTTPIsRefusedButForThisMachine(t *testing.T) {
	t.Parallel()

	cases := map[string]bool{
		"http://127.0.0.1/x":              true,
		"http://127.0.0.1:8080/x":         true,
		"http://127.8.9.10/x":             true,
		"http://localhost/x":              true,
		"http://LocalHost:1/x":            true,
		"http://[::1]/x":                  true,
		"http://[::1]:8080/x":             true,
		"http://[::ffff:127.0.0.1]/x":     true,
		"HTTP://127.0.0.1/x":              true,
		"https://evil.com/x":              true,
		"HTTPS://evil.com/x":              true,
		"http://api.agrenting.test/x":     false,
		"http://localhost.evil.com/x":     false,
		"http://127.0.0.1.evil.com/x":     false,
		"http://localhost@evil.com/x":     false,
		"http://evil.com/127.0.0.1":       false,
		"http://evil.com:80/?h=localhost": false,
		"http://0.0.0.0/x":                false,
		"http://[::]/x":                   false,
		"http://128.0.0.1/x":              false,
		"http://10.0.0.1/x":               false,
		"http://[::ffff:10.0.0.1]/x":      false,
		"http://[fe80::1]/x":              false,
		"http://2130706433/x":             false,
		"http://127.1/x":                  false,
		"ftp://127.0.0.1/x":               false,
		"ws://127.0.0.1/x":                false,
		"file:///etc/passwd":              false,
	}
	for target, ok := range cases {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			var base recorder
			tr := transportOver(t, &base, Static(APIKey("k1")))
			body := newSpyBody("body")
			req := request(t, http.MethodPost, target, body)
			resp, err := tr.RoundTrip(req)
			assert.Equal(t, 1, body.closed(), "the body is closed, once")
			if ok {
				require.NoError(t, err)
				readAll(t, resp)
				assert.Len(t, base.requests(), 1)
				return
			}
			require.ErrorIs(t, err, ErrInsecureURL)
			assert.Nil(t, resp)
			assert.Empty(t, base.requests(), "not one byte was sent")
			assert.Zero(t, body.read.Load())
		})
	}
}

func TestARefusalShowsNeitherQueryNorUserinfo(t *testing.T) {
	t.Parallel()

	tr := transportOver(t, &recorder{}, Static(APIKey("k1")))
	err := failure(tr, request(t, http.MethodGet, "http://user:s3cret@evil.com/p4th?token=s3cret", nil))
	require.ErrorIs(t, err, ErrInsecureURL)
	assert.Contains(t, err.Error(), "http://evil.com")
	assert.NotContains(t, err.Error(), "s3cret")
}

func TestInsecureHTTPNeedsAnOptIn(t *testing.T) {
	t.Parallel()

	const base = "http://platform.test:8080"
	opts := []Option{WithoutEnvironment(), WithBaseURL(base), WithTransport(&recorder{})}
	_, err := NewTransport(Static(APIKey("k1")), opts...)
	require.ErrorIs(t, err, ErrInsecureURL)
	_, err = NewTransport(Static(APIKey("k1")), WithoutEnvironment(), WithAllowedOrigins(base))
	require.ErrorIs(t, err, ErrInsecureURL)

	var rec recorder
	tr := transportOver(t, &rec, Static(APIKey("k1")), WithInsecureHTTP(), WithBaseURL(base))
	for _, target := range []string{base + "/x", "http://elsewhere.test/x"} {
		resp, err := tr.RoundTrip(request(t, http.MethodGet, target, nil))
		require.NoError(t, err)
		readAll(t, resp)
	}
	got := rec.requests()
	assert.Equal(t, "k1", secretOf(got[0].header))
	assert.Empty(t, got[1].credentials(), "the opt-in widens no pin")
	err = failure(tr, request(t, http.MethodGet, "ftp://platform.test:8080/x", nil))
	require.ErrorIs(t, err, ErrInsecureURL)
}

func TestAClosedTransportRefusesAndClosesBodies(t *testing.T) {
	t.Parallel()

	for name, src := range map[string]CredentialSource{"static": Static(APIKey("k1")), "renewing": newMint("k1")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var base recorder
			tr := transportOver(t, &base, src)
			require.NoError(t, tr.Close())
			body := newSpyBody("body")
			err := failure(tr, request(t, http.MethodPost, "/x", body))
			require.ErrorIs(t, err, ErrClosed)
			assert.Equal(t, 1, body.closed())
			assert.Empty(t, base.requests())
		})
	}
}

func TestARequestWithoutURLIsAnError(t *testing.T) {
	t.Parallel()

	body := newSpyBody("body")
	err := failure(transportOver(t, &recorder{}, Static(APIKey("k1"))), &http.Request{Body: body})
	require.ErrorIs(t, err, ErrInvalidOption)
	assert.Equal(t, 1, body.closed())
}

func TestErrorsOfTheBaseAndOfTheSourceComeThrough(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken")
	tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
		swallow(r)
		return nil, broken
	}), Static(APIKey("k1")), WithRetryPolicy(RetryPolicy{MaxAttempts: 1}))
	err := failure(tr, request(t, http.MethodGet, "/x", nil))
	assert.Equal(t, broken, err)

	var rec recorder
	tr = transportOver(t, &rec, CredentialSourceFunc(func(context.Context) (Credential, error) { return Credential{}, broken }))
	body := newSpyBody("body")
	err = failure(tr, request(t, http.MethodPost, "/x", body))
	_, renewal := errors.AsType[*RenewalError](err)
	assert.True(t, renewal)
	require.ErrorIs(t, err, broken)
	assert.Equal(t, 1, body.closed())
	assert.Empty(t, rec.requests())
}

func TestAnonymousRequestsCarryNoCredential(t *testing.T) {
	t.Parallel()

	var base recorder
	c, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(&base), WithAnonymous())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, io.Discard)
	require.NoError(t, err)
	assert.Empty(t, base.requests()[0].credentials())
}

func TestAMockTransportServesAsTheBase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("k1")
		mock := httpmock.NewMockTransport()
		mock.RegisterResponder(http.MethodGet, apiURL+"/x", func(r *http.Request) (*http.Response, error) {
			switch {
			case mock.GetTotalCallCount() == 1:
				return httpmock.NewStringResponse(http.StatusBadGateway, ""), nil
			case secretOf(r.Header) != "k2":
				src.replace(APIKey("k2"))
				return httpmock.NewStringResponse(http.StatusUnauthorized, revokedBody), nil
			default:
				return httpmock.NewStringResponse(http.StatusOK, "done"), nil
			}
		})
		code, body, err := get(t.Context(), transportOver(t, mock, src), "/x")
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "done", body)
		assert.Equal(t, 3, mock.GetTotalCallCount())
	})
}

func TestAConnectionOutlivesA401AndARetry(t *testing.T) {
	t.Parallel()
	var conns atomic.Int64
	filler := strings.Repeat("x", 3<<10)
	for name, tc := range map[string]struct {
		code int
		body io.Reader
	}{
		"replay": {http.StatusUnauthorized, nil}, "replay with a body": {http.StatusUnauthorized, strings.NewReader("b")},
		"retry": {http.StatusServiceUnavailable, nil},
	} {
		conns.Store(0)
		src := newMint("k1")
		var n atomic.Int64
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) == 1 {
				src.replace(APIKey("k2"))
				w.WriteHeader(tc.code)
				_, _ = io.WriteString(w, filler)
				_ = http.NewResponseController(w).Flush()
			}
		}))
		srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns.Add(1)
			}
		}
		srv.Start()
		tr := transportOver(t, loopback(t), src, WithBaseURL(srv.URL), sleepless)
		resp, err := tr.RoundTrip(request(t, http.MethodPut, srv.URL+"/x", tc.body))
		require.NoError(t, err)
		readAll(t, resp)
		assert.EqualValues(t, 2, n.Load(), name)
		assert.EqualValues(t, 1, conns.Load(), name)
		srv.Close()
	}
}

func TestARenewalThatFailsAfterA401IsNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := answers(http.StatusUnauthorized)
		fetches := 0
		errSource := errors.New("the vault is sealed")
		tr := transportOver(t, base, CredentialSourceFunc(func(context.Context) (Credential, error) {
			fetches++
			if fetches > 1 {
				return Credential{}, errSource
			}
			return APIKey("k1"), nil
		}))
		began := time.Now()
		_, err := tr.RoundTrip(request(t, http.MethodGet, "/x", nil)) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, errSource)
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 1, base.count())
		assert.Equal(t, 2, fetches)
	})
}

func TestATransportPrintsItsOrigin(t *testing.T) {
	t.Parallel()
	const want = "agrenting.Transport(" + apiURL + ")"
	tr := transportOver(t, &recorder{}, Static(APIKey("k1")))
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q"} {
		assert.Equal(t, want, fmt.Sprintf(verb, tr), verb)
	}
	text, err := tr.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, want, string(text))
	assert.Equal(t, want, tr.LogValue().String())
	assert.Equal(t, want, tr.GoString())
	assert.Equal(t, "agrenting.Transport()", (*Transport)(nil).String())
	assert.Equal(t, "agrenting.Transport()", new(Transport).String())
}
