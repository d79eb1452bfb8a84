package origin_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

const (
	keyHeader = "X-Api-Key"
	authName  = "Authorization"
)

// TestUserInformationInRedirect follows /1 to the locations in turn. The last request
// carries one credential.
func TestUserInformationInRedirect(t *testing.T) {
	t.Parallel()
	const (
		apiHost  = "api.agrenting.test"
		start    = "https://" + apiHost + "/1"
		mallory  = "https://mallory:pw@" + apiHost + "/2"
		callers  = "Basic Y2FsbGVyOnB3" // caller:pw
		caller   = "https://caller:pw@" + apiHost
		ownToken = "Bearer own"
	)
	for name, tc := range map[string]struct {
		url       string
		header    http.Header // of the caller
		locations []string
		want      http.Header // nil: the SDK's credential
	}{
		"absolute":                {locations: []string{mallory}},
		"name alone":              {locations: []string{"https://mallory@" + apiHost + "/2"}},
		"empty":                   {locations: []string{"https://:@" + apiHost + "/2"}},
		"without scheme":          {locations: []string{"//mallory:pw@" + apiHost + "/2"}},
		"escaped":                 {locations: []string{"https://m%40llory:p%3Aw@" + apiHost + "/2"}},
		"then relative":           {locations: []string{mallory, "/3"}},
		"then none":               {locations: []string{mallory, start}},
		"upper case host":         {locations: []string{"https://mallory:pw@" + strings.ToUpper(apiHost) + "/2"}},
		"another pinned origin":   {locations: []string{"https://mallory:pw@other.agrenting.test/2"}},
		"the caller's header":     {header: http.Header{authName: {ownToken}}, locations: []string{mallory}, want: http.Header{authName: {ownToken}}},
		"the caller's key":        {header: http.Header{keyHeader: {"own"}}, locations: []string{mallory}, want: http.Header{keyHeader: {"own"}}},
		"the caller's, relative":  {url: caller + "/1", locations: []string{"/2"}, want: http.Header{authName: {callers}}},
		"the caller's, absolute":  {url: caller + "/1", locations: []string{caller + "/2"}, want: http.Header{authName: {callers}}},
		"another than the caller": {url: caller + "/1", locations: []string{mallory}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []*http.Request
			base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
				got = append(got, req)
				if n := len(got); n <= len(tc.locations) {
					return sdktest.Reply(http.StatusTemporaryRedirect, "", "Location", tc.locations[n-1]), nil
				}
				return sdktest.Reply(http.StatusOK, "{}"), nil
			})
			tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey(sdktest.TestKey)),
				agrenting.WithBaseURL("https://"+apiHost), agrenting.WithAllowedOrigins("https://other.agrenting.test"))
			target := tc.url
			if target == "" {
				target = start
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
			require.NoError(t, err)
			maps.Copy(req.Header, tc.header)
			resp, err := (&http.Client{Transport: tr}).Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Len(t, got, len(tc.locations)+1)
			want := tc.want
			if want == nil {
				want = http.Header{keyHeader: {sdktest.TestKey}}
			}
			last := got[len(got)-1]
			assert.Equal(t, want[authName], last.Header[authName])
			assert.Equal(t, want[keyHeader], last.Header[keyHeader])
			if tc.url == "" {
				assert.Nil(t, last.URL.User)
			}
			final := resolved(t, target, tc.locations)
			assert.Equal(t, final, resp.Request.URL.String(), "the response has the request that it answers")
		})
	}
}

func resolved(t *testing.T, from string, locations []string) string {
	t.Helper()
	u, err := url.Parse(from)
	require.NoError(t, err)
	for _, l := range locations {
		u, err = u.Parse(l)
		require.NoError(t, err)
	}
	return u.String()
}

// A caller may set a credential when a redirect is followed.
func TestCredentialSetByCheckRedirectIsTheCallers(t *testing.T) {
	t.Parallel()
	var got []*http.Request
	base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		got = append(got, req)
		if len(got) == 1 {
			return sdktest.Reply(http.StatusTemporaryRedirect, "", "Location", "https://mallory:pw@"+req.URL.Host+"/2"), nil
		}
		return sdktest.Reply(http.StatusOK, "{}"), nil
	})
	tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey(sdktest.TestKey)))
	client := http.Client{Transport: tr, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		req.Header.Set(authName, "Bearer own")
		return nil
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, sdktest.APIURL+"/1", http.NoBody)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, got, 2)
	assert.Equal(t, []string{"Bearer own"}, got[1].Header[authName])
	assert.Empty(t, got[1].Header[keyHeader])
}
