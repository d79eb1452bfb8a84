package secret

import (
	"slices"
	"strings"
)

// names are the ends of the names of members, parameters, and headers that indicate a secret.
// Longer names come first.
var names = func() []string {
	out := []string{"authorization", "credential", "password", "passwd", "token", "secret", `"key`, `'key`}
	for _, of := range []string{"api", "new", "old", "raw", "plain", "plaintext", "secret", "private", "signing"} {
		out = append(out, of+"key", of+"_key", of+"-key")
	}
	slices.SortStableFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}()

// beginsName contains the first characters of names, in both cases.
var beginsName = func() (out [256]bool) {
	for _, n := range names {
		out[n[0]], out[strings.ToUpper(n)[0]] = true, true
	}
	return out
}()

// maxPatterns bounds the text that RedactPatterns searches, in bytes.
const maxPatterns = 8 << 10

// RedactPatterns returns text with everything that looks like a secret replaced with
// [Placeholder]: keys and tokens with a known prefix, bearer tokens, the user information of
// URLs, and the values of parameters, headers, and JSON members with names that indicate a
// secret. It is meant for text with unknown secrets, and prefers to hide too much. A text of
// more than 8 KiB is cut off at white space.
func RedactPatterns(text string) string {
	text, _ = cut(text, maxPatterns)
	var out []byte
	done := 0 // how much of text is in out, or replaced
	for i := 0; i < len(text); {
		from, to := secretAt(text, i, done)
		if from == to {
			i++
			continue
		}
		out = append(append(out, text[done:from]...), Placeholder...)
		i, done = to, to
	}
	if done == 0 {
		return text
	}
	return string(append(out, text[done:]...))
}

// secretAt returns the position of a secret that can be recognized at text[i:]. The secret may
// begin before i, but not before done. If there is none, both results are equal.
func secretAt(text string, i, done int) (from, to int) {
	rest := text[i:]
	if from, to = shapedAt(text, i, done); from < to {
		return from, to
	}
	if strings.HasPrefix(rest, "://") {
		authority := rest[3:skipUnless(rest, 3, "/?#\"'<> \t\r\n\v\f")]
		if at := strings.LastIndexByte(authority, '@'); at > 0 {
			return i + 3, i + 3 + at
		}
		return 0, 0
	}
	if hasPrefixFold(rest, "bearer") && (i == 0 || !isWord(text[i-1])) {
		if from, to := bearerToken(rest); from < to {
			return i + from, i + to
		}
	}
	if !beginsName[rest[0]] {
		return 0, 0
	}
	for _, name := range names {
		if hasPrefixFold(rest, name) {
			after := rest[len(name):]
			if from, to := assigned(name, after); from < to {
				return i + len(name) + from, i + len(name) + to
			}
		}
	}
	return 0, 0
}

// shapedAt recognizes a secret by its form.
func shapedAt(text string, i, done int) (from, to int) {
	shapes := []struct {
		prefix string
		least  int
	}{{"ap_", 16}, {"sk_", 8}, {sandboxMark, 8}}
	for _, s := range shapes {
		if !strings.HasPrefix(text[i:], s.prefix) {
			continue
		}
		first := i
		switch s.prefix {
		case "sk_", "ap_": // but not task_not_found or map_entry_limit_exceeded
			if !standsAlone(text[:i]) {
				continue
			}
		case sandboxMark:
			for first > done && isAlphanumeric(text[first-1]) {
				first--
			}
			if first == i {
				continue
			}
		}
		end := i + len(s.prefix)
		for end < len(text) && (isAlphanumeric(text[end]) || text[end] == '_' || text[end] == '-') {
			end++
		}
		if end-i-len(s.prefix) >= s.least {
			return first, end
		}
	}
	return 0, 0
}

// standsAlone reports whether a word can begin after before, which may end with an escape.
func standsAlone(before string) bool {
	n := len(before)
	return n == 0 || !isAlphanumeric(before[n-1]) ||
		n > 2 && before[n-3] == '%' && digit(before[n-2]) < 16 && digit(before[n-1]) < 16 ||
		n > 1 && before[n-2] == '\\' && strings.IndexByte("bfnrt", before[n-1]) >= 0
}

// bearerProse are words that follow "bearer" in sentences. Anything else after "bearer" is
// treated as a token.
var bearerProse = []string{
	"and", "auth", "authentication", "authorization", "credential", "credentials", "format", "header",
	"invalid", "is", "missing", "not", "or", "realm", "required", "scheme", "token", "tokens", "was",
}

