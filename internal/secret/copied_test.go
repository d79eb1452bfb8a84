package secret_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestTextCopiedWithASecretIsNamed(t *testing.T) {
	t.Parallel()
	const (
		key        = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
		unreplaced = "is a placeholder of a shell or a template that was not replaced"
		assigned   = `begins with a name and "="`
		field      = `begins with a name and ":"`
	)
	for text, want := range map[string]string{
		"${AGRENTING_KEY}":                unreplaced,
		"${KEY:-}":                        unreplaced,
		"sk_${SUFFIX}":                    unreplaced,
		"$AGRENTING_KEY":                  unreplaced,
		"AGRENTING_API_KEY=":              unreplaced,
		"AGRENTING_API_KEY":               unreplaced,
		"$env:AGRENTING_KEY":              unreplaced,
		"%AGRENTING_KEY%":                 unreplaced,
		"$(cat /run/key)":                 unreplaced,
		"{{ .Values.key }}":               unreplaced,
		"{{key}}":                         unreplaced,
		"${{ secrets.KEY }}":              unreplaced,
		"#{KEY}#":                         unreplaced,
		"AGRENTING_API_KEY=" + key:        assigned,
		"AGRENTING_API_KEY = " + key:      assigned,
		"export AGRENTING_API_KEY=" + key: assigned,
		`$env:AGRENTING_API_KEY="` + key:  assigned,
		"set AGRENTING_API_KEY=" + key:    assigned,
		`AGRENTING_API_KEY="` + key + `"`: assigned,
		"api-key=" + key:                  assigned,
		"X-API-Key: " + key:               field,
		"x-api-key:" + key:                field,
		"Authorization: Bearer " + key:    field,
		`"api_key":"` + key + `"`:         field,
		"AGRENTING_API_KEY: " + key:       field,
		key + ",":                         "has , at byte 33 of 33",
		key + ";":                         "has ; at byte 33 of 33",
		key + `"`:                         `has " at byte 33 of 33`,
		key + `",`:                        "has , at byte 34 of 34",
		key + "'":                         "has ' at byte 33 of 33",
		key + "`":                         "has ` at byte 33 of 33",
		key + `\`:                         `has \ at byte 33 of 33`,
		key + "}":                         "has } at byte 33 of 33",
		key + ")":                         "has ) at byte 33 of 33",
		`"` + key:                         `has " at byte 1 of 33`,
		"'" + key:                         "has ' at byte 1 of 33",
		"(" + key + ")":                   "has ( at byte 1 of 34",
		"[" + key + "]":                   "has [ at byte 1 of 34",
		"=" + key:                         "has = at byte 1 of 33",
		":" + key:                         "has : at byte 1 of 33",
		"\xff\xfe9\x00f\x00":              "is encoded as UTF-16",
		"\xfe\xff\x009\x00f":              "is encoded as UTF-16",
		"<" + key + ">":                   "is enclosed in < and >",
		`"` + key + `"`:                   `is enclosed in " and "`,
		"Bearer " + key:                   "has white space at byte 7",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := secret.Parse("AGRENTING_API_KEY", text, 0)
			require.ErrorIs(t, err, secret.ErrInvalidCredential)
			require.ErrorContains(t, err, ": AGRENTING_API_KEY "+want)
			assert.NotContains(t, err.Error(), key[:6])
		})
	}
}

func TestSecretsOfUnusualFormAreAccepted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"QUJDRA==", "ABCD=", "a.b-c_d~e+f/g==", "eyJhbGciOiJub25lIn0.e30.", "id:secret", "$2y$10$abc", "100%", "%20key", "a$b", "#key", "key#1", "a=", "$",
		"token", "bearer", "a,b",
	} {
		c, err := secret.Parse("the secret", text, 0)
		require.NoError(t, err, text)
		assert.Equal(t, text, c.Reveal())
	}
}
