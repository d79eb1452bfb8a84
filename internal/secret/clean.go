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
	// MaxText bounds the text of others that is searched for secrets, in bytes. An error
	// may be of any length: the body of a response may have a mebibyte, and net/http quotes
	// up to 10 MB of what is not HTTP.
	MaxText = 2 << 10
)

// Clean makes text of others fit for an error message: one line of at most
// [MaxClean] characters, without the given secrets, without anything that
// looks like one, and without invisible characters. Of a text of more than 2 KiB, it uses
// only the beginning.
func Clean(text string, secrets ...string) string {
	text, _ = cut(text, MaxText)
	text = Line(RedactPatterns(Redact(text, secrets...)))
	if r := []rune(text); len(r) > MaxClean {
		text = string(r[:MaxClean]) + ellipsis
	}
	return text
}

const ellipsis = "…"

// CleanText is Clean for the text of an error: it keeps up to 2 KiB, and removes the query
// strings of URLs.
func CleanText(text string, secrets ...string) string {
	return Line(WithoutQueries(Redact(Bounded(text), secrets...)))
}

// cut returns text, or as much of it as fits into limit bytes and ends at white space or at a
// character of another script than Latin, which no credential has. A secret may be at the end of
// the limit.
func cut(text string, limit int) (beginning string, short bool) {
	if len(text) <= limit {
		return text, false
	}
	return strings.TrimRightFunc(text[:limit], func(r rune) bool {
		return !unicode.IsSpace(r) && (r < utf8.RuneSelf || r == utf8.RuneError || !unicode.IsPrint(r))
	}), true
}

// Line returns text on one line: white space of any kind becomes one space, and a question mark
// replaces what is not printable, such as control, bidirectional, and zero-width characters,
// and invalid UTF-8.
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

// Quote quotes a value that is not meant to be a secret, such as a misspelled choice,
// for an error. It shows words of up to 16 characters, and only the length of anything
// else, which may be a secret in the wrong place.
func Quote(s string) string {
	word := func(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' || strings.ContainsRune("-_ \t\r\n", r) }
	if len(s) > maxQuoted || strings.ContainsFunc(s, func(r rune) bool { return !word(r) }) {
		return fmt.Sprintf("a value of %d bytes", len(s))
	}
	return fmt.Sprintf("%q", s)
}

// urlQuery finds the query strings of URLs. Transports put URLs into their errors. Punctuation at
// the end is that of the text around.
var urlQuery = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://[^\s"'?#]*)\?([^\s"'#]*[^\s"'#)}>.,;:!])?`)

// WithoutQueries returns text without the query strings of its URLs and without
// anything that looks like a secret.
func WithoutQueries(text string) string {
	text, _ = cut(text, maxPatterns)
	return RedactPatterns(urlQuery.ReplaceAllString(text, "${1}"))
}

// Bounded returns text, or as much of it as is searched for secrets.
func Bounded(text string) string {
	text, short := cut(text, MaxText)
	if short {
		text += ellipsis
	}
	return text
}

// maxPath is how much of a path is shown, in characters.
const maxPath = 256

// Path makes the path of a request fit for an error or a log. It has to be escaped already, as
// by [url.URL.EscapedPath]. The given secrets, what looks like one, and the end of a long path
// are removed.
func Path(escaped string, secrets ...string) string {
	escaped = escaped[:min(len(escaped), MaxText)]
	path := []rune(Line(RedactPatterns(Redact(escaped, secrets...))))
	if len(path) > maxPath {
		return string(path[:maxPath]) + ellipsis
	}
	return string(path)
}

// NewError returns an error with the given text. It unwraps to beneath, which may
// be nil, and matches what original matches. The original is behind a func, where
// no formatter finds it.
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

// RedactJSON removes secrets from JSON that the caller gets undecoded. It searches
// the decoded strings, because JSON escapes what URLs and others have escaped.
// JSON that does not decode is dropped.
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
			return s // a number that has only a part of a secret is likely to be another one
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
