package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

var (
	// ErrMalformed is in every error about an answer that does not decode or is
	// larger than the limit. It is public as ErrMalformedResponse.
	ErrMalformed = errors.New("agrenting: malformed response")
	// ErrNotJSON is the error of Decode.
	ErrNotJSON = errors.New("it is not JSON")
)

// CodeIdempotencyPending is the error code of a 409 whose idempotency key belongs to a
// request that is still being worked on (platform documentation, "Idempotency").
const CodeIdempotencyPending = "IDEMPOTENCY_PENDING"

// An Envelope is an answer in any documented shape.
type Envelope struct {
	// Data is the data member, or the whole body if there is no envelope.
	Data       json.RawMessage
	Meta       json.RawMessage
	RequestID  string
	Pagination *Pagination
	Errors     []ErrorDetail
	// loose has the code and message of a body without data and errors. They are
	// about an error only if the status says so.
	loose ErrorDetail
}

// An ErrorDetail is one entry of an errors array.
type ErrorDetail struct {
	Code, Message, Field string
	Details              json.RawMessage
}

// Pagination is the position of a page in a list.
type Pagination struct {
	TotalCount int
	Cursor     string
	HasMore    bool
}

// UnmarshalJSON accepts numbers, strings, and booleans for one another and ignores
// what it cannot read.
func (p *Pagination) UnmarshalJSON(b []byte) error {
	var o Object
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	*p = Pagination{Cursor: scalar(o["cursor"])}
	p.HasMore, _ = strconv.ParseBool(scalar(o["has_more"]))
	if n, err := strconv.Atoi(scalar(o["total_count"])); err == nil {
		p.TotalCount = n
	}
	return nil
}

// Decode reads {"data", "meta", "errors"}, or a body without this envelope: the
// whole body is the data then. It ignores unknown members. In addition to the
// errors array, it understands the shapes that clients of the platform have met:
// "error" as a string or an object, and a bare "message".
func Decode(body []byte) (Envelope, error) {
	var env Envelope
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	if len(body) == 0 {
		return env, nil
	}
	if !json.Valid(body) {
		return env, ErrNotJSON
	}
	env.Data = body
	if body[0] != '{' {
		return env, nil
	}
	var members Object
	if err := json.Unmarshal(body, &members); err != nil {
		return env, err
	}
	data, hasData := members["data"]
	meta, hasMeta := members["meta"]
	rawErrors, hasErrors := members["errors"]
	if hasData {
		env.Data = data
	} else if hasMeta || hasErrors {
		env.Data = nil
	}
	if hasMeta && !IsNull(meta) {
		env.Meta = meta
		env.readMeta()
	}
	if hasErrors {
		env.Errors = errorDetails(rawErrors)
	}
	if len(env.Errors) == 0 && !hasData {
		if d, ok := errorDetail(members["error"]); ok {
			env.Errors = []ErrorDetail{d}
		}
		env.loose, _ = errorDetail(body)
	}
	return env, nil
}

func (env *Envelope) readMeta() {
	var meta Object
	if json.Unmarshal(env.Meta, &meta) != nil {
		return
	}
	_ = json.Unmarshal(meta["request_id"], &env.RequestID)
	if raw := meta["pagination"]; !IsNull(raw) {
		p := new(Pagination)
		if json.Unmarshal(raw, p) == nil {
			env.Pagination = p
		}
	}
}

// Problems returns what an answer with an error status says, fit for error
// messages, with the given secrets removed. Text that is neither JSON nor a web
// page counts as a message.
func (env *Envelope) Problems(body []byte, secrets ...string) []ErrorDetail {
	var found []ErrorDetail
	switch t := strings.TrimSpace(string(body)); {
	case len(env.Errors) > 0:
		found = env.Errors
	case env.loose.Message != "" || env.loose.Code != "":
		found = []ErrorDetail{env.loose}
	case t != "" && !strings.HasPrefix(t, "{") && !strings.HasPrefix(t, "<"):
		found = []ErrorDetail{{Message: t}}
	}
	clean := make([]ErrorDetail, len(found))
	for i, d := range found {
		clean[i] = ErrorDetail{
			Code: secret.Clean(d.Code, secrets...), Message: secret.Clean(d.Message, secrets...),
			Field: secret.Clean(d.Field, secrets...), Details: secret.RedactJSON(d.Details, secrets...),
		}
	}
	return clean
}

// errorDetails reads an errors array entry by entry, so that a malformed entry does
// not hide the others.
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
	if IsNull(raw) {
		return d, false
	}
	if json.Unmarshal(raw, &d.Message) == nil {
		return d, d.Message != ""
	}
	var o Object
	if json.Unmarshal(raw, &o) != nil || len(o) == 0 {
		return d, false
	}
	_ = json.Unmarshal(o["code"], &d.Code)
	_ = json.Unmarshal(o["field"], &d.Field)
	for _, name := range []string{"message", "detail", "title"} {
		if d.Message == "" {
			_ = json.Unmarshal(o[name], &d.Message)
		}
	}
	d.Details = o["details"]
	return d, true
}
