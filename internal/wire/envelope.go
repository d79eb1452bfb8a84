package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/agrenting/agrenting-go/internal/secret"
)

var (
	// ErrMalformed is in every error about a response that cannot be decoded or is larger than
	// the limit. It is public as ErrMalformedResponse.
	ErrMalformed = errors.New("agrenting: malformed response")
	// ErrNotJSON is the error of Decode.
	ErrNotJSON = errors.New("it is not JSON")
	// ErrNotPlatform is in the errors about responses that are not in the platform's envelope.
	ErrNotPlatform = errors.New("the response is not from the platform")
)

// CodeIdempotencyPending is the error code of a 409 if the idempotency key belongs to a request
// that the platform is still working on (platform documentation, "Idempotency").
const CodeIdempotencyPending = "IDEMPOTENCY_PENDING"

// An Envelope is a response in any documented form, such as {Data: []byte(`{"id":"a1"}`),
// Recognized: true}. Most programs only read Data and Errors.
type Envelope struct {
	// Data is the data member, or the whole body if it is not in an envelope.
	Data       json.RawMessage
	Meta       json.RawMessage
	RequestID  string
	Pagination *Pagination
	// Errors contains the first entries of the errors array. MoreErrors is how many more it
	// has.
	Errors     []ErrorDetail
	MoreErrors int
	// Recognized is set if the body is an object with at least one of the members data, errors,
	// and error. Responses of gateways have other forms, such as a bare message.
	Recognized bool
	// loose contains the code and the message of a body without data and errors. They describe
	// an error only if the status is an error.
	loose ErrorDetail
}

// An ErrorDetail is one entry of an errors array, such as {Code: "NOT_FOUND", Message: "agent
// not found"}. Most programs only read Code and Message.
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

// UnmarshalJSON accepts numbers, strings, and booleans in place of each other, and ignores what
// it cannot read.
func (p *Pagination) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return errors.New("not an object")
	}
	*p = Pagination{}
	members(b, func(name []byte, value json.RawMessage) {
		switch string(name) {
		case "cursor":
			p.Cursor = scalar(value)
		case "has_more":
			p.HasMore, _ = strconv.ParseBool(scalar(value))
		case "total_count":
			p.TotalCount, _ = strconv.Atoi(scalar(value))
		}
	})
	return nil
}

// Decode reads {"data", "meta", "errors"}, or a body without this envelope, in which case the
// whole body is the data. It ignores unknown members. In addition to the errors array, it
// accepts other forms that clients of the platform have received: "error" as a string or an
// object, and a bare "message".
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
	var data, meta, list, single json.RawMessage
	members(body, func(name []byte, value json.RawMessage) {
		switch string(name) {
		case "data":
			data = value
		case "meta":
			meta = value
		case "errors":
			list = value
		case "error":
			single = value
		}
	})
	env.Recognized = data != nil || list != nil || !IsNull(single)
	if data != nil {
		env.Data = data
	} else if meta != nil || list != nil {
		env.Data = nil
	}
	if meta != nil && !IsNull(meta) {
		env.Meta = bytes.Clone(meta) // it is kept for longer than the body
		env.readMeta()
	}
	if list != nil {
		env.Errors, env.MoreErrors = errorDetails(list)
	}
	if len(env.Errors) == 0 && data == nil {
		if d, ok := errorDetail(single); ok {
			env.Errors = []ErrorDetail{d}
		}
		env.loose, _ = errorDetail(body)
	}
	return env, nil
}

func (env *Envelope) readMeta() {
	if env.Meta[0] != '{' {
		return
	}
	members(env.Meta, func(name []byte, value json.RawMessage) {
		switch string(name) {
		case "request_id":
			_ = json.Unmarshal(value, &env.RequestID)
		case "pagination":
			p := new(Pagination)
			if env.Pagination = nil; !IsNull(value) && json.Unmarshal(value, p) == nil {
				env.Pagination = p
			}
		}
	})
}

