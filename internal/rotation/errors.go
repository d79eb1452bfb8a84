package rotation

import (
	"errors"
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Errors of rotations. The root package replaces them with its own sentinels.
var (
	// ErrClosed means that the manager was closed.
	ErrClosed = errors.New("agrenting: the rotation was ended by Close")
	// ErrNotRotatable means that the credential in the store is not an API key.
	ErrNotRotatable = errors.New("agrenting: the platform rotates API keys only")
	// ErrNotKnown means that the ID of a key, or the agent that it belongs to, is
	// not known.
	ErrNotKnown = errors.New("agrenting: incomplete information about the key")
	// ErrNoKeyFound means that a response that should contain a key does not
	// contain one.
	ErrNoKeyFound = errors.New("agrenting: no key was found in the platform's response")
	// ErrEmpty means that the store is empty and an initial key is missing.
	ErrEmpty = errors.New("agrenting: the store is empty")
)

// PausedError means that the next attempt to finish a rotation is not due yet.
type PausedError struct {
	At  time.Time
	Err error
}

// Error implements error.
func (e *PausedError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the last attempt.
func (e *PausedError) Unwrap() error { return e.Err }

// errDropped means that an unfinished rotation could only be undone.
var errDropped = errors.New("agrenting: an unfinished rotation was undone")

// Error says where a rotation stopped, what is known, and what to do. With a Stage
// such as StageRevoke, requests already use the new key, but the old key may still
// be live. Most programs only read Stage, State, and Advice.
type Error struct {
	Stage    Stage
	Strategy Strategy
	// State says which key is live and what was saved. Advice says what to do.
	State, Advice string
	Err           error
	// New is a key that was issued but could not be saved. Raw is a response in
	// which no key was found.
	New secret.Credential
	Raw secret.Text
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("rotation failed at stage %s: %v", e.Stage, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func isError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// These texts say what is known after most failures.
const (
	nothingChanged = "Nothing was changed; the current key is live"
	fixStore       = "Fix the store and retry"
)
