package secret

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoCredential means that a source has no credential.
	ErrNoCredential = errors.New("agrenting: no credential")
	// ErrInvalidCredential means that a text cannot be a credential, see [Problem].
	ErrInvalidCredential = errors.New("agrenting: invalid credential")
)

// userTokenPrefix begins the tokens of users. The platform's Channels page gives agents
// keys with the same prefix, so it supports a guess and no more.
const userTokenPrefix = "ap_"

// Parse returns the credential in a text from outside the program. White space around
// it is removed. Anything else that was copied with it is refused, although a credential
// that the platform has issued may look like that. If kind is zero, it is guessed by the
// prefix. The error matches [ErrInvalidCredential], names the text as what, and shows no
// part of it.
func Parse(what, text string, kind Kind) (Credential, error) {
	text = strings.TrimSpace(text)
	problem := surroundings(text)
	if problem == "" {
		problem = Problem(text)
	}
	if problem == "" {
		problem = punctuation(text)
	}
	if problem != "" {
		return Credential{}, fmt.Errorf("%w: %s %s", ErrInvalidCredential, what, problem)
	}
	if kind == 0 {
		kind = KindAPIKey
		if strings.HasPrefix(text, userTokenPrefix) {
			kind = KindUserToken
		}
	}
	return NewCredential(Material{Kind: kind, Secret: text}), nil
}

// Marked reports whether c begins as the tokens of users do.
func (c Credential) Marked() bool { return strings.HasPrefix(c.Reveal(), userTokenPrefix) }
