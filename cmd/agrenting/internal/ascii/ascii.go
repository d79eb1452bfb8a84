// Package ascii compares and converts text by the letters of ASCII. Hosts, schemes, header
// names, and keywords are compared this way. Unicode's rules treat some other characters
// as the same: U+017F (long s) as "s", and U+212A (the Kelvin sign) as "k".
//
// It does not interpret the text.
package ascii

import "strings"

// EqualFold reports whether a and b are equal if A-Z are treated as a-z.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// ToLower returns s with A-Z in lower case.
func ToLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
