package agrenting

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCredentialsAreSentOnlyToPinnedOrigins(t *testing.T) {
	t.Parallel()

	allowed := []string{
		"https://files.test", "https://[2001:db8::1]:8443", "http://127.0.0.1:9999", "https://UPPER.test:443/",
		"http://127.0.0.3", "https://az.test",
	}
	cases := map[string]bool{
		"https://api.agrenting.test/x":          true,
		"https://api.agrenting.test:443/x":      true,
		"https://API.Agrenting.TEST/x":          true,
		"HTTPS://api.agrenting.test/x":          true,
		"https://api.agrenting.test":            true,
		"https://api.agrenting.test?q=1":        true,
		"https://user:pw@api.agrenting.test/x":  true,
		"https://files.test/x":                  true,
		"https://files.test:443/x":              true,
		"https://upper.test/x":                  true,
		"https://[2001:db8::1]:8443/x":          true,
		"https://[2001:DB8::1]:8443/x":          true,
		"http://127.0.0.1:9999/x":               true,
		"http://127.0.0.3:80/x":                 true,
		"https://AZ.test/x":                     true,
		"http://127.0.0.3:443/x":                false,
		"https://127.0.0.3/x":                   false,
		"https://127.0.0.3:80/x":                false,
		"https://api.agrenting.test:444/x":      false,
		"https://api.agrenting.test:80/x":       false,
		"https://api.agrenting.test.:443/x":     false,
		"https://api.agrenting.test./x":         false,
		"https://agrenting.test/x":              false,
		"https://www.api.agrenting.test/x":      false,
		"https://evil-api.agrenting.test/x":     false,
		"https://api.agrenting.test.evil.com/x": false,
		"https://api.agrenting.test@evil.com/x": false,
		"https://evil.com/api.agrenting.test":   false,
		"https://evil.com?api.agrenting.test":   false,
		"https://evil.com#@api.agrenting.test":  false,
		"https://files.test:8443/x":             false,
		"https://[2001:db8::1]/x":               false,
		"https://[2001:db8::2]:8443/x":          false,
		"https://[2001:db8::1%25eth0]:8443/x":   false,
		"https://127.0.0.1:9999/x":              false,
		"http://127.0.0.1/x":                    false,
		"http://127.0.0.1:9998/x":               false,
		"http://localhost:9999/x":               false,
		"http://[::1]:9999/x":                   false,
		"http://[::ffff:127.0.0.1]:9999/x":      false,
	}
	for target, pinned := range cases {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			src := newMint("k1")
			var base recorder
			tr := transportOver(t, &base, src, WithAllowedOrigins(allowed...), WithAgentID("agent-1"))
			req := request(t, http.MethodGet, target, nil)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			readAll(t, resp)
			got := base.requests()[0]
			if !pinned {
				assert.Empty(t, got.header)
				assert.Zero(t, src.count(), "the source is not even asked")
				assert.Same(t, req, resp.Request)
				return
			}
			assert.Equal(t, "k1", secretOf(got.header))
			assert.Equal(t, []string{"agent-1"}, got.header["X-Agent-Id"])
		})
	}
}

func TestPlainHTTPToPinnedHostGetsNoCredential(t *testing.T) {
	t.Parallel()

	// Even where plain http is permitted, http is not the pinned https.
	var base recorder
	tr := transportOver(t, &base, Static(APIKey("k1")), WithInsecureHTTP(), WithAgentID("agent-1"))
	for _, target := range []string{"http://api.agrenting.test/x", "http://api.agrenting.test:443/x"} {
		resp, err := tr.RoundTrip(request(t, http.MethodGet, target, nil))
		require.NoError(t, err)
		readAll(t, resp)
	}
	for _, s := range base.requests() {
		assert.Empty(t, s.header)
	}
}

func TestForeignRequestsPassAsTheyAre(t *testing.T) {
	t.Parallel()

	// The caller's own credentials for another host are the caller's business,
	// and so are retries of what it sends there.
	base := recorder{then: func(int, seen) *http.Response { return reply(http.StatusServiceUnavailable, "busy") }}
	tr := transportOver(t, &base, Static(APIKey("k1")), WithAgentID("agent-1"))
	req := request(t, http.MethodGet, "https://other.test/x?q=1", nil)
	req.Header.Set("Authorization", "Bearer mine")
	req.Header.Set("Cookie", "c=1")
	req.Host = "virtual.test"
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	assert.Equal(t, "busy", readAll(t, resp))
	got := base.requests()
	require.Len(t, got, 1)
	assert.Equal(t, req.Header, got[0].header)
	assert.Equal(t, "virtual.test", got[0].host)
}

func TestForeignHostHeaderGetsNoCredential(t *testing.T) {
	t.Parallel()

	type arrival struct{ host, key string }
	arrived := make(chan arrival, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- arrival{r.Host, secretOf(r.Header)}
	}))
	t.Cleanup(srv.Close)
	name := strings.TrimPrefix(srv.URL, "http://")
	tr := transportOver(t, loopback(t), Static(APIKey("k1")), WithBaseURL(srv.URL))

	for _, host := range []string{"", name, "evil.test", "evil.test:80", strings.ToUpper(name) + ".", "evil.test@" + name} {
		req := request(t, http.MethodGet, srv.URL+"/x", nil)
		req.Host = host
		req.Header["Host"] = []string{"evil.test"}
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, arrival{name, "k1"}, <-arrived, "Host %q", host)
	}
}

