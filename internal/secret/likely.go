package secret

import (
	"regexp"
	"strings"
)

var (
	word = regexp.MustCompile(`[A-Za-z0-9_+=~-]{20,}`)
	uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// RedactLikely is like [RedactPatterns], for texts that may contain a secret without a mark,
// such as the errors of a credential source. It also removes words of 20 or more characters that
// look random: words that often alternate between letters and digits or between upper and lower
// case. UUIDs are kept, because they are IDs.
func RedactLikely(text string) string {
	return word.ReplaceAllStringFunc(RedactPatterns(text), func(w string) string {
		if IsUUID(w) || !looksRandom(w) {
			return w
		}
		return Placeholder
	})
}

// IsUUID reports whether s has the form of a UUID.
func IsUUID(s string) bool { return uuid.MatchString(s) }

// looksRandom reports whether the characters of a word change between letters and digits, or
// from lower to upper case, more often than in a word that people write, such as
// "AccessDeniedException2". The limit is one change per eight characters, or one per six if the
// word has both cases.
func looksRandom(w string) bool {
	every := 8
	if w != strings.ToUpper(w) && w != strings.ToLower(w) {
		every = 6
	}
	var changes, counted int
	var last rune
	for _, r := range w {
		class := classOf(r)
		if class == 0 {
			continue
		}
		if counted > 0 && class != last && (last != 'A' || class != 'a') { // such as "De", as in a capitalized word
			changes++
		}
		last = class
		counted++
	}
	return changes*every >= counted
}

// classOf returns 'a', 'A', or '0' for letters and digits, and 0 for anything else.
func classOf(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z':
		return 'a'
	case r >= 'A' && r <= 'Z':
		return 'A'
	case r >= '0' && r <= '9':
		return '0'
	default:
		return 0
	}
}

// maxCode is the longest code that IsCode accepts.
const maxCode = 64

var code = regexp.MustCompile(`^(?:[A-Z]{1,20}|[A-Z]{0,12}[0-9]{1,3})(?:[_.-](?:[A-Z]{1,20}|[A-Z]{0,12}[0-9]{1,3}))*$`)

var digits = regexp.MustCompile(`\d+`)

// hasFewNumbers reports whether a text is certainly not the list of the byte values of a secret.
func hasFewNumbers(s string) bool { return len(digits.FindAllString(s, minSecret)) < minSecret }

// IsCode reports whether s is not a secret and has the form of an error code, such as
// ROUTE_NOT_FOUND or invalid_request: words of one case, and numbers of up to three digits.
func IsCode(s string) bool {
	oneCase := s == strings.ToUpper(s) || s == strings.ToLower(s)
	return len(s) <= maxCode && hasFewNumbers(s) && oneCase && code.MatchString(strings.ToUpper(s)) && RedactLikely(s) == s
}

// IsPlain reports whether a text, which may be JSON, consists of words such as those of an error
// code. Such a text does not contain a secret.
func IsPlain(s string) bool {
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n{}[](),.:;!?'\"", r) })
	for _, w := range words {
		if !IsCode(strings.ToLower(w[:1]) + w[1:]) {
			return false
		}
	}
	return len(s) <= MaxText && hasFewNumbers(s)
}
