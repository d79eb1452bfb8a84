package origin

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseBaseReturnsNormalForm(t *testing.T) {
	t.Parallel()

	cases := map[string]string{
		"https://Example.COM":         "https://example.com",
		"https://example.com:443/a/b": "https://example.com",
		"https://example.com:8443":    "https://example.com:8443",
		"http://localhost:80":         "http://localhost",
		"http://127.0.0.1:8080/":      "http://127.0.0.1:8080",
		"https://[2001:DB8::1]":       "https://[2001:db8::1]",
		"https://[2001:db8::1]:443":   "https://[2001:db8::1]",
		"https://[2001:db8::1]:8443":  "https://[2001:db8::1]:8443",
	}
	for raw, want := range cases {
		u, err := ParseBase(raw, false)
		require.NoError(t, err)
		assert.Equal(t, want, Of(u).String())
		assert.Equal(t, want, u.Scheme+"://"+u.Host, "the base URL itself is in normal form")
	}
}

func TestIsBaseImpliesManagedAndSecure(t *testing.T) {
	t.Parallel()
	redirected := &http.Response{Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "elsewhere.example"}}}
	for base, insecure := range map[string]bool{"https://api.example": false, "http://127.0.0.1:8080": false, "http://api.example": true} {
		u, err := ParseBase(base, insecure)
		require.NoError(t, err)
		set, err := NewSet(u, []string{"https://allowed.example"}, insecure)
		require.NoError(t, err)
		found := 0
		for _, scheme := range []string{"https", "http", "HTTPS", "ws", ""} {
			for _, host := range []string{u.Host, u.Host + ":443", "API.example", "allowed.example", "elsewhere.example", "user@" + u.Host, ""} {
				for _, opaque := range []string{"", "/path", "//elsewhere.example/path"} {
					for _, response := range []*http.Response{nil, redirected, {}} {
						req := &http.Request{URL: &url.URL{Scheme: scheme, Host: host, Opaque: opaque}, Response: response}
						if set.IsBase(req) {
							found++
							assert.True(t, set.Manages(req), req.URL)
							assert.True(t, Secure(req.URL, insecure), req.URL)
						}
					}
				}
			}
		}
		assert.Equal(t, 1, found)
	}
}

func TestInvalidURLNamesTheStrayCharacter(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`"https://agrenting.test"`:    `not a valid URL (" at byte 1); expected`,
		"'https://agrenting.test'":    "not a valid URL (' at byte 1); expected",
		"https://agrenting .test":     "not a valid URL (white space at byte 18); expected",
		"https://agrenting.test\x00/": "not a valid URL (a control character at byte 23); expected",
		"https://agrenting.test\n/":   "not a valid URL (white space at byte 23); expected",
		"https://agrenting.test/%zz":  "not a valid URL; expected",
	} {
		_, err := ParseBase(raw, false)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, want)
	}
}

func TestOnlyLoopbackIsSecureWithoutTLS(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]struct{ loopback, local bool }{
		"localhost": {true, true}, "LocalHost:4000": {true, true}, "127.0.0.1": {true, true}, "127.1.2.3:80": {true, true},
		"[::1]:4000": {true, true}, "[0:0:0:0:0:0:0:1]": {true, true}, "[::ffff:127.0.0.1]": {true, true}, "[::FFFF:7F00:1]": {true, true},
		"[::1%lo]": {true, true}, "[::ffff:127.0.0.1%lo]:1": {true, true},

		"localhost.": {false, true}, "LOCALHOST.:4000": {false, true}, "a.localhost": {false, true}, "a.b.LocalHost.": {false, true},
		"127.0.0.1.": {false, true}, "0.0.0.0": {false, true}, "[::]:80": {false, true}, "[::ffff:0.0.0.0]": {false, true},

		"localhost.example": {}, "notlocalhost": {}, "127.0.0.1.nip.io": {}, "128.0.0.1": {}, "[::2]": {}, "10.0.0.1": {}, "": {}, ".": {},
		"localho\u017ft": {}, "localho\u017ft:4000": {}, "a.localho\u017ft": {}, "\uff4cocalhost": {}, "l\u00f6calhost": {}, "[fe80::1%lo]": {},
	} {
		u := &url.URL{Scheme: "http", Host: host}
		assert.Equal(t, want.loopback, IsLoopback(u), host)
		assert.Equal(t, want.loopback, Secure(u, false), host)
		assert.Equal(t, want.local, IsLocal(u), host)
	}
}

func TestHostsAndSchemesAreComparedAsASCII(t *testing.T) {
	t.Parallel()
	u, err := ParseBase("https://desk.example", false)
	require.NoError(t, err)
	set, err := NewSet(u, nil, false)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		url            url.URL
		pinned, secure bool
	}{
		"upper case":         {url: url.URL{Scheme: "HTTPS", Host: "DESK.example:443"}, pinned: true, secure: true},
		"opaque":             {url: url.URL{Scheme: "https", Host: "desk.example", Opaque: "//DESK.example/x"}, pinned: true, secure: true},
		"Kelvin sign":        {url: url.URL{Scheme: "https", Host: "des\u212a.example"}, secure: true},
		"long s":             {url: url.URL{Scheme: "https", Host: "de\u017fk.example"}, secure: true},
		"opaque Kelvin sign": {url: url.URL{Scheme: "https", Host: "desk.example", Opaque: "//des\u212a.example/x"}, secure: true},
		"opaque long s":      {url: url.URL{Scheme: "https", Host: "desk.example", Opaque: "//de\u017fk.example/x"}, secure: true},
		"scheme":             {url: url.URL{Scheme: "http\u017f", Host: "desk.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.pinned, set.Has(&tc.url))
			assert.Equal(t, tc.secure, Secure(&tc.url, true))
		})
	}
}
