package seal_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/seal"
)

func TestKeyIsReadBack(t *testing.T) {
	t.Parallel()
	key := seal.NewKey()
	for _, text := range []string{key.Reveal(), " " + key.Reveal() + "\r\n"} {
		got, problem := seal.ParseKey(text)
		require.Empty(t, problem)
		assert.Equal(t, key.Reveal(), got.Reveal())
		assert.Equal(t, key.Fingerprint(), got.Fingerprint())
	}
	assert.NotEqual(t, key.Reveal(), seal.NewKey().Reveal())
	assert.False(t, key.IsZero())
	assert.True(t, seal.Key{}.IsZero())
	assert.Empty(t, seal.Key{}.Reveal())
	assert.Empty(t, seal.Key{}.Fingerprint())
}

func TestParseKeyReportsMistakes(t *testing.T) {
	t.Parallel()
	text := seal.NewKey().Reveal()
	wrong := map[string]string{
		"empty":     "",
		"blank":     " \n",
		"password":  "correct horse battery staple",
		"API key":   "sk_live_0123456789012345678901234567890123456789",
		"cut off":   text[:len(text)-1],
		"too long":  text + "AAAA",
		"not ours":  strings.Replace(text, "agrseal1", "agrseal2", 1),
		"two keys":  text + "\n" + text,
		"no base64": text[:20] + "*" + text[21:],
	}
	for i := len("agrseal1_"); i < len(text); i++ {
		b := []byte(text)
		b[i] = 'A'
		if text[i] == 'A' {
			b[i] = 'B'
		}
		wrong[fmt.Sprintf("typing error at %d", i)] = string(b)
	}
	for name, text := range wrong {
		key, problem := seal.ParseKey(text)
		require.NotEmpty(t, problem, name)
		assert.True(t, key.IsZero())
		if rest := strings.TrimPrefix(text, "agrseal1_"); len(rest) > 8 {
			assert.NotContains(t, problem, rest[:8], name)
		}
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	t.Parallel()
	key := seal.NewKey()
	text := strings.TrimPrefix(key.Reveal(), "agrseal1_")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	for _, v := range []any{key, &key, []seal.Key{key}, key.For("info")} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			printed := fmt.Sprintf(verb, v)
			for _, secret := range []string{text, string(raw[:32]), hex.EncodeToString(raw[:32])} {
				assert.NotContains(t, printed, secret)
			}
		}
	}
}
