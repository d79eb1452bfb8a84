package secret

import (
	"html"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// A stream is the decoded form of a text. Byte i of it comes from the bytes from[i] to to[i] of
// the original text. Both slices are nil for the original text itself.
type stream struct {
	text     []byte
	from, to []int32
	coded    bool // decoded from base64, hex, or numbers
}

func (s *stream) start(i int) int {
	if s.from == nil {
		return i
	}
	return int(s.from[i])
}

func (s *stream) end(i int) int {
	if s.to == nil {
		return i + 1
	}
	return int(s.to[i])
}

// derived returns an empty stream with room for size bytes that are decoded from s.
func (s *stream) derived(size int) stream {
	return stream{text: make([]byte, 0, size), from: make([]int32, 0, size), to: make([]int32, 0, size)}
}

// add adds a byte that was decoded from the bytes first to last of in. It omits zero bytes,
// because texts in UTF-16 have them between the characters.
func (s *stream) add(b byte, in *stream, first, last int) {
	if b == 0 {
		return
	}
	s.text = append(s.text, b)
	s.from = append(s.from, int32(in.start(first))) //nolint:gosec // no text has 2 GiB
	s.to = append(s.to, int32(in.end(last)))        //nolint:gosec // the same
}

// An unescape decodes the escape at the beginning of b. The size is 0 if b does not begin with
// an escape. An unescape reads a bounded number of bytes.
type unescape func(b []byte) (r rune, size int)

// escapesIn returns a character that begins escapes, or 0 if the text has none, and whether it
// has several of them.
func escapesIn(text []byte) (lead byte, several bool) {
	for _, b := range text {
		if b != '%' && b != '\\' && b != '&' || b == lead {
			continue
		}
		if lead != 0 {
			return lead, true
		}
		lead = b
	}
	return lead, false
}

// unescaped decodes the escapes of a stream. It reports whether it found any.
func (r *redaction) unescaped(in *stream, decode unescape) (stream, bool) {
	if lead, _ := escapesIn(in.text); lead == 0 {
		return stream{}, false
	}
	out, changed := in.derived(len(in.text)), false
	for i := 0; i < len(in.text); {
		r.steps++
		b, size := in.text[i], 0
		if b == '%' || b == '\\' || b == '&' {
			var found rune
			found, size = decode(in.text[i:])
			if size > 0 {
				changed = true
				if found < utf8.RuneSelf {
					out.add(byte(found), in, i, i+size-1) // #nosec G115 -- less than RuneSelf
				} else {
					for _, b := range utf8.AppendRune(nil, found) {
						out.add(b, in, i, i+size-1)
					}
				}
			}
		}
		if size == 0 {
			out.add(b, in, i, i)
			size = 1
		}
		i += size
	}
	return out, changed
}

func anyEscape(b []byte) (rune, int) {
	switch b[0] {
	case '%':
		return percentEscape(b)
	case '\\':
		return backslashEscape(b)
	default:
		return htmlEntity(b)
	}
}

// percentEscape decodes %2B and the %u002B of old browsers.
func percentEscape(b []byte) (rune, int) {
	switch {
	case b[0] != '%':
		return 0, 0
	case len(b) > 1 && b[1]|0x20 == 'u':
		return number(b, 2, 4, 4, 16)
	default:
		return number(b, 1, 2, 2, 16)
	}
}

// backslashEscape decodes the escapes of JSON, Go, JavaScript, and shells.
func backslashEscape(b []byte) (rune, int) {
	if b[0] != '\\' || len(b) < 2 {
		return 0, 0
	}
	switch c := b[1]; c {
	case 'u', 'x', 'U':
		if len(b) > 2 && b[2] == '{' {
			r, size := number(b, 3, 1, 8, 16)
			if size > 0 && size < len(b) && b[size] == '}' {
				return r, size + 1
			}
			return 0, 0
		}
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		return number(b, 2, digits, digits, 16)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return number(b, 1, 1, 3, 8)
	case 'n', 'r', 't', 'v', 'f', 'a', 'b':
		return ' ', 2
	default:
		return rune(c), 2
	}
}

// maxEntity is at least the length of the longest name of an HTML entity.
const maxEntity = 33

// htmlEntity decodes &amp;, &#38;, and &#x26;.
func htmlEntity(b []byte) (rune, int) {
	if b[0] != '&' || len(b) < 3 {
		return 0, 0
	}
	if b[1] == '#' {
		r, size := number(b, 2, 1, 10, 10)
		if b[2]|0x20 == 'x' {
			r, size = number(b, 3, 1, 8, 16)
		}
		if size > 0 && size < len(b) && b[size] == ';' {
			size++
		}
		return r, size
	}
	size := 1
	for size < min(len(b), maxEntity) && isWord(b[size]) && b[size] < utf8.RuneSelf {
		size++
	}
	if size == 1 {
		return 0, 0
	}
	if size < len(b) && b[size] == ';' {
		size++
	}
	name := string(b[:size])
	plain := html.UnescapeString(name)
	if plain == name {
		return 0, 0
	}
	r, width := utf8.DecodeRuneInString(plain)
	return r, size - (len(plain) - width) // "&ltx" is "<" and "x"
}

// number reads a number of least to most digits at b[at:]. The size includes the bytes before
// the number.
func number(b []byte, at, least, most, base int) (rune, int) {
	size := at
	for size < min(len(b), at+most) && digit(b[size]) < base {
		size++
	}
	if size-at < least {
		return 0, 0
	}
	v, err := strconv.ParseUint(string(b[at:size]), base, 32)
	if err != nil || v > unicode.MaxRune {
		return 0, 0
	}
	return rune(v), size
}

// digit returns the value of a hex digit, or 16 for other characters.
func digit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	default:
		return 16
	}
}

