package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jarcoal/httpmock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestEachRequestCarriesOneCredentialByItsKind(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		cred        agrenting.Credential
		opts        []agrenting.Option
		name, value string
	}{
		"api key":          {agrenting.APIKey("k1"), nil, "X-Api-Key", "k1"},
		"api key, alias":   {agrenting.APIKey("k1"), []agrenting.Option{agrenting.WithAPIKeyHeader("Api-Key")}, "Api-Key", "k1"},
		"api key, default": {agrenting.APIKey("k1"), []agrenting.Option{agrenting.WithAPIKeyHeader("x-api-key")}, "X-Api-Key", "k1"},
		"session":          {agrenting.SessionToken("s1", time.Time{}), nil, "Authorization", "Bearer s1"},
		"session, alias":   {agrenting.SessionToken("s1", time.Time{}), []agrenting.Option{agrenting.WithAPIKeyHeader("Api-Key")}, "Authorization", "Bearer s1"},
		"user token":       {agrenting.UserToken("ap_1"), nil, "Authorization", "Bearer ap_1"},
	}
	sources := map[string]func(agrenting.Credential) agrenting.CredentialSource{
		"static": agrenting.Static,
		"cached": func(c agrenting.Credential) agrenting.CredentialSource {
			return agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return c, nil })
		},
	}
	for name, tc := range cases {
		for kind, source := range sources {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var base sdktest.Recorder
				tr := sdktest.TransportOver(t, &base, source(tc.cred), tc.opts...)
				for range 3 {
					resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, "/api/v1/agents", nil))
					require.NoError(t, err)
					readAll(t, resp)
				}
				got := base.Requests()
				require.Len(t, got, 3)
				for _, s := range got {
					assert.Equal(t, map[string][]string{tc.name: {tc.value}}, s.Credentials())
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
				src := sdktest.NewSource("ours")
				base := sdktest.Recorder{Then: func(int, sdktest.Seen) *http.Response {
					return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
				}}
				tr := sdktest.TransportOver(t, &base, src, agrenting.WithAgentID("agent-1"))
				req := sdktest.Request(t, http.MethodPut, "/x", strings.NewReader("body"))
				req.Header = http.Header{name: values, "Accept": {"a"}}
				check := sdktest.Freeze(t, req)

				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				assert.Equal(t, sdktest.RevokedBody, readAll(t, resp))
				assert.Same(t, req, resp.Request)
				check()

				got := base.Requests()
				require.Len(t, got, 1, "nothing is replayed")
				assert.Equal(t, http.Header{name: values, "Accept": {"a"}}, got[0].Header, "nothing is added")
				assert.Equal(t, "body", got[0].Body)
				assert.Zero(t, src.Count(), "the source was not asked")
			})
		}
	}
}

func TestSimilarHeaderNamesAreNotCredentials(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"X-Api-Kex", "Api-Kez", "Authorizations", "Authorizatiox", "X-Api-Key-2", "Api.Key"} {
		var base sdktest.Recorder
		req := sdktest.Request(t, http.MethodGet, "/x", nil)
		req.Header[name] = []string{"v"}
		resp, err := sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1"))).RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, "k1", sdktest.SecretOf(base.Requests()[0].Header), name)
	}
}

func TestACredentialSetByCallHeaderWins(t *testing.T) {
	t.Parallel()

	src := sdktest.NewSource("ours")
	base := sdktest.Recorder{Then: func(int, sdktest.Seen) *http.Response {
		return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
	}}
	c := sdktest.ClientOver(t, &base, src, agrenting.WithAgentID("agent-1"))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallHeader("x-api-key", "mine"))
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	got := base.Requests()
	require.Len(t, got, 1)
	assert.Equal(t, map[string][]string{"X-Api-Key": {"mine"}}, got[0].Credentials())
	assert.Empty(t, got[0].Header.Values("X-Agent-Id"))
	assert.Zero(t, src.Count())
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
		"rejected again":     {codes: []int{401, 401}},
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
				base := sdktest.Answers(tc.codes...)
				src := sdktest.NewSource(secret)
				tr := sdktest.TransportOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					resp, err := base.RoundTrip(r)
					if resp != nil {
						resp.Request = r // as http.Transport does
						if resp.StatusCode == http.StatusUnauthorized {
							src.Replace(agrenting.APIKey(secret + "x"))
						}
					}
					return resp, err
				}), src, agrenting.WithAgentID("agent-1"))
				req := sdktest.Request(t, http.MethodPut, "/x?q=1", strings.NewReader("body"))
				req.Header.Set("Accept", "application/json")
				req.Header["X-Many"] = []string{"1", "2"}
				req.Trailer = http.Header{"X-T": {"1"}}
				if tc.edit != nil {
					tc.edit(req)
				}
				check := sdktest.Freeze(t, req)

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

