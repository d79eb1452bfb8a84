package secret_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// An encoding is a form in which a platform, a proxy, or Go prints a text.
type encoding struct {
	name   string
	encode func(string) string
	// width is how many characters of the form one character of the text has at most.
	width int
}

// each joins the form of each byte of a text.
func each(format, between string) func(string) string {
	return func(s string) string {
		parts := make([]string, len(s))
		for i := range len(s) {
			parts[i] = fmt.Sprintf(format, s[i])
		}
		return strings.Join(parts, between)
	}
}

func encodings() []encoding {
	b64 := func(e *base64.Encoding, before, after string) func(string) string {
		return func(s string) string { return e.EncodeToString([]byte(before + s + after)) }
	}
	mustJSON := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	std := base64.StdEncoding
	wide := func(s string) string {
		var b []byte
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return std.EncodeToString(b)
	}
	all := []encoding{
		{"unchanged", strings.Clone, 1},
		{"line breaks inside", lines(7, "\n"), 2},
		{"zero-width characters inside", lines(5, "\u200b"), 3},
		{"base64", b64(std, "", ""), 4},
		{"base64 without padding", b64(base64.RawStdEncoding, "", ""), 4},
		{"URL base64", b64(base64.URLEncoding, "", ""), 4},
		{"base64 after 1 byte", b64(std, "u", ":tail"), 8},
		{"base64 after 2 bytes", b64(std, "u:", ""), 8},
		{"Basic", b64(std, "user:", ""), 8},
		{"base64 in lines", func(s string) string { return lines(19, "\r\n ")(std.EncodeToString([]byte(s))) }, 8},
		{"base64 in UTF-16", wide, 8},
		{"base64 in JSON lines", func(s string) string { return lines(19, `\n`)(std.EncodeToString([]byte(s))) }, 8},
		{"base64 twice", func(s string) string { return std.EncodeToString([]byte(std.EncodeToString([]byte(s)))) }, 8},
		{"percent in base64", func(s string) string { return std.EncodeToString([]byte(each("%%%02X", "")(s))) }, 8},
		{"query in base64", func(s string) string { return std.EncodeToString([]byte("k=" + url.QueryEscape(s))) }, 8},
		{"quoted in base64", func(s string) string { return std.EncodeToString(fmt.Appendf(nil, "%q", s)) }, 8},
		{"base64 in percent", func(s string) string { return url.QueryEscape(std.EncodeToString([]byte(s))) }, 8},
		{"hex in base64", func(s string) string { return std.EncodeToString(fmt.Appendf(nil, "%x", s)) }, 8},
		{"every byte in octal", each(`\%03o`, ""), 4},
		{"quoted", func(s string) string { return fmt.Sprintf("%q", s) }, 4},
		{"quoted twice", func(s string) string { return fmt.Sprintf("%q", fmt.Sprintf("%q", s)) }, 8},
		{"JSON", mustJSON, 6},
		{"JSON in JSON", func(s string) string { return mustJSON(mustJSON(s)) }, 12},
		{"JSON in JSON in JSON", func(s string) string { return mustJSON(mustJSON(mustJSON(s))) }, 24},
		{"JSON with escaped slashes", func(s string) string { return strings.ReplaceAll(mustJSON(s), "/", `\/`) }, 6},
		{"query", url.QueryEscape, 3},
		{"path", url.PathEscape, 3},
		{"query twice", func(s string) string { return url.QueryEscape(url.QueryEscape(s)) }, 5},
		{"query in JSON", func(s string) string { return mustJSON("https://a.test/?k=" + url.QueryEscape(s)) }, 40},
		{"HTML", html.EscapeString, 6},
		{"HTML in JSON", func(s string) string { return mustJSON(html.EscapeString(s)) }, 12},
		{"bytes", func(s string) string { return fmt.Sprintf("%d", []byte(s)) }, 4},
		{"JSON array", func(s string) string { return "[" + each("%d", ", ")(s) + "]" }, 6},
		{"JSON object of bytes", func(s string) string {
			parts := make([]string, len(s))
			for i := range len(s) {
				parts[i] = fmt.Sprintf(`"%d":%d`, i, s[i])
			}
			return "{" + strings.Join(parts, ",") + "}"
		}, 12},
		{"bytes in Go syntax", func(s string) string { return fmt.Sprintf("%#v", []byte(s)) }, 8},
		{"runes", func(s string) string { return fmt.Sprintf("%U", []rune(s)) }, 8},
	}
	for name, format := range map[string]string{
		"percent": "%%%02x", "upper percent": "%%%02X", "percent twice": "%%25%02x", "unicode": `\u%04x`,
		"upper unicode": `\u%04X`, "braces": `\u{%x}`, "Go bytes": `\x%02x`, "decimal entities": "&#%d;", "padded entities": "&#%05d;",
		"hex entities": "&#x%x;", "old percent": "%%u%04X", "escaped unicode": `\\u%04x`,
	} {
		all = append(all, encoding{name, each(format, ""), 10})
	}
	for _, between := range []string{"", " ", ":", "-", ", ", "_", "\n"} {
		all = append(
			all, encoding{"hex with " + between, each("%02x", between), 6},
			encoding{"upper hex with " + between, each("%02X", between), 6},
			encoding{"0x with " + between, each("0x%02x", between), 8},
			encoding{`\x with ` + between, each(`\x%02X`, between), 8},
		)
		if between != "" {
			all = append(all, encoding{"decimal with " + between, each("%d", between), 8})
		}
	}
	return all
}

