package origin

import (
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