const (
	// maxErrors is how many entries of an errors array are kept.
	maxErrors = 20
	// maxShown bounds the texts of all errors of a response, and the size of their details, in
	// bytes.
	maxShown = 16 << 10
)

// Problems returns the errors in a response with an error status, prepared for error messages
// and without the given secrets. more is how many errors it omits. Text that is neither JSON
// nor a web page counts as a message. Details of more than 16 KiB are omitted.
func (env *Envelope) Problems(body []byte, secrets ...string) (clean []ErrorDetail, more int) {
	var found []ErrorDetail
	switch t := bytes.TrimSpace(body); {
	case len(env.Errors) > 0:
		found, more = env.Errors, env.MoreErrors
	case env.loose.Message != "" || env.loose.Code != "":
		found = []ErrorDetail{env.loose}
	case len(t) > 0 && t[0] != '{' && t[0] != '<':
		found = []ErrorDetail{{Message: string(t)}}
	}
	texts, details := maxShown, maxShown
	for i, d := range found {
		if texts <= 0 {
			return clean, more + len(found) - i
		}
		c := ErrorDetail{
			Code: secret.Clean(d.Code, secrets...), Message: secret.Clean(d.Message, secrets...),
			Field: secret.Clean(d.Field, secrets...),
		}
		for _, text := range []string{d.Code, d.Message, d.Field} {
			texts -= min(len(text), secret.MaxText)
		}
		if details -= len(d.Details); details >= 0 {
			c.Details = bytes.Clone(secret.RedactJSON(d.Details, secrets...))
		}
		clean = append(clean, c)
	}
	return clean, more
}

// Codes returns an envelope with only those parts of the errors of env that cannot be secrets:
// codes, fields, and details that consist of plain words. It does not contain messages.
func (env *Envelope) Codes() *Envelope {
	out := &Envelope{Recognized: env.Recognized, loose: codeOnly(env.loose)}
	for _, d := range env.Errors {
		out.Errors = append(out.Errors, codeOnly(d))
	}
	return out
}

func codeOnly(d ErrorDetail) (out ErrorDetail) {
	if secret.IsCode(d.Code) {
		out.Code = d.Code
	}
	if secret.IsCode(d.Field) {
		out.Field = d.Field
	}
	if secret.IsPlain(string(d.Details)) {
		out.Details = d.Details
	}
	return out
}

// errorDetails reads an errors array entry by entry, so that a malformed entry does not hide
// the others. It returns the first entries, and the number of the others.
func errorDetails(raw json.RawMessage) (out []ErrorDetail, more int) {
	if raw[0] != '[' {
		if d, ok := errorDetail(raw); ok {
			out = []ErrorDetail{d}
		}
		return out, 0
	}
	entries, more := elements(raw, maxErrors)
	for _, e := range entries {
		d, ok := errorDetail(e)
		if !ok {
			d = ErrorDetail{Message: "an error that could not be read"}
		}
		out = append(out, d)
	}
	return out, more
}

func errorDetail(raw json.RawMessage) (d ErrorDetail, ok bool) {
	if len(raw) == 0 {
		return d, false
	}
	switch raw[0] {
	case '"':
		_ = json.Unmarshal(raw, &d.Message)
		return d, d.Message != ""
	case '{':
	default:
		return d, false
	}
	var message, detail, title string
	members(raw, func(name []byte, value json.RawMessage) {
		ok = true
		switch string(name) {
		case "code":
			_ = json.Unmarshal(value, &d.Code)
		case "field":
			_ = json.Unmarshal(value, &d.Field)
		case "message":
			_ = json.Unmarshal(value, &message)
		case "detail":
			_ = json.Unmarshal(value, &detail)
		case "title":
			_ = json.Unmarshal(value, &title)
		case "details":
			d.Details = value
		}
	})
	d.Message = cmp.Or(message, detail, title)
	return d, ok
}
