package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// IssuedKey is a new key or token. The platform shows it only once: store it before
// you do anything else. Most programs only use Credential, and ID to revoke it later.
type IssuedKey struct {
	// Credential has the secret.
	Credential Credential
	// ID is the platform's ID of the key; empty if the response had none.
	ID string
	// AgentID is the agent that the key belongs to; empty if the response does not name it.
	AgentID string
	// Name is the name of the key, for example "ci".
	Name string
	// Created and Expires are zero if the response has no readable time.
	Created, Expires time.Time
}

// IssuedSecretError means that the platform issued a key or a token, and the SDK found
// no secret in the response. The platform shows the secret only once, so the error contains
// the response. It matches [ErrMalformedResponse]. Its text contains none of the response's
// data.
//
// [KeyService.Create], [TokenService.Create], and [AgentService.Register] return it.
type IssuedSecretError struct {
	// Err is the cause. It names the call.
	Err error

	raw secret.Text
}

// Error implements error.
func (e *IssuedSecretError) Error() string {
	return e.Err.Error() + ". The platform issued one under a name that the SDK does not know. " +
		"RawResponse of this error has the response; save the secret from it"
}

// Unwrap returns the cause.
func (e *IssuedSecretError) Unwrap() error { return e.Err }

// RawResponse returns the platform's response. It is a secret.
func (e *IssuedSecretError) RawResponse() []byte { return []byte(e.raw.Reveal()) }

// issue reports whether req asks for a new key, token, or session. Nothing of the response is
// shown then: it may have the secret anywhere, also if it reports an error.
func (r *Routes) issue(req *http.Request) bool {
	switch req.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return false
	}
	segments := segmentsOf(req.URL.EscapedPath())
	for _, route := range []string{
		r.Authenticate, "/auth/authenticate", r.RotateKey, r.Credentials, r.Tokens, pathRegister,
	} {
		if endsWith(segments, segmentsOf(route)) {
			return true
		}
	}
	return false
}

// issued reports whether resp, which is not a success, is the response to such a request.
func (r *Routes) issued(req *http.Request, resp *http.Response) bool {
	return resp != nil && resp.StatusCode >= http.StatusMultipleChoices && r.issue(req)
}

// segmentsOf splits a path as servers do: empty segments do not count.
func segmentsOf(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// endsWith reports whether a path ends with a route. A path may have a prefix: that of the base
// URL.
func endsWith(path, route []string) bool {
	if len(path) < len(route) {
		return false
	}
	for i, segment := range path[len(path)-len(route):] {
		if plain, err := url.PathUnescape(segment); err == nil {
			segment = plain
		}
		if route[i] != "{id}" && route[i] != segment {
			return false
		}
	}
	return true
}

// issuedIn finds a new secret in the body of a response.
func issuedIn(body []byte, wrap func(string) Credential) (IssuedKey, bool) {
	k, ok := wire.IssuedIn(body)
	if !ok {
		return IssuedKey{}, false
	}
	return IssuedKey{
		Credential: wrap(k.Secret.Reveal()),
		ID:         k.ID, AgentID: k.AgentID, Name: k.Name, Created: k.Created, Expires: k.Expires,
	}, true
}

// issue makes a call that responds with a new secret.
func issue(ctx context.Context, c *Client, path string, in any, wrap func(string) Credential, opts []CallOption) (*IssuedKey, error) {
	var raw rawAnswer
	_, err := c.Do(ctx, http.MethodPost, path, in, &raw, opts...)
	if err != nil && len(raw) == 0 {
		return nil, err
	}
	k, ok := issuedIn(raw, wrap)
	if !ok {
		return nil, unfoundSecret(path, raw, err)
	}
	return &k, nil
}

// unfoundSecret makes the error of a response in which no new secret was found. err is
// why the response broke off, if it did, or the errors that it reports. A response with
// errors and no data has issued nothing: its error is err.
func unfoundSecret(path string, answer rawAnswer, err error) error {
	_, complains := errors.AsType[*APIError](err)
	if complains && wire.IsNull(wire.Data(answer)) {
		return err
	}
	cause := fmt.Errorf("%w: no new secret was found in the response", ErrMalformedResponse)
	switch {
	case complains:
		cause = fmt.Errorf("%w, which says: %w", cause, err)
	case err != nil:
		cause = fmt.Errorf("%w, which broke off: %w", cause, err)
	}
	return &IssuedSecretError{
		Err: &wire.CallError{Method: http.MethodPost, Path: path, Err: cause}, raw: secret.New(string(answer)),
	}
}

// rawAnswer takes the body of a response as far as it came, whatever it is: it may
// contain a secret that is shown only once.
type rawAnswer []byte

// takeAnswer takes the body in place of its decoded data.
func (r *rawAnswer) takeAnswer(body []byte) { *r = body }

// enough reports whether a new secret is in the part of a response that came.
func (r *rawAnswer) enough(part []byte) bool {
	_, found := wire.IssuedIn(part)
	return found
}

// deleted takes any JSON, for calls that delete something: their response has no data that
// the SDK needs, and yet must come from the platform.
type deleted struct{}

// UnmarshalJSON implements [json.Unmarshaler].
func (*deleted) UnmarshalJSON([]byte) error { return nil }

// done implements deletion.
func (*deleted) done(a *wire.Answer) bool {
	if !a.FromPlatform() || (a.Status != http.StatusNotFound && a.Status != http.StatusGone) {
		return false
	}
	return len(a.Envelope.Errors) == 0 || a.Envelope.Errors[0].Code != codeRouteNotFound
}
