package secret_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestBytesOfASecretAreNotPlain(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"[110,69,119,78,101,87,110,69]", "110-69-119-78-101-87-110-69", "(1, 2, 3, 4, 5, 6, 7, 8)"} {
		assert.False(t, secret.IsPlain(s), s)
		assert.False(t, secret.IsCode(s), s)
	}
	assert.True(t, secret.IsPlain(`{"limit":[1,100],"retry":3}`))
}

func TestWordsEndingLikePrefixAreKept(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"map_entry_limit_exceeded", "did:agrenting:recap_writer_production", "task_not_found_anywhere"} {
		assert.Equal(t, text, secret.RedactPatterns(text))
	}
	assert.NotContains(t, secret.RedactPatterns("token:ap_abcdefghijklmnop"), "abcdef")
}

func TestLongTextWithoutSpacesIsCut(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("\u8bf7\u6c42\u65e0\u6548\uff0c", 400)
	clean := secret.CleanText(text)
	assert.NotEmpty(t, strings.Trim(clean, "\u2026"))
	assert.Less(t, len(clean), len(text))
}

func TestLongErrorKeepsItsType(t *testing.T) {
	t.Parallel()
	names := make([]string, 90)
	for i := range names {
		names[i] = fmt.Sprintf("host-number-%d.example.com", i)
	}
	err := error(&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: names}, Host: "agrenting.com"}})
	require.Greater(t, len(fmt.Sprintf("%+v", err)), secret.MaxText)
	out := secret.CleanError(err, func(text string) string { return secret.Redact(text, "Zq7Wm3Xp9Rt5Kv2Ln8Yd4") })
	_, ok := errors.AsType[*tls.CertificateVerificationError](out)
	assert.True(t, ok)
}
