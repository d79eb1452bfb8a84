package socket

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Parameters that carry a credential to a socket. The platform documents no
// header for it.
const (
	paramAPIKey       = "api_key"
	paramSessionToken = "session_token"
)

// HasCredential reports whether the query of u has a credential.
func HasCredential(u *url.URL) bool { return len(credentials(u)) > 0 }

// credentials returns the values of the parameters of u that carry a credential.
func credentials(u *url.URL) (found []string) {
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

// isCredential reports whether a parameter carries a credential.
func isCredential(name string) bool {
	return strings.EqualFold(name, paramAPIKey) || strings.EqualFold(name, paramSessionToken)
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

// NewTransport returns a transport that sends requests through base and removes the
// credentials in their queries from the headers of responses and from errors.
func NewTransport(base http.RoundTripper) http.RoundTripper { return &transport{base: base} }

type transport struct{ base http.RoundTripper }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	hidden := credentials(req.URL)
	if len(hidden) == 0 {
		return resp, err
	}
	if resp != nil {
		for name, values := range resp.Header { // a redirect repeats the query, for example
			for i, value := range values {
				if clean := secret.Redact(value, hidden...); clean != value {
					resp.Header[name][i] = clean
				}
			}
		}
	}
	return resp, redact(err, hidden...)
}

// redact returns err with the secret removed from its text, in any spelling. An error
// that does not show it is returned unchanged. Otherwise errors.Is still matches
// everything, and errors.As finds only what is wrapped below the last error that shows
// the secret: the [net.OpError] within a [url.Error], for example, but not the
// url.Error, which has the URL.
func redact(err error, hidden ...string) error {
	if err == nil {
		return nil
	}
	shows := func(err error) bool {
		_, hasURL := err.(*url.Error) //nolint:errorlint // this one, not what it wraps
		return hasURL || secret.Redact(err.Error(), hidden...) != err.Error()
	}
	beneath, clean := err, true
	for e := err; e != nil; e = errors.Unwrap(e) {
		if shows(e) {
			clean, beneath = false, errors.Unwrap(e)
		}
	}
	// The errors behind an Unwrap() []error are not searched, so such an error is not
	// returned, nor anything that it wraps.
	for e := beneath; e != nil; e = errors.Unwrap(e) {
		if _, several := e.(interface{ Unwrap() []error }); several {
			beneath, clean = nil, false
			break
		}
	}
	if clean {
		return err
	}
	return secret.NewError(secret.Redact(err.Error(), hidden...), beneath, err)
}
