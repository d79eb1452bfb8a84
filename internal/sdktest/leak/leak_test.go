package leak

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
)

const secret = "sk_sandbox_Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"

func TestFormFindsSecrets(t *testing.T) {
	t.Parallel()

	raw := []byte(secret)

	for name, out := range map[string]string{
		"plain":      secret,
		"part":       "x" + secret[15:22] + "x",
		"hex":        fmt.Sprintf("%x", secret),
		"spaced hex": fmt.Sprintf("% X", secret),
		"go bytes":   fmt.Sprintf("%#v", raw),
		"decimal":    fmt.Sprintf("%d", raw),
		"base64":     base64.StdEncoding.EncodeToString(raw),
		"basic auth": base64.URLEncoding.EncodeToString([]byte("user:" + secret)),
		"query":      url.QueryEscape(secret),
		"beside ID":  "req_0123456789abcdef " + secret[15:22],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.NotEmpty(t, Form(out, secret))
		})
	}
}

func TestFormFindsNineCharactersOfRandomSecret(t *testing.T) {
	t.Parallel()

	const random = "sk_2c20616e79207465c20616e79207465c20616e7920"

	assert.NotEmpty(t, Form("x"+random[10:19]+"x", random))
	assert.Empty(t, Form(fmt.Sprintf("%x", "one, a"), random), "six by chance")
}

func TestPublicIDsAreNoSecrets(t *testing.T) {
	t.Parallel()

	const hexKey = "sk_0123456789abcdef0123"

	for _, out := range []string{
		"sha256:0123456789", "req_0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef", "nothing",
	} {
		assert.Empty(t, Form(out, hexKey), out)
	}
}
