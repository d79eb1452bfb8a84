package agrenting

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// A SealingKey encrypts what a store keeps, see [Sealed]. It is random, 256 bits
// long, and no password. It prints, logs and encodes as its fingerprint; only
// [SealingKey.Reveal] gives it. The zero value is no key. It is immutable and
// safe for concurrent use.
type SealingKey struct{ key secret.Text }

const (
	sealingKeyPrefix   = "agrseal1_"
	sealingKeySize     = 32
	sealingKeyChecksum = 4
	// maxSealingFile leaves room for blank lines.
	maxSealingFile = 4 << 10
)

// NewSealingKey makes a random key. Keep what its Reveal returns in a place of
// its own, away from the store that it seals: without it, the stored keys are
// lost.
func NewSealingKey() SealingKey {
	raw := make([]byte, sealingKeySize)
	_, _ = rand.Read(raw) // never fails, says crypto/rand
	return SealingKey{key: secret.New(string(raw))}
}

// ParseSealingKey reads what [SealingKey.Reveal] returned; white space around it
// is dropped. The error is an [ErrInvalidCredential] and shows nothing of text.
func ParseSealingKey(text string) (SealingKey, error) {
	return parseSealingKey("the sealing key", text)
}

func parseSealingKey(what, text string) (SealingKey, error) {
	text = strings.TrimSpace(text)
	const advice = "give it as SealingKey.Reveal returned it"
	rest, ok := strings.CutPrefix(text, sealingKeyPrefix)
	switch {
	case text == "":
		return SealingKey{}, fmt.Errorf("%w: %s is empty", ErrInvalidCredential, what)
	case !ok:
		return SealingKey{}, fmt.Errorf("%w: %s does not begin with %q, so it is none; make one by NewSealingKey",
			ErrInvalidCredential, what, sealingKeyPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(raw) != sealingKeySize+sealingKeyChecksum {
		return SealingKey{}, fmt.Errorf("%w: %s is cut off or altered; %s", ErrInvalidCredential, what, advice)
	}
	key := string(raw[:sealingKeySize])
	if string(raw[sealingKeySize:]) != checksumOf(key) {
		return SealingKey{}, fmt.Errorf("%w: %s has a typing error; %s", ErrInvalidCredential, what, advice)
	}
	return SealingKey{key: secret.New(key)}, nil
}

func checksumOf(key string) string {
	sum := sha256.Sum256([]byte("agrenting sealing key checksum\x00" + key))
	return string(sum[:sealingKeyChecksum])
}

// SealingKeyFromEnv reads a key from a variable. lookup has the shape of
// [os.LookupEnv]; nil is the environment of the process. A variable that is
// unset or empty is an [ErrNoCredential].
func SealingKeyFromEnv(lookup func(name string) (value string, found bool), name string) (SealingKey, error) {
	if lookup == nil {
		lookup = processEnvironment
	}
	value, _ := lookup(name)
	if value == "" {
		return SealingKey{}, fmt.Errorf("%w: %s is not set, and has to hold the sealing key; make one by NewSealingKey",
			ErrNoCredential, name)
	}
	return parseSealingKey(name, value)
}

// SealingKeyFromFile reads a key from a file that holds it alone. The file must
// be a regular one that only its owner can read (0600). One that does not exist
// is an [ErrNoCredential].
func SealingKeyFromFile(path string) (SealingKey, error) {
	b, err := durable.New(path, maxSealingFile, nil).Read()
	if errors.Is(err, fs.ErrNotExist) {
		return SealingKey{}, fmt.Errorf("%w: the sealing key's file %s does not exist", ErrNoCredential, quotePath(path))
	}
	if err != nil {
		return SealingKey{}, fmt.Errorf("agrenting: sealing key: %w", err)
	}
	return parseSealingKey("the content of "+quotePath(path), string(b))
}

// IsZero reports whether k is the zero value, which is no key.
func (k SealingKey) IsZero() bool { return k.key.IsZero() }

// Reveal returns the key as text, for [ParseSealingKey], and is the only method
// that does; "" for the zero value.
func (k SealingKey) Reveal() string {
	if k.IsZero() {
		return ""
	}
	raw := k.key.Reveal()
	return sealingKeyPrefix + base64.RawURLEncoding.EncodeToString([]byte(raw+checksumOf(raw)))
}

// Fingerprint returns a short name of the key like "sha256:1a2b3c4d5e", safe in
// logs; "" for the zero value.
func (k SealingKey) Fingerprint() string { return k.key.Fingerprint() }

// String returns a summary without the key.
func (k SealingKey) String() string {
	if k.IsZero() {
		return "agrenting.SealingKey(none)"
	}
	return "agrenting.SealingKey(" + k.Fingerprint() + ")"
}

// GoString returns what String returns.
func (k SealingKey) GoString() string { return k.String() }

// Format writes what String returns, whatever the verb and its flags.
func (k SealingKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns what String returns.
func (k SealingKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (k SealingKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON returns what String returns, as a JSON string. It cannot be read
// back.
func (k SealingKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

var errSealingKeyDecode = errors.New("agrenting: a SealingKey cannot be decoded, because it is redacted when encoded: " +
	"decode the text and pass it to ParseSealingKey")

// UnmarshalText always fails: what MarshalText wrote is not the key.
func (SealingKey) UnmarshalText([]byte) error { return errSealingKeyDecode }

// GobEncode always fails, because gob is meant for reading back.
func (SealingKey) GobEncode() ([]byte, error) { return nil, errSealingKeyDecode }

// GobDecode always fails, as UnmarshalText does.
func (SealingKey) GobDecode([]byte) error { return errSealingKeyDecode }
