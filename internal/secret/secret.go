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

// Placeholder is what stands where a secret would have stood.
const Placeholder = "[redacted]"

// fingerprintDomain keeps a fingerprint from being looked up in a table of
// plain SHA-256 sums, and from matching a sum that somebody else publishes.
const fingerprintDomain = "secret fingerprint v1\x00"

// fingerprintBytes is how much of the sum a fingerprint shows: enough to tell
// apart the few secrets that one deployment ever sees, too little to confirm a
// guess beyond doubt.
const fingerprintBytes = 5

var (
	errDecode = errors.New("secret: a secret cannot be decoded into this type: its encoded form is redacted")
	errEncode = errors.New("secret: a secret cannot be encoded: encode what Reveal returns, if that is meant")
)

// Text is a secret string. The zero value holds the empty string.
//
// A Text is immutable and safe for concurrent use. The string sits behind a
// closure, because fmt, log/slog, encoders and the diff printers of test
// libraries all reach plain fields, exported or not, and pointers as well, but
// none of them looks into a func. For the same reason == does not compile; use
// [Text.Equal].
type Text struct {
	v func() string
}

// New returns a Text that holds s.
func New(s string) Text {
	return Text{v: func() string { return s }}
}

// Reveal returns the secret. Nothing else does.
func (t Text) Reveal() string {
	if t.v == nil {
		return ""
	}

	return t.v()
}

// IsZero reports whether t holds the empty string.
func (t Text) IsZero() bool { return t.Reveal() == "" }

// Equal reports whether both hold the same secret, in a time that does not
// depend on where they differ.
func (t Text) Equal(other Text) bool { return Equal(t.Reveal(), other.Reveal()) }

// Fingerprint returns [Fingerprint] of the secret.
func (t Text) Fingerprint() string { return Fingerprint(t.Reveal()) }

// String returns [Placeholder].
func (Text) String() string { return Placeholder }

// GoString returns [Placeholder].
func (Text) GoString() string { return Placeholder }

// Format writes [Placeholder], whatever the verb and its flags.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Placeholder) }

// LogValue returns [Placeholder].
func (Text) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalText returns [Placeholder].
func (Text) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON returns [Placeholder] as a JSON string.
func (Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// UnmarshalText always fails: what MarshalText wrote is not the secret, and
// taking it for one would only be noticed much later.
func (Text) UnmarshalText([]byte) error { return errDecode }

// GobEncode always fails: gob is meant for reading back, and a redacted secret
// read back is a wrong secret.
func (Text) GobEncode() ([]byte, error) { return nil, errEncode }

// GobDecode always fails, as UnmarshalText does.
func (Text) GobDecode([]byte) error { return errDecode }

// Digest returns a sum of fixed length by which secrets are compared.
func Digest(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

// Equal reports whether a and b are the same. Both are hashed to a fixed length
// first, so that neither content nor length shows in the time it takes.
func Equal(a, b string) bool {
	da, db := Digest(a), Digest(b)

	return subtle.ConstantTimeCompare(da[:], db[:]) == 1
}

// Fingerprint returns a short name of s that is safe in logs, such as
// "sha256:1a2b3c4d5e", and "" for the empty string. It is the same in every
// process and on every machine. It cannot be turned back, but whoever can list
// all secrets that come into question can find the one it belongs to, so it is
// no protection for a secret with little entropy, such as a word.
func Fingerprint(s string) string {
	if s == "" {
		return ""
	}

	sum := sha256.Sum256([]byte(fingerprintDomain + s))

	return "sha256:" + hex.EncodeToString(sum[:fingerprintBytes])
}
