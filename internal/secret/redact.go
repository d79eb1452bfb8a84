package secret

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// minEncoded is the shortest encoded form that is looked for: a shorter one
// would be found by chance in innocent text.
const minEncoded = 6

// Redact returns text with every occurrence of each secret replaced by
// [Placeholder]: as it is, escaped for a URL, for JSON, for HTML and as a Go
// string, in base64 of either alphabet wherever in the encoded bytes it begins,
// and in hex. Empty secrets are skipped.
func Redact(text string, secrets ...string) string {
	if text == "" {
		return text
	}

	var covered []bool // byte for byte, so that overlapping finds leave no rest

	for _, s := range secrets {
		for _, form := range forms(s) {
			for from := 0; ; {
				i := strings.Index(text[from:], form)
				if i < 0 {
					break
				}

				if covered == nil {
					covered = make([]bool, len(text))
				}

				start := from + i
				for j := range form {
					covered[start+j] = true
				}

				from = start + 1
			}
		}
	}

	if covered == nil {
		return text
	}

	var b strings.Builder

	for i := 0; i < len(text); {
		if !covered[i] {
			b.WriteByte(text[i])
			i++

			continue
		}

		b.WriteString(Placeholder)

		for i < len(text) && covered[i] {
			i++
		}
	}

	return b.String()
}

// forms returns the spellings of s that Redact looks for.
func forms(s string) []string {
	if s == "" {
		return nil
	}

	out := []string{s}
	add := func(form string) {
		if len(form) >= minEncoded && !slices.Contains(out, form) {
			out = append(out, form)
		}
	}

	query, path := url.QueryEscape(s), url.PathEscape(s)
	add(query)
	add(path)
	add(lowerEscapes(query))
	add(lowerEscapes(path))
	add(strings.ReplaceAll(query, "+", "%20"))

	quoted := strconv.Quote(s)
	add(quoted[1 : len(quoted)-1])

	if j, err := json.Marshal(s); err == nil {
		add(string(j[1 : len(j)-1]))
		add(strings.ReplaceAll(string(j[1:len(j)-1]), "/", `\/`))
	}

	add(html.EscapeString(s))

	h := hex.EncodeToString([]byte(s))
	add(h)
	add(strings.ToUpper(h))

	var percent strings.Builder
	for i := range len(s) {
		percent.WriteString("%" + h[2*i:2*i+2])
	}

	add(percent.String())
	add(strings.ToUpper(percent.String()))

	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		add(enc.EncodeToString([]byte(s))) // with its padding

		for shift := range 3 {
			add(base64Core(enc, s, shift))
		}
	}

	return out
}

// base64Core returns the characters of the encoding of shift bytes followed by
// s that depend on s alone, which are the same whatever stands around s.
func base64Core(enc *base64.Encoding, s string, shift int) string {
	full := enc.WithPadding(base64.NoPadding).EncodeToString([]byte(strings.Repeat("\x00", shift) + s))
	first := (shift*8 + 5) / 6
	last := (shift + len(s)) * 8 / 6

	return full[min(first, last):last]
}

// lowerEscapes returns s with the hex digits of its percent escapes in lower case.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], strings.ToLower(string(b[i+1:i+3])))
			i += 2
		}
	}

	return string(b)
}

// names are the ends of member and parameter names that announce a secret.
const names = `(?:api[_-]?key|(?:new|old|raw|plain|plaintext|secret|private|signing)[_-]?key` +
	`|token|secret|password|passwd|credential|authorization)`

// patterns are tried in this order. Each replacement keeps the groups that say
// what stood there.
var patterns = []struct {
	re   *regexp.Regexp
	with string
}{
	// "api_key":"…", api_key: "…", "api_key" => "…", also cut off at the end.
	{regexp.MustCompile(`(?i)((?:` + names + `"?|"key")\s*(?:=>|=|:)\s*")(?:[^"\\]|\\.)*\\?`), "${1}" + Placeholder},
	{regexp.MustCompile(`(?i)((?:` + names + `'?|'key')\s*(?:=>|=|:)\s*')(?:[^'\\]|\\.)*\\?`), "${1}" + Placeholder},
	// The same inside a JSON string.
	{regexp.MustCompile(`(?i)((?:` + names + `|\\+"key)\\+"\s*:\s*\\+")[^"]*?(\\*(?:"|$))`), "${1}" + Placeholder + "${2}"},
	// A number where a string is usual.
	{regexp.MustCompile(`(?i)(` + names + `"\s*:\s*)[0-9][^,}\]\s]*`), "${1}" + Placeholder},
	// ?api_key=…&
	{regexp.MustCompile(`(?i)(` + names + `(?:=|%3D))[^&\s"'<>,;\[]+`), "${1}" + Placeholder},
	// X-API-Key: …
	{regexp.MustCompile(`(?i)(api-key:\s*)[^\s"'\[]\S*`), "${1}" + Placeholder},
	{regexp.MustCompile(`(?i)(authorization:\s*)(?:basic|bearer|digest|token)?\s*[^\s"'\[]\S*`), "${1}" + Placeholder},
	// Secrets that can be told by their shape. Before sk_ no letter may stand,
	// or task_not_found would be taken for one, unless the letter belongs to
	// an escape.
	{regexp.MustCompile(`ap_[A-Za-z0-9_-]{16,}`), Placeholder},
	{regexp.MustCompile(`(^|[^A-Za-z0-9]|%[0-9A-Fa-f]{2}|\\[bfnrt])sk_[A-Za-z0-9_-]{8,}`), "${1}" + Placeholder},
	{regexp.MustCompile(`[A-Za-z0-9]+_sandbox_[A-Za-z0-9_-]{8,}`), Placeholder},
}

var bearer = regexp.MustCompile(`(?i)\b(bearer(?:\s+|%20|\+))([^\s"',;<>\[\]]+)`)

// bearerProse are words that follow "bearer" in sentences; everything else that
// follows it is taken for a token.
var bearerProse = []string{
	"and", "auth", "authentication", "authorization", "credential", "credentials", "format", "header",
	"invalid", "is", "missing", "not", "or", "realm", "required", "scheme", "token", "tokens", "was",
}

// RedactPatterns returns text with everything that looks like a secret replaced
// by [Placeholder]: keys and tokens with a telling prefix, bearer tokens, and the
// values of parameters, headers and JSON members with telling names. It serves
// text whose secrets are not known, and rather hides too much than too little.
func RedactPatterns(text string) string {
	for _, p := range patterns {
		text = p.re.ReplaceAllString(text, p.with)
	}

	return bearer.ReplaceAllStringFunc(text, func(found string) string {
		m := bearer.FindStringSubmatch(found)
		if slices.Contains(bearerProse, strings.ToLower(strings.TrimRight(m[2], ".:!?)"))) {
			return found
		}

		return m[1] + Placeholder
	})
}
