package agrentingtest

import (
	"fmt"
	"strings"
)

// pattern selects requests by an optional method and a path. In the path, *
// matches any characters, including slashes, and {name} matches one segment. A
// leading ! selects all other requests.
type pattern struct {
	not    bool
	method string // any if empty
	path   string // any if empty
}

func parsePattern(route string) pattern {
	p, ok := readPattern(route)
	if !ok {
		panic(fmt.Sprintf("agrentingtest: route %q: want %s", route, patternForms))
	}
	return p
}

// patternForms are the forms of a route, for error messages.
const patternForms = `"METHOD /path", "/path" or "*", with or without a leading "!"`

// readPattern reports false if route does not have one of the patternForms.
func readPattern(route string) (pattern, bool) {
	rest, not := strings.CutPrefix(strings.TrimSpace(route), "!")
	method, path, ok := strings.Cut(strings.TrimSpace(rest), " ")
	if !ok {
		method, path = "", method
	}
	path = strings.TrimSpace(path)
	if path != "*" && !strings.HasPrefix(path, "/") {
		return pattern{}, false
	}
	if method == "*" {
		method = ""
	}
	if path == "*" {
		path = ""
	}
	return pattern{not: not, method: strings.ToUpper(method), path: path}, true
}

func (p pattern) matches(method, path string) bool {
	selected := (p.method == "" || p.method == method) && (p.path == "" || glob(p.path, path))
	return selected != p.not
}

// glob matches with a single backtrack point, the latest star. That suffices,
// because a later star can match everything that an earlier one could.
func glob(pat, s string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pat) && pat[i] == '*':
			star, mark = i, j
			i++
			continue
		case i < len(pat) && pat[i] == '{':
			end := strings.IndexByte(pat[i:], '}')
			n := strings.IndexByte(s[j:], '/')
			if n < 0 {
				n = len(s) - j
			}
			if end > 0 && n > 0 {
				i += end + 1
				j += n
				continue
			}
		case i < len(pat) && pat[i] == s[j]:
			i++
			j++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	return strings.Trim(pat[i:], "*") == ""
}