// bearerToken finds the token in a text that begins with "bearer".
func bearerToken(text string) (from, to int) {
	from = len("bearer")
	switch after := text[from:]; {
	case strings.HasPrefix(after, "%20"):
		from += len("%20")
	case strings.HasPrefix(after, "+"):
		from++
	default:
		if from = skipSpace(text, from); from == len("bearer") {
			return 0, 0
		}
	}
	to = skipUnless(text, from, " \t\r\n\v\f\"',;<>[]")
	if slices.Contains(bearerProse, strings.ToLower(strings.TrimRight(text[from:to], ".:!?)"))) {
		return 0, 0
	}
	return from, to
}

// assigned finds the value of a name that indicates a secret. after is the text after the name.
func assigned(name, after string) (from, to int) {
	if i := skip(after, 0, `\`); i > 0 {
		return assignedEscaped(after, i)
	}
	i, quoted := 0, after != "" && (after[0] == '"' || after[0] == '\'')
	if quoted {
		i++
	} else if name[0] == '"' || name[0] == '\'' {
		return 0, 0 // "keyboard"
	}
	tight := !quoted // as in a query
	if next := skipSpace(after, i); next > i {
		i, tight = next, false
	}
	size := separator(after[i:])
	if size == 0 || size == 3 && !tight {
		return 0, 0
	}
	colon := after[i] == ':'
	i += size
	value := skipSpace(after, i)
	tight = tight && size != 2 && value == i
	list := value
	for _, open := range []string{"[]string{", "["} {
		if strings.HasPrefix(after[list:], open) && !strings.HasPrefix(after[list:], Placeholder) {
			list += len(open)
			break
		}
	}
	switch {
	case list < len(after) && (after[list] == '"' || after[list] == '\''):
		return list + 1, endOfString(after, list)
	case colon && quoted && value < len(after) && digit(after[value]) < 10:
		return value, skipUnless(after, value, ",}] \t\r\n\v\f")
	case colon && !quoted && (name == "authorization" || name == "api-key"):
		return headerValue(name, after, value, list)
	case tight && !colon:
		to = skipUnless(after, value, " \t\r\n\v\f&\"'<>,;[")
		if in := after[value:to]; !strings.Contains(in, "(") { // the parenthesis around a URL
			to -= len(in) - len(strings.TrimRight(in, "):"))
		}
		return value, to
	default:
		return 0, 0
	}
}

// separator returns the length of the separator between a name and its value, or 0 if there is
// none.
func separator(s string) int {
	switch {
	case strings.HasPrefix(s, "=>"):
		return 2
	case hasPrefixFold(s, "%3d"):
		return 3
	case s != "" && (s[0] == '=' || s[0] == ':'):
		return 1
	default:
		return 0
	}
}

// assignedEscaped is like assigned, for JSON in a JSON string: i backslashes follow the name.
func assignedEscaped(after string, i int) (from, to int) {
	for _, want := range []string{`"`, ":"} {
		if !strings.HasPrefix(after[i:], want) {
			return 0, 0
		}
		i = skipSpace(after, i+1)
	}
	open := skip(after, i, `\`)
	if open == i || !strings.HasPrefix(after[open:], `"`) {
		return 0, 0
	}
	from = open + 1
	to = skipUnless(after, from, `"`)
	for to > from && after[to-1] == '\\' {
		to--
	}
	return from, to
}

// headerValue finds the value of a header. The value begins at value, or at list if it follows
// a bracket, as in a printed map.
func headerValue(name, after string, value, list int) (from, to int) {
	if list > value {
		return list, skipUnless(after, list, "]}")
	}
	from = value
	if name == "authorization" {
		for _, scheme := range []string{"basic", "bearer", "digest", "token"} {
			if hasPrefixFold(after[value:], scheme) {
				value = skipSpace(after, value+len(scheme))
				break
			}
		}
	}
	if value < len(after) && strings.IndexByte(`"'[`, after[value]) >= 0 {
		return 0, 0
	}
	if value == len(after) {
		value = from
	}
	return from, skipUnless(after, value, " \t\r\n\v\f")
}

// endOfString returns the end of the string that begins with the quotation mark at i.
func endOfString(s string, i int) int {
	quote := s[i]
	for i++; i < len(s) && s[i] != quote; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return min(i, len(s))
}

// skip returns the end of the run of characters of set that begins at i.
func skip(s string, i int, set string) int {
	for i < len(s) && strings.IndexByte(set, s[i]) >= 0 {
		i++
	}
	return i
}

func skipSpace(s string, i int) int { return skip(s, i, " \t\r\n\v\f") }

// skipUnless returns the position of the first character of set at or after i.
func skipUnless(s string, i int, set string) int {
	for i < len(s) && strings.IndexByte(set, s[i]) < 0 {
		i++
	}
	return i
}

func isAlphanumeric(b byte) bool { return isWord(b) && b != '_' && b < 0x80 }

// hasPrefixFold reports whether s begins with prefix, ignoring the case of ASCII letters.
// prefix must be in lower case.
func hasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		b := s[i]
		if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		if b != prefix[i] {
			return false
		}
	}
	return true
}
