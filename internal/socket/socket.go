package socket

import (
	"context"
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
func HasCredential(u *url.URL) bool {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && isCredential(plain) {
			return true
		}
	}
	return false
}

// isCredential reports whether a parameter carries a credential.
func isCredential(name string) bool {
	return strings.EqualFold(name, paramAPIKey) || strings.EqualFold(name, paramSessionToken)
}

// addCredential appends the credential to the query of u.
func addCredential(u *url.URL, cred secret.Credential) {
	name := paramAPIKey
	if cred.Kind() == secret.KindSession {
		name = paramSessionToken
	}
	pair := name + "=" + url.QueryEscape(cred.Reveal())
	if u.RawQuery != "" {
		pair = "&" + pair
	}
	u.RawQuery += pair
}

// Carrier returns the header that carries the credential of a request, and the
// credential. header is empty if the SDK added none.
type Carrier func(context.Context) (header string, cred secret.Credential)

// NewTransport returns a transport that removes the header that carries the
// credential, adds the credential to the query, and sends the request through base.
// Neither the response nor the error has the credential. The headers of its requests
// must be a copy of the caller's.
func NewTransport(base http.RoundTripper, carrier Carrier) http.RoundTripper {
	return &transport{base: base, carrier: carrier}
}

type transport struct {
	base    http.RoundTripper
	carrier Carrier
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	header, cred := t.carrier(req.Context())
	if header == "" {
		return t.base.RoundTrip(req)
	}
	out, u := *req, *req.URL
	delete(out.Header, header)
	addCredential(&u, cred)
	out.URL = &u
	resp, err := t.base.RoundTrip(&out)
	if resp != nil {
		resp.Request = req
		for name, values := range resp.Header { // a redirect repeats the query, for example
			for i, value := range values {
				if clean := secret.Redact(value, cred.Reveal()); clean != value {
					resp.Header[name][i] = clean
				}
			}
		}
	}
	return resp, redact(err, cred.Reveal())
}

// CloseIdleConnections closes those of the base.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// redact returns err with the secret removed from its text, in any spelling. An error
// that does not show it is returned unchanged. Otherwise errors.Is still matches
// everything, and errors.As finds only what is wrapped below the last error that shows
// the secret: the [net.OpError] within a [url.Error], for example, but not the
// url.Error, which has the URL.
func redact(err error, hidden string) error {
	if err == nil {
		return nil
	}
	shows := func(err error) bool {
		_, hasURL := err.(*url.Error) //nolint:errorlint // this one, not what it wraps
		return hasURL || secret.Redact(err.Error(), hidden) != err.Error()
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
	return secret.NewError(secret.Redact(err.Error(), hidden), beneath, err)
}
