package agrenting

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Sentinels for responses of the platform. Use [errors.Is] on any error of a call. The
// [*APIError] in its chain has the details.
var (
	// ErrUnauthorized is a 401: the credential is invalid, expired, or revoked.
	ErrUnauthorized = wire.ErrUnauthorized
	// ErrForbidden is a 403: the credential is valid but may not do this, mostly
	// because it lacks a scope.
	ErrForbidden = errors.New("agrenting: forbidden")
	// ErrNotFound is a 404 of a resource or a route.
	ErrNotFound = errors.New("agrenting: not found")
	// ErrRouteNotFound is a 404 with the code ROUTE_NOT_FOUND: the path itself
	// is unknown to the platform. It is also an [ErrNotFound].
	ErrRouteNotFound = wire.ErrRouteNotFound
	// ErrRateLimited is a 429. [APIError.RetryAfter] says how long to wait.
	ErrRateLimited = errors.New("agrenting: rate limited")
	// ErrConflict is a 409.
	ErrConflict = errors.New("agrenting: conflict")
	// ErrGone is a 410: the route was retired after its Sunset date.
	ErrGone = errors.New("agrenting: gone")
	// ErrValidation is a 422 or a 400. [APIError.Field] and [APIError.Details] name
	// the field.
	ErrValidation = errors.New("agrenting: validation failed")
	// ErrServer is any 5xx.
	ErrServer = errors.New("agrenting: server error")
)

// Sentinels for what the SDK refused or could not do.
var (
	// ErrNoCredential means that no source has a credential.
	ErrNoCredential = secret.ErrNoCredential
	// ErrInvalidCredential means that a credential cannot be sent: it is empty or too
	// long, has white space, control characters, or characters outside ASCII, or is in a
	// file that exists but cannot be read.
	ErrInvalidCredential = secret.ErrInvalidCredential
	// ErrInvalidAgentID means that an agent ID cannot be sent as X-Agent-ID.
	ErrInvalidAgentID = errors.New("agrenting: invalid agent id")
	// ErrInvalidOption means that an option or an argument has a value that cannot be
	// used.
	ErrInvalidOption = origin.ErrInvalid
	// ErrInsecureURL means that plain http was refused.
	ErrInsecureURL = origin.ErrInsecure
	// ErrForeignOrigin means that a redirect or a path leads to an origin that may not
	// receive credentials.
	ErrForeignOrigin = origin.ErrForeign
	// ErrEnvironmentMismatch means that the credential belongs to another environment
	// than the client.
	ErrEnvironmentMismatch = errors.New("agrenting: credential belongs to another environment")
	// ErrLockedOut means that the authenticate endpoint has locked this IP address
	// out. [LockoutError] says until when.
	ErrLockedOut = errors.New("agrenting: this IP address is locked out of authenticate")
	// ErrNotReplayable means that a request that got a 401 was not resent, because its
	// body was already consumed and cannot be rewound.
	ErrNotReplayable = replay.ErrNot
	// ErrNoRecord means that a store has no record of that name.
	ErrNoRecord = record.ErrNoRecord
	// ErrInvalidRecord means that a stored record cannot be used: it is damaged, or
	// another version of this package wrote it. The record is left intact.
	ErrInvalidRecord = record.ErrInvalid
	// ErrReadOnlyStore means that a store cannot be written.
	ErrReadOnlyStore = record.ErrReadOnly
	// ErrConflictingWrite means that another writer has changed the record in the
	// meantime.
	ErrConflictingWrite = record.ErrConflict
	// ErrClosed means that the client was closed.
	ErrClosed = errors.New("agrenting: client is closed")
	// ErrMalformedResponse means that the platform's response could not be decoded, or
	// was larger than the SDK reads.
	ErrMalformedResponse = wire.ErrMalformed
)

// Error codes of the platform that the SDK acts upon (platform documentation,
// "Error Responses" and "Idempotency").
const (
	codeRouteNotFound = "ROUTE_NOT_FOUND"
)

