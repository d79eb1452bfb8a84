package redact_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/redact"
)

const key = "Zq7Wm3Xp9Rt5Kv2Ln8"

// without removes the key itself, and as a list of byte values.
var without = redact.Func(strings.NewReplacer(key, "[redacted]", byteList(","), "[redacted]").Replace)

// byteList is the key as a list of byte values.
func byteList(sep string) string {
	b, _ := json.Marshal([]rune(key))
	return strings.ReplaceAll(strings.Trim(string(b), "[]"), ",", sep)
}

func TestRedactedBodyIsValidJSON(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(`{"a": "b", "n": [1, 2]},`, 10_000)
	for name, tc := range map[string]struct{ body, want string }{
		"nothing":           {"", ""},
		"no key":            {`{ "a" : "it \u0077as" , "b":[1.50, {}, [] ,-2e9]}`, `{ "a" : "it \u0077as" , "b":[1.50, {}, [] ,-2e9]}`},
		"string":            {`{"b":"x ` + key + `","a":1.50}`, `{"b":"x [redacted]","a":1.50}`},
		"only a string":     {`"` + key + `"`, `"[redacted]"`},
		"name":              {`{"` + key + `":null}`, `{"[redacted]":null}`},
		"escaped":           {`["\u005a` + key[1:] + `<\""]`, `["[redacted]<\""]`},
		"all escaped":       {`{"a":"` + escaped(key) + `"}`, `{"a":"[redacted]"}`},
		"bytes":             {`{"a":[` + byteList(", ") + `]}`, `{"a":"[[redacted]]"}`},
		"more bytes":        {`{"a":[1, ` + byteList(",\n  ") + `, 2]}`, `{"a":"[1,[redacted],2]"}`},
		"quoted bytes":      {`[["` + byteList(`","`) + `"]]`, `["[[redacted]]"]`},
		"string in a list":  {`["a", "` + key + `", "b"]`, `["a", "[redacted]", "b"]`},
		"nested list":       {`[[1,[2]],{"a":"` + key + `"}]`, `[[1,[2]],{"a":"[redacted]"}]`},
		"between others":    {`[` + long + `"` + key + `",` + long + `1]`, `[` + long + `"[redacted]",` + long + `1]`},
		"quotes at the end": {`["\"","` + key + `\""]`, `["\"","[redacted]\""]`},
		"text":              {"no JSON: " + key + "\xff\n", "no JSON: [redacted]\xff\n"},
		"text without":      {"no JSON\xff", "no JSON\xff"},
		"cut off":           {`{"a":"` + key, `{"a":"[redacted]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := string(without.Body([]byte(tc.body)))
			assert.Equal(t, tc.want, got)
			assert.Equal(t, json.Valid([]byte(tc.body)), json.Valid([]byte(got)))
		})
	}
}

func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(`\u00` + strings.ToUpper(string("0123456789abcdef"[r>>4])+string("0123456789abcdef"[r&15])))
	}
	return b.String()
}

func TestNumberBecomesString(t *testing.T) {
	t.Parallel()
	f := redact.Func(strings.NewReplacer("1234567890", "[redacted]").Replace)
	assert.JSONEq(t, `{"a":"[redacted]","b":"x[redacted]"}`, string(f.Body([]byte(`{"a":1234567890,"b":"x1234567890"}`))))
}

// Searching costs the same for one text of a size and for many small ones.
func TestSearchesAreFew(t *testing.T) {
	t.Parallel()
	calls, searched := 0, 0
	counting := redact.Func(func(text string) string {
		calls, searched = calls+1, searched+len(text)
		return without(text)
	})
	body := []byte(`[` + strings.Repeat(`"abcdefghij",`, 100_000) + `"` + key + `"]`)
	counting.Body(body)
	assert.Less(t, calls, 100)
	assert.Less(t, searched, 2*len(body))
}

func TestHeaderLosesCredential(t *testing.T) {
	t.Parallel()
	h := http.Header{"A": {"x", "for " + key}, "B": {"y"}, "X-" + key: {"z"}}
	without.Header(h)
	assert.Equal(t, http.Header{"A": {"x", "for [redacted]"}, "B": {"y"}, "X-Redacted": {"z"}}, h)

	h = http.Header{"A": {"x"}}
	calls := 0
	redact.Func(func(text string) string { calls++; return text }).Header(h)
	assert.Equal(t, 1, calls)
	assert.Equal(t, http.Header{"A": {"x"}}, h)
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"a":"` + key + `"}`, `[` + byteList(", ") + `]`, `["\u005a` + key[1:] + `", {"` + key + `": [1e5, -0.1, "x", []]}]`, `"\\\""`, `{"a":"` + key, key,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := without.Body([]byte(text))
		assert.Equal(t, json.Valid([]byte(text)), json.Valid(got))
		assert.NotContains(t, string(got), key)
		var v any
		if json.Unmarshal(got, &v) == nil {
			decoded, err := json.Marshal(v)
			require.NoError(t, err)
			assert.NotContains(t, string(decoded), key)
		}
	})
}
