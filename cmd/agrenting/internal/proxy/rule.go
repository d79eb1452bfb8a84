package proxy

import (
	"errors"
	"net/http"
	"strings"
)

// Rule allows a method on paths.
type Rule struct {
	method string // "*" is any
	parts  []string
}

var errRule = errors.New("a rule is a method, or *, and a path that begins with /, such as 'GET /api/v1/agents*'")

var errMethod = errors.New("the method of a rule is *, or one of " + strings.Join(methods, ", ") + ", in capitals")

// ParseRule reads a rule such as "GET /api/v1/agents*". A star in the path matches
// for any characters, slashes too.
func ParseRule(s string) (Rule, error) {
	method, path, ok := strings.Cut(strings.TrimSpace(s), " ")
	path = strings.TrimSpace(path)
	if !ok || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " ?#") || method == "" || strings.ContainsAny(method, "/") {
		return Rule{}, errRule
	}
	if method != "*" && !isMethod(method) {
		return Rule{}, errMethod
	}
	return Rule{method: method, parts: strings.Split(path, "*")}, nil
}

// Match reports whether the rule allows a method on a decoded path. GET allows
// HEAD too.
func (r Rule) Match(method, path string) bool {
	if r.method != "*" && r.method != method && (r.method != http.MethodGet || method != http.MethodHead) {
		return false
	}
	rest, ok := strings.CutPrefix(path, r.parts[0])
	if !ok {
		return false
	}
	if len(r.parts) == 1 {
		return rest == ""
	}
	last := len(r.parts) - 1
	for _, part := range r.parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, r.parts[last])
}
