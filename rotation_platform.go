package agrenting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// rotationPlatform makes the calls of rotations.
type rotationPlatform struct{ core *core }

// Issue implements rotation.Platform.
func (p rotationPlatform) Issue(ctx context.Context, by rotation.Caller, agent, name, idempotencyKey string) rotation.Answer {
	return p.call(ctx, by, true, direct{
		method: http.MethodPost, path: p.core.keysPath(agent), body: map[string]string{"name": name}, idemKey: idempotencyKey,
	})
}

// RotateInPlace implements rotation.Platform.
func (p rotationPlatform) RotateInPlace(ctx context.Context, by rotation.Caller, idempotencyKey string) rotation.Answer {
	return p.call(ctx, by, true, direct{method: http.MethodPost, path: p.core.routes.RotateKey, idemKey: idempotencyKey})
}

// Revoke implements rotation.Platform.
func (p rotationPlatform) Revoke(ctx context.Context, by rotation.Caller, agent, id string) rotation.Answer {
	seg, err := pathSegment(id)
	if err != nil {
		return rotation.Answer{Outcome: rotation.Refused, Err: err}
	}
	return p.call(ctx, by, false, direct{method: http.MethodDelete, path: p.core.keysPath(agent) + "/" + seg})
}

// maxKeyPages bounds how much of a list of keys is read, at 100 a page.
const maxKeyPages = 100

// List implements rotation.Platform.
func (p rotationPlatform) List(ctx context.Context, by rotation.Caller, agent string) (keys []rotation.ListedKey, answer rotation.Answer) {
	path, pages := p.core.keysPath(agent), 0
	for k, err := range wire.List[Key](path, func(at url.Values) (wire.Page, error) {
		pages++
		if pages > maxKeyPages {
			return wire.Page{}, nil
		}
		q := url.Values{"limit": {"100"}}
		maps.Copy(q, at)
		a, err := p.core.direct(ctx, direct{
			method: http.MethodGet, path: path, query: q, cred: Credential{by.Credential}, agentID: by.Agent,
		})
		if answer = rotationAnswer(a, err, false); answer.Outcome != rotation.Done {
			return wire.Page{}, answer.Err
		}
		return a.answer.Page()
	}) {
		if err != nil {
			if answer.Outcome == rotation.Done { // the page does not decode
				answer = rotation.Answer{Outcome: rotation.Refused, Err: err}
			}
			return nil, answer
		}
		keys = append(keys, rotation.ListedKey{ID: k.ID, Name: k.Name, Created: k.Created, Revoked: k.Revoked, Fits: k.fits})
	}
	return keys, answer
}

// Verify implements rotation.Platform.
func (p rotationPlatform) Verify(ctx context.Context, c secret.Credential) (rotation.Verdict, error) {
	a, err := p.core.direct(ctx, direct{method: http.MethodGet, path: p.core.routes.Verify, cred: Credential{c}})
	switch {
	case err != nil:
		return rotation.Undecided, err
	case a.status == http.StatusUnauthorized:
		return rotation.Dead, a.apiError()
	case a.status == http.StatusTooManyRequests, a.status >= http.StatusInternalServerError, a.status >= 300 && a.status < 400:
		return rotation.Undecided, a.apiError()
	case a.jsonErr != nil:
		return rotation.Undecided, fmt.Errorf("%w: %d with a body that is not JSON, so the platform did not answer", ErrMalformedResponse, a.status)
	default:
		return rotation.Alive, nil
	}
}

// OpenLifeline implements rotation.Platform.
func (p rotationPlatform) OpenLifeline(ctx context.Context, key secret.Credential) (secret.Credential, string, rotation.Answer) {
	s, err := p.core.endpoint.Exchange(ctx, key)
	if err == nil {
		return s.Credential, s.AgentID, rotation.Answer{Outcome: rotation.Done}
	}
	a := rotation.Answer{Err: err}
	if _, locked := errors.AsType[*LockoutError](err); locked || refused(err) {
		a.Outcome = rotation.Refused
	}
	return secret.Credential{}, "", a
}

func (p rotationPlatform) call(ctx context.Context, by rotation.Caller, issues bool, d direct) rotation.Answer {
	d.cred, d.agentID = Credential{by.Credential}, by.Agent
	a, err := p.core.direct(ctx, d)
	return rotationAnswer(a, err, issues)
}

// rotationAnswer says what came of a call; issues is set for calls that issue a key.
func rotationAnswer(a *directAnswer, err error, issues bool) rotation.Answer {
	if err != nil {
		return rotation.Answer{Err: err}
	}
	out := rotation.Answer{Sent: wire.Date(a.header)}
	if issues && a.made() {
		out.Outcome = rotation.Done
		if k, found := a.issued(); found {
			out.Key = rotation.IssuedKey{
				Credential: k.Credential.c, ID: k.ID, AgentID: k.AgentID, Created: k.Created, Expires: k.Expires,
			}
			return out
		}
		if out.Raw = secret.New(string(a.raw)); a.jsonErr != nil {
			out.Outcome = rotation.Truncated
		}
		return out
	}
	if a.ok() {
		out.Outcome = rotation.Done
		return out
	}
	e := a.apiError()
	out.Err, out.RetryAfter = e, e.RetryAfter
	out.Missing = a.status == http.StatusNotFound || a.status == http.StatusGone
	out.NoRoute = e.Is(ErrRouteNotFound)
	switch {
	case a.status == http.StatusUnauthorized:
		out.Outcome = rotation.Unauthorized
	case refused(e):
		out.Outcome = rotation.Refused
	case a.status >= http.StatusInternalServerError:
		out.Outcome = rotation.Failed
	case e.Code == wire.CodeIdempotencyPending:
		out.Outcome = rotation.Pending
	case a.status >= http.StatusMultipleChoices:
		out.Outcome = rotation.Busy
	}
	return out
}

// refused reports whether the platform has said no, and would do so again.
func refused(err error) bool {
	if errors.Is(err, ErrMalformedResponse) {
		return true
	}
	a, ok := errors.AsType[*APIError](err)
	if !ok {
		return false
	}
	switch a.StatusCode {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return a.StatusCode >= 300 && a.StatusCode < http.StatusInternalServerError
}

// keysPath is the path of an agent's keys.
func (c *core) keysPath(agent string) string {
	seg, err := pathSegment(agent)
	if err != nil {
		seg = "unknown"
	}
	return strings.ReplaceAll(c.routes.Credentials, "{id}", seg)
}
