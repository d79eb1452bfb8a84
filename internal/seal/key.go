package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Key is a sealing key: 256 random bits. The zero value is not a key. It is
// immutable and safe for concurrent use.
type Key struct{ bits secret.Text }

const (
	keyPrefix   = "agrseal1_"
	keySize     = 32
	keyChecksum = 4
)

// NewKey returns a random key.
func NewKey() Key {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // crypto/rand documents that this never fails
	return Key{bits: secret.New(string(raw))}
}

// ParseKey reads a text that [Key.Reveal] returned. It ignores white space around
// the text. If text is not a key, problem says why, in words that follow a noun.
// It does not show any part of text.
func ParseKey(text string) (key Key, problem string) {
	text = strings.TrimSpace(text)
	const advice = "pass exactly what SealingKey.Reveal returned"
	rest, ok := strings.CutPrefix(text, keyPrefix)
	switch {
	case text == "":
		return Key{}, "is empty; check that the variable or file that it comes from is set and not empty"
	case !ok:
		return Key{}, fmt.Sprintf("does not begin with %q; create a sealing key with NewSealingKey", keyPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(raw) != keySize+keyChecksum {
		return Key{}, "is cut off or altered; " + advice
	}
	bits := string(raw[:keySize])
	if string(raw[keySize:]) != checksumOf(bits) {
		return Key{}, "has a typing error; " + advice
	}
	return Key{bits: secret.New(bits)}, ""
}

func checksumOf(bits string) string {
	sum := sha256.Sum256([]byte("agrenting sealing key checksum\x00" + bits))
	return string(sum[:keyChecksum])
}

// IsZero reports whether k is the zero value.
func (k Key) IsZero() bool { return k.bits.IsZero() }

// Reveal returns the written form of the key, or "" for the zero value.
func (k Key) Reveal() string {
	if k.IsZero() {
		return ""
	}
	bits := k.bits.Reveal()
	return keyPrefix + base64.RawURLEncoding.EncodeToString([]byte(bits+checksumOf(bits)))
}

// Fingerprint returns a short name of the key, such as "sha256:1a2b3c4d5e", or ""
// for the zero value.
func (k Key) Fingerprint() string { return k.bits.Fingerprint() }

// For returns a sealer for the texts that info describes.
func (k Key) For(info string) Sealer { return Sealer{Secret: k.bits, Info: info} }
