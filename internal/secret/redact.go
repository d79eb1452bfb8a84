package secret

import (
	"bytes"
	"strings"
)

// Redact returns text with every occurrence of each secret replaced with [Placeholder]. It
// compares the decoded text, so it finds a secret in any of these forms, and in one form nested in
// another:
//
//   - unchanged, or with white space or invisible characters inside
//   - with escapes of URLs, JSON, Go, and HTML, each up to three times
//   - in base64 of either alphabet, at any position in the encoded bytes
//   - in hex with any separators, and as a list of the decimal values of its bytes
//
// Any 16 consecutive characters of a longer secret are also replaced, and so is the beginning of a
// secret at the end of the text, where it was cut off. A secret of fewer than 8 characters is
// replaced only if it is not next to a letter or a digit. Empty secrets are ignored.
//
// The time is linear in the length of the text, for all texts and secrets.
func Redact(text string, secrets ...string) string {
	return newNeedles(secrets).redact(text)
}

// redact does what [Redact] does.
func (n needles) redact(text string) string {
	if len(n) == 0 || len(text) < min(minEnd, len(n[0].text)) {
		return text
	}
	r := redaction{text: text, needles: n}
	r.run()
	return r.result()
}

// A redaction searches one text.
type redaction struct {
	text    string
	needles needles
	covered []bool // one per byte, because matches may overlap; nil if nothing was found
	steps   int    // counts the work, for tests
}

// maxUnescape is how often escapes are decoded, for example for a URL in JSON in a JSON string.
const maxUnescape = 3

func (r *redaction) run() {
	raw := stream{text: []byte(r.text)}
	r.search(&raw)
	r.searchSqueezed(&raw)
	r.searchCoded(&raw, true)
	lead, several := escapesIn(raw.text)
	if lead == 0 {
		return
	}
	if several {
		// The text may contain by chance what looks like an escape.
		for _, decode := range []unescape{percentEscape, backslashEscape, htmlEntity} {
			r.searchUnescaped(&raw, decode, func(*stream) {})
		}
	}
	r.searchUnescaped(&raw, anyEscape, func(s *stream) {
		r.searchSqueezed(s)
		r.searchCoded(s, true)
	})
}

// searchUnescaped searches a stream each time after its escapes were decoded.
func (r *redaction) searchUnescaped(s *stream, decode unescape, also func(*stream)) {
	for range maxUnescape {
		out, changed := r.unescaped(s, decode)
		if !changed {
			return
		}
		s = &out
		r.search(s)
		also(s)
	}
}

// searchSqueezed searches a stream without its white space and invisible characters.
func (r *redaction) searchSqueezed(s *stream) {
	if out, changed := r.squeezed(s); changed {
		r.search(&out)
	}
}

// minNested is the length of the shortest encoded form of a secret of 8 characters.
const minNested = 11

// searchCoded searches the decoded forms of a stream: from base64, from hex, and from a list of
// numbers. If nested is set, it decodes each result once more.
func (r *redaction) searchCoded(s *stream, nested bool) {
	r.eachCoded(s, func(out *stream) {
		r.search(out)
		if !nested || !hasPrintable(out.text, minNested) {
			return
		}
		r.searchCoded(out, false)
		if plain, changed := r.unescaped(out, anyEscape); changed {
			r.search(&plain)
		}
	})
}

func (r *redaction) eachCoded(s *stream, each func(*stream)) {
	for skip := range 4 {
		out := r.base64(s, skip)
		each(&out)
	}
	for skip := range 2 {
		out := r.hex(s, skip)
		each(&out)
	}
	for _, indexed := range []bool{false, true} {
		out := r.numbers(s, indexed)
		each(&out)
	}
}

// search covers the secrets in a stream.
func (r *redaction) search(s *stream) {
	for _, n := range r.needles {
		if n.gram < minSecret {
			r.searchShort(s, n)
			continue
		}
		done := 0 // the end of the last match in the original text
		for i := 0; i+n.gram <= len(s.text); i++ {
			r.steps++
			if !n.mayBegin(s.text[i], s.text[i+1]) {
				continue
			}
			r.steps += n.gram
			if n.has(s.text[i : i+n.gram]) {
				end := s.end(i + n.gram - 1)
				r.cover(max(done, s.start(i)), end)
				done = max(done, end)
			}
		}
		r.searchEnd(s, n)
	}
}

// maxCut is the maximum length of the text after the beginning of a secret that was cut off: a
// part of an escape, or dots.
const maxCut = 12

// searchEnd covers the beginning of a secret at the end of a stream.
func (r *redaction) searchEnd(s *stream, n *needle) {
	for rest := range min(maxCut, len(s.text)) {
		end := len(s.text) - rest
		for length := min(n.gram, len(n.text)-1, end); length >= n.minEnd; length-- {
			r.steps += length
			if string(s.text[end-length:end]) == n.text[:length] {
				if first := s.start(end - length); len(r.covered) == 0 || !r.covered[first] {
					r.cover(first, s.end(len(s.text)-1))
				}
				return
			}
		}
	}
}

// minCodedShort is the length from which a short secret is searched for in text decoded from
// base64, hex, and numbers. A shorter secret would be found by chance.
const minCodedShort = 4

// searchShort covers a secret that may be part of ordinary words.
func (r *redaction) searchShort(s *stream, n *needle) {
	if s.coded && len(n.text) < minCodedShort {
		return
	}
	for i := 0; ; i++ {
		at := bytes.Index(s.text[i:], []byte(n.text))
		if at < 0 {
			r.steps += len(s.text) - i
			return
		}
		r.steps += at + len(n.text)
		i += at
		end := i + len(n.text)
		alone := (i == 0 || !isWord(s.text[i-1])) && (end == len(s.text) || !isWord(s.text[end]))
		if s.coded || alone {
			r.cover(s.start(i), s.end(end-1))
		}
	}
}

func isWord(b byte) bool {
	return b == '_' || b >= 0x80 || (b >= '0' && b <= '9') || (b|0x20 >= 'a' && b|0x20 <= 'z')
}

// cover marks a part of the original text.
func (r *redaction) cover(start, end int) {
	if r.covered == nil {
		r.covered = make([]bool, len(r.text))
	}
	for i := start; i < end; i++ {
		r.steps++
		r.covered[i] = true
	}
}

func (r *redaction) result() string {
	if r.covered == nil {
		return r.text
	}
	var b strings.Builder
	for i := 0; i < len(r.text); {
		from := i
		for i < len(r.text) && r.covered[i] == r.covered[from] {
			i++
		}
		if r.covered[from] {
			b.WriteString(Placeholder)
		} else {
			b.WriteString(r.text[from:i])
		}
	}
	return b.String()
}
