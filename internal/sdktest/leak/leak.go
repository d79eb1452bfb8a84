// Package leak finds parts of secrets in text. It does not import the SDK, so tests of
// every package can use it.
package leak

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// AssertNone fails if out contains a part of a secret in any form.
func AssertNone(t *testing.T, out string, secrets ...string) {
	t.Helper()

	for _, secret := range secrets {
		if form := Form(out, secret); form != "" {
			t.Errorf("output has a part of the secret, as %s:\n%s", form, out)
		}
	}
}

// publicMark is the part of a secret that says what it is. It may be shown.
var publicMark = regexp.MustCompile(`^[A-Za-z0-9]+_(sandbox_)?`)

// publicIDs are fingerprints and the IDs of requests and resources, which are shown. They are
// random, so by chance they would contain six characters of a random key.
var publicIDs = regexp.MustCompile(`sha256:[0-9a-f]{10}|req_[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// Form returns the form in which a few bytes of the secret after its mark, or of its
// base64, occur in out outside of public IDs. It returns "" if none occur.
func Form(out, secret string) string {
	if anyForm(out, secret) == "" {
		return "" // replacing the IDs is slow, and most output has no part of a secret
	}

	return anyForm(publicIDs.ReplaceAllString(out, "-"), secret)
}

func anyForm(out, secret string) string {
	private := publicMark.ReplaceAllString(secret, "")
	squeezed := strings.NewReplacer(" ", "", "0x", "", ",", "", "\n", "").Replace(strings.ToLower(out))

	// Six characters of a long, random hexadecimal secret occur by chance in times, and in
	// the hexadecimal form of any text.
	few := 6
	if len(private) >= 32 {
		few = 9
	}

	for i := range max(len(private)-few+1, 1) {
		part := private[i:min(i+few, len(private))]
		raw := []byte(part)

		for form, text := range map[string]string{
			"it is":          part,
			"a query":        url.QueryEscape(part),
			"a path":         url.PathEscape(part),
			"HTML":           template.HTMLEscapeString(part),
			"decimal bytes":  strings.Trim(fmt.Sprintf("%d", raw), "[]"),
			"code points":    strings.Trim(fmt.Sprintf("%U", []rune(part)), "[]"),
			"octal or so":    strings.Trim(fmt.Sprintf("%o", raw), "[]"),
			"binary numbers": strings.Trim(fmt.Sprintf("%b", raw), "[]"),
		} {
			if strings.Contains(out, text) {
				return form
			}
		}

		if strings.Contains(squeezed, hex.EncodeToString(raw)) {
			return "hex"
		}
	}

	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			encoded := encoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + private))
			for i := 4; i+8 < len(encoded); i++ {
				if strings.Contains(out, encoded[i:i+8]) {
					return "base64"
				}
			}
		}
	}

	return ""
}
