package secret

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	// placeholder is text that a shell or a template engine should have replaced: ${NAME},
	// $(command), {{ .name }}, #{name}, $NAME, $env:NAME, %NAME%, or only the name of a
	// variable of the SDK.
	placeholder = regexp.MustCompile(`\$\{|\$\(|\{\{|#\{|^\$(env:)?[A-Za-z_][A-Za-z0-9_]*$|^%[A-Za-z_][A-Za-z0-9_]*%$|^AGRENTING_[A-Z_]+=?$`)
	// assignment begins a line of a shell or of a .env file. An equals sign at the end of a
	// secret is padding, so it does not count.
	assignment = regexp.MustCompile(`^((export|set|setx) +|\$env:)?[A-Za-z_][A-Za-z0-9_.-]*[ \t]*=[ \t]*[^= \t]`)
	// field begins a header or a line of YAML. In a secret, a colon may follow another word.
	field = regexp.MustCompile(`(?i)^["']?(authorization|bearer|token|secret|(x-)?api[-_]?key|agrenting_[a-z_]*)["']?[ \t]*:`)
)

const (
	// notFirst and notLast are characters that do not begin or end a secret. They come from
	// the text that the secret was copied from.
	notFirst = "\"'`,;:=\\([{<"
	notLast  = "\"'`,;:\\)]}>"
)

// surroundings returns what was copied together with a secret and how to fix that, in words
// that follow a noun, or "" if nothing was. It does not show any part of the text.
func surroundings(text string) string {
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		return "is encoded as UTF-16, as Windows PowerShell writes files; save it as plain ASCII text"
	case placeholder.MatchString(text):
		return "is a placeholder of a shell or a template that was not replaced; pass the credential itself"
	case assignment.MatchString(text):
		return `begins with a name and "=", like a line of a .env file; pass only what follows them`
	case field.MatchString(text):
		return `begins with a name and ":", like a header; pass only what follows them`
	default:
		return ""
	}
}

// punctuation is like surroundings, for a quotation mark, a bracket, or a comma at one end of
// the text. The text must not be empty.
func punctuation(text string) string {
	const form = "has %c at byte %d of %d, which is not part of a credential; pass the credential without it"
	last := len(text) - 1
	switch {
	case strings.IndexByte(notFirst, text[0]) >= 0:
		return fmt.Sprintf(form, text[0], 1, len(text))
	case strings.IndexByte(notLast, text[last]) >= 0:
		return fmt.Sprintf(form, text[last], last+1, len(text))
	default:
		return ""
	}
}
