// Package retry sends a request again after a transient failure. It decides which
// requests and which outcomes allow that, how long to wait, and when to stop.
//
// It must not know credentials, or what a 401 means. Callers pass the function that
// makes one attempt.
package retry
