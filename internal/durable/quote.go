package durable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote quotes a path so that it can be pasted into a shell and shows no character that a
// terminal interprets.
func quote(path string) string {
	plain := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("/._-", r)
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
	switch {
	case strings.ContainsFunc(path, odd):
		return quoteBytes(path)
	case path == "" || strings.ContainsFunc(path, func(r rune) bool { return !plain(r) }):
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	default:
		return path
	}
}

// quoteBytes quotes in the form $'…', in which shells read \ooo as a byte.
func quoteBytes(path string) string {
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(path) {
		switch c := path[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