// An opaque URL is written to the wire unchanged: in absolute form it names the
// host that a front end forwards to.
func TestOpaqueURLGetsNoCredential(t *testing.T) {
	t.Parallel()

	cases := map[string]bool{
		"/x":                                true,
		"/x%2fy":                            true,
		"//api.agrenting.test/x":            true,
		"//API.agrenting.test/x":            true,
		"//api.agrenting.test":              true,
		"//evil.test/x":                     false,
		"//evil.test":                       false,
		"//api.agrenting.test.evil.test/x":  false,
		"//api.agrenting.test@evil.test/x":  false,
		"//api.agrenting.test:444/x":        false,
		"https://evil.test/x":               false,
		"https://api.agrenting.test/x":      false, // written unchanged, and not worth a parser
		"evil.test/x":                       false,
		"evil.test:443":                     false,
		"*":                                 false,
		"//api.agrenting.test\\@evil.test/": false,
	}
	for opaque, pinned := range cases {
		t.Run(opaque, func(t *testing.T) {
			t.Parallel()
			var base recorder
			tr := transportOver(t, &base, Static(APIKey("k1")), WithAgentID("agent-1"))
			req := request(t, http.MethodGet, "/x", nil)
			req.URL.Opaque = opaque
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			readAll(t, resp)
			got := base.requests()[0].header
			if pinned {
				assert.Equal(t, "k1", secretOf(got))
				return
			}
			assert.Empty(t, got)
		})
	}
}

func TestInvalidBaseURLIsRefusedAndNotShown(t *testing.T) {
	t.Parallel()

	cases := map[string]error{
		"":                                ErrInvalidOption,
		"api.test":                        ErrInvalidOption,
		"//api.test":                      ErrInvalidOption,
		"https://":                        ErrInvalidOption,
		"https://:443":                    ErrInvalidOption,
		"ftp://api.test":                  ErrInvalidOption,
		"https:api.test":                  ErrInvalidOption,
		"https://user:s3cret@api.test":    ErrInvalidOption,
		"https://api.test/?token=s3cret":  ErrInvalidOption,
		"https://api.test/#s3cret":        ErrInvalidOption,
		"https://api.test:s3cret":         ErrInvalidOption,
		"https://api test":                ErrInvalidOption,
		"http://api.test":                 ErrInsecureURL,
		"http://localhost.evil.com":       ErrInsecureURL,
		"http://127.0.0.1.evil.com:8080/": ErrInsecureURL,
	}
	for raw, want := range cases {
		_, err := New(WithoutEnvironment(), WithCredential(APIKey("k1")), WithBaseURL(raw))
		require.ErrorIs(t, err, want, raw)
		assert.NotContains(t, err.Error(), "s3cret", raw)
		if !strings.ContainsAny(raw, "?#") {
			_, err = New(WithoutEnvironment(), WithCredential(APIKey("k1")), WithAllowedOrigins(raw))
			require.ErrorIs(t, err, want, raw)
			assert.NotContains(t, err.Error(), "s3cret", raw)
		}
	}
}

func TestABasePathStandsBeforeEveryPath(t *testing.T) {
	t.Parallel()

	var base recorder
	c := clientOver(t, &base, Static(APIKey("k1")), WithBaseURL(apiURL+"/v%2F2/"))
	_, err := c.Do(t.Context(), http.MethodGet, "/a%2Fb?q=1", nil, nil, CallQuery(url.Values{"r": {"2"}}))
	require.NoError(t, err)
	assert.Equal(t, apiURL+"/v%2F2/a%2Fb?q=1&r=2", base.requests()[0].url)
}

func TestBasePathKeepsTrailingEscapedSlash(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"": "", "/": "", "//": "", "/a": "/a", "/a/": "/a", "/a//": "/a",
		"/a%2F": "/a%2F", "/a%2F/": "/a%2F", "/a%2f%2F//": "/a%2f%2F", "/%2F": "/%2F", "/a%2Fb/": "/a%2Fb", "/ü/": "/%C3%BC", "/a%20/": "/a%20",
	} {
		base := answering(http.StatusOK, "{}")
		c := keyed(t, base, WithBaseURL(apiURL+path))
		assert.Equal(t, apiURL+want, c.BaseURL(), path)
		_, err := c.Do(t.Context(), http.MethodGet, "/x%2Fy", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, apiURL+want+"/x%2Fy", base.only(t).url, path)
	}
}

// The name that net/http dials is the name that was compared.
func TestPinnedOriginIsDialed(t *testing.T) {
	t.Parallel()

	for _, target := range []string{"https://api.agrenting.test/x", "https://API.agrenting.test:443/x", "https://evil.test@api.agrenting.test/x"} {
		var dialled string
		base := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = addr
			return nil, io.ErrUnexpectedEOF
		}}
		tr := transportOver(t, base, Static(APIKey("k1")), WithRetryPolicy(RetryPolicy{MaxAttempts: 1}))
		err := failure(tr, request(t, http.MethodGet, target, nil))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "api.agrenting.test:443", strings.ToLower(dialled))
	}
}
