package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

const value = "Zq7+Wm/3Xp9=Rt5~Kv2"

type exported struct{ Text secret.Text }

type unexported struct{ text secret.Text }

func TestTextIsRedactedByEveryVerb(t *testing.T) {
	t.Parallel()

	text := secret.New(value)
	holders := map[string]any{
		"value":              text,
		"pointer":            &text,
		"exported field":     exported{text},
		"unexported field":   unexported{text},
		"pointer to holder":  &unexported{text},
		"slice":              []secret.Text{text},
		"map":                map[string]secret.Text{"k": text},
		"slice of interface": []any{text},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%p", "%t", "%c", "%U", "%e", "%w"}

	for name, holder := range holders {
		for _, verb := range verbs {
			t.Run(name+" "+verb, func(t *testing.T) {
				t.Parallel()
				noLeak(t, fmt.Errorf(verb, holder).Error())
			})
		}
	}
}

func TestTextIsRedactedByEncodersAndLoggers(t *testing.T) {
	t.Parallel()

	text := secret.New(value)

	for name, holder := range map[string]any{"value": text, "exported": exported{text}, "unexported": &unexported{text}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var out bytes.Buffer

			j, err := json.Marshal(holder)
			fmt.Fprintf(&out, "%s %v\n", j, err)

			x, err := xml.Marshal(holder)
			fmt.Fprintf(&out, "%s %v\n", x, err)

			slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", holder)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("m", slog.Group("g", "k", holder))

			fmt.Fprintln(&out, gob.NewEncoder(&out).Encode(holder))
			noLeak(t, out.String())
		})
	}
}

func TestTextRefusesToBeDecodedOrGobEncoded(t *testing.T) {
	t.Parallel()

	var text secret.Text

	require.Error(t, text.UnmarshalText([]byte(value)))
	require.Error(t, text.GobDecode([]byte(value)))
	require.Error(t, json.Unmarshal([]byte(`{"Text":"`+value+`"}`), &exported{}))
	require.Error(t, xml.Unmarshal([]byte(`<exported><Text>x</Text></exported>`), &exported{}))
	require.Error(t, gob.NewEncoder(new(bytes.Buffer)).Encode(exported{secret.New(value)}))
	assert.Empty(t, text.Reveal())
}

func TestTextRevealAndEqual(t *testing.T) {
	t.Parallel()

	var zero secret.Text

	assert.Equal(t, value, secret.New(value).Reveal())
	assert.True(t, secret.New(value).Equal(secret.New(value)))
	assert.False(t, secret.New(value).Equal(secret.New(value+"x")))
	assert.False(t, secret.New(value).Equal(zero))
	assert.True(t, zero.Equal(secret.New("")))
	assert.True(t, zero.IsZero())
	assert.False(t, secret.New(value).IsZero())
}

func TestFingerprintIsShortAndStable(t *testing.T) {
	t.Parallel()

	got := secret.New(value).Fingerprint()
	assert.Regexp(t, `^sha256:[0-9a-f]{10}$`, got)
	assert.Equal(t, secret.Fingerprint(value), got)
	assert.NotEqual(t, secret.Fingerprint(value+"x"), got)
	assert.Empty(t, secret.Fingerprint(""))

	plain := secret.Digest(value)
	assert.NotContains(t, got, hex.EncodeToString(plain[:5]))
	// Logs and stored records of older versions name secrets by it.
	assert.Equal(t, "sha256:3422ad6ff2", secret.Fingerprint("pinned"))
}

func TestRedactRemovesEverySpellingOfASecret(t *testing.T) {
	t.Parallel()

	raw := []byte(value)
	quoted, err := json.Marshal(`a"b/<` + value)
	require.NoError(t, err)

	cases := map[string]string{
		"as it is":            "x " + value + " y",
		"twice":               value + value,
		"query escaped":       "k=" + url.QueryEscape(value) + "&",
		"path escaped":        "/" + url.PathEscape(value) + "/",
		"lower case escapes":  "k=" + strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(url.QueryEscape(value)),
		"hex":                 hex.EncodeToString(raw),
		"upper hex":           strings.ToUpper(hex.EncodeToString(raw)),
		"base64":              base64.StdEncoding.EncodeToString(raw),
		"raw base64":          base64.RawStdEncoding.EncodeToString(raw),
		"url base64":          base64.URLEncoding.EncodeToString(raw),
		"raw url base64":      base64.RawURLEncoding.EncodeToString(raw),
		"base64 at shift 1":   base64.StdEncoding.EncodeToString([]byte(":" + value + ":tail")),
		"base64 at shift 2":   base64.StdEncoding.EncodeToString([]byte("u:" + value + "t")),
		"base64 at shift 3":   base64.URLEncoding.EncodeToString([]byte("us:" + value)),
		"json":                string(quoted),
		"json, escaped slash": strings.ReplaceAll(value, "/", `\/`),
		"go string":           fmt.Sprintf("%q", value),
	}

	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := secret.Redact(text, "", "another", value)
			assert.Contains(t, got, secret.Placeholder)
			noLeak(t, got)
		})
	}
}

