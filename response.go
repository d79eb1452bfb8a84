package agrenting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Bounds of what is read of an answer.
const (
	maxBody      = 32 << 20 // decoded by Do
	maxErrorBody = 1 << 20
)

// Response tells what came with an answer besides its data. It is there when a
// call ends with an answer of the platform, also when it returns an error. It is
// nil when none came, and when an answer was not the end of it: a 401 after which
// the credential could not be renewed is a [*RenewalError] without a Response.
type Response struct {
	StatusCode int
	Header     http.Header
	// RequestID is the request id of the envelope's meta, or of a header;
	// empty when there was none (the platform's documents show it on some
	// pages only).
	RequestID string
	// Attempts counts how often the request was sent, replays included.
	Attempts int
	// Rate is what the rate-limit headers said.
	Rate Rate
	// Sunset is when the route will be retired, zero when no date is announced
	// (platform documentation, "API Versioning": 90 days' notice).
	Sunset time.Time
	// Pagination is the envelope's, nil when there was none.
	Pagination *Pagination
	// Meta is the envelope's meta as it came; nil when there was none.
	Meta json.RawMessage
	// Generation and Fingerprint tell which credential was used last; they are
	// safe to log.
	Generation  uint64
	Fingerprint string
}

// Rate is the state of the rate limit that a call counted against (platform
// documentation, "Rate Limits"). The platform sends no time of reset.
type Rate struct {
	// Known is false when the answer had no rate-limit headers.
	Known bool
	// Limit is the number of requests per window, Remaining what is left.
	Limit, Remaining int
	// RetryAfter is set when the call was limited.
	RetryAfter time.Duration
}

// Pagination is the position of a page in a list (platform documentation,
// "Pagination").
type Pagination struct {
	// TotalCount may be approximate.
	TotalCount int
	// Cursor leads to the next page; it is opaque.
	Cursor string
	// HasMore tells whether there is a next page.
	HasMore bool
}