// APIError is an error response of the platform. Most programs only compare it with the
// sentinels, such as [ErrNotFound], by [errors.Is]. It is always returned as a pointer:
//
//	if api, ok := errors.AsType[*agrenting.APIError](err); ok {
//		log.Printf("%s (request %s)", api.Code, api.RequestID) // VALIDATION_ERROR (request req_0f3a5b6c7d8e9f01)
//	}
//
// Its text is safe to log. It contains no query string, and parts of the platform's
// message that look like a secret are redacted. It does not contain Details, which is
// the platform's own JSON, with the request's credential redacted.
//
// If the call was to issue a key, a token, or a session, Message is empty, because the response
// may contain the new secret. Code, Field, Details, and RequestID are then set only if they
// consist of plain words, or if RequestID is a UUID.
type APIError struct {
	// StatusCode is the HTTP status. It is 2xx if the platform reported errors in the
	// envelope of a success.
	StatusCode int
	// Code is the platform's machine-readable code, such as "NOT_FOUND"; empty if the
	// response has none.
	Code string
	// Message is the platform's text, redacted and bounded.
	Message string
	// Field names the invalid field, if the platform does.
	Field string
	// Details is the raw JSON of the error's "details": an object or an array,
	// depending on the route (the platform's documents show both). It is nil if it has more
	// than 16 KiB.
	Details json.RawMessage
	// RequestID is the request ID of the envelope's meta, or of a header.
	RequestID string
	// Hint says in sentences what can be done about the error; empty if that is not known.
	// For a 401, it names the kind, the fingerprint, and the source of the credential
	// that was rejected, such as AGRENTING_API_KEY, or why the request had none of the
	// SDK. It is a part of the error's text.
	Hint string
	// RetryAfter is the platform's Retry-After; zero if it gave none. A date is read
	// relative to the Date of the response, or to the local clock if there is none.
	RetryAfter time.Duration
	// Attempts is how often the request was sent.
	Attempts int
	// Method and Path say which call failed. The path is escaped, has no query string and no
	// credential, and is cut off after 256 characters.
	Method, Path string
	// Others are the further entries of the envelope's errors array, at most 19. They have only
	// StatusCode, Code, Message, Field, and Details.
	Others []*APIError

	more  int   // entries that were left out
	cause error // e.g. ErrNotReplayable
}

// codeOf is the name of a status in the spelling of the platform's codes.
func codeOf(name string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "_", "-", "_", "'", "").Replace(name))
}

