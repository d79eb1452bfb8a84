package agrenting_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

const foreignKey = "foreign-Qp8Lm2Xc5Vb9"

func TestOverride_replacesEveryCredentialHeader(t *testing.T) {
	t.Parallel()
	for kind, ours := range map[string]agrenting.Credential{
		"api key": agrenting.APIKey("ours"), "session": agrenting.SessionToken("ours", time.Time{}),
	} {
		for _, names := range [][]string{
			{"Authorization"}, {"X-Api-Key"}, {"Api-Key"}, {"x-api-key", "authorization"}, {"X_API_KEY", "AUTHORIZATION", "Api_Key"}, nil,
		} {
			t.Run(fmt.Sprint(kind, " ", names), func(t *testing.T) {
				t.Parallel()
				var base sdktest.Recorder
				c := sdktest.ClientOver(t, &base, agrenting.Static(ours), agrenting.WithCredentialOverride())
				req := sdktest.Request(t, http.MethodPost, "/v1/messages", strings.NewReader("body"))
				for _, name := range names {
					req.Header[name] = []string{"Bearer " + foreignKey, foreignKey}
				}
				req.Header.Set("X-Agent-Id", "a1")
				req.Header.Set("X-Api-Version", "7")
				unchanged := sdktest.Freeze(t, req)
				resp, err := c.Transport().RoundTrip(req)
				require.NoError(t, err)
				readAll(t, resp)
				unchanged()
				assert.Same(t, req, resp.Request)
				got := base.Only(t)
				assert.Equal(t, "ours", sdktest.SecretOf(got.Header))
				assert.NotContains(t, fmt.Sprint(got.Header), foreignKey)
				assert.Equal(t, "a1", got.Header.Get("X-Agent-Id"))
				assert.Equal(t, "7", got.Header.Get("X-Api-Version"))
				assert.Equal(t, "body", got.Body)
			})
		}
	}
}

func TestOverride_foreignOrigin_keepsCredential(t *testing.T) {
	t.Parallel()
	var base sdktest.Recorder
	c := sdktest.ClientOver(t, &base, agrenting.Static(agrenting.APIKey("ours")), agrenting.WithCredentialOverride())
	req := sdktest.Request(t, http.MethodGet, "https://api.other.test/v1/models", nil)
	req.Header.Set("Authorization", "Bearer "+foreignKey)
	resp, err := c.Transport().RoundTrip(req)
	require.NoError(t, err)
	readAll(t, resp)
	got := base.Only(t)
	assert.Equal(t, map[string][]string{"Authorization": {"Bearer " + foreignKey}}, got.Credentials())
}

// A redirect to another origin brings neither credential there.
func TestOverride_foreignRedirect_getsNoCredential(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Authorization", "X-Api-Key"} {
		var elsewhere, home sdktest.Recorder
		base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == "other.test" {
				return elsewhere.RoundTrip(req)
			}
			resp, err := home.RoundTrip(req)
			resp.StatusCode = http.StatusFound
			resp.Header.Set("Location", "https://other.test/take")
			return resp, err
		})
		tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("ours")), agrenting.WithCredentialOverride())
		req := sdktest.Request(t, http.MethodGet, "/v1/models", nil)
		req.Header.Set(header, foreignKey)
		resp, err := (&http.Client{Transport: tr}).Do(req)
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, "ours", sdktest.SecretOf(home.Only(t).Header))
		assert.Empty(t, elsewhere.Only(t).Credentials())
	}
}

func TestOverride_deadCredential_isRenewed(t *testing.T) {
	t.Parallel()
	src := sdktest.NewSource("k1")
	platform := sdktest.NewPlatform("k1")
	tr := sdktest.TransportOver(t, sdktest.Verifying("k2", platform), src, agrenting.WithCredentialOverride())
	code, _, err := sdktest.Get(t.Context(), tr, "/x")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
	req := sdktest.Request(t, http.MethodPost, "/v1/messages", strings.NewReader("body"))
	req.Header.Set("X-Api-Key", foreignKey)
	platform.Accept("k2")
	src.Replace(agrenting.APIKey("k2"))
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	assert.Equal(t, "body", readAll(t, resp))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestOverride_callHeaderAndUserInfo_areReplaced(t *testing.T) {
	t.Parallel()
	var base sdktest.Recorder
	c := sdktest.ClientOver(t, &base, agrenting.Static(agrenting.APIKey("ours")), agrenting.WithCredentialOverride())
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallHeader("Authorization", "Bearer "+foreignKey))
	require.NoError(t, err)
	resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "https://user:"+foreignKey+"@api.agrenting.test/x", nil))
	require.NoError(t, err)
	readAll(t, resp)
	for _, got := range base.Requests() {
		assert.Equal(t, map[string][]string{"X-Api-Key": {"ours"}}, got.Credentials())
	}
}

func TestOverride_anonymousClient_removesTheCredential(t *testing.T) {
	t.Parallel()
	var base sdktest.Recorder
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(&base),
		agrenting.WithAnonymous(), agrenting.WithCredentialOverride())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	req := sdktest.Request(t, http.MethodGet, "/x", nil)
	req.Header.Set("Authorization", "Bearer "+foreignKey)
	resp, err := c.HTTPClient().Do(req)
	require.NoError(t, err)
	readAll(t, resp)
	assert.Empty(t, base.Only(t).Credentials())
}

func TestOverride_socket_replacesTheQuery(t *testing.T) {
	t.Parallel()
	queries := make(chan url.Values, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { queries <- r.URL.Query() }))
	t.Cleanup(srv.Close)
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(sdktest.Loopback(t)),
		agrenting.WithCredential(agrenting.APIKey("ours")), agrenting.WithCredentialOverride())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	resp, err := c.SocketHTTPClient().Do(sdktest.Request(t, http.MethodGet,
		srv.URL+"/socket?API_KEY="+foreignKey+"&vsn=2.0.0&session_token="+foreignKey, nil))
	require.NoError(t, err)
	readAll(t, resp)
	assert.Equal(t, url.Values{"api_key": {"ours"}, "vsn": {"2.0.0"}}, <-queries)
}
