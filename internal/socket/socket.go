package socket

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Parameters that carry a credential to a socket. The platform does not document a header for
// it.
const (
	paramAPIKey       = "api_key"
	paramSessionToken = "session_token"
)

// HasCredential reports whether the query of u has a credential.
func HasCredential(u *url.URL) bool { return len(Credentials(u)) > 0 }

// Credentials returns the values of the parameters of u that carry a credential.
func Credentials(u *url.URL) (found []string) {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !isCredential(plain) {
			continue
		}
		if plain, err := url.QueryUnescape(value); err == nil {
			value = plain
		}
		found = append(found, value)
	}
	return found
}

// WithoutCredential returns u without the parameters of its query that carry a credential.
func WithoutCredential(u *url.URL) *url.URL {
	if !HasCredential(u) {
		return u
	}
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !isCredential(plain) {
			kept = append(kept, pair)
		}
	}
	out := *u
	out.RawQuery = strings.Join(kept, "&")
	return &out
}

// isCredential reports whether a parameter carries a credential.
func isCredential(name string) bool {
	return ascii.EqualFold(name, paramAPIKey) || ascii.EqualFold(name, paramSessionToken)
}

// WithCredential returns a copy of u with a credential in its query.
func WithCredential(u *url.URL, cred secret.Credential) *url.URL {
	out := *u
	name := paramAPIKey
	if cred.Kind() == secret.KindSession {
		name = paramSessionToken
	}
	pair := name + "=" + url.QueryEscape(cred.Reveal())
	if out.RawQuery != "" {
		pair = "&" + pair
	}
	out.RawQuery += pair
	return &out
}

// Clean removes the credentials in the query of u from the headers of a response. For example,
// a redirect repeats the query.
func Clean(u *url.URL, header http.Header) {
	hidden := Credentials(u)
	if len(hidden) == 0 {
		return
	}
	redactHeader(header, hidden...)
}

// maxHeader bounds the header values that are searched, in bytes. Handshakes have only a few
// headers.
const maxHeader = 64 << 10

// redactHeader removes the secrets from the values of h. It removes all values beyond maxHeader
// bytes.
func redactHeader(h http.Header, hidden ...string) {
	left := maxHeader
	for _, values := range h {
		for i, value := range values {
			if left -= len(value); left < 0 {
				values[i] = secret.Placeholder
			} else if clean := secret.Redact(value, hidden...); clean != value {
				values[i] = clean
			}
		}
	}
}