// UnmarshalJSON implements [json.Unmarshaler]. It takes numbers, strings and
// booleans for one another and ignores what it cannot read: a list is worth more
// than its size.
func (p *Pagination) UnmarshalJSON(b []byte) error {
	var raw struct {
		TotalCount json.RawMessage `json:"total_count"`
		Cursor     json.RawMessage `json:"cursor"`
		HasMore    json.RawMessage `json:"has_more"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*p = Pagination{Cursor: scalar(raw.Cursor)}
	p.HasMore, _ = strconv.ParseBool(scalar(raw.HasMore))
	if n, err := strconv.Atoi(scalar(raw.TotalCount)); err == nil {
		p.TotalCount = n
	}
	return nil
}

// scalar is a JSON string, number or boolean as text; "" for anything else.
func scalar(raw json.RawMessage) string {
	var s string
	switch {
	case isNull(raw) || raw[0] == '{' || raw[0] == '[':
		return ""
	case json.Unmarshal(raw, &s) == nil:
		return s
	default:
		return string(raw)
	}
}

// envelope is an answer in any documented shape.
type envelope struct {
	data       json.RawMessage // the data member, or the whole body without envelope
	meta       json.RawMessage
	requestID  string
	pagination *Pagination
	errors     []ErrorDetail
	// loose is what the members of a body without data and errors say, if the
	// status tells that they are about an error.
	loose ErrorDetail
}

var errNotJSON = errors.New("it is not JSON")

// decodeEnvelope reads {"data", "meta", "errors"} and tolerates its absence:
// the whole body is the data then. Unknown members are ignored. Besides the
// documented errors array it understands the shapes that clients of the
// platform have met: "error" as a string or an object, and a bare "message".
func decodeEnvelope(body []byte) (envelope, error) {
	var env envelope
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	if len(body) == 0 {
		return env, nil
	}
	if !json.Valid(body) {
		return env, errNotJSON
	}
	env.data = body
	if body[0] != '{' {
		return env, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return env, err
	}
	data, hasData := members["data"]
	meta, hasMeta := members["meta"]
	rawErrors, hasErrors := members["errors"]
	if hasData {
		env.data = data
	} else if hasMeta || hasErrors {
		env.data = nil
	}
	if hasMeta && !isNull(meta) {
		env.meta = meta
		env.readMeta()
	}
	if hasErrors {
		env.errors = errorDetails(rawErrors)
	}
	if len(env.errors) == 0 && !hasData {
		env.errors = looseErrors(members)
		env.loose, _ = errorDetail(body)
	}
	return env, nil
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || string(raw) == "null"
}

func (env *envelope) readMeta() {
	var meta map[string]json.RawMessage
	if json.Unmarshal(env.meta, &meta) != nil {
		return
	}
	_ = json.Unmarshal(meta["request_id"], &env.requestID)
	if raw := meta["pagination"]; !isNull(raw) {
		p := new(Pagination)
		if json.Unmarshal(raw, p) == nil {
			env.pagination = p
		}
	}
}

// errorDetails reads an errors array entry by entry: one that is odd does not
// hide the others.
func errorDetails(raw json.RawMessage) []ErrorDetail {
	var entries []json.RawMessage
	if json.Unmarshal(raw, &entries) != nil {
		if d, ok := errorDetail(raw); ok {
			return []ErrorDetail{d}
		}
		return nil
	}
	var out []ErrorDetail
	for _, e := range entries {
		if d, ok := errorDetail(e); ok {
			out = append(out, d)
		} else {
			out = append(out, ErrorDetail{Message: "an error that could not be read"})
		}
	}
	return out
}

func errorDetail(raw json.RawMessage) (ErrorDetail, bool) {
	var d ErrorDetail
	if isNull(raw) {
		return d, false
	}
	if json.Unmarshal(raw, &d.Message) == nil {
		return d, d.Message != ""
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || len(m) == 0 {
		return d, false
	}
	_ = json.Unmarshal(m["code"], &d.Code)
	_ = json.Unmarshal(m["field"], &d.Field)
	for _, name := range []string{"message", "detail", "title"} {
		if d.Message == "" {
			_ = json.Unmarshal(m[name], &d.Message)
		}
	}
	d.Details = m["details"]
	return d, true
}

func looseErrors(m map[string]json.RawMessage) []ErrorDetail {
	if raw, ok := m["error"]; ok {
		if d, ok := errorDetail(raw); ok {
			return []ErrorDetail{d}
		}
	}
	return nil
}

// readBounded reads at most limit bytes; more is an error.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return b[:limit], fmt.Errorf("%w: it has more than %d bytes", ErrMalformedResponse, limit)
	}
	return b, err
}

// headerInfo fills what the headers tell.
func (r *Response) readHeader(now time.Time) {
	h := r.Header
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if r.RequestID == "" {
			r.RequestID = h.Get(name)
		}
	}
	limit, err1 := strconv.Atoi(h.Get("X-Ratelimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("X-Ratelimit-Remaining"))
	r.Rate = Rate{Known: err1 == nil && err2 == nil, Limit: limit, Remaining: remaining}
	r.Rate.RetryAfter, _ = parseRetryAfter(h.Get("Retry-After"), now)
	if t, err := http.ParseTime(h.Get("Sunset")); err == nil {
		r.Sunset = t
	}
}

// CheckResponse turns an answer of the platform that is no success into an
// [*APIError], for those who use [Client.HTTPClient] or a [Transport] on their
// own. It reads a bounded part of the body, closes it, and replaces it by what
// it read. A 2xx, and the 101 of a WebSocket, give nil and are left alone.
//
// When a 401 could not be replayed with a renewed credential, the error matches
// [ErrNotReplayable].
func CheckResponse(resp *http.Response) error {
	if (resp.StatusCode >= 200 && resp.StatusCode < 300) || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	var body []byte
	if resp.Body != nil {
		body, _ = readBounded(resp.Body, maxErrorBody)
		_ = resp.Body.Close()
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	r := &Response{StatusCode: resp.StatusCode, Header: resp.Header}
	r.readHeader(time.Now())
	env, _ := decodeEnvelope(body)
	var secrets []string
	if resp.Request != nil {
		secrets = credentialsIn(resp.Request.Header)
	}
	note := noteOf(resp)
	if note.lease != nil {
		secrets = append(secrets, note.lease.Value.cred.Reveal())
	}
	e := newAPIError(r, env, body, secrets...)
	e.cause = note.notReplayed
	if req := resp.Request; req != nil && req.URL != nil {
		e.Method, e.Path = req.Method, req.URL.Path
	}
	return e
}

// credentialsIn are the secrets in the credential headers that the caller set.
func credentialsIn(h http.Header) []string {
	var out []string
	for name, values := range h {
		switch plainName(name) {
		case headerAuthorization, headerAPIKey, headerAPIKeyAlias:
			for _, v := range values {
				// The scheme is no secret, and stands in innocent text too.
				if _, rest, ok := strings.Cut(v, " "); ok {
					v = rest
				}
				out = append(out, strings.TrimSpace(v))
			}
		}
	}
	return out
}

// newAPIError makes the typed error of an answer. Secrets that the platform
// may have echoed are redacted in all of it.
func newAPIError(r *Response, env envelope, body []byte, secrets ...string) *APIError {
	if env.requestID != "" {
		r.RequestID = env.requestID
	}
	e := &APIError{
		StatusCode: r.StatusCode, RequestID: safeText(r.RequestID, secrets...),
		RetryAfter: r.Rate.RetryAfter, Attempts: r.Attempts,
	}
	var details []ErrorDetail
	switch t := strings.TrimSpace(string(body)); {
	case len(env.errors) > 0:
		details = env.errors
	case env.loose.Message != "" || env.loose.Code != "":
		details = []ErrorDetail{env.loose}
	case t != "" && !strings.HasPrefix(t, "{") && !strings.HasPrefix(t, "<"):
		details = []ErrorDetail{{Message: t}}
	}
	for i, d := range details {
		d.Code, d.Field = safeText(d.Code, secrets...), safeText(d.Field, secrets...)
		d.Message, d.Details = safeText(d.Message, secrets...), redactJSON(d.Details, secrets)
		if i == 0 {
			e.Code, e.Message, e.Field, e.Details = d.Code, d.Message, d.Field, d.Details
		} else {
			e.Others = append(e.Others, d)
		}
	}
	return e
}

// redactJSON takes secrets out of JSON that the caller gets undecoded. It looks
// at the decoded strings, since JSON escapes what URLs and others have escaped.
func redactJSON(raw json.RawMessage, secrets []string) json.RawMessage {
	if len(raw) == 0 || len(secrets) == 0 {
		return raw
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	found := false
	v = redactValue(v, func(s string) string {
		clean := secret.Redact(s, secrets...)
		found = found || clean != s
		return clean
	})
	if !found {
		return raw
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return out
}

func redactValue(v any, clean func(string) string) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case json.Number:
		if s := clean(v.String()); s != v.String() {
			return s
		}
		return v
	case []any:
		for i := range v {
			v[i] = redactValue(v[i], clean)
		}
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[clean(name)] = redactValue(member, clean)
		}
		return out
	default:
		return v
	}
}
