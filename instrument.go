package agrenting

import "time"

// RequestInfo describes a request that begins, see [Instrumentation]. New fields may be
// added.
type RequestInfo struct {
	// Method, Scheme, Host, and Path are those of the request, such as "GET", "https",
	// "agrenting.com", and "/api/v1/agents". Host has the port if the URL has one. Path is
	// escaped and at most 256 characters long, without anything that looks like a secret.
	// It contains IDs and may be any path, so it is not suited as a label of a metric.
	Method, Scheme, Host, Path string
	// Purpose is empty for a request of the program. For a request that the SDK makes
	// itself, it is "exchange" (of a key for a session), "logout", "verify" (asking the
	// platform whether it knows a credential), or "rotate".
	Purpose string
}

// RequestResult describes how a request ended. New fields may be added.
type RequestResult struct {
	// StatusCode is that of the response; 0 if there is none.
	StatusCode int
	// Err is the error that the caller gets; nil if there is a response. Its text may quote
	// what a server sent.
	Err error
	// Attempts is how often the request was sent, 0 if it was not.
	Attempts int
	// Duration is how long the request took, including all waiting.
	Duration time.Duration
	// RequestID is the ID in the headers of the response, empty if there is none. It is also
	// empty if the response may have a new secret, or if the SDK itself made the request,
	// unless it is a UUID.
	RequestID string
	// Rate is the state of the rate limit.
	Rate Rate
}

// AttemptInfo describes one sending of a request, see [Instrumentation]. New fields may be
// added.
type AttemptInfo struct {
	// Number counts the attempts of the request from 1.
	Number int
	// Reason is "first", "retry" (after a transient failure), or, for a resend after a 401,
	// "same" (with the same credential, which may be valid), "renewed" (the credential was
	// renewed because of the 401), or "switched" (a newer credential was already in use).
	Reason string
	// Generation, Kind, and Fingerprint describe the credential that the SDK adds. They are
	// zero if it adds none: at other origins, and if the caller has set a credential.
	// Generation is also zero for requests that the SDK makes itself.
	Generation  uint64
	Kind        Kind
	Fingerprint string
	// Source is where that credential is from, as in [Status], such as "AGRENTING_API_KEY".
	Source string
	// Waited is how long the request waited for this credential. After a 401, it includes
	// the time that the SDK needs to find out whether the credential is still valid.
	Waited time.Duration
}

// AttemptResult describes how an attempt ended. New fields may be added.
type AttemptResult struct {
	// StatusCode is that of the response; 0 if there is none.
	StatusCode int
	// Err is the error of the base transport; nil if there is a response. Its text may quote
	// what a server sent.
	Err error
	// Duration is how long the attempt took.
	Duration time.Duration
}
