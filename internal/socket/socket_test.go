package socket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/socket"
)

const (
	probeSecret = "sk_sandbox_Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"
	address     = "https://api.agrenting.test/socket/agent/websocket?vsn=2.0.0"
	revealed    = address + "&api_key=" + probeSecret
)

// newRequest is a request with the credential in its query.
func newRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	req.URL = socket.WithCredential(req.URL, credential(secret.KindAPIKey))
	return req
}

func credential(kind secret.Kind) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: kind, Secret: probeSecret})
}

func TestKindOfTheCredentialChoosesTheParameter(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]map[secret.Kind]string{
		address: {
			secret.KindAPIKey: address + "&api_key=", secret.KindUserToken: address + "&api_key=",
			secret.KindSession: address + "&session_token=",
		},
		"https://api.agrenting.test/socket":          {secret.KindAPIKey: "https://api.agrenting.test/socket?api_key="},
		"https://api.agrenting.test/socket?a=1+%26":  {secret.KindAPIKey: "https://api.agrenting.test/socket?a=1+%26&api_key="},
		"https://api.agrenting.test/socket?vsn=1&b=": {secret.KindSession: "https://api.agrenting.test/socket?vsn=1&b=&session_token="},
	} {
		for kind, want := range want {
			u, err := url.Parse(target)
			require.NoError(t, err)
			assert.Equal(t, want+escaped(), socket.WithCredential(u, credential(kind)).String())
			assert.Equal(t, target, u.String(), "the URL of the caller is not changed")
		}
	}
}

func escaped() string { return url.QueryEscape(probeSecret) }

func TestHasCredentialReadsNamesAsServersDo(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"": false, "vsn=2.0.0": false, "key=1&api_keys=2": false, "api_\u212aey=x": false, "api_%E2%84%AAey=x": false, "\u017fession_token=x": false,
		"api_key=x": true, "vsn=1&api_key=": true, "api%5fkey=x": true, "API_KEY=x": true, "session_token": true, "Session_Token=x": true,
	} {
		assert.Equal(t, want, socket.HasCredential(&url.URL{RawQuery: query}), query)
	}
}

func TestClean_removesCredentialsFromHeaders(t *testing.T) {
	t.Parallel()
	header := http.Header{"Location": {revealed, "https://other.test/?k=" + escaped()}, "Vary": {"Accept"}}
	socket.Clean(newRequest(t, address).URL, header)
	assert.NotContains(t, fmt.Sprint(header), probeSecret)
	assert.NotContains(t, fmt.Sprint(header), escaped())
	assert.Contains(t, header.Get("Location"), address)
	assert.Equal(t, "Accept", header.Get("Vary"))
	unchanged := http.Header{"Location": {revealed}}
	socket.Clean(httptest.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody).URL, unchanged)
	assert.Equal(t, http.Header{"Location": {revealed}}, unchanged)
}
