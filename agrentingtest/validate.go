package agrentingtest

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields is a JSON object. Its values are checked one by one, so that a refusal
// can list all errors.
type fields map[string]json.RawMessage

func decodeObject(body []byte) (fields, *failure) {
	f := fields{}
	if strings.TrimSpace(string(body)) == "" {
		return f, nil
	}
	if err := json.Unmarshal(body, &f); err != nil || f == nil {
		return nil, fail(http.StatusUnprocessableEntity, CodeValidation, "the body must be a JSON object")
	}
	return f, nil
}

// validator collects the errors by field.
type validator struct {
	fields   fields
	details  map[string][]string
	optional bool // missing fields are allowed
}

func (v *validator) complain(field, message string) {
	if v.details == nil {
		v.details = make(map[string][]string)
	}
	v.details[field] = append(v.details[field], message)
}

// get decodes a field and reports whether it is present and valid.
func (v *validator) get(field, what string, required bool, into any) bool {
	raw, ok := v.fields[field]
	if !ok || string(raw) == "null" {
		if required && !v.optional {
			v.complain(field, "can't be blank")
		}
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		v.complain(field, "must be "+what)
		return false
	}
	return true
}

func (v *validator) text(field string, required bool, maxLength int) (s string) {
	if !v.get(field, "a string", required, &s) {
		return ""
	}
	switch {
	case required && strings.TrimSpace(s) == "":
		v.complain(field, "can't be blank")
	case utf8.RuneCountInString(s) > maxLength:
		v.complain(field, "is too long")
	}
	return s
}

func (v *validator) list(field string, required bool) (l []string) {
	if !v.get(field, "a list of strings", required, &l) {
		return nil
	}
	switch {
	case required && len(l) == 0:
		v.complain(field, "must have at least 1 item")
	case len(slices.Compact(slices.Sorted(slices.Values(l)))) < len(l):
		v.complain(field, "must be unique")
	}
	return l
}

// failure returns the 422 with all errors, or nil if there are none.
func (v *validator) failure() *failure {
	if v.details == nil {
		return nil
	}
	names := make([]string, 0, len(v.details))
	for name := range v.details {
		names = append(names, name)
	}
	slices.Sort(names)
	f := fail(http.StatusUnprocessableEntity, CodeValidation, "%s %s", names[0], v.details[names[0]][0])
	f.err.Field = names[0]
	f.err.Details = v.details
	return f
}

var (
	didForm   = regexp.MustCompile(`^did:[a-z0-9]+:\S+$`)
	scopeForm = regexp.MustCompile(`^[a-z_]+(:[a-z_]+)?$`)
)
