package agrenting

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/sdktest/leak"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestKindHasAName(t *testing.T) {
	t.Parallel()

	for kind, want := range map[Kind]string{
		0: "none", KindAPIKey: "api key", KindSession: "session", KindUserToken: "user token", 9: "Kind(9)",
	} {
		assert.Equal(t, want, kind.String())
	}
}

func TestCredentialAccessors(t *testing.T) {
	t.Parallel()

	ends := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	key := APIKey("sk_sandbox_k1")

	cases := map[string]struct {
		credential  Credential
		kind        Kind
		secret      string
		expires     time.Time
		environment Environment
		text        string
	}{
		"none":     {Credential{}, 0, "", time.Time{}, "", `^agrenting\.Credential\(none\)$`},
		"api key":  {APIKey("k1"), KindAPIKey, "k1", time.Time{}, "", `^agrenting\.Credential\(api key, sha256:\w{10}\)$`},
		"sandbox":  {key, KindAPIKey, "sk_sandbox_k1", time.Time{}, Sandbox, `^agrenting\.Credential\(api key, sandbox, sha256:\w{10}\)$`},
		"token":    {UserToken("ap_k1"), KindUserToken, "ap_k1", time.Time{}, "", `^agrenting\.Credential\(user token, sha256:\w{10}\)$`},
		"session":  {SessionToken("s", ends), KindSession, "s", ends, "", `\(session, sha256:\w{10}, expires 2030-01-02T03:04:05Z\)$`},
		"no end":   {SessionToken("s", time.Time{}), KindSession, "s", time.Time{}, "", `\(session, sha256:\w{10}\)$`},
		"exchange": {Credential{secret.NewSession("s", ends, key.c)}, KindSession, "s", ends, Sandbox, `\(session, sandbox, sha256:\w{10}, expires`},
		"as given": {APIKey(" k\n"), KindAPIKey, " k\n", time.Time{}, "", `\(api key, sha256:\w{10}\)$`},
		"empty":    {APIKey(""), KindAPIKey, "", time.Time{}, "", `\(api key, empty\)$`},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.kind, tc.credential.Kind())
			assert.Equal(t, tc.secret, tc.credential.Reveal())
			assert.True(t, tc.expires.Equal(tc.credential.Expires()))
			assert.Equal(t, tc.environment, tc.credential.Environment())
			assert.Regexp(t, tc.text, tc.credential.String())
			assert.Equal(t, tc.kind == 0, tc.credential.IsZero())
			assert.Equal(t, tc.secret == "", tc.credential.Fingerprint() == "")
		})
	}
}

func TestExpiryHasNoMonotonicClock(t *testing.T) {
	t.Parallel()

	assert.NotContains(t, SessionToken("s", time.Now()).Expires().String(), "m=")
}

func TestCredentialsAreEqualByKindAndSecret(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		a, b Credential
		want bool
	}{
		"same":              {APIKey("k"), APIKey("k"), true},
		"other secret":      {APIKey("k"), APIKey("l"), false},
		"other length":      {APIKey("k"), APIKey("kk"), false},
		"other kind":        {APIKey("k"), UserToken("k"), false},
		"other end":         {SessionToken("s", time.Unix(1, 0)), SessionToken("s", time.Unix(2, 0)), true},
		"none and none":     {Credential{}, Credential{}, true},
		"none and some":     {Credential{}, APIKey("k"), false},
		"none and an empty": {Credential{}, APIKey(""), false},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.want, tc.a.Equal(tc.b))
			assert.Equal(t, tc.want, tc.b.Equal(tc.a))
		})
	}
}

func TestFingerprintNamesTheSecretAlone(t *testing.T) {
	t.Parallel()

	assert.Equal(t, APIKey("k").Fingerprint(), UserToken("k").Fingerprint())
	assert.NotEqual(t, APIKey("k").Fingerprint(), APIKey("l").Fingerprint())
	assert.Regexp(t, `^sha256:[0-9a-f]{10}$`, APIKey("k").Fingerprint())
}

