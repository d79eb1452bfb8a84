package agrentingtest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The platform's documented error codes, for use with [Status] and in
// comparisons.
const (
	CodeValidation          = "VALIDATION_ERROR"
	CodeNotFound            = "NOT_FOUND"
	CodeRouteNotFound       = "ROUTE_NOT_FOUND"
	CodeUnauthorized        = "UNAUTHORIZED"
	CodeForbidden           = "FORBIDDEN"
	CodeInternal            = "INTERNAL_ERROR"
	CodeRateLimited         = "RATE_LIMIT_EXCEEDED"
	CodeIdempotencyPending  = "IDEMPOTENCY_PENDING"
	CodeIdempotencyMismatch = "IDEMPOTENCY_MISMATCH"
	CodeIdempotencyConflict = "IDEMPOTENCY_CONFLICT" // of hirings
	CodeInvalidAmount       = "INVALID_AMOUNT"
	CodeInsufficientBalance = "INSUFFICIENT_BALANCE"
	CodeAgentUnavailable    = "AGENT_UNAVAILABLE"
)

// reply is the response of a platform route.
type reply struct {
	status int
	data   any
	page   *pageInfo
	flat   any       // replaces the whole envelope
	file   *document // replaces the envelope with the bytes of a file
}

type meta struct {
	Version    string    `json:"version"`
	Timestamp  string    `json:"timestamp"`
	RequestID  string    `json:"request_id"`
	Pagination *pageInfo `json:"pagination,omitempty"`
}

type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	Details any    `json:"details,omitempty"`
}

// failure is a refusal that has not been sent yet.
type failure struct {
	status     int
	err        apiError
	retryAfter string
}

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status: status, err: apiError{Code: code, Message: fmt.Sprintf(format, args...)}}
}

func unauthorized(message string) *failure {
	return fail(http.StatusUnauthorized, CodeUnauthorized, "%s", message)
}

func forbidden(format string, args ...any) *failure {
	return fail(http.StatusForbidden, CodeForbidden, format, args...)
}

func notFound(what string) *failure {
	return fail(http.StatusNotFound, CodeNotFound, "%s not found", what)
}

// unavailable is the refusal for an agent that is not active.
func unavailable() *failure {
	return fail(http.StatusServiceUnavailable, CodeAgentUnavailable, "the agent is not active")
}

func routeNotFound(r *http.Request) *failure {
	return fail(http.StatusNotFound, CodeRouteNotFound, "no route for %s %s", r.Method, r.URL.Path)
}

// invalid is the 422 about one field, in both documented forms.
func invalid(field, format string, args ...any) *failure {
	f := fail(http.StatusUnprocessableEntity, CodeValidation, format, args...)
	f.err.Field = field
	f.err.Details = map[string][]string{field: {f.err.Message}}
	return f
}

// defaultCode returns the documented error code of a status.
func defaultCode(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return CodeUnauthorized
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusUnprocessableEntity:
		return CodeValidation
	case http.StatusTooManyRequests:
		return CodeRateLimited
	case http.StatusServiceUnavailable:
		return CodeAgentUnavailable
	case http.StatusGone:
		// No source names a code for a retired endpoint.
		return "GONE"
	default:
		return CodeInternal
	}
}

func encodeReply(r reply, m meta) []byte {
	if r.flat != nil {
		return encode(r.flat)
	}
	m.Pagination = r.page
	return encode(struct {
		Data any  `json:"data"`
		Meta meta `json:"meta"`
	}{r.data, m})
}

func encodeFailure(f *failure, m meta) []byte {
	errs := []apiError{f.err}
	if f.status == http.StatusTooManyRequests {
		// The documented example of a 429 has no data member.
		return encode(struct {
			Meta   meta       `json:"meta"`
			Errors []apiError `json:"errors"`
		}{m, errs})
	}
	return encode(struct {
		Data   any        `json:"data"`
		Meta   meta       `json:"meta"`
		Errors []apiError `json:"errors"`
	}{nil, m, errs})
}

const pageType = "text/html; charset=utf-8"

// htmlPage returns the page that a gateway responds with.
func htmlPage(status int) []byte {
	title := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	return fmt.Appendf(nil, "<!DOCTYPE html>\n<html>\n<head><title>%[1]s</title></head>\n<body>\n<h1>%[1]s</h1>\n</body>\n</html>\n", title)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("agrentingtest: encode a response: %v", err))
	}
	return b
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// optionalTime renders the zero time as null.
func optionalTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return timestamp(t)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// newUUID returns a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// isUUID accepts the canonical text form in either case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
				return false
			}
		}
	}
	return true
}
