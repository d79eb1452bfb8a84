package agrentingtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// faultKind is a kind of fault that the control routes accept.
type faultKind struct {
	name, goName string
	required     []string // fields
	optional     []string
	build        func(*faultFields) Fault
}

// faultKinds lists the kinds in the order of the documentation.
var faultKinds = [...]faultKind{
	{"delay", "Delay", []string{"delay"}, nil, func(f *faultFields) Fault { return Delay(f.delay) }},
	{"drop_before", "DropBefore", nil, nil, func(*faultFields) Fault { return DropBefore() }},
	{"drop_after", "DropAfter", nil, nil, func(*faultFields) Fault { return DropAfter() }},
	{"reset_mid_body", "ResetMidBody", nil, []string{"bytes"}, func(f *faultFields) Fault { return ResetMidBody(f.bytes) }},
	{"malformed_json", "MalformedJSON", nil, nil, func(*faultFields) Fault { return MalformedJSON() }},
	{"stall", "Stall", nil, []string{"bytes"}, func(f *faultFields) Fault { return Stall(f.bytes) }},
	{"status", "Status", []string{"status"}, []string{"code", "retry_after", "after_serving"}, func(f *faultFields) Fault {
		fault := Status(f.status, f.code)
		fault.retryAfter = f.retryAfter
		return fault
	}},
	{"page", "Page", []string{"status"}, []string{"after_serving"}, func(f *faultFields) Fault { return Page(f.status) }},
	{"empty", "Empty", []string{"status"}, []string{"after_serving"}, func(f *faultFields) Fault { return Empty(f.status) }},
	{"handler_error", "HandlerError", []string{"status"}, []string{"code"}, func(f *faultFields) Fault { return HandlerError(f.status, f.code) }},
	{"redirect", "Redirect", []string{"status", "url"}, []string{"after_serving"}, func(f *faultFields) Fault { return Redirect(f.status, f.url) }},
	{"gone", "Gone", nil, []string{"after_serving"}, func(*faultFields) Fault { return Gone() }},
	{"revoke_now", "RevokeNow", nil, nil, func(*faultFields) Fault { return RevokeNow() }},
	{"set_header", "SetHeader", []string{"headers"}, nil, func(f *faultFields) Fault { return setHeaders(f.headers) }},
	{"sunset", "Sunset", []string{"at"}, nil, func(f *faultFields) Fault { return Sunset(f.at) }},
}

// commonFaultFields are the fields that every kind accepts.
var commonFaultFields = []string{"pattern", "kind", "times", "share", "always", "delay", "headers"}

func kindNames() []string {
	names := make([]string, len(faultKinds))
	for i, k := range &faultKinds {
		names[i] = k.name
	}
	return names
}

// kindOf returns the kinds of a fault, such as "page+stall", or "" for the zero Fault.
func kindOf(f Fault) string {
	names := strings.Split(f.name, "+")
	for i, name := range names {
		for _, k := range &faultKinds {
			if k.goName == name || name == "StatusWithRetryAfter" && k.name == "status" {
				names[i] = k.name
			}
		}
	}
	return strings.Join(names, "+")
}

// orderedFault is a fault that was requested over HTTP.
type orderedFault struct {
	route   string
	pattern pattern
	fault   Fault
}

// fieldError is an error in a field of a control request.
type fieldError struct {
	Field   string   `json:"field,omitempty"`
	Message string   `json:"message"`
	Allowed []string `json:"allowed,omitempty"`
}

func complain(field string, allowed []string, format string, args ...any) *fieldError {
	return &fieldError{Field: field, Allowed: allowed, Message: fmt.Sprintf(format, args...)}
}

// decodeFaults reads one fault or a list of them.
func decodeFaults(body []byte) ([]orderedFault, *fieldError) {
	if trimmed := bytes.TrimSpace(body); len(trimmed) == 0 || trimmed[0] != '[' {
		one, wrong := decodeFault(body)
		return []orderedFault{one}, wrong
	}
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, complain("", nil, "the body is not JSON: %v", err)
	}
	out := make([]orderedFault, len(list))
	for i, raw := range list {
		var wrong *fieldError
		if out[i], wrong = decodeFault(raw); wrong != nil {
			if wrong.Field == "" {
				return nil, complain(fmt.Sprintf("[%d]", i), nil, "an entry of the list must be a JSON object")
			}
			wrong.Field = fmt.Sprintf("[%d].%s", i, wrong.Field)
			return nil, wrong
		}
	}
	return out, nil
}

