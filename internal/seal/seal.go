package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Sealer encrypts with AES-256-GCM under a key that only holders of the secret
// can derive (HKDF-SHA-256). The secret is long and random, so no password
// hashing is needed. Every sealed text has its own salt and therefore its own
// key, so nonces cannot collide. Info binds a sealed text to its purpose and
// place: it cannot be opened with a different Info.
type Sealer struct {
	Secret secret.Text
	Info   string
}

const (
	sealMagic = "agrs1"
	sealSalt  = 32
)

// ErrUnsealable means that a sealed text is damaged, or was sealed under
// another key or for another place.
var ErrUnsealable = errors.New("agrenting: the record is damaged, or was sealed under another key")

func (s Sealer) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(s.Secret.Reveal()), salt, s.Info, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal encrypts plain.
func (s Sealer) Seal(plain []byte) ([]byte, error) {
	salt := make([]byte, sealSalt)
	_, _ = rand.Read(salt) // crypto/rand documents that this never fails
	aead, err := s.aead(salt)
	if err != nil {
		return nil, err
	}
	out := append([]byte(sealMagic), salt...)
	return aead.Seal(out, nil, plain, []byte(s.Info)), nil // #nosec G407 -- this AEAD makes the nonce itself
}

// Open decrypts what Seal returned, or fails with [ErrUnsealable].
func (s Sealer) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < len(sealMagic)+sealSalt || string(sealed[:len(sealMagic)]) != sealMagic {
		return nil, ErrUnsealable
	}
	salt := sealed[len(sealMagic) : len(sealMagic)+sealSalt]
	aead, err := s.aead(salt)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[len(sealMagic)+sealSalt:], []byte(s.Info))
	if err != nil {
		return nil, ErrUnsealable
	}
	return plain, nil
}