func TestBaseCannotChangeHeadersOfOtherRequests(t *testing.T) {
	t.Parallel()

	var got []string
	tr := sdktest.TransportOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		got = append(got, strings.Join(r.Header.Values("X-Api-Key"), ",")+" "+strings.Join(r.Header.Values("X-Agent-Id"), ","))
		r.Header.Add("X-Api-Key", "added")
		r.Header.Add("X-Agent-Id", "added")
		return sdktest.Reply(http.StatusOK, ""), nil
	}), agrenting.Static(agrenting.APIKey("k1")), agrenting.WithAgentID("agent-1"))
	for range 2 {
		resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, "/x", nil))
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
			var base sdktest.Recorder
			tr := sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1")))
			body := sdktest.NewSpyBody("body")
			req := sdktest.Request(t, http.MethodPost, target, body)
			resp, err := tr.RoundTrip(req)
			assert.Equal(t, 1, body.Closed(), "the body is closed, once")
			if ok {
				require.NoError(t, err)
				readAll(t, resp)
				assert.Len(t, base.Requests(), 1)
				return
			}
			require.ErrorIs(t, err, agrenting.ErrInsecureURL)
			assert.Nil(t, resp)
			assert.Empty(t, base.Requests(), "not one byte was sent")
			assert.Zero(t, body.Bytes.Load())
		})
	}
}

func TestARefusalShowsNeitherQueryNorUserinfo(t *testing.T) {
	t.Parallel()

	tr := sdktest.TransportOver(t, &sdktest.Recorder{}, agrenting.Static(agrenting.APIKey("k1")))
	err := sdktest.Failure(tr, sdktest.Request(t, http.MethodGet, "http://user:s3cret@evil.com/p4th?token=s3cret", nil))
	require.ErrorIs(t, err, agrenting.ErrInsecureURL)
	assert.Contains(t, err.Error(), "http://evil.com")
	assert.NotContains(t, err.Error(), "s3cret")
}

func TestInsecureHTTPNeedsAnOptIn(t *testing.T) {
	t.Parallel()

	const base = "http://platform.test:8080"
	opts := []agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(base), agrenting.WithTransport(&sdktest.Recorder{})}
	_, err := agrenting.NewTransport(agrenting.Static(agrenting.APIKey("k1")), opts...)
	require.ErrorIs(t, err, agrenting.ErrInsecureURL)
	_, err = agrenting.NewTransport(agrenting.Static(agrenting.APIKey("k1")), agrenting.WithoutEnvironment(), agrenting.WithAllowedOrigins(base))
	require.ErrorIs(t, err, agrenting.ErrInsecureURL)

	var rec sdktest.Recorder
	tr := sdktest.TransportOver(t, &rec, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithInsecureHTTP(), agrenting.WithBaseURL(base))
	for _, target := range []string{base + "/x", "http://elsewhere.test/x"} {
		resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, target, nil))
		require.NoError(t, err)
		readAll(t, resp)
	}
	got := rec.Requests()
	assert.Equal(t, "k1", sdktest.SecretOf(got[0].Header))
	assert.Empty(t, got[1].Credentials(), "the opt-in widens no pin")
	err = sdktest.Failure(tr, sdktest.Request(t, http.MethodGet, "ftp://platform.test:8080/x", nil))
	require.ErrorIs(t, err, agrenting.ErrInsecureURL)
}

func TestAClosedTransportRefusesAndClosesBodies(t *testing.T) {
	t.Parallel()

	for name, src := range map[string]agrenting.CredentialSource{"static": agrenting.Static(agrenting.APIKey("k1")), "renewing": sdktest.NewSource("k1")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var base sdktest.Recorder
			tr := sdktest.TransportOver(t, &base, src)
			require.NoError(t, tr.Close())
			body := sdktest.NewSpyBody("body")
			err := sdktest.Failure(tr, sdktest.Request(t, http.MethodPost, "/x", body))
			require.ErrorIs(t, err, agrenting.ErrClosed)
			assert.Equal(t, 1, body.Closed())
			assert.Empty(t, base.Requests())
		})
	}
}

func TestARequestWithoutURLIsAnError(t *testing.T) {
	t.Parallel()

	body := sdktest.NewSpyBody("body")
	err := sdktest.Failure(sdktest.TransportOver(t, &sdktest.Recorder{}, agrenting.Static(agrenting.APIKey("k1"))), &http.Request{Body: body})
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	assert.Equal(t, 1, body.Closed())
}

func TestBaseAndSourceErrorsAreReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		tr := sdktest.TransportOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			sdktest.ReadBody(r)
			return nil, broken
		}), agrenting.Static(agrenting.APIKey("k1")), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}))
		err := sdktest.Failure(tr, sdktest.Request(t, http.MethodGet, "/x", nil))
		assert.Equal(t, broken, err)

		var rec sdktest.Recorder
		tr = sdktest.TransportOver(t, &rec, agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.Credential{}, broken }))
		body := sdktest.NewSpyBody("body")
		err = sdktest.Failure(tr, sdktest.Request(t, http.MethodPost, "/x", body))
		_, renewal := errors.AsType[*agrenting.RenewalError](err)
		assert.True(t, renewal)
		require.ErrorIs(t, err, broken)
		assert.Equal(t, 1, body.Closed())
		assert.Empty(t, rec.Requests())
	})
}

func TestAnonymousRequestsCarryNoCredential(t *testing.T) {
	t.Parallel()

	var base sdktest.Recorder
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(&base), agrenting.WithAnonymous())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, io.Discard)
	require.NoError(t, err)
	assert.Empty(t, base.Requests()[0].Credentials())
}

func TestAMockTransportServesAsTheBase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("k1")
		mock := httpmock.NewMockTransport()
		mock.RegisterResponder(http.MethodGet, sdktest.APIURL+"/x", func(r *http.Request) (*http.Response, error) {
			switch {
			case mock.GetTotalCallCount() == 1:
				return httpmock.NewStringResponse(http.StatusBadGateway, ""), nil
			case sdktest.SecretOf(r.Header) != "k2":
				src.Replace(agrenting.APIKey("k2"))
				return httpmock.NewStringResponse(http.StatusUnauthorized, sdktest.RevokedBody), nil
			default:
				return httpmock.NewStringResponse(http.StatusOK, "done"), nil
			}
		})
		code, body, err := sdktest.Get(t.Context(), sdktest.TransportOver(t, mock, src), "/x")
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "done", body)
		assert.Equal(t, 3, mock.GetTotalCallCount())
	})
}

// A retry keeps the connection. A resend with the same credential does not: the connection
// leads to the node that has refused it.
func TestConnectionsOfRetriesAndResends(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat("x", 3<<10)
	for name, tc := range map[string]struct {
		code int
		same bool
	}{
		"resend": {http.StatusUnauthorized, false},
		"retry":  {http.StatusServiceUnavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var from []string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sdktest.IsVerify(r) {
					_, _ = io.WriteString(w, `{"data":[]}`)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if from = append(from, r.RemoteAddr); len(from) == 1 {
					w.WriteHeader(tc.code)
					_, _ = io.WriteString(w, filler)
					_ = http.NewResponseController(w).Flush()
				}
			}))
			t.Cleanup(srv.Close)
			tr := sdktest.TransportOver(t, sdktest.Loopback(t), sdktest.NewSource("k1"), agrenting.WithBaseURL(srv.URL), sdktest.Sleepless)
			resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodPut, srv.URL+"/x", nil))
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			readAll(t, resp)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, from, 2)
			assert.Equal(t, tc.same, from[0] == from[1])
		})
	}
}

func TestFailedRenewalAfter401IsNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := sdktest.Answers(http.StatusUnauthorized)
		fetches := 0
		errSource := errors.New("the vault is sealed")
		tr := sdktest.TransportOver(t, sdktest.Verifying("", base), agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			fetches++
			if fetches > 1 {
				return agrenting.Credential{}, errSource
			}
			return agrenting.APIKey("k1"), nil
		}), agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1}))
		began := time.Now()
		_, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, "/x", nil)) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, errSource)
		assert.Less(t, time.Since(began), 500*time.Millisecond)
		assert.Equal(t, 1, base.Count())
		assert.Equal(t, 2, fetches)
	})
}

func TestATransportPrintsItsOrigin(t *testing.T) {
	t.Parallel()
	const want = "agrenting.Transport(" + sdktest.APIURL + ")"
	tr := sdktest.TransportOver(t, &sdktest.Recorder{}, agrenting.Static(agrenting.APIKey("k1")))
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q"} {
		assert.Equal(t, want, fmt.Sprintf(verb, tr), verb)
	}
	text, err := tr.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, want, string(text))
	assert.Equal(t, want, tr.LogValue().String())
	assert.Equal(t, want, tr.GoString())
	assert.Equal(t, "agrenting.Transport()", (*agrenting.Transport)(nil).String())
	assert.Equal(t, "agrenting.Transport()", new(agrenting.Transport).String())
}

// readAll reads a response to its end and closes it, where linters see it.
func readAll(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	defer resp.Body.Close()
	return sdktest.ReadAll(tb, resp)
}
