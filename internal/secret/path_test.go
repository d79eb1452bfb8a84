package secret_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestQuotePathHidesKeys(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/run/secrets/key":                 `"/run/secrets/key"`,
		"key":                              `"key"`,
		`C:\\keys`:                         `"C:\\\\keys"`,
		"a\nb":                             `"a\nb"`,
		"0123456789abcdef0123456789abcdef": secret.Placeholder,
	} {
		assert.Equal(t, want, secret.QuotePath(path), path)
	}
	assert.NotContains(t, secret.QuotePath("/keys/sk_live_0123456789012345678901234567890123456789"), "0123456789")
}