func TestEachKindTravelsInItsHeader(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		credential   Credential
		apiKeyHeader string
		name, value  string
	}{
		"api key":                {APIKey("k"), "", "X-Api-Key", "k"},
		"api key, as documented": {APIKey("k"), "X-API-Key", "X-Api-Key", "k"},
		"api key, canonical":     {APIKey("k"), "X-Api-Key", "X-Api-Key", "k"},
		"api key, alias":         {APIKey("k"), "Api-Key", "Api-Key", "k"},
		"api key, odd case":      {APIKey("k"), "api-KEY", "Api-Key", "k"},
		"user token":             {UserToken("ap_k"), "Api-Key", "Authorization", "Bearer ap_k"},
		"session":                {SessionToken("s", time.Time{}), "", "Authorization", "Bearer s"},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			header, values := tc.credential.header(tc.apiKeyHeader)
			assert.Equal(t, tc.name, header)
			assert.Equal(t, []string{tc.value}, values)
			assert.Equal(t, http.CanonicalHeaderKey(header), header)

			h := http.Header{header: values}
			h.Add(header, "another")
			_, again := tc.credential.header(tc.apiKeyHeader)
			assert.Equal(t, []string{tc.value}, again, "adding to the header map leaves the shared slice alone")
		})
	}

	header, values := Credential{}.header("")
	assert.Empty(t, header)
	assert.Nil(t, values)
}

func TestUsingACredentialDoesNotAllocate(t *testing.T) { //nolint:paralleltest // AllocsPerRun forbids it
	for _, c := range []Credential{APIKey("k"), UserToken("ap_k"), SessionToken("s", time.Time{})} {
		other := APIKey("l")

		assert.Zero(t, testing.AllocsPerRun(100, func() {
			_, _ = c.header("X-API-Key")
			_, _, _, _ = c.Kind(), c.Expires(), c.Fingerprint(), c.Equal(other)
		}))
	}
}

func TestParseCredentialGuessesKindByPrefix(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		text   string
		kind   Kind
		secret string
	}{
		"user token":        {"ap_abc", KindUserToken, "ap_abc"},
		"production key":    {"abcdef", KindAPIKey, "abcdef"},
		"sandbox key":       {"sk_sandbox_abc", KindAPIKey, "sk_sandbox_abc"},
		"upper case prefix": {"AP_abc", KindAPIKey, "AP_abc"},
		"trailing newline":  {"ap_abc\n", KindUserToken, "ap_abc"},
		"carriage return":   {"abcdef\r\n", KindAPIKey, "abcdef"},
		"blanks around":     {" \t abcdef \n\n", KindAPIKey, "abcdef"},
		"every visible":     {visibleASCII(), KindAPIKey, visibleASCII()},
		"longest":           {strings.Repeat("k", 4096), KindAPIKey, strings.Repeat("k", 4096)},
		"padding":           {"QUJDRA==", KindAPIKey, "QUJDRA=="},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c, err := ParseCredential(tc.text)
			require.NoError(t, err)
			require.NoError(t, c.validate())
			assert.Equal(t, tc.kind, c.Kind())
			assert.Equal(t, tc.secret, c.Reveal())
		})
	}
}

