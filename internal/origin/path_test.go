package origin

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func pinned(t *testing.T, base string, allowed ...string) (*url.URL, Set) {
	t.Helper()
	u, err := ParseBase(base, false)
	require.NoError(t, err)
	set, err := NewSet(u, allowed, false)
	require.NoError(t, err)
	return u, set
}

func TestTargetAcceptsURLsAtPinnedOrigins(t *testing.T) {
	t.Parallel()
	base, set := pinned(t, apiURL+"/tenant", "https://files.agrenting.test:8443")
	for target, want := range map[string]string{
		"/a":                                  apiURL + "/tenant/a",
		"/a?b=2&a=1":                          apiURL + "/tenant/a?a=1&b=2",
		apiURL + "/a":                         apiURL + "/a",
		apiURL:                                apiURL,
		apiURL + "/tenant/a":                  apiURL + "/tenant/a",
		apiURL + "/a%2Fb?x=%41":               apiURL + "/a%2Fb?x=%41",
		apiURL + "/a?sig=b%2Fc&a=1":           apiURL + "/a?sig=b%2Fc&a=1", // in this order
		apiURL + "/a?q=b c":                   apiURL + "/a?q=b+c",
		"HTTPS://API.Agrenting.Test:443/a":    apiURL + "/a",
		"https://files.agrenting.test:8443/f": "https://files.agrenting.test:8443/f",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			u, err := set.Target(base, target, nil)
			require.NoError(t, err)
			assert.Equal(t, want, u.String())
			assert.True(t, set.Has(u))
		})
	}
	u, err := set.Target(base, apiURL+"/a?b=2&a=1", url.Values{"a": {"3"}})
	require.NoError(t, err)
	assert.Equal(t, apiURL+"/a?a=3&b=2", u.String(), "the option wins")
}

func TestTargetRefusesOtherURLs(t *testing.T) {
	t.Parallel()
	const option = "WithAllowedOrigins"
	for _, tc := range []struct {
		base, target string
		is           error
		want         []string
	}{
		{apiURL, "https://evil.test/a", ErrForeign, []string{"https://evil.test is not an allowed origin", option}},
		{apiURL, apiURL + ":444/a", ErrForeign, []string{apiURL + ":444 is", option}},
		{apiURL, "https://api.agrenting.test.evil.test/a", ErrForeign, []string{option}},
		{apiURL, "https://u:hunter2@evil.test/a?q=hunter2", ErrForeign, []string{"https://evil.test is", option}},
		{apiURL, "https://api.agrenting.test@evil.test/a", ErrForeign, []string{option}},
		{apiURL, "http://api.agrenting.test/a", ErrForeign, []string{"credentials are sent only to " + apiURL}},
		{"https://agrenting.test", "https://www.agrenting.test/a", ErrForeign, []string{
			"https://www.agrenting.test is", "agrenting.test and www.agrenting.test are different hosts", "only to https://agrenting.test)", option,
		}},
		{"https://www.agrenting.test", "https://agrenting.test/a", ErrForeign, []string{
			"www.agrenting.test and agrenting.test are different hosts", "only to https://www.agrenting.test)", option,
		}},
		{apiURL, "wss://api.agrenting.test/a", ErrForeign, nil},
		{apiURL, "https:/a", ErrForeign, nil},
		{apiURL, "//api.agrenting.test/a", ErrForeign, nil},
		{apiURL, "https://u:hunter2@api.agrenting.test/a", ErrInvalid, []string{"user information"}},
		{apiURL, apiURL + "/a#b", ErrInvalid, []string{"fragment"}},
		{apiURL, apiURL + "/a/../b", ErrInvalid, []string{"dots"}},
		{apiURL, apiURL + "/a/%2e%2e/b", ErrInvalid, []string{"dots"}},
		{apiURL, apiURL + "/a%5cb", ErrInvalid, []string{"backslash"}},
		{apiURL, apiURL + "/a?x=1;y=2", ErrInvalid, []string{"query"}},
	} {
		t.Run(tc.base+" "+tc.target, func(t *testing.T) {
			t.Parallel()
			base, set := pinned(t, tc.base)
			_, err := set.Target(base, tc.target, nil)
			require.ErrorIs(t, err, tc.is)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestRefusedRedirectNamesTheOptionAndTheDifference(t *testing.T) {
	t.Parallel()
	const option = "If it may receive the credential, add it to WithAllowedOrigins or set it as the base URL"
	for _, tc := range []struct {
		base, location, want string
	}{
		{apiURL, "https://evil.test/a?q=hunter2", "a redirect leads to https://evil.test. " + option},
		{"https://www.agrenting.test", "https://agrenting.test/a", "a redirect leads to https://agrenting.test (www.agrenting.test and agrenting.test are different hosts, " +
			"and credentials are sent only to https://www.agrenting.test). " + option},
		{"https://agrenting.test", "http://agrenting.test/a", "a redirect leads to http://agrenting.test (credentials are sent only to https://agrenting.test). " + option},
	} {
		_, set := pinned(t, tc.base)
		u, err := url.Parse(tc.location)
		require.NoError(t, err)
		err = set.CheckRedirect(&http.Request{URL: u}, nil)
		require.ErrorIs(t, err, ErrForeign)
		assert.Equal(t, "agrenting: foreign origin: "+tc.want, err.Error())
	}
}
