package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Placeholder replaces each secret in a text.
const Placeholder = "[redacted]"

// fingerprintDomain prevents looking up a fingerprint in a table of plain
// SHA-256 sums, and prevents matches with sums that are published elsewhere.
const fingerprintDomain = "secret fingerprint v1\x00"

// fingerprintBytes is how many bytes of the sum a fingerprint shows. They
// suffice to distinguish the few secrets of one deployment, but not to confirm
// a guess with certainty.
const fingerprintBytes = 5

var (
	errDecode = errors.New("secret: a secret cannot be decoded into this type: its encoded form is redacted")
	errEncode = errors.New("secret: a secret cannot be encoded: to store the secret, encode the result of Reveal")
)

// Text is a secret string. The zero value contains the empty string.
//
// A Text is immutable and safe for concurrent use. The string is in a closure.
// fmt, log/slog, encoders, and the diff printers of test libraries all read
// plain fields, exported or not, and pointers, but none of them reads a
// function value. For the same reason == does not compile; use [Text.Equal].
type Text struct {
	v func() string
}

// New returns a Text that contains s.
func New(s string) Text {
	return Text{v: func() string { return s }}
}

// Reveal returns the secret. No other method does.
func (t Text) Reveal() string {
	if t.v == nil {
		return ""
	}

	return t.v()
}

// IsZero reports whether t contains the empty string.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both contain the same secret, in a time that does not
// depend on where they differ.
func (t Text) Equal(other Text) bool { return Equal(t.Reveal(), other.Reveal()) }

// Fingerprint returns [Fingerprint] of the secret.
func (t Text) Fingerprint() string { return Fingerprint(t.Reveal()) }

// String returns [Placeholder].
func (Text) String() string { return Placeholder }

// GoString returns [Placeholder].
func (Text) GoString() string { return Placeholder }

// Format writes [Placeholder], for every verb and flag.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Placeholder) }

// LogValue returns [Placeholder].
func (Text) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalText returns [Placeholder].
func (Text) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON returns [Placeholder] as a JSON string.
func (Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// UnmarshalText always fails. The output of MarshalText is not the secret, and
// using it as the secret would be noticed only much later.
func (Text) UnmarshalText([]byte) error { return errDecode }

// GobEncode always fails. Gob data is meant to be decoded, and a decoded
// redacted secret would be a wrong secret.
func (Text) GobEncode() ([]byte, error) { return nil, errEncode }

// GobDecode always fails, as UnmarshalText does.
func (Text) GobDecode([]byte) error { return errDecode }

// Digest returns a sum of fixed length by which secrets are compared.
func Digest(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

// Equal reports whether a and b are equal. Both are hashed to a fixed length
// first, so that the time it takes depends neither on their content nor on
// their length.
func Equal(a, b string) bool {
	da, db := Digest(a), Digest(b)

	return subtle.ConstantTimeCompare(da[:], db[:]) == 1
}

// Fingerprint returns a short name of s that is safe in logs, such as
// "sha256:1a2b3c4d5e", or "" for the empty string. It is the same in every
// process and on every machine. It cannot be reversed. But someone who can list
// all possible secrets can find the matching one, so it does not protect a
// secret with little entropy, such as a word.
func Fingerprint(s string) string {
	if s == "" {
		return ""
	}

	sum := sha256.Sum256([]byte(fingerprintDomain + s))

	return "sha256:" + hex.EncodeToString(sum[:fingerprintBytes])
}
