package secret_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestCleanMakesOneBoundedLine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"plain":         {"no such agent", "no such agent"},
		"lines":         {" a\n\tb\r\n", "a b"},
		"known secret":  {"you sent " + value, "you sent [redacted]"},
		"pattern":       {"token=abc", "token=[redacted]"},
		"invalid UTF-8": {"a\xffb", "a?b"},
		"long":          {strings.Repeat("x", secret.MaxClean+1), strings.Repeat("x", secret.MaxClean) + "…"},
		"one huge word": {strings.Repeat("x", 9<<10), ""},
		"late text":     {strings.Repeat(" ", 3<<10) + "x", ""},
		"invisible":     {"a\x1b[1m\u200b\u202e\u2066\ufeff\u00ad\U000e0041\u2028b\u00a0c", "a?[1m?????? b c"},
		"huge text":     {strings.Repeat("x ", 9<<10), strings.Repeat("x ", secret.MaxClean/2) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.want, secret.Clean(tc.text, value))
		})
	}
}

func TestTextsAreCutBeforeTheSearch(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a token ", 4<<10)
	for name, got := range map[string]string{
		"RedactPatterns": secret.RedactPatterns(long), "WithoutQueries": secret.WithoutQueries(long), "Clean": secret.Clean(long),
		"CleanText": secret.CleanText(long), "Bounded": secret.Bounded(long), "Path": secret.Path(long),
		"WithoutSecrets": secret.WithoutSecrets(errors.New(long)).Error(), "QuotePath": secret.QuotePath("/" + long),
	} {
		assert.NotEmpty(t, got, name)
		assert.LessOrEqual(t, len(got), 8<<10, name)
	}
	assert.Equal(t, strings.Repeat("/path", 52)[:256]+"…", secret.Path(strings.Repeat("/path", 4<<10)))
	long = strings.Repeat("x ", 1000) + value + strings.Repeat(" y", 1000)
	for i := range len(value) {
		text := long[i:]
		noLeak(t, secret.CleanText(text, value))
		noLeak(t, secret.Path(strings.ReplaceAll(text, " ", "/"), value))
	}
}

func TestWithoutQueries_keepsTheRestOfTheText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`Get "https://a.test/x?q=1": EOF`:                `Get "https://a.test/x": EOF`,
		"http://a.test?q=1#f and b?c=d":                  "http://a.test#f and b?c=d",
		"a (https://a.test/x?q=(1)&r=2): down (again)":   "a (https://a.test/x): down (again)",
		"https://a.test/x?q=1; <http://b.test/y?q=1>, c": "https://a.test/x; <http://b.test/y>, c",
		"(https://a.test/x?token=" + value + "): down":   "(https://a.test/x): down",
		"(token=" + value + "): down":                    "(token=[redacted]): down",
		"https://a.test/x?: down":                        "https://a.test/x: down",
		`Get "https://u:hunter2@a.test/x?q=1": EOF`:      `Get "https://[redacted]@a.test/x": EOF`,
		"postgres://u:hun@ter2@db.test/keys?password=x":  "postgres://[redacted]@db.test/keys",
		"https://hunter2@a.test, me@b.test":              "https://[redacted]@a.test, me@b.test",
		"Bearer " + value:                                "Bearer [redacted]",
	} {
		assert.Equal(t, want, secret.WithoutQueries(text))
	}
}

func TestWithoutSecretsKeepsTheIdentityOfTheError(t *testing.T) {
	t.Parallel()
	require.NoError(t, secret.WithoutSecrets(nil, value))
	clean := fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	assert.Same(t, clean, secret.WithoutSecrets(clean, value))
	assert.Same(t, clean, secret.WithoutSecrets(clean))

	err := secret.WithoutSecrets(fmt.Errorf("row %s: %w", value, io.ErrUnexpectedEOF), value)
	require.EqualError(t, err, "row [redacted]: unexpected EOF")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Equal(t, io.ErrUnexpectedEOF, errors.Unwrap(err))
	noLeak(t, fmt.Sprintf("%+v %#v", err, err))
}

func TestRedactJSONKeepsTheRest(t *testing.T) {
	t.Parallel()
	quoted, err := json.Marshal(value)
	require.NoError(t, err)
	for raw, want := range map[string]string{
		``:                                    ``,
		`{ "as" : "it was" }`:                 `{ "as" : "it was" }`,
		`{"a":[` + string(quoted) + `,1.50]}`: `{"a":["[redacted]",1.50]}`,
		`{"a":`:                               ``,
	} {
		assert.Equal(t, want, string(secret.RedactJSON(json.RawMessage(raw), value)), raw)
	}
	assert.Equal(t, `["12345678"]`, string(secret.RedactJSON(json.RawMessage(`["12345678"]`))))
	assert.JSONEq(t, `["[redacted]"]`, string(secret.RedactJSON(json.RawMessage(`[12345678]`), "12345678")))
}

func TestProblemNamesThePosition(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		value:                     "",
		"":                        "is empty",
		"ab cd":                   "has white space at byte 3 of 5",
		"ab\ncd":                  "has a line break at byte 3 of 5",
		"ab\x00":                  "has a control character at byte 3 of 3",
		"abé":                     "has not an ASCII character at byte 3 of 4",
		`"ab"`:                    "is enclosed in \" and \"",
		strings.Repeat("x", 4097): "is 4097 bytes long",
	} {
		got := secret.Problem(s)
		assert.Contains(t, got, want)
		assert.Equal(t, want == "", got == "")
	}
}

func TestQuoteShowsOnlyWords(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                  `""`,
		"sand-box\n":        `"sand-box\n"`,
		"sk_sandbox_1":      "a value of 12 bytes",
		"abcdefghijklmnopq": "a value of 17 bytes",
		"é":                 "a value of 2 bytes",
	} {
		assert.Equal(t, want, secret.Quote(s))
	}
}