// faultFields are the decoded members of a requested fault.
type faultFields struct {
	objectReader

	kinds        []faultKind
	times        int
	share        *float64
	always       bool
	delay        time.Duration
	bytes        int
	status       int
	code         string
	retryAfter   string
	url          string
	headers      [][2]string
	at           time.Time
	afterServing bool
}

func decodeFault(body []byte) (orderedFault, *fieldError) {
	members, wrong := readObject(body)
	if wrong != nil {
		return orderedFault{}, wrong
	}
	f := faultFields{objectReader: objectReader{members: members}}
	f.readKinds()
	allowed, required := slices.Clone(commonFaultFields), []string(nil)
	for _, k := range f.kinds {
		required = append(required, k.required...)
		allowed = slices.Concat(allowed, k.required, k.optional)
	}
	f.checkNames(allowed, required, " of this kind of fault")
	o := f.readCommon()
	f.readValues()
	if f.wrong != nil {
		return orderedFault{}, f.wrong
	}
	o.fault = f.build()
	return o, nil
}

// build joins the kinds and applies the common fields.
func (f *faultFields) build() (out Fault) {
	for i, k := range f.kinds {
		fault := k.build(f)
		if f.afterServing && fault.replaces() {
			fault = fault.AfterServing()
		}
		if i == 0 {
			out = fault
		} else {
			out = out.And(fault)
		}
	}
	if f.delay > 0 && out.delay == 0 {
		out = out.And(Delay(f.delay))
	}
	if f.headers != nil && out.headers == nil {
		out = out.And(setHeaders(f.headers))
	}
	out.times, out.always = f.times, f.always
	if f.share != nil {
		out = out.Share(*f.share)
	}
	return out
}

func setHeaders(headers [][2]string) Fault { return Fault{name: "SetHeader", headers: headers} }

// objectReader reads the members of a JSON object and keeps the first error.
type objectReader struct {
	members fields
	wrong   *fieldError
}

// readObject accepts only a complete JSON object.
func readObject(body []byte) (fields, *fieldError) {
	members := fields{}
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return nil, complain("", nil, "the body must be a JSON object")
	}
	return members, nil
}

// checkNames reports unknown and missing members.
func (r *objectReader) checkNames(allowed, required []string, of string) {
	if r.wrong != nil {
		return
	}
	slices.Sort(allowed)
	allowed = slices.Compact(allowed)
	for _, name := range slices.Sorted(maps.Keys(r.members)) {
		if !slices.Contains(allowed, name) {
			r.wrong = complain(name, allowed, "%q is not a field%s (want %s)", name, of, strings.Join(allowed, ", "))
			return
		}
	}
	for _, name := range required {
		if r.members[name] == nil {
			r.wrong = complain(name, nil, "%s is missing", name)
			return
		}
	}
}

