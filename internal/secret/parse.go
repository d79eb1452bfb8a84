package secret

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoCredential means that a source has no credential.
	ErrNoCredential = errors.New("agrenting: no credential")
	// ErrInvalidCredential means that a text cannot be a credential; see [Problem].
	ErrInvalidCredential = errors.New("agrenting: invalid credential")
)

// userTokenPrefix begins user tokens. According to the platform's Channels page, keys of
// agents have the same prefix, so it supports only a guess.
const userTokenPrefix = "ap_"

// Parse returns the credential in a text from outside the program. It removes white
// space around the text. If other characters seem to have been copied with the
// credential, Parse returns an error, even though the platform may issue a credential
// that looks like this. If kind is zero, it is guessed from the prefix. The error
// matches [ErrInvalidCredential], calls the text what, and shows no part of it.
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

// Marked reports whether c begins with the prefix of user tokens.
func (c Credential) Marked() bool { return strings.HasPrefix(c.Reveal(), userTokenPrefix) }
