package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

const (
	// MaxClean bounds the text that Clean returns, in characters.
	MaxClean = 500
	// maxScanned bounds the text that Clean searches for patterns, in bytes. The
	// body of an error may have a mebibyte.
	maxScanned = 8 << 10
)

// Clean makes text of others fit for an error message: one line of at most
// [MaxClean] characters, without the given secrets and without anything that
// looks like one.
func Clean(text string, secrets ...string) string {
	text = Redact(text, secrets...)
	if len(text) > maxScanned {
		// The cut may go through a secret.
		text = strings.TrimRightFunc(text[:maxScanned], func(r rune) bool { return !unicode.IsSpace(r) })
	}
	text = RedactPatterns(text)
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if r := []rune(text); len(r) > MaxClean {
		text = string(r[:MaxClean]) + "…"
	}
	return text
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

// urlQuery finds the query strings of URLs. Transports put URLs into their errors.
var urlQuery = regexp.MustCompile(`(https?://[^\s"'?#]*)\?[^\s"'#]*`)

// WithoutQueries returns text without the query strings of its URLs and without
// anything that looks like a secret.
func WithoutQueries(text string) string {
	return RedactPatterns(urlQuery.ReplaceAllString(text, "${1}"))
}

// WithoutSecrets returns err with the given secrets removed from its text, or err
// itself if its text has none of them. The result matches what err matches.
func WithoutSecrets(err error, secrets ...string) error {
	if err == nil || len(secrets) == 0 {
		return err
	}
	if text := Redact(err.Error(), secrets...); text != err.Error() {
		return NewError(text, nil, err)
	}
	return err
}

// PanicError makes an error of the value of a panic, with the given secrets removed.
func PanicError(who string, value any, secrets ...string) error {
	return fmt.Errorf("agrenting: %s panicked: %s", who, Clean(fmt.Sprint(value), secrets...))
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
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	found := false
	v = redactValue(v, func(s string) string {
		clean := Redact(s, secrets...)
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

func redactValue(v any, clean func(string) string) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case json.Number:
		if s := clean(v.String()); s != v.String() {
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
			out[clean(name)] = redactValue(member, clean)
		}
		return out
	default:
		return v
	}
}
