package wire

import (
	"encoding/json"
	"strings"
	"time"
)

// An Object is a JSON object that is read leniently: a member with an unexpected type
// counts as missing. A nil Object has no members.
type Object map[string]json.RawMessage

// String returns the first of the named members that is a string and not blank,
// without surrounding white space.
func (o Object) String(names ...string) string {
	for _, name := range names {
		var v string
		if json.Unmarshal(o[name], &v) == nil && strings.TrimSpace(v) != "" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Object returns the named member if it is an object, and nil otherwise.
func (o Object) Object(name string) Object {
	var v Object
	_ = json.Unmarshal(o[name], &v)
	return v
}

// Time returns the first of the named members that is an ISO 8601 time or a number of
// seconds since 1970. It returns the zero time if there is none.
func (o Object) Time(names ...string) time.Time {
	for _, name := range names {
		s := o.String(name)
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t
		}
		if t, err := time.Parse("2006-01-02T15:04:05.999999999", s); err == nil {
			return t // a time without a zone; the platform writes UTC
		}
		var unix int64
		if json.Unmarshal(o[name], &unix) == nil && unix > 0 && unix < 1<<40 {
			return time.Unix(unix, 0)
		}
	}
	return time.Time{}
}

// IsNull reports whether raw is missing or null.
func IsNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// scalar returns a JSON string, number, or boolean as text, or "" for other values.
func scalar(raw json.RawMessage) string {
	var s string
	switch {
	case IsNull(raw) || raw[0] == '{' || raw[0] == '[':
		return ""
	case json.Unmarshal(raw, &s) == nil:
		return s
	default:
		return string(raw)
	}
}