func TestRedactLeavesTheRestAlone(t *testing.T) {
	t.Parallel()

	assert.Equal(t, "a [redacted] b", secret.Redact("a "+value+" b", value))
	assert.Equal(t, "nothing here", secret.Redact("nothing here", value, ""))
	assert.Empty(t, secret.Redact("", value))
	assert.Equal(t, "text", secret.Redact("text"))
	assert.Equal(t, "é [redacted] ü", secret.Redact("é "+value+" ü", value))
	assert.Equal(t, "<[redacted]>", secret.Redact("<abcabcabcabc>", "abcabcabc", "bcabcabc"), "overlapping finds leave no rest")
}

func TestRedactPatternsMasksSecrets(t *testing.T) {
	t.Parallel()

	const hidden = "Zq7Wm3Xp9Rt5Kv2Ln8"

	cases := map[string]struct{ text, want string }{
		"user token":         {"key ap_" + hidden + " was revoked", "key [redacted] was revoked"},
		"sandbox key":        {"(sk_sandbox_" + hidden + ")", "([redacted])"},
		"short sk":           {"sk_abcdefgh", "[redacted]"},
		"sk after an escape": {"%3Ask_" + hidden, "%3A[redacted]"},
		"other sandbox key":  {"xy_sandbox_" + hidden, "[redacted]"},
		"bearer":             {"Bearer " + hidden + ", please", "Bearer [redacted], please"},
		"bearer, lower":      {"got bearer x1", "got bearer [redacted]"},
		"query":              {"/socket?api_key=" + hidden + "&vsn=2", "/socket?api_key=[redacted]&vsn=2"},
		"session query":      {"?session_token=" + hidden, "?session_token=[redacted]"},
		"escaped query":      {"next%3Fapi_key%3D" + hidden, "next%3Fapi_key%3D[redacted]"},
		"json":               {`{"api_key":"` + hidden + `","id":1}`, `{"api_key":"[redacted]","id":1}`},
		"json with space":    {`{"token" : "` + hidden + `"}`, `{"token" : "[redacted]"}`},
		"json session":       {`{"session_token":"` + hidden + `"}`, `{"session_token":"[redacted]"}`},
		"json secret":        {`{"secret":"a\"` + hidden + `"}`, `{"secret":"[redacted]"}`},
		"json secret_key":    {`{"secret_key":"` + hidden + `"}`, `{"secret_key":"[redacted]"}`},
		"json key":           {`{"key":"` + hidden + `"}`, `{"key":"[redacted]"}`},
		"json number":        {`{"token":12345678}`, `{"token":[redacted]}`},
		"json cut off":       {`{"api_key":"` + hidden, `{"api_key":"[redacted]`},
		"json cut in escape": {`{"api_key":"` + hidden + `\`, `{"api_key":"[redacted]`},
		"json in json":       {`{"m":"{\"api_key\":\"` + hidden + `\"}"}`, `{"m":"{\"api_key\":\"[redacted]\"}"}`},
		"single quotes":      {`{'token': '` + hidden + `'}`, `{'token': '[redacted]'}`},
		"elixir map":         {`%{"token" => "` + hidden + `"}`, `%{"token" => "[redacted]"}`},
		"elixir keyword":     {`[api_key: "` + hidden + `"]`, `[api_key: "[redacted]"]`},
		"header":             {"X-API-Key: " + hidden + "\r\nHost: a", "X-API-Key: [redacted]\r\nHost: a"},
		"authorization":      {"Authorization: Basic " + hidden, "Authorization: [redacted]"},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := secret.RedactPatterns(tc.text)
			assert.Equal(t, tc.want, got)
			assert.NotContains(t, got, hidden)
			assert.Equal(t, got, secret.RedactPatterns(got), "redacting twice changes nothing")
		})
	}
}

func TestRedactPatternsLeavesPlainTextAlone(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		"",
		"task_not_found",
		"a bearer token is required",
		"Bearer authentication required.",
		`{"errors":[{"code":"UNAUTHORIZED","message":"invalid token","field":"token"}]}`,
		"idempotency_key=abc-123 was used before",
		"map_id is unknown",
	} {
		assert.Equal(t, text, secret.RedactPatterns(text))
	}
}

// noLeak fails when out has the value in some spelling, or six characters of it.
func noLeak(t *testing.T, out string) {
	t.Helper()

	raw := []byte(value)
	forbidden := []string{
		url.QueryEscape(value), url.PathEscape(value),
		hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
		base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw),
		base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
	}

	for i := range len(value) - 5 {
		forbidden = append(forbidden, value[i:i+6], hex.EncodeToString(raw[i:i+6]))
	}

	for _, f := range forbidden {
		if strings.Contains(out, f) {
			t.Errorf("output holds %q, a form of the secret:\n%s", f, out)
		}
	}
}