// squeezed removes white space and invisible characters. It reports whether it found any.
func (r *redaction) squeezed(in *stream) (stream, bool) {
	out := in.derived(len(in.text))
	for i := 0; i < len(in.text); {
		r.steps++
		c, size := utf8.DecodeRune(in.text[i:])
		if c > ' ' && unicode.IsPrint(c) {
			for j := i; j < i+size; j++ {
				out.add(in.text[j], in, j, j)
			}
		}
		i += size
	}
	return out, len(out.text) < len(in.text)
}

// sextet returns the value of a character of base64 in either alphabet, or 64 for others.
func sextet(b byte) uint {
	switch {
	case b >= 'A' && b <= 'Z':
		return uint(b - 'A')
	case b >= 'a' && b <= 'z':
		return uint(b-'a') + 26
	case b >= '0' && b <= '9':
		return uint(b-'0') + 52
	case b == '+', b == '-':
		return 62
	case b == '/', b == '_':
		return 63
	default:
		return 64
	}
}

// base64 decodes all characters of base64 after the first skip ones, and ignores other
// characters. The groups of four begin at the first decoded character, so for one of four
// values of skip the encoded text is found, wherever it begins.
func (r *redaction) base64(in *stream, skip int) stream {
	out := in.derived(len(in.text)*3/4 + 1)
	out.coded = true
	var bits uint
	n, last := 0, 0
	for i, c := range in.text {
		r.steps++
		v := sextet(c)
		if v == 64 {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		bits = bits<<6 | v
		if n > 0 {
			out.add(byte(bits>>(6-2*n)), in, last, i) //nolint:gosec // the low eight bits are meant
		}
		n, last = (n+1)%4, i
	}
	return out
}

// hex decodes all hex digits after the first skip ones, and ignores other characters. The 0 of
// a prefix 0x does not count as a digit.
func (r *redaction) hex(in *stream, skip int) stream {
	out := in.derived(len(in.text)/2 + 1)
	out.coded = true
	high, first := -1, 0
	for i, c := range in.text {
		r.steps++
		v := digit(c)
		if v == 16 || c == '0' && i+1 < len(in.text) && in.text[i+1]|0x20 == 'x' {
			continue
		}
		switch {
		case skip > 0:
			skip--
		case high < 0:
			high, first = v, i
		default:
			out.add(byte(high<<4|v), in, first, i) //nolint:gosec // two digits
			high = -1
		}
	}
	return out
}

// numbers decodes decimal numbers up to 255 as bytes, and ignores other characters. If indexed
// is set, a number before a colon is an index: {"0":65,"1":66}.
func (r *redaction) numbers(in *stream, indexed bool) stream {
	out := in.derived(len(in.text)/2 + 1)
	out.coded = true
	for i := 0; i < len(in.text); i++ {
		r.steps++
		first, v := i, 0
		for ; i < len(in.text) && digit(in.text[i]) < 10; i++ {
			r.steps++
			v = min(v*10+digit(in.text[i]), 256)
		}
		if i == first || v > 255 || indexed && isIndex(in.text[i:]) {
			continue
		}
		out.add(byte(v), in, first, i-1)
	}
	return out
}

// isIndex reports whether the text after a number makes it an index.
func isIndex(after []byte) bool {
	if len(after) > 0 && after[0] == '"' {
		after = after[1:]
	}
	return len(after) > 0 && after[0] == ':'
}

// hasPrintable reports whether text has n printable ASCII characters in a row.
func hasPrintable(text []byte, n int) bool {
	run := 0
	for _, b := range text {
		if b < ' ' && b != '\n' && b != '\r' && b != '\t' || b >= 0x7f {
			run = 0
			continue
		}
		run++
		if run == n {
			return true
		}
	}
	return false
}