// Error implements error. It never contains a credential or a query string. It omits
// a Code that repeats the name of the status.
func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString("agrenting: ")
	if e.Method != "" {
		b.WriteString(e.Method + " " + e.Path + ": ")
	}
	fmt.Fprintf(&b, "%d", e.StatusCode)
	name := http.StatusText(e.StatusCode)
	if name != "" {
		b.WriteString(" " + name)
	}
	if e.Code != "" && e.Code != codeOf(name) {
		b.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Field != "" {
		fmt.Fprintf(&b, " (field %s)", e.Field)
	}
	var notes []string
	if e.RequestID != "" {
		notes = append(notes, "request "+e.RequestID)
	}
	if e.Attempts > 1 {
		notes = append(notes, fmt.Sprintf("%d attempts", e.Attempts))
	}
	if e.more > 0 {
		notes = append(notes, fmt.Sprintf("%d errors not shown", e.more))
	}
	if e.RetryAfter > 0 {
		notes = append(notes, "retry after "+e.RetryAfter.String())
	}
	if len(notes) > 0 {
		b.WriteString(" [" + strings.Join(notes, ", ") + "]")
	}
	if e.cause != nil {
		b.WriteString("; " + e.cause.Error())
	}
	if e.Hint != "" {
		b.WriteString(". " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the reason why the SDK did not resend the request, such as
// [ErrNotReplayable]; nil if there is none.
func (e *APIError) Unwrap() error { return e.cause }

// Is reports whether target is the sentinel of the status or the code.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.StatusCode == http.StatusUnauthorized
	case ErrForbidden:
		return e.StatusCode == http.StatusForbidden
	case ErrNotFound:
		return e.StatusCode == http.StatusNotFound
	case ErrRouteNotFound:
		return e.StatusCode == http.StatusNotFound && e.Code == codeRouteNotFound
	case ErrRateLimited:
		return e.StatusCode == http.StatusTooManyRequests
	case ErrConflict:
		return e.StatusCode == http.StatusConflict
	case ErrGone:
		return e.StatusCode == http.StatusGone
	case ErrValidation:
		return e.StatusCode == http.StatusUnprocessableEntity || e.StatusCode == http.StatusBadRequest
	case ErrServer:
		return e.StatusCode >= http.StatusInternalServerError
	default:
		return false
	}
}

// RenewalError means that a credential could not be obtained or renewed. Most programs only
// check the cause with [errors.Is], and RetryAt.
//
// Requests wait for the next attempt for as long as their context and RetryPolicy.RenewalWait
// allow. They get this error at once
//
//   - if the next attempt is due later than that, for example a Retry-After of 5 min
//   - if the source has been failing for longer than that
//   - if the address is locked out ([LockoutError])
//   - if the platform refuses the key
//   - if another attempt would fail in the same way, as with [ErrNoCredential]
type RenewalError struct {
	// RetryAt is when the SDK tries again, for the next request or without one; zero if
	// another attempt needs a different configuration.
	RetryAt time.Time
	// Rejected reports whether the platform has rejected the credential that was
	// to be renewed. The error then also matches [ErrUnauthorized].
	Rejected bool
	// Failures is how many attempts have failed in a row.
	Failures int
	// Err is why the last attempt failed.
	Err error

	about string // which credential could not be obtained
}

// Error implements error.
func (e *RenewalError) Error() string {
	var b strings.Builder
	b.WriteString("agrenting: cannot obtain a credential")
	switch {
	case e.about != "":
		b.WriteString(" " + e.about)
	case e.Rejected:
		b.WriteString(" in place of the one that the platform rejected")
	}
	hint := ""
	if e.Err != nil {
		text := e.Err.Error()
		if api, ok := errors.AsType[*APIError](e.Err); ok && api.Hint != "" {
			hint = ". " + api.Hint
			text = strings.Replace(text, hint, "", 1)
		}
		// The errors of sources may contain URLs with query strings.
		b.WriteString(": " + strings.TrimPrefix(secret.Clean(secret.WithoutQueries(text)), "agrenting: "))
	}
	b.WriteString(hint)
	if !e.RetryAt.IsZero() {
		fmt.Fprintf(&b, ". The next try is at %s", e.RetryAt.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *RenewalError) Unwrap() error { return e.Err }

// Is matches [ErrUnauthorized] if the platform had rejected the credential.
func (e *RenewalError) Is(target error) bool {
	return target == ErrUnauthorized && e.Rejected
}

// LockoutError means that the platform has locked this IP address out of its
// authenticate endpoint: after more than 10 calls in a minute, for 5 minutes (platform
// documentation, "Rate Limits"). Neither requests nor renewals cause an exchange until
// RetryAt. [SessionService.Authenticate] does, and so does a rotation in place that
// needs a session to fetch a lost response again.
type LockoutError struct {
	// RetryAt is when the lockout ends, on the local clock.
	RetryAt time.Time
	// Err is the platform's response.
	Err error
}

// Error implements error.
func (e *LockoutError) Error() string {
	return fmt.Sprintf("%v until %s. Share sessions between processes through a store (WithStore or SessionPolicy.Store), or exchange less often",
		ErrLockedOut, e.RetryAt.UTC().Format(time.RFC3339))
}

// Unwrap returns the platform's response.
func (e *LockoutError) Unwrap() error { return e.Err }

// Is matches [ErrLockedOut].
func (e *LockoutError) Is(target error) bool { return target == ErrLockedOut }
