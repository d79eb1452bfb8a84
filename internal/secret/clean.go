package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxClean bounds the text that Clean returns, in characters.
	MaxClean = 500
	// MaxText bounds the text from outside that is searched for secrets, in bytes. An error may
	// be of any length: the body of a response may have 1 MiB, and net/http quotes up to 10 MB of
	// a response that is not HTTP.
	MaxText = 2 << 10
)

// Clean prepares text from outside for an error message. The result is one line of at most
// [MaxClean] characters, without the given secrets, without anything that looks like a secret,
// and without invisible characters. Clean uses only the beginning of a text of more than 2 KiB.
func Clean(text string, secrets ...string) string {
	text, _ = cut(text, MaxText)
	text = Line(RedactPatterns(Redact(text, secrets...)))
	if r := []rune(text); len(r) > MaxClean {
		text = string(r[:MaxClean]) + ellipsis
	}
	return text
}

const ellipsis = "…"

// CleanText is like Clean, for the text of an error: it keeps up to 2 KiB, and removes the query
// strings of URLs.
func CleanText(text string, secrets ...string) string {
	return Line(WithoutQueries(Redact(Bounded(text), secrets...)))
}

// cut returns text, or the part of it that fits into limit bytes and ends at white space or at a
// character of a script other than Latin, which credentials do not contain. The part must not end
// inside a word, because a secret may be there.
func cut(text string, limit int) (beginning string, short bool) {
	if len(text) <= limit {
		return text, false
	}
	return strings.TrimRightFunc(text[:limit], func(r rune) bool {
		return !unicode.IsSpace(r) && (r < utf8.RuneSelf || r == utf8.RuneError || !unicode.IsPrint(r))
	}), true
}

// Line returns text on one line. White space of any kind becomes one space. A question mark
// replaces invalid UTF-8 and characters that are not printable, such as control, bidirectional,
// and zero-width characters.
func Line(text string) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return '?'
		default:
			return r
		}
	}, text)
	return strings.Join(strings.Fields(plain), " ")
}

// maxQuoted is the longest text that Quote shows.
const maxQuoted = 16

// Quote quotes a value that is not meant to be a secret, such as a misspelled choice, for an
// error. It shows words of up to 16 characters. For any other value, which may be a misplaced
// secret, it shows only the length.
func Quote(s string) string {
	word := func(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' || strings.ContainsRune("-_ \t\r\n", r) }
	if len(s) > maxQuoted || strings.ContainsFunc(s, func(r rune) bool { return !word(r) }) {
		return fmt.Sprintf("a value of %d bytes", len(s))
	}
	return fmt.Sprintf("%q", s)
}

// urlQuery finds the query strings of URLs. Transports put URLs into their errors. Punctuation at
// the end belongs to the surrounding text.
var urlQuery = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://[^\s"'?#]*)\?([^\s"'#]*[^\s"'#)}>.,;:!])?`)

// WithoutQueries returns text without the query strings of its URLs and without
// anything that looks like a secret.
func WithoutQueries(text string) string {
	text, _ = cut(text, maxPatterns)
	return RedactPatterns(urlQuery.ReplaceAllString(text, "${1}"))
}

// Bounded returns text, or the part of it that is searched for secrets.
func Bounded(text string) string {
	text, short := cut(text, MaxText)
	if short {
		text += ellipsis
	}
	return text
}

// maxPath is how much of a path is shown, in characters.
const maxPath = 256

// Path prepares the path of a request for an error or a log. The path must be escaped, as by
// [url.URL.EscapedPath]. Path removes the given secrets, anything that looks like a secret, and
// the end of a long path.
func Path(escaped string, secrets ...string) string {
	escaped = escaped[:min(len(escaped), MaxText)]
	path := []rune(Line(RedactPatterns(Redact(escaped, secrets...))))
	if len(path) > maxPath {
		return string(path[:maxPath]) + ellipsis
	}
	return string(path)
}

// NewError returns an error with the given text. It unwraps to beneath, which may be nil, and
// matches what original matches. It keeps original in a function, where formatters cannot find
// it.
func NewError(text string, beneath, original error) error {
	return &redactedError{text: text, beneath: beneath, is: func(target error) bool { return errors.Is(original, target) }}
}

type redactedError struct {
	text    string
	beneath error
	is      func(error) bool
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Unwrap() error        { return e.beneath }
func (e *redactedError) Is(target error) bool { return e.is(target) }

// RedactJSON removes secrets from JSON that the caller gets undecoded. It searches the decoded
// strings, because JSON escapes characters that URLs and other formats have already escaped. JSON
// that cannot be decoded is dropped.
func RedactJSON(raw json.RawMessage, secrets ...string) json.RawMessage {
	if len(raw) == 0 || len(secrets) == 0 {
		return raw
	}
	hidden := newNeedles(secrets)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	found := false
	v = redactValue(v, func(s string, number bool) string {
		if number && !hidden.in(s) {
			return s // a number that contains only a part of a secret is probably unrelated
		}
		clean := hidden.redact(s)
		found = found || clean != s
		return clean
	})
	if !found {
		return raw
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return out
}

func redactValue(v any, clean func(s string, number bool) string) any {
	switch v := v.(type) {
	case string:
		return clean(v, false)
	case json.Number:
		if s := clean(v.String(), true); s != v.String() {
			return s
		}
		return v
	case []any:
		for i := range v {
			v[i] = redactValue(v[i], clean)
		}
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[clean(name, false)] = redactValue(member, clean)
		}
		return out
	default:
		return v
	}
}