// read decodes a member and reports whether it is present. The error quotes the value
// only if it is short, because a long one could be a credential.
func (r *objectReader) read(name, want string, into any, sound func() bool) bool {
	raw, ok := r.members[name]
	if !ok || r.wrong != nil {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil || string(raw) == "null" || !sound() {
		shown := string(raw)
		if len(shown) >= minSecret {
			shown = "value"
		}
		r.wrong = complain(name, nil, "invalid %s %s (want %s)", name, shown, want)
		return false
	}
	return true
}

// readKinds reads the member kind: one kind, or several joined by "+".
func (f *faultFields) readKinds() {
	names := kindNames()
	all := strings.Join(names, ", ")
	if f.members["kind"] == nil {
		f.wrong = complain("kind", names, "kind is missing (want %s)", all)
		return
	}
	var kind string
	f.read("kind", all, &kind, func() bool { return true })
	if f.wrong != nil {
		f.wrong.Allowed = names
		return
	}
	responses, deliveries, given := 0, 0, strings.Split(kind, "+")
	for _, name := range given {
		i := slices.Index(names, name)
		if i < 0 {
			f.wrong = complain("kind", names, "unknown kind %q (want %s)", name, all)
			return
		}
		f.kinds = append(f.kinds, faultKinds[i])
		fault := faultKinds[i].build(&faultFields{})
		if fault.response != respondRoute {
			responses++
		}
		if fault.delivery != deliverAll {
			deliveries++
		}
	}
	if responses > 1 || deliveries > 1 || len(slices.Compact(slices.Sorted(slices.Values(given)))) < len(given) {
		f.wrong = complain("kind", nil, "%q cannot be joined: a request gets one response, which ends in one way", kind)
	}
}

// readCommon reads the fields that every kind accepts.
func (f *faultFields) readCommon() (o orderedFault) {
	o.route = "*"
	if f.wrong == nil && f.members["pattern"] == nil {
		f.wrong = complain("pattern", nil, "pattern is missing (want %s)", patternForms)
	}
	f.read("pattern", patternForms, &o.route, func() bool {
		var ok bool
		o.pattern, ok = readPattern(o.route)
		return ok
	})
	f.read("times", "a whole number of requests from 1", &f.times, func() bool { return f.times >= 1 })
	f.read("always", "true or false", &f.always, func() bool { return true })
	var share float64
	if f.read("share", "a number from 0 to 1, such as 0.05", &share, func() bool { return share >= 0 && share <= 1 }) {
		f.share = &share
	}
	if f.wrong == nil && f.always && (f.times > 0 || f.share != nil) {
		f.wrong = complain("always", nil, "always cannot be combined with times or share")
	}
	return o
}

// readValues reads the fields that only some kinds accept.
func (f *faultFields) readValues() {
	var text string
	f.read("delay", "a duration such as \"250ms\" or \"2s\"", &text, func() (ok bool) {
		var err error
		f.delay, err = time.ParseDuration(text)
		return err == nil && f.delay >= 0
	})
	f.read("bytes", "a number of bytes from 0", &f.bytes, func() bool { return f.bytes >= 0 })
	f.readStatus()
	f.read("code", "an error code such as \"UNAUTHORIZED\"", &f.code, func() bool { return true })
	f.readRetryAfter()
	f.read("url", "a URL", &f.url, func() bool { return f.url != "" && isHeaderValue(f.url) })
	var headers map[string]string
	f.read("headers", "an object of header names and values", &headers, func() bool {
		for name, value := range headers {
			if !isHeaderName(name) || !isHeaderValue(value) {
				return false
			}
		}
		return len(headers) > 0
	})
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		f.headers = append(f.headers, [2]string{name, headers[name]})
	}
	f.read("at", "a time such as \"2026-12-31T00:00:00Z\"", &f.at, func() bool { return !f.at.IsZero() })
	f.read("after_serving", "true or false", &f.afterServing, func() bool { return true })
}

func (f *faultFields) readStatus() {
	want, sound := "a status from 200 to 599", func() bool { return f.status >= 200 && f.status <= 599 }
	if slices.ContainsFunc(f.kinds, func(k faultKind) bool { return k.name == "redirect" }) {
		want, sound = "301, 302, 303, 307, or 308", func() bool { return slices.Contains([]int{301, 302, 303, 307, 308}, f.status) }
	}
	f.read("status", want, &f.status, sound)
}

// readRetryAfter accepts a number of seconds or any text, such as an HTTP date.
func (f *faultFields) readRetryAfter() {
	var value any
	f.read("retry_after", "seconds such as 2, or the text of the header", &value, func() bool {
		switch v := value.(type) {
		case float64:
			f.retryAfter = strconv.FormatFloat(v, 'f', -1, 64)
			return v >= 0
		case string:
			f.retryAfter = v
			return v != "" && isHeaderValue(v)
		default:
			return false
		}
	})
}

func isHeaderName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

func isHeaderValue(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

// orderFaults serves POST /_sandbox/faults. It scripts all faults of the body, or none
// if one is invalid.
func (s *Server) orderFaults(body []byte) (int, any, *fieldError) {
	ordered, wrong := decodeFaults(body)
	if wrong != nil {
		return 0, nil, wrong
	}
	reports := []FaultReport{}
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	for _, o := range ordered {
		reports = append(reports, s.script.add(o.route, o.pattern, o.fault).report())
	}
	s.script.count()
	return http.StatusCreated, map[string]any{"faults": reports}, nil
}

// listFaults serves GET /_sandbox/faults.
func (s *Server) listFaults([]byte) (int, any, *fieldError) {
	reports := []FaultReport{}
	s.script.mu.Lock()
	defer s.script.mu.Unlock()
	for _, e := range s.script.entries {
		reports = append(reports, e.report())
	}
	return http.StatusOK, map[string]any{"faults": reports}, nil
}

// clearFaults serves DELETE /_sandbox/faults.
func (s *Server) clearFaults([]byte) (int, any, *fieldError) {
	return http.StatusOK, map[string]any{"cleared": s.script.clear()}, nil
}
