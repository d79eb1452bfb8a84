package rotation

import (
	"errors"
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Errors of rotations. The root package gives callers its own sentinels for them.
var (
	// ErrClosed says that the manager was closed.
	ErrClosed = errors.New("agrenting: the rotation was ended by Close")
	// ErrNotRotatable says that the credential in the store is not an API key.
	ErrNotRotatable = errors.New("agrenting: the platform rotates API keys only")
	// ErrNotKnown says that the ID of a key, or whose key it is, is not known.
	ErrNotKnown = errors.New("agrenting: the key is not fully known")
	// ErrNoKeyFound says that no key was found in a response that should have one.
	ErrNoKeyFound = errors.New("agrenting: no key was found in the platform's response")
	// ErrEmpty says that the store is empty and there is no initial key.
	ErrEmpty = errors.New("agrenting: the store is empty")
)

// PausedError says that the next attempt to finish a rotation is not due yet.
type PausedError struct {
	At  time.Time
	Err error
}

// Error implements error.
func (e *PausedError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the last attempt.
func (e *PausedError) Unwrap() error { return e.Err }

// errDropped says that an unfinished rotation could only be undone.
var errDropped = errors.New("agrenting: an unfinished rotation was undone")

// Error says where a rotation stopped, what is known, and what to do.
type Error struct {
	Stage    Stage
	Strategy Strategy
	// State says which key is live and what was saved, Advice what to do.
	State, Advice string
	Err           error
	// New is a key that was issued and could not be saved; Raw is a response in
	// which no key was found.
	New secret.Credential
	Raw secret.Text
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("rotation stopped at %s: %v", e.Stage, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func isError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// What is known in most failures.
const (
	nothingChanged = "nothing was changed, the key is live"
	fixStore       = "fix the store"
)
