package webhook

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// minSecret is the length of the shortest secret, in bytes. A shorter one can be guessed from a
// signature, or from its fingerprint in a log.
const minSecret = 16

// ErrInvalidSecret means that a text cannot be a secret: it is shorter than 16 bytes, longer than
// 4096 bytes, enclosed in quotation marks or brackets, or contains white space, control
// characters, or characters that are not ASCII.
var ErrInvalidSecret = errors.New("agrenting: invalid webhook secret")

// A Secret signs the webhooks of one registration. When you register a webhook, the platform
// shows a secret once, or uses yours. A Secret prints, logs, and encodes as its fingerprint; only
// [Secret.Reveal] returns the secret itself. A Secret is immutable and safe for concurrent use.
// The zero value is not a valid secret.
type Secret struct{ text secret.Text }

// ParseSecret returns a Secret for text, without the white space around it, such as the newline
// at the end of a file. The characters themselves are the key of the HMAC; they are not decoded.
// A secret must have at least 16 bytes; "openssl rand -hex 32" generates a good one. The error
// matches [ErrInvalidSecret] and does not show any part of the text.
func ParseSecret(text string) (Secret, error) {
	s := Secret{text: secret.New(strings.Clone(strings.TrimSpace(text)))}
	if err := s.check(); err != nil {
		return Secret{}, err
	}
	return s, nil
}

// check returns an error if s cannot be used. Anyone could sign with an empty secret.
func (s Secret) check() error {
	text := s.Reveal()
	if problem := secret.Problem(text); problem != "" {
		return fmt.Errorf("%w: it %s", ErrInvalidSecret, problem)
	}
	if len(text) < minSecret {
		return fmt.Errorf("%w: it has %d bytes, and at least %d random ones are needed; make one with: openssl rand -hex 32",
			ErrInvalidSecret, len(text), minSecret)
	}
	return nil
}

// IsZero reports whether s is the zero value.
func (s Secret) IsZero() bool { return s.text.IsZero() }

// Reveal returns the secret. No other method does.
func (s Secret) Reveal() string { return s.text.Reveal() }

// Fingerprint returns a short name of the secret, such as "sha256:1a2b3c4d5e", that is safe in
// logs. It returns "" for the zero value.
func (s Secret) Fingerprint() string { return s.text.Fingerprint() }

// String returns a summary without the secret.
func (s Secret) String() string {
	if s.IsZero() {
		return "webhook.Secret(none)"
	}
	return "webhook.Secret(" + s.Fingerprint() + ")"
}

// GoString returns the same as String.
func (s Secret) GoString() string { return s.String() }

// Format writes what String returns, for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns the same as String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the same as String. The result cannot be decoded.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
