package session

import (
	"context"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Platform makes the calls. Each method makes one attempt.
type Platform interface {
	// Authenticate calls the authenticate endpoint at path with a key. Its error
	// matches [wire.ErrUnauthorized] if the platform refused the key, and
	// [wire.ErrRouteNotFound] if it does not know the path. With an error, the answer is
	// the response, or nil if there was none. leave is set if no further request may use
	// the connection of the call.
	Authenticate(ctx context.Context, path string, key secret.Credential, leave bool) (*wire.Answer, error)
	// SessionDead reports whether the platform has proven that a session is dead. lately
	// is set if the session was issued a moment ago, so that parts of the platform may
	// not know it yet.
	SessionDead(ctx context.Context, session secret.Credential, lately bool) bool
	// KeyDead reports whether a key that Authenticate has refused is dead.
	KeyDead(ctx context.Context, key secret.Credential) bool
	// RetryAt returns when the endpoint may be called again after an error of
	// Authenticate; zero if the error does not say. locked is set if the address
	// is locked out until then.
	RetryAt(err error) (at time.Time, locked bool)
}

// Keys yields the API key.
type Keys interface {
	// Key returns the key to exchange.
	Key(ctx context.Context) (secret.Credential, error)
	// Successor returns the key to use after the platform has refused a key. It may be
	// the same one.
	Successor(ctx context.Context, refused secret.Credential) (secret.Credential, error)
	// Lineage identifies the keys that share sessions with key.
	Lineage(key secret.Credential) string
	// Recheck is how often the key is read again while requests use its session; 0
	// means only when a session is needed.
	Recheck() time.Duration
	// Admit refuses a credential that this client must not send.
	Admit(c secret.Credential) error
}

// Report receives events. Its methods must not block.
type Report interface {
	// StoreFailed reports that the store could not do what it was asked to do.
	StoreFailed(what string, err error)
}
