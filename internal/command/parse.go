package command

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// kinds maps the names that "agrenting credential" writes to the kinds.
var kinds = map[string]secret.Kind{
	"api_key": secret.KindAPIKey, "user_token": secret.KindUserToken, "session": secret.KindSession,
}

// secretMembers may contain the secret, with the kind that each one implies; zero means that the
// kind is guessed.
var secretMembers = []struct {
	name string
	kind secret.Kind
}{
	{"secret", 0}, // agrenting credential
	{"api_key", 0},
	{"session_token", secret.KindSession},
	{"access_token", secret.KindSession}, // OAuth 2.0 (RFC 6749, section 5.1)
	{"token", 0},                         // ExecCredential of Kubernetes
}

// expiryMembers may contain the time at which the credential ends.
var expiryMembers = []string{"expires", "expires_at", "expiry", "expiration", "expirationTimestamp"}

// nests may contain all of these: status in an ExecCredential, and data in the platform's
// envelope.
var nests = []string{"status", "data"}

// parse reads the output of a program: the secret alone, or a JSON object with the secret and
// its expiry. Errors do not show any part of the output.
func parse(name, output string) (secret.Credential, error) {
	output = strings.TrimSpace(strings.TrimPrefix(output, "\xef\xbb\xbf"))
	what := "the output of command " + name
	if output == "" {
		return secret.Credential{}, fmt.Errorf("%w: command %s printed nothing", secret.ErrNoCredential, name)
	}
	if output[0] != '{' {
		return secret.Parse(what, output, 0)
	}
	var o wire.Object
	if json.Unmarshal([]byte(output), &o) != nil {
		return secret.Credential{}, fmt.Errorf("%w: %s begins like JSON, but cannot be decoded", secret.ErrInvalidCredential, what)
	}
	for _, in := range append([]wire.Object{o}, o.Object(nests[0]), o.Object(nests[1])) {
		for _, m := range secretMembers {
			if text := in.String(m.name); text != "" {
				return fromObject(what, in, m.name, m.kind)
			}
		}
	}
	return secret.Credential{}, fmt.Errorf(`%w: %s has no member "secret" with a text`, secret.ErrInvalidCredential, what)
}

// fromObject makes the credential from an object, of which member contains the secret.
func fromObject(what string, o wire.Object, member string, kind secret.Kind) (secret.Credential, error) {
	if k, ok := kinds[o.String("kind")]; ok {
		kind = k
	}
	what += fmt.Sprintf(", member %q,", member)
	c, err := secret.Parse(what, o.String(member), kind)
	if err != nil {
		return c, err
	}
	expires, err := expiry(what, o)
	if err != nil {
		return secret.Credential{}, err
	}
	return secret.NewCredential(secret.Material{Kind: c.Kind(), Secret: c.Reveal(), Expires: expires}), nil
}

// expiry returns when the credential ends; zero if the object does not say.
func expiry(what string, o wire.Object) (time.Time, error) {
	for _, name := range expiryMembers {
		raw := string(o[name])
		if raw == "" || raw == "null" || raw == `""` {
			continue
		}
		t := o.Time(name)
		if t.IsZero() {
			return t, fmt.Errorf("%w: %s comes with a member %q that is not a time such as 2026-03-01T12:00:00Z",
				secret.ErrInvalidCredential, what, name)
		}
		return t, nil
	}
	var seconds float64
	if json.Unmarshal(o["expires_in"], &seconds) == nil && seconds > 0 && seconds < math.MaxInt32 {
		return time.Now().Add(time.Duration(seconds * float64(time.Second))), nil
	}
	return time.Time{}, nil
}
