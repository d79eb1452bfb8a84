package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Kind says what a [Credential] is. The zero value is the kind of the zero Credential.
type Kind uint8

// The kinds. Formats do not depend on their order: records name kinds by [Kind.String].
const (
	KindAPIKey Kind = iota + 1
	KindSession
	KindUserToken
)

// Kinds is greater than every kind.
const Kinds = int(KindUserToken) + 1

// String returns "api key", "session", "user token", or "none" for the zero
// value.
func (k Kind) String() string {
	switch k {
	case 0:
		return "none"
	case KindAPIKey:
		return "api key"
	case KindSession:
		return "session"
	case KindUserToken:
		return "user token"
	default:
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
}

// ParseKind returns the kind that has the given name, as returned by [Kind.String].
func ParseKind(name string) (Kind, bool) {
	for _, k := range []Kind{KindAPIKey, KindSession, KindUserToken} {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// Credential is the internal counterpart of the SDK's public type of this name. The zero
// value means that there is none. A Credential is immutable, safe for concurrent use, and
// prints as a summary without the secret.
type Credential struct {
	// The secret is in a closure, for the reason given at [Text].
	m func() *material
}

// Material contains what a [Credential] is made from, such as {Kind: KindAPIKey, Secret:
// "ak_…"}. Most programs only set Kind, Secret, and Expires.
type Material struct {
	Kind   Kind
	Secret string
	// Expires is when the credential ends; zero if that is not known.
	Expires time.Time
	// Environment is used if the secret itself does not carry a mark.
	Environment string
	// Exchanged is set for a session that was obtained with a key.
	Exchanged bool
}

// material is not modified after it was built.
type material struct {
	of          Material
	digest      [sha256.Size]byte
	fingerprint string
	values      []string // of the header; shared by all requests
}

// NewSession returns the credential of a session that was obtained with key. Its token does
// not carry a mark, so it belongs to the key's environment.
func NewSession(token string, expires time.Time, key Credential) Credential {
	return NewCredential(Material{
		Kind: KindSession, Secret: token, Expires: expires, Environment: key.Environment(), Exchanged: true,
	})
}

const bearerPrefix = "Bearer "

// NewCredential returns a credential. It does not check the secret; see [Problem].
func NewCredential(m Material) Credential {
	// The secret is cloned, so that the file or response that contains it does not stay in
	// memory as long as the credential.
	m.Secret = strings.Clone(m.Secret)
	m.Expires = m.Expires.Round(0) // the monotonic clock stops while a machine sleeps
	if mark := Mark(m.Secret); mark != "" {
		m.Environment = mark
	}
	built := &material{
		of: m, digest: Digest(m.Secret), fingerprint: Fingerprint(m.Secret),
		values: []string{m.Secret},
	}
	if m.Kind != KindAPIKey {
		built.values = []string{bearerPrefix + m.Secret}
	}
	return Credential{m: func() *material { return built }}
}

// sandboxMark follows a prefix of letters and digits in the secrets of the sandbox, such as
// "sk_sandbox_" (platform documentation, "Sandbox").
const sandboxMark = "_sandbox_"

// Sandbox is the environment of secrets that carry the sandbox mark.
const Sandbox = "sandbox"

// Mark returns [Sandbox] if a secret carries the sandbox mark, and "" if not. The mark
// counts only directly after the first prefix of a secret.
func Mark(text string) string {
	prefix, _, found := strings.Cut(text, sandboxMark)
	if !found || prefix == "" {
		return ""
	}
	for i := range len(prefix) {
		if b := prefix[i] | 0x20; (b < 'a' || b > 'z') && (prefix[i] < '0' || prefix[i] > '9') {
			return ""
		}
	}
	return Sandbox
}

// IsZero reports whether c is the zero value.
func (c Credential) IsZero() bool { return c.m == nil }

// Kind returns the kind of c, or zero for the zero value.
func (c Credential) Kind() Kind { return c.material().of.Kind }

// Reveal returns the secret. No other method does.
func (c Credential) Reveal() string { return c.material().of.Secret }

// Expires returns when c ends; zero if that is not known.
func (c Credential) Expires() time.Time { return c.material().of.Expires }

// WithExpiry returns a copy of c with another expiry. c must not be the zero value.
func (c Credential) WithExpiry(expires time.Time) Credential {
	m := c.material().of
	m.Expires = expires
	return NewCredential(m)
}

// Environment returns the environment that c is marked for, or "".
func (c Credential) Environment() string { return c.material().of.Environment }

// Exchanged reports whether c is a session that was obtained with a key.
func (c Credential) Exchanged() bool { return c.material().of.Exchanged }

// Fingerprint returns [Fingerprint] of the secret, or "" for the zero value.
func (c Credential) Fingerprint() string { return c.material().fingerprint }

// Values returns the values of the header that carries c, or nil for the zero value. All
// requests share the slice: do not write to it.
func (c Credential) Values() []string { return c.material().values }

var none material

func (c Credential) material() *material {
	if c.m == nil {
		return &none
	}
	return c.m()
}

// Equal reports whether both have the same kind and the same secret. The time that it takes
// does not depend on the secrets.
func (c Credential) Equal(other Credential) bool {
	if c.m == nil || other.m == nil {
		return c.m == nil && other.m == nil
	}
	a, b := c.m(), other.m()
	return subtle.ConstantTimeCompare(a.digest[:], b.digest[:]) == 1 && a.of.Kind == b.of.Kind
}

// Problem returns what is wrong with the credential, as [Problem] does, or "" if it can be
// sent.
func (c Credential) Problem() string {
	m := c.material().of
	if m.Kind == 0 || m.Kind > KindUserToken {
		return fmt.Sprintf("has the unknown kind %d", m.Kind)
	}
	return Problem(m.Secret)
}

// Summary returns kind, environment, fingerprint, and expiry, such as "api key, sandbox,
// sha256:1a2b3c4d5e", or "none" for the zero value.
func (c Credential) Summary() string {
	if c.m == nil {
		return "none"
	}
	m := c.m()
	parts := make([]string, 0, 4)
	parts = append(parts, m.of.Kind.String())
	if m.of.Environment != "" {
		parts = append(parts, m.of.Environment)
	}
	if m.fingerprint != "" {
		parts = append(parts, m.fingerprint)
	} else {
		parts = append(parts, "empty")
	}
	if !m.of.Expires.IsZero() {
		parts = append(parts, "expires "+m.of.Expires.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// String returns the summary.
func (c Credential) String() string { return "Credential(" + c.Summary() + ")" }

// GoString returns what String returns.
func (c Credential) GoString() string { return c.String() }

// Format writes what String returns, for every verb and flag.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String returns.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText returns what String returns.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