func TestInvalidSecretsAreNamedButNotShown(t *testing.T) {
	t.Parallel()

	const part = "Zq7Wm3Xp9Rt5"

	cases := map[string]struct{ text, want string }{
		"empty":              {"", "is empty"},
		"white space only":   {" \n", "is empty"},
		"blank within":       {part + " " + part, "white space at byte 13 of 25"},
		"with scheme":        {"Bearer " + part, "white space at byte 7 of 19; pass only the credential, without a scheme"},
		"tab within":         {part + "\t" + part, "white space at byte 13"},
		"two lines":          {part + "\n" + part, "a line break at byte 13 of 25"},
		"header injection":   {part + "\r\nX-Evil: 1", "a line break at byte 13"},
		"NUL":                {part + "\x00" + part, "a control character at byte 13"},
		"DEL":                {part + "\x7f" + part, "a control character at byte 13"},
		"not ASCII":          {part + "é", "not an ASCII character at byte 13"},
		"invalid UTF-8":      {part + "\xff", "not an ASCII character at byte 13"},
		"zero width space":   {"\u200b" + part, "not an ASCII character at byte 1"},
		"too long":           {strings.Repeat(part, 400), "is 4800 bytes long, and at most 4096"},
		"double quotes":      {`"` + part + `"`, "is enclosed in"},
		"single quotes":      {`'` + part + `'`, "is enclosed in"},
		"JSON":               {`{"api_key":"` + part + `"}`, "is enclosed in { and }"},
		"placeholder":        {"<" + part + ">", "is enclosed in < and >"},
		"one longer than ok": {strings.Repeat("k", 4097), "is 4097 bytes long"},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c, err := ParseCredential(tc.text)
			require.ErrorIs(t, err, ErrInvalidCredential)
			assert.True(t, c.IsZero())
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), part[:6])
			assert.NotContains(t, err.Error(), part[6:])
			assert.Less(t, len(err.Error()), 300)

			for _, c := range []Credential{APIKey(tc.text), UserToken(tc.text), SessionToken(tc.text, time.Time{})} {
				err := c.validate()
				require.ErrorIs(t, err, ErrInvalidCredential)
				require.ErrorContains(t, err, c.Kind().String())
				assert.NotContains(t, err.Error(), part[:6])
			}
		})
	}
}

func TestConstructorsDoNotTrim(t *testing.T) {
	t.Parallel()

	err := APIKey("key\n").validate()
	require.ErrorIs(t, err, ErrInvalidCredential)
	require.ErrorContains(t, err, "line break at byte 4 of 4")
}

func TestZeroCredential(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, Credential{}.validate(), ErrNoCredential)
	require.NotErrorIs(t, Credential{}.validate(), ErrInvalidCredential)
}

func TestUnknownKindsAreInvalid(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, newCredential(9, "k", time.Time{}).validate(), ErrInvalidCredential)
}

func TestCredentialRefusesToBeDecodedOrGobEncoded(t *testing.T) {
	t.Parallel()

	type holder struct{ Credential Credential }

	require.Error(t, json.Unmarshal([]byte(`{"Credential":"k"}`), new(holder)))
	var fromXML holder
	require.NoError(t, xml.Unmarshal([]byte(`<holder><Credential>k</Credential></holder>`), &fromXML))
	require.ErrorIs(t, fromXML.Credential.validate(), ErrNoCredential, "XML leaves it zero, which is refused when it is used")
	for name, v := range map[string]any{
		"value": APIKey(probeSecret), "holder": holder{APIKey(probeSecret)}, "pointer": &holder{APIKey(probeSecret)},
		"slice": []Credential{APIKey(probeSecret)}, "map": map[string]Credential{"a": APIKey(probeSecret)},
	} {
		var b bytes.Buffer
		require.Error(t, gob.NewEncoder(&b).Encode(v), name)
		leak.AssertNone(t, b.String(), probeSecret)
	}

	encoded, err := json.Marshal(holder{APIKey("k")})
	require.NoError(t, err)
	require.True(t, json.Valid(encoded))
	require.Error(t, json.Unmarshal(encoded, new(holder)), "a redacted credential does not come back as one")
}

func TestStaticReturnsCredentialOrError(t *testing.T) {
	t.Parallel()

	c, err := Static(APIKey("k")).Credential(t.Context())
	require.NoError(t, err)
	assert.True(t, c.Equal(APIKey("k")))

	_, err = Static(Credential{}).Credential(t.Context())
	require.ErrorIs(t, err, ErrNoCredential)

	c, err = Static(APIKey("a b")).Credential(t.Context())
	require.ErrorIs(t, err, ErrInvalidCredential)
	assert.True(t, c.IsZero())
}