// lines inserts a separator after each n bytes.
func lines(n int, between string) func(string) string {
	return func(s string) string {
		var parts []string
		for ; len(s) > n; s = s[n:] {
			parts = append(parts, s[:n])
		}
		return strings.Join(append(parts, s), between)
	}
}

// alphabet has the characters of a secret, those that are escaped more often than others.
const alphabet = `ABCXYZabcxyzfnrtux0123456789-_.~+/=%&"'\<>;:#@!$*(){}[]|^,?` + "`"

func randomSecret(r *rand.Rand, size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// checkCovered checks what Redact leaves of a form of a secret between two texts, if the whole
// is cut off so that cut characters are missing.
func checkCovered(t *testing.T, e encoding, s, before, after string, missing int) {
	t.Helper()
	form := e.encode(s)
	text := before + form + after
	if missing > 0 {
		missing = min(missing, len(form)-1)
		text, after = before+form[:len(form)-missing], ""
	}
	got := secret.Redact(text, s)
	// What is around the secret: quotation marks, the digits of base64 that belong to
	// neighbors too, and of a secret that is cut off up to 7 characters.
	rest := 4 + 4*e.width
	if missing > 0 {
		rest += 7 * e.width
	}
	left := strings.ReplaceAll(got, secret.Placeholder, "")
	if len(left) > len(before)+len(after)+rest || (missing == 0 && len(form) >= 8 && strings.Contains(got, form)) {
		t.Errorf("%s: %q between %q and %q, %d missing, leaves %q", e.name, s, before, after, missing, got)
	}
}

func TestRedactDecodes(t *testing.T) {
	t.Parallel()
	secrets := []string{
		value, "Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6Gh1Jk0Ms", "sk_sandbox_0123456789abcdef0123456789abcdef",
		`a"b\c/d<e>f&g'h+i=j%41k`, "12345678", strings.Repeat("a", 40), strings.Repeat("Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6Gh1Jk0M", 16),
	}
	for _, e := range encodings() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, s := range secrets {
				for _, around := range [][2]string{{"", ""}, {"no key ", " was found"}, {"key=", "&x=1"}, {`{"m":"`, `"}`}, {"abc ", " def"}} {
					checkCovered(t, e, s, around[0], around[1], 0)
				}
			}
		})
	}
}

func FuzzRedactDecodes(f *testing.F) {
	forms := encodings()
	for i := range forms {
		f.Add(uint64(i), uint8(i), "you sent ", " which is wrong", uint16(0))
		f.Add(uint64(i), uint8(i), "", "", uint16(20))
	}
	f.Fuzz(func(t *testing.T, seed uint64, form uint8, before, after string, missing uint16) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := randomSecret(r, 16+r.IntN(60))
		checkCovered(t, forms[int(form)%len(forms)], s, before, after, int(missing))
		_ = secret.RedactPatterns(before + s + after)
	})
}

