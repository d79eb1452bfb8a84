package agrenting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// agentID is whose key it is, "" when not known.
func (r *rotator) agentID(rec record.Key) string {
	for _, id := range []string{r.policy.AgentID, rec.Agent, r.core.agent.id()} {
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
		return Credential{w.rec.Current.Credential}, "", nil
	}
	c, err := w.ownersCredential(ctx)
	return c, agent, err
}

// ownersCredential asks the policy's owner. What it yields passes the checks of every
// credential that leaves.
func (r *rotator) ownersCredential(ctx context.Context) (Credential, error) {
	c, err := r.policy.Owner.Credential(ctx)
	if err := r.core.checkOwner(c, err); err != nil {
		return Credential{}, err
	}
	return c, nil
}

func (c *core) checkOwner(owner Credential, err error) error {
	if err == nil {
		err = c.admit(owner)
	}
	if err != nil {
		return fmt.Errorf("RotationPolicy.Owner: %w", err)
	}
	return nil
}

// askAttempts is how often a call of the platform is made whose outcome is not
// known; always with the same idempotency key.
const askAttempts = 4

// Pauses between the attempts.
const (
	minAskPause  = 100 * time.Millisecond
	maxAskPause  = 2 * time.Second
	minSavePause = 50 * time.Millisecond
	maxSavePause = time.Second
)

func askPause(n int) time.Duration { return renew.Doubled(minAskPause, maxAskPause, n) }

// attempt bounds one attempt of a call, with the pause behind it.
func (w *rotationWork) attempt() time.Duration {
	return w.policy.CallTimeout + max(maxAskPause, w.policy.CallTimeout)
}

// ask makes a call and repeats it while its outcome is not known and the lease is
// held: a process that has taken over may have undone by now what the call does.
func (w *rotationWork) ask(ctx context.Context, d direct) (*directAnswer, error) {
	a, _, err := w.askFor(ctx, d, askAttempts*w.attempt())
	return a, err
}

// askFor is ask, with no attempt begun when so much time has gone by. hasty tells
// that one would have been made.
func (w *rotationWork) askFor(ctx context.Context, d direct, patience time.Duration) (a *directAnswer, hasty bool, err error) {
	began := time.Now()
	for n := 1; ; n++ {
		if err := w.allowed(ctx); err != nil {
			return nil, false, err
		}
		a, err := w.once(ctx, d)
		if (err == nil && a.settled()) || n == askAttempts {
			return a, false, err
		}
		pause := askPause(n)
		if err == nil {
			pause = max(pause, min(a.apiError().RetryAfter, w.policy.CallTimeout))
		}
		if time.Since(began)+pause > patience {
			return a, true, err
		}
		if serr := renew.Sleep(ctx, pause); serr != nil {
			return nil, false, errors.Join(err, serr)
		}
	}
}

// settled reports whether the answer would be the same next time.
func (a *directAnswer) settled() bool {
	if a.success() {
		return !a.torn()
	}
	return refused(a.apiError())
}

// pending reports whether the platform is still at work on the first call under
// this idempotency key.
func (a *directAnswer) pending() bool {
	return a.status == http.StatusConflict && a.apiError().Is(ErrIdempotencyPending)
}

// sent is when the answer was sent, by the platform's clock; zero when it does not
// say.
func (a *directAnswer) sent() time.Time { return wire.Date(a.header) }

// torn reports whether the answer to a call that may be repeated is no JSON: it
// may have been cut off, and the same idempotency key gives all of it.
func (a *directAnswer) torn() bool { return a.ok() && a.jsonErr != nil }

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

func (r *rotator) once(ctx context.Context, d direct) (*directAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.policy.CallTimeout)
	defer cancel()
	return r.core.direct(ctx, d)
}

// verify tries a key: nil means that the platform knows it, ErrUnauthorized
// that it does not, anything else that it could not be found out.
func (r *rotator) verify(ctx context.Context, c secret.Credential) error {
	a, err := r.once(ctx, direct{method: http.MethodGet, path: r.core.routes.Verify, cred: Credential{c}})
	switch {
	case err != nil:
		return err
	case a.status == http.StatusUnauthorized, a.status == http.StatusTooManyRequests,
		a.status >= http.StatusInternalServerError, a.status >= 300 && a.status < 400:
		return a.apiError()
	case a.jsonErr != nil:
		return fmt.Errorf("%w: %d with a body that is no JSON, so it was not the platform that answered", ErrMalformedResponse, a.status)
	default:
		return nil
	}
}

