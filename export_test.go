package agrenting

import (
	"context"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/filestore"
	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// This file exports to the tests in package agrenting_test what they check apart
// from the public surface.

const (
	MaxAgentID   = maxAgentID
	MaxBody      = maxBody
	MaxErrorBody = maxErrorBody
	MaxSunsets   = 256
	DefaultDrain = defaultDrain
)

type (
	Config     = config
	CallConfig = callConfig
	SunsetLog  struct{ hint.Once }
)

func ValidateAgentID(id string) error { return validateAgentID(id) }

func (s *SunsetLog) First(method, path string) bool {
	return s.Once.First(method + " " + routeOf(path))
}

// BaseOf is the transport below a client.
func BaseOf(c *Client) http.RoundTripper { return c.transport.base }

// CausedBy is e as a response that was abandoned because of err.
func CausedBy(err error, e APIError) *APIError {
	e.cause = err
	return &e
}

// KeyEndingIn is a key of which the platform shows the end.
func KeyEndingIn(hint string) *Key { return &Key{hintEnd: hint} }

func (k *Key) Fits(s string) bool { return k.fits(s) }

// IssuedErrorWith is an error that keeps a response.
func IssuedErrorWith(err error, answer string) *IssuedSecretError {
	return &IssuedSecretError{Err: err, raw: secret.New(answer)}
}

// RotationErrorWith is an error that keeps a key and a response.
func RotationErrorWith(key Credential, answer string) *RotationError {
	return &RotationError{new: key, raw: secret.New(answer)}
}

// FileStoreBefore is a [FileStore] that calls before prior to each step of a write.
func FileStoreBefore(folder string, before func(durable.Step) error) (Store, error) {
	file, err := filestore.New(filestore.Config{Folder: folder, Invalid: fileStoreError, Before: before})
	if err != nil {
		return nil, err
	}
	return publicStore(file, false), nil
}

// ManagerOf is what rotates the key of a client.
func ManagerOf(c *Client) *rotation.Manager { return c.core.stored.manager }

// Adopt reports a key to a client, as its store does.
func Adopt(ctx context.Context, c *Client, key record.StoredKey) error {
	return c.core.stored.Adopt(ctx, key, renew.Adopted)
}

// Serves reports whether a client uses a key.
func Serves(c *Client, key secret.Credential) bool { return c.core.stored.Serves(key) }

// MessageOf is the text of the log record of an event.
func MessageOf(t EventType) string { return messages[t] }