func TestSourceFuncIsASource(t *testing.T) {
	t.Parallel()

	cause := errors.New("cause")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := CredentialSourceFunc(func(ctx context.Context) (Credential, error) {
		require.Error(t, ctx.Err())

		return Credential{}, cause
	}).Credential(ctx)
	require.ErrorIs(t, err, cause)

	_, err = CredentialSourceFunc(nil).Credential(t.Context())
	require.ErrorIs(t, err, ErrNoCredential)
}

func FuzzParseCredential(f *testing.F) {
	for _, seed := range []string{
		"", "k", "ap_", "ap_Zq7Wm3Xp9Rt5Kv2Ln8", "sk_sandbox_abc123", " ap_x\n", "a b", "a\r\nX-Evil: 1", "a\x00b",
		"é", "\xff\xfe", "\u00a0k\u00a0", "\u200bk", `"quoted"`, "'q'", "`q`", "<key>", "{}", `"`, "Bearer x", "white space",
		"${KEY}", "KEY=abc", "QUJDRA==", "abc,", `abc"`, "api_key:abc",
		strings.Repeat("k", 4096), strings.Repeat("k", 4097), "_sandbox_", "x_sandbox_",
	} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCredential(text)
		trimmed := strings.TrimSpace(text)

		if err != nil {
			require.ErrorIs(t, err, ErrInvalidCredential)
			require.True(t, c.IsZero())
			require.False(t, acceptable(trimmed) && isToken68(trimmed))

			if len(trimmed) >= 6 && strings.Contains(err.Error(), trimmed) {
				// Only as words of the error's own, which it has for any
				// secret with the same problem.
				_, other := ParseCredential(sameProblem(trimmed))
				require.Equal(t, other.Error(), err.Error())
			}

			return
		}

		require.True(t, acceptable(trimmed))
		require.Equal(t, trimmed, c.Reveal())
		require.NoError(t, c.validate())
		require.Equal(t, strings.HasPrefix(trimmed, "ap_"), c.Kind() == KindUserToken)

		if len(trimmed) > 16 {
			require.NotContains(t, c.String(), trimmed)
		}

		name, values := c.header("")
		require.Equal(t, values, roundTrip(t, name, values), "the header arrives as it was sent")
	})
}

// acceptable says independently of the parser what a secret may be.
func acceptable(s string) bool {
	if s == "" || len(s) > 4096 || strings.Trim(s, visibleASCII()) != "" {
		return false
	}

	for _, r := range s {
		if r < '!' || r > '~' {
			return false
		}
	}

	first, last := s[:1], s[len(s)-1:]

	return len(s) == 1 || !slices.Contains([]string{`""`, `''`, "``", "<>", "{}"}, first+last)
}

// isToken68 reports whether s has the form of credentials in RFC 9110, which nothing that
// is copied with a secret has.
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/") == ""
}

// sameProblem replaces all that is visible in s by other letters.
func sameProblem(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] > ' ' && b[i] < 0x7f && !strings.ContainsRune("\"'`<>{}", rune(b[i])) {
			b[i] = 'x'
		}
	}

	return string(b)
}

func visibleASCII() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		b.WriteByte(c)
	}

	return b.String()
}

// roundTrip sends a header through the writer and the reader of net/http.
func roundTrip(t *testing.T, name string, values []string) []string {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://agrenting.com/", http.NoBody)
	require.NoError(t, err)

	req.Header[name] = values

	var wire bytes.Buffer
	require.NoError(t, req.Write(&wire))

	got, err := http.ReadRequest(bufio.NewReader(&wire))
	require.NoError(t, err)

	return got.Header[name]
}
