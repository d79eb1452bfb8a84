package wire

import (
	"bytes"
	"encoding/json"
)

// members calls each with the members of a JSON object, which must be valid. It decodes nothing
// else, because a response may have 100,000 members, and the SDK uses ten.
func members(object []byte, each func(name []byte, value json.RawMessage)) {
	for s := (scanner{rest: object[1:]}); s.more('}'); {
		key := s.value()
		name := []byte(key[1 : len(key)-1])
		if bytes.IndexByte(name, '\\') >= 0 {
			var plain string
			_ = json.Unmarshal(key, &plain)
			name = []byte(plain)
		}
		s.space()
		s.rest = s.rest[1:] // the colon
		each(name, s.value())
	}
}

// elements returns the first elements of a JSON array, which must be valid, and the number of
// the other elements.
func elements(array []byte, first int) (out []json.RawMessage, more int) {
	for s := (scanner{rest: array[1:]}); s.more(']'); {
		if v := s.value(); len(out) < first {
			out = append(out, v)
		} else {
			more++
		}
	}
	return out, more
}

// A scanner finds the values in valid JSON.
type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n' || s.rest[0] == '\r' || s.rest[0] == '\t') {
		s.rest = s.rest[1:]
	}
}

// more reports whether another value follows before the end of an object or an array.
func (s *scanner) more(end byte) bool {
	s.space()
	if len(s.rest) > 0 && s.rest[0] == ',' {
		s.rest = s.rest[1:]
		s.space()
	}
	return len(s.rest) > 0 && s.rest[0] != end
}

// value returns the value that follows, and skips it.
func (s *scanner) value() json.RawMessage {
	s.space()
	depth, i := 0, 0
scan:
	for ; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			for i++; i < len(s.rest) && s.rest[i] != '"'; i++ {
				if s.rest[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				i++
				break scan
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				break scan // after a number
			}
			depth--
			if depth == 0 {
				i++
				break scan
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				break scan
			}
		}
	}
	i = min(i, len(s.rest))
	v := s.rest[:i:i]
	s.rest = s.rest[i:]
	return v
}
