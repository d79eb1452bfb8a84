package agrenting

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// sealer encrypts: AES-256-GCM under a key that only holders of the secret can
// derive. Secrets are random and long, so no password hashing is needed. What
// is sealed has a salt, and so a key, of its own each time: nonces cannot
// collide. info says what it is and where it belongs: it opens nowhere else.
type sealer struct {
	secret secret.Text
	info   string
}

const (
	sealMagic = "agrs1"
	sealSalt  = 32
)

func (s sealer) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(s.secret.Reveal()), salt, s.info, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s sealer) seal(plain []byte) ([]byte, error) {
	salt := make([]byte, sealSalt)
	_, _ = rand.Read(salt) // never fails, says crypto/rand
	aead, err := s.aead(salt)
	if err != nil {
		return nil, err
	}
	out := append([]byte(sealMagic), salt...)
	return aead.Seal(out, nil, plain, []byte(s.info)), nil //nolint:gosec // this AEAD makes the nonce itself
}

var errUnsealable = errors.New("agrenting: the record is damaged, or was sealed under another key")

func (s sealer) open(sealed []byte) ([]byte, error) {
	if len(sealed) < len(sealMagic)+sealSalt || string(sealed[:len(sealMagic)]) != sealMagic {
		return nil, errUnsealable
	}
	salt := sealed[len(sealMagic) : len(sealMagic)+sealSalt]
	aead, err := s.aead(salt)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[len(sealMagic)+sealSalt:], []byte(s.info))
	if err != nil {
		return nil, errUnsealable
	}
	return plain, nil
}
