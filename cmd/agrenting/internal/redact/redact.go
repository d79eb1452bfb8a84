// Package redact removes a credential from responses that are shown or passed on.
package redact

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Func returns a text without the credential, or the unchanged text if it does not contain one.
type Func func(text string) string

// Body returns a body without the credential. JSON stays valid JSON. A body without the
// credential is returned unchanged.
func (f Func) Body(body []byte) []byte {
	if json.Valid(body) {
		return f.JSON(body)
	}
	text := string(body)
	if clean := f(text); clean != text {
		return []byte(clean)
	}
	return body
}

// Header removes the credential from names and values of a header, in place.
func (f Func) Header(h http.Header) {
	var all strings.Builder
	for name, values := range h {
		all.WriteString(name + Separator)
		for _, v := range values {
			all.WriteString(v + Separator)
		}
	}
	if text := all.String(); f(text) == text {
		return // true for most responses; calls of f are slow
	}
	for _, name := range slices.Collect(maps.Keys(h)) {
		values := make([]string, len(h[name]))
		for i, v := range h[name] {
			values[i] = f(v)
		}
		clean := f(name)
		if clean != name {
			delete(h, name)
			clean = "X-Redacted" // a placeholder in brackets is not a valid name
			values = append(h[clean], values...)
		}
		h[clean] = values
	}
}

// Separator separates texts that are searched together. Credentials and their encodings do not
// contain it.
const Separator = "\x00"

// batchSize is the size of the text that is searched at a time, in bytes.
const batchSize = 64 << 10

// token is a part of a JSON text that can contain the credential.
type token struct {
	start, end int
	text       string // decoded
}

// JSON is like [Body], for a text that is valid JSON. It searches decoded strings.
// A number, or a list of short items such as byte values, that contains the credential
// becomes a string.
func (f Func) JSON(raw []byte) []byte {
	var batch, found []token
	size := 0
	for at := 0; at < len(raw); {
		t, ok := tokenAt(raw, at)
		if !ok {
			at++
			continue
		}
		batch, size, at = append(batch, t), size+len(t.text), t.end
		if size >= batchSize {
			found = f.search(found, batch)
			batch, size = batch[:0], 0
		}
	}
	found = f.search(found, batch)
	if len(found) == 0 {
		return raw
	}
	out, done := make([]byte, 0, len(raw)), 0
	for _, t := range found {
		out = append(out, raw[done:t.start]...)
		out = append(out, quote(t.text)...)
		done = t.end
	}
	return append(out, raw[done:]...)
}

// search appends the tokens that contain the credential to found, without it.
func (f Func) search(found, batch []token) []token {
	if len(batch) == 0 {
		return found
	}
	texts := make([]string, len(batch))
	for i, t := range batch {
		texts[i] = t.text
	}
	all := strings.Join(texts, Separator)
	clean := f(all)
	switch {
	case clean == all:
		return found
	case len(batch) == 1:
		batch[0].text = clean
		return append(found, batch[0])
	}
	if parts := strings.Split(clean, Separator); len(parts) == len(batch) {
		for i, t := range batch {
			if parts[i] != t.text {
				t.text = parts[i]
				found = append(found, t)
			}
		}
		return found
	}
	half := len(batch) / 2
	return f.search(f.search(found, batch[:half]), batch[half:])
}

// tokenAt returns the token that begins at an offset.
func tokenAt(raw []byte, at int) (token, bool) {
	switch c := raw[at]; {
	case c == '"':
		end := stringEnd(raw, at)
		return token{at, end, unquote(raw[at:end])}, true
	case c == '-' || (c >= '0' && c <= '9'):
		end := numberEnd(raw, at)
		return token{at, end, string(raw[at:end])}, true
	case c == '[':
		return listAt(raw, at)
	case c == '{':
		return objectAt(raw, at)
	default:
		return token{}, false
	}
}

// maxItem is the longest item of a list that is searched as a whole, as in
// ["0x61", "0x62"].
const maxItem = 8

// listAt returns the list that begins at an offset if all of its items are short strings
// or numbers.
func listAt(raw []byte, at int) (token, bool) {
	text, items := []byte{'['}, 0
	for i := at + 1; i < len(raw); {
		switch raw[i] {
		case ']':
			return token{at, i + 1, string(append(text, ']'))}, items > 1
		case '[', '{':
			return token{}, false
		case ' ', '\t', '\r', '\n', ',':
			i++
			continue
		}
		t, ok := tokenAt(raw, i)
		if !ok || t.end-t.start > maxItem {
			return token{}, false
		}
		if items > 0 {
			text = append(text, ',')
		}
		text, items, i = append(text, t.text...), items+1, t.end
	}
	return token{}, false
}

// objectAt returns the object that begins at an offset if all of its names and values are
// short, as for byte values by index: {"0":65,"1":66}.
func objectAt(raw []byte, at int) (token, bool) {
	items := 0
	for i := at + 1; i < len(raw); {
		switch raw[i] {
		case '}':
			return token{at, i + 1, string(raw[at : i+1])}, items > 2
		case '[', '{': // nested values would take too much time
			return token{}, false
		case ' ', '\t', '\r', '\n', ',', ':':
			i++
			continue
		}
		t, ok := tokenAt(raw, i)
		if !ok || t.end-t.start > maxItem {
			return token{}, false
		}
		items, i = items+1, t.end
	}
	return token{}, false
}

func stringEnd(raw []byte, at int) int {
	for i := at + 1; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw)
}

func numberEnd(raw []byte, at int) int {
	for i := at; i < len(raw); i++ {
		if !strings.ContainsRune("+-.0123456789eE", rune(raw[i])) {
			return i
		}
	}
	return len(raw)
}

func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return strings.Trim(string(quoted), `"`)
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) //nolint:errchkjson // a string can be encoded
	return bytes.TrimSpace(b.Bytes())
}
