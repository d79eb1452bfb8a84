package origin

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const apiURL = "https://api.agrenting.test"

// pinnedTo returns a base URL and the set that has its origin alone.
func pinnedTo(tb testing.TB, raw string) (*url.URL, Set) {
	tb.Helper()
	base, err := ParseBase(raw, false)
	require.NoError(tb, err)
	set, err := NewSet(base, nil, false)
	require.NoError(tb, err)
	return base, set
}

func FuzzOrigin(f *testing.F) {
	for _, raw := range []string{
		apiURL, apiURL + "/x", apiURL + ":443/x", apiURL + ":0443/", apiURL + "./", apiURL + ":444", "HTTPS://API.agrenting.test",
		"http://api.agrenting.test", "https://u:p@api.agrenting.test", "https://api.agrenting.test@evil.test",
		"https://evil.test#@api.agrenting.test", "https://evil.test?@api.agrenting.test", "https://api.agrenting.test\\@evil.test",
		"https://api.agrenting.test%2eevil.test", "https://api.agrenting.test:443:80", "https://[api.agrenting.test]",
		"https:api.agrenting.test", "//api.agrenting.test", "https://", "https://api。agrenting。test", "https://ａpi.agrenting.test",
		"https://api.agrenting.test:/", "https://[::1]", "https://[::1%25eth0]:443",
	} {
		f.Add(raw)
	}
	_, pinned := pinnedTo(f, apiURL)
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		if o, err := Parse(raw, true); err == nil {
			assert.Equal(t, Of(o), Of(u), "normal form does not change an origin")
			assert.Nil(t, o.User)
		}
		if !pinned.Has(u) {
			return
		}
		assert.Equal(t, "https", strings.ToLower(u.Scheme))
		assert.Equal(t, "api.agrenting.test", strings.ToLower(u.Hostname()))
		assert.Contains(t, []string{"", "443"}, u.Port())
		// What net/http sends the request to is read from Host alone.
		host := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), ":443"), ":")
		assert.Equal(t, "api.agrenting.test", host)
	})
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{
		"/", "/api/v1/agents", "/a?b=c", "/a%2Fb", "/a/../b", "/..%2f", "/%2e%2e/", "/./a", "//evil.test", "///evil.test", "/%2f%2fevil.test",
		"/\\evil.test", "/%5cevil.test", "https://evil.test/", "evil.test", "@evil.test", ":443/", "/:443@evil.test/", "/a#b", "/a%23b",
		"/a\r\nHost: evil.test", "/ä", apiURL, apiURL + "/x?b=1&a=ä b", apiURL + "/%2e%2e", "https://u@api.agrenting.test/", "HTTPS://API.agrenting.test:443", "/%zz", "", "?a=b", "/;a", "/a;..;/b", "/a?b=c;d=e", "/a%00",
	} {
		f.Add(path)
	}
	base, pinned := pinnedTo(f, apiURL+"/base")
	f.Fuzz(func(t *testing.T, path string) {
		u, err := pinned.Target(base, path, nil)
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			return
		}
		assert.True(t, pinned.Has(u))
		prefix := "/" // of a whole URL
		if strings.HasPrefix(path, "/") {
			prefix = "/base/"
			assert.True(t, strings.HasPrefix(u.Path, prefix), "%q", u.Path)
		}
		// And so it is after net/http has taken it apart and written it.
		req, err := http.NewRequest(http.MethodGet, u.String(), http.NoBody)
		require.NoError(t, err)
		assert.True(t, pinned.Has(req.URL))
		assert.Equal(t, u.Path, req.URL.Path)
		var wire bytes.Buffer
		require.NoError(t, req.Write(&wire))
		got, err := http.ReadRequest(bufio.NewReader(&wire))
		require.NoError(t, err)
		assert.Equal(t, "api.agrenting.test", got.Host)
		assert.True(t, strings.HasPrefix(got.RequestURI, prefix), "%q", got.RequestURI)
		for segment := range strings.SplitSeq(got.URL.Path, "/") {
			assert.NotContains(t, []string{".", ".."}, segment)
		}
	})
}
