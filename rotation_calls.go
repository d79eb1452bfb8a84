package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// agentID is whose key it is, "" when not known.
func (w *rotator) agentID(k StoredKey) string {
	for _, id := range []string{w.policy.AgentID, k.AgentID, w.core.transport.agent.id()} {
		if id != "" {
			return id
		}
	}
	return ""
}

// manager is the credential that creates, lists and revokes keys, and the
// agent that it acts as.
func (w *rotationWork) manager(ctx context.Context, agent string) (Credential, string, error) {
	if w.policy.Owner == nil {
		return w.rec.Current.Credential, "", nil
	}
	c, err := w.policy.Owner.Credential(ctx)
	if err == nil {
		err = c.validate()
	}
	return c, agent, err
}

// askAttempts is how often a call of the platform is made whose outcome is not
// known; always with the same idempotency key.
const askAttempts = 4

// ask makes a call and repeats it while its outcome is not known.
func (w *rotationWork) ask(ctx context.Context, d direct) (*directAnswer, error) {
	var a *directAnswer
	var err error
	for n := 1; ; n++ {
		a, err = w.once(ctx, d)
		switch {
		case err != nil:
		case a.status == http.StatusTooManyRequests, a.status >= http.StatusInternalServerError:
		case a.status == http.StatusConflict && a.apiError().Is(ErrIdempotencyPending):
		default:
			return a, nil
		}
		if n == askAttempts {
			return a, err
		}
		pause := renew.Doubled(100*time.Millisecond, 2*time.Second, n)
		if err == nil {
			pause = max(pause, min(a.apiError().RetryAfter, w.policy.CallTimeout))
		}
		if serr := sleep(ctx, pause); serr != nil {
			return a, errors.Join(err, serr)
		}
	}
}

func (w *rotator) once(ctx context.Context, d direct) (*directAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.policy.CallTimeout)
	defer cancel()
	return w.core.direct(ctx, d)
}

// verify tries a key: nil means that the platform knows it, ErrUnauthorized
// that it does not, anything else that it could not be found out.
func (w *rotator) verify(ctx context.Context, c Credential) error {
	a, err := w.once(ctx, direct{method: http.MethodGet, path: w.core.routes.Verify, cred: c})
	switch {
	case err != nil:
		return err
	case a.status == http.StatusUnauthorized, a.status == http.StatusTooManyRequests,
		a.status >= http.StatusInternalServerError, a.status >= 300 && a.status < 400:
		return a.apiError()
	default:
		return nil
	}
}

// awaitKnown waits, bounded, until the platform knows a key that it has just
// issued.
func (w *rotationWork) awaitKnown(ctx context.Context, c Credential) error {
	if err := w.extend(ctx, w.policy.VerifyTimeout+w.policy.CallTimeout); err != nil {
		return err
	}
	end := time.Now().Add(w.policy.VerifyTimeout)
	for n := 1; ; n++ {
		err := w.verify(ctx, c)
		pause := renew.Doubled(50*time.Millisecond, time.Second, n)
		if err == nil || time.Now().Add(pause).After(end) {
			return err
		}
		if serr := sleep(ctx, pause); serr != nil {
			return serr
		}
	}
}

// revokeKey revokes a key by its id. One that is gone already is fine, if it
// does not authenticate any more.
func (w *rotationWork) revokeKey(ctx context.Context, k StoredKey) error {
	agent := w.agentID(k)
	if k.ID == "" || agent == "" {
		return fmt.Errorf("%w: the id of the key or of its agent is not known", ErrInvalidOption)
	}
	cred, asAgent, err := w.manager(ctx, agent)
	if err != nil {
		return err
	}
	seg, err := pathSegment(k.ID)
	if err != nil {
		return err
	}
	a, err := w.ask(ctx, direct{method: http.MethodDelete, path: w.core.keysPath(agent) + "/" + seg, cred: cred, agentID: asAgent})
	switch {
	case err != nil:
		return err
	case a.ok():
		return nil
	case (a.status == http.StatusNotFound || a.status == http.StatusGone) && !k.Credential.IsZero():
		if errors.Is(w.verify(ctx, k.Credential), ErrUnauthorized) {
			return nil
		}
		return a.apiError()
	case a.status == http.StatusGone || (a.status == http.StatusNotFound && !a.apiError().Is(ErrRouteNotFound)):
		return nil
	default:
		return a.apiError()
	}
}

// keysPath is the path of an agent's keys.
func (c *core) keysPath(agent string) string {
	seg, err := pathSegment(agent)
	if err != nil {
		seg = "unknown"
	}
	return strings.ReplaceAll(c.routes.Credentials, "{id}", seg)
}

// maxKeyPages bounds how much of a list of keys is read, at 100 a page.
const maxKeyPages = 100

// listKeys lists the live keys of an agent.
func (w *rotationWork) listKeys(ctx context.Context, agent string) ([]Key, error) {
	cred, asAgent, err := w.manager(ctx, agent)
	if err != nil {
		return nil, err
	}
	var live []Key
	cursor := ""
	for range maxKeyPages {
		q := map[string][]string{"limit": {"100"}}
		if cursor != "" {
			q["cursor"] = []string{cursor}
		}
		a, err := w.ask(ctx, direct{method: http.MethodGet, path: w.core.keysPath(agent), query: q, cred: cred, agentID: asAgent})
		if err != nil {
			return nil, err
		}
		if !a.ok() {
			return nil, a.apiError()
		}
		raw, _, err := listOf(a.env.data)
		if err != nil {
			return nil, err
		}
		var keys []Key
		if err := json.Unmarshal(raw, &keys); err != nil {
			return nil, fmt.Errorf("%w: the list of keys does not decode", ErrMalformedResponse)
		}
		for _, k := range keys {
			if k.Revoked.IsZero() {
				live = append(live, k)
			}
		}
		p := a.env.pagination
		if p == nil || !p.HasMore || p.Cursor == "" || p.Cursor == cursor {
			return live, nil
		}
		cursor = p.Cursor
	}
	return live, nil
}

// appeared lists the live keys that were not there before the intent, and came
// soon after it.
func (w *rotationWork) appeared(ctx context.Context, agent string) ([]Key, error) {
	in := w.rec.Intent
	if len(in.Known) == 0 {
		return nil, fmt.Errorf("%w: the keys of before are not known", ErrNotFound)
	}
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, id := range in.Known {
		known[id] = true
	}
	var out []Key
	for _, k := range keys {
		if !known[k.ID] && k.ID != "" && (k.Created.IsZero() || k.Created.After(in.Started.Add(-5*time.Minute))) {
			out = append(out, k)
		}
	}
	return out, nil
}

// sweepMarked revokes keys that this intent has created and whose answer was
// lost.
func (w *rotationWork) sweepMarked(ctx context.Context) error {
	agent := w.agentID(w.rec.Current)
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.Name == w.rec.Intent.marker() && k.ID != w.rec.Current.ID {
			if err := w.revokeKey(ctx, StoredKey{ID: k.ID, AgentID: agent}); err != nil {
				return err
			}
		}
	}
	return nil
}

// findID looks for the id of a key of which only the secret is known: the one
// live key whose hint fits.
func (w *rotationWork) findID(ctx context.Context, agent string, k StoredKey) string {
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return ""
	}
	secretText, id := k.Credential.Reveal(), ""
	for _, c := range keys {
		if !c.fits(secretText) {
			continue
		}
		if id != "" {
			return "" // in doubt, nothing is revoked
		}
		id = c.ID
	}
	return id
}