// awaitKnown waits, bounded, until the platform knows a key that it has just
// issued.
func (w *rotationWork) awaitKnown(ctx context.Context, c secret.Credential) error {
	end := time.Now().Add(w.policy.VerifyTimeout)
	for n := 1; ; n++ {
		if err := w.allowed(ctx); err != nil {
			return err
		}
		err := w.verify(ctx, c)
		pause := renew.Doubled(50*time.Millisecond, time.Second, n)
		if err == nil || time.Now().Add(pause).After(end) {
			return err
		}
		if serr := renew.Sleep(ctx, pause); serr != nil {
			return serr
		}
	}
}

// awaitSpread is awaitKnown for a key that is the only one left, and so will be
// used whatever the platform says. Its error says that the lease is lost, or
// that the store refuses.
func (w *rotationWork) awaitSpread(ctx context.Context, c secret.Credential) error {
	err := w.awaitKnown(ctx, c)
	if _, ok := errors.AsType[*RotationError](err); ok || errors.Is(err, record.ErrLeaseLost) {
		return err
	}
	return nil
}

// revokeKey revokes a key by its id. One that is gone already is fine, if it
// does not authenticate any more.
func (w *rotationWork) revokeKey(ctx context.Context, k record.StoredKey) error {
	err := w.revokeID(ctx, k)
	if err == nil || k.Credential.IsZero() {
		return err
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrGone) && !errors.Is(err, ErrUnauthorized) {
		return err
	}
	verr := w.verify(ctx, k.Credential)
	if errors.Is(verr, ErrUnauthorized) {
		return nil
	}
	if verr == nil && errors.Is(err, ErrNotFound) {
		// It is alive under another id than the one that we were told.
		id, ferr := w.findID(ctx, w.agentID(w.rec), k)
		if errors.Is(ferr, record.ErrLeaseLost) {
			return ferr
		}
		if id != "" && id != k.ID {
			k.ID = id
			return w.revokeID(ctx, k)
		}
	}
	return err
}

func (w *rotationWork) revokeID(ctx context.Context, k record.StoredKey) error {
	agent := w.agentID(w.rec)
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
	case k.Credential.IsZero() && (a.status == http.StatusGone || (a.status == http.StatusNotFound && !a.apiError().Is(ErrRouteNotFound))):
		return nil // somebody else was faster
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

// listKeys lists the keys of an agent, revoked ones too where the platform
// does.
func (w *rotationWork) listKeys(ctx context.Context, agent string) ([]Key, error) {
	cred, asAgent, err := w.manager(ctx, agent)
	if err != nil {
		return nil, err
	}
	path, pages := w.core.keysPath(agent), 0
	var all []Key
	for k, err := range wire.List[Key](path, func(at url.Values) (wire.Page, error) {
		pages++
		if pages > maxKeyPages {
			return wire.Page{}, nil
		}
		q := url.Values{"limit": {"100"}}
		maps.Copy(q, at)
		a, err := w.ask(ctx, direct{method: http.MethodGet, path: path, query: q, cred: cred, agentID: asAgent})
		if err == nil && !a.ok() {
			err = a.apiError()
		}
		if err != nil {
			return wire.Page{}, err
		}
		return a.answer.Page()
	}) {
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// live are the keys that are not revoked.
func live(keys []Key) []Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return !k.Revoked.IsZero() })
}

// sweepMarked revokes keys that this intent has created and whose answer was
// lost.
func (w *rotationWork) sweepMarked(ctx context.Context) error {
	agent := w.agentID(w.rec)
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return err
	}
	own, ok := w.ownID(keys)
	fenced := false
	for _, k := range live(keys) {
		if !ok || k.ID == "" || k.ID == own || k.Name != marker(w.rec.Intent) {
			continue
		}
		if !fenced { // the list may show what another process has made meanwhile
			if err := w.fence(ctx); err != nil {
				return err
			}
			fenced = true
		}
		if err := w.revokeKey(ctx, record.StoredKey{ID: k.ID}); err != nil {
			return err
		}
	}
	return nil
}

// ownID is the id of the current key. Where it is not known, no other key may
// be revoked on the strength of a list: it could be the one in use.
func (w *rotationWork) ownID(keys []Key) (id string, ok bool) {
	if id = w.rec.Current.ID; id == "" {
		id = idOf(live(keys), w.rec.Current.Credential)
	}
	return id, id != ""
}

// findID looks for the id of a key of which only the secret is known.
func (w *rotationWork) findID(ctx context.Context, agent string, k record.StoredKey) (string, error) {
	keys, err := w.listKeys(ctx, agent)
	if err != nil {
		return "", err
	}
	return idOf(live(keys), k.Credential), nil
}

// idOf is the id of the one key whose hint fits, empty in doubt.
func idOf(keys []Key, c secret.Credential) string {
	secretText, id := c.Reveal(), ""
	for _, k := range keys {
		if !k.fits(secretText) {
			continue
		}
		if id != "" {
			return ""
		}
		id = k.ID
	}
	return id
}