func FuzzRedactPatternsIsStable(f *testing.F) {
	f.Add(`{"token":"x`)
	f.Add("Authorization: Bearer x api_key=y bearer z sk_012345678 a_sandbox_012345678")
	f.Fuzz(func(t *testing.T, text string) {
		once := secret.RedactPatterns(text)
		if len(once) > len(text)*len(secret.Placeholder)+1 {
			t.Error("it has grown")
		}
	})
}

// The work is counted, because a clock also measures the machine.
func TestRedactIsLinear(t *testing.T) {
	t.Parallel()
	repeat := func(s string, size int) string { return strings.Repeat(s, size/len(s)+1)[:size] }
	b64 := base64.StdEncoding.EncodeToString
	texts := map[string]func(size int) string{
		"one character": func(n int) string { return repeat("a", n) },
		"almost":        func(n int) string { return repeat("aaaaaaaaaaaaaaab", n) },
		"ampersands":    func(n int) string { return repeat("&", n) },
		"long entities": func(n int) string { return repeat("&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", n) },
		"backslashes":   func(n int) string { return repeat(`\`, n) },
		"percent":       func(n int) string { return repeat("%25", n) },
		"mixed escapes": func(n int) string { return repeat(`%5Cu0026amp;`, n) },
		"numbers":       func(n int) string { return repeat("97 ", n) },
		"digits":        func(n int) string { return repeat("1", n) },
		"hex":           func(n int) string { return repeat(hex.EncodeToString([]byte("a")), n) },
		"base64":        func(n int) string { return b64([]byte(repeat("a", n*3/4))) },
		"base64 twice":  func(n int) string { return b64([]byte(b64([]byte(repeat("a", n*9/16))))) },
		"white space":   func(n int) string { return repeat("a ", n) },
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for of, s := range map[string]string{"repetitive": strings.Repeat("a", 4096), "short": "aaa", "usual": value, "almost": repeat("aaaaaaaaaaaaaaab", 4096)} {
				small, large := text(4<<10), text(32<<10)
				base := secret.Steps("x", s) // of the secret alone
				a, b := secret.Steps(small, s)-base, secret.Steps(large, s)-base
				assert.LessOrEqual(t, a, maxSteps*len(small), of)
				assert.LessOrEqual(t, b, maxSteps*len(large), of)
			}
		})
	}
}

// maxSteps is how many steps Redact needs at most for a byte of the text.
const maxSteps = 150

func TestRedactLeavesShortSecretsInWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ text, s, want string }{
		{"no such key was found", "e", "no such key was found"},
		{"the keyboard of monkeys", "key", "the keyboard of monkeys"},
		{"key_id", "key", "key_id"},
		{"sent abc12, which is wrong", "abc12", "sent [redacted], which is wrong"},
		{`{"k":"abc12"}`, "abc12", `{"k":"[redacted]"}`},
		{"k=%61bc12&", "abc12", "k=[redacted]&"},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("user:abc12")), "abc12", "Basic dXNlcj[redacted]=="},
	} {
		assert.Equal(t, tc.want, secret.Redact(tc.text, tc.s))
	}
}

func TestRedactLeavesOrdinaryTextAlone(t *testing.T) {
	t.Parallel()
	const s = "sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8Bc4Df6"
	for _, text := range []string{
		"a key of the sandbox begins with sk_sandbox_", "sk_sandbox", "50% of 65 66 67 & 0x41, \\u0041 of dXNlcjo=",
		`{"id":"0d7e7f3c-58f0-4b76-9f6e-2a4c9a1b7d11","at":"2026-11-26T00:00:00Z"}`,
	} {
		assert.Equal(t, text, secret.Redact(text, s))
	}
	assert.Equal(t, "cut off: [redacted]", secret.Redact("cut off: "+s[:15], s))
	assert.Equal(t, "a part: …[redacted]…", secret.Redact("a part: …"+s[8:24]+"…", s))
}
