package agrenting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/session"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// preparedCredential is a credential together with the name of the header that carries it,
// made once per generation and shared by all its requests. The header's values
// stay in the credential's closure, where they cannot be printed.
type preparedCredential struct {
	cred    Credential
	name    string            // canonical
	gate    *gate.Gate        // nil where keys are not rotated
	history *evidence.History // nil without a credential
	// cached is the result of redactor.
	cached atomic.Pointer[secret.Redactor]
}

// redactor removes the credential from texts that may echo it. It is made when a text is
// searched.
func (p *preparedCredential) redactor() *secret.Redactor {
	r := p.cached.Load()
	if r == nil {
		r = secret.NewRedactor(p.cred.Reveal())
		p.cached.Store(r)
	}
	return r
}

type generation = renew.Generation[*preparedCredential]

// credentialCache holds the credential in use: a fixed one, or one that the engine
// renews from a source.
type credentialCache struct {
	fixed     atomic.Pointer[generation] // nil after close, and where there is an engine
	engine    *renew.Engine[*preparedCredential]
	name      string      // of the source, for Status
	from      any         // the source or the store that name means; nil if there is nothing to add
	initial   hint.Source // where the first key of a store comes from
	evidence  *evidence.Book
	died      func()                             // reports that the platform rejects a fixed credential
	costly    bool                               // the source should not be asked often
	exchanges bool                               // the source's key is exchanged for sessions
	restores  bool                               // the credential before a dead one may be used again
	seen      atomic.Pointer[preparedCredential] // the last one in use, also when it was rejected
}

// A namedSource knows which of several sources it has used last.
type namedSource interface{ sourceName() string }

// sourceName names the option or variable that the credential is from, and the source behind it
// if that is known.
func (k *credentialCache) sourceName() string {
	if src, ok := k.from.(namedSource); ok {
		if name := src.sourceName(); name != "" {
			return k.name + ": " + name
		}
	}
	return k.name
}

func newFixedCache(name string, s *preparedCredential, c *core) *credentialCache {
	k, gen := &credentialCache{name: name, evidence: c.evidence}, renew.Fixed(s)
	k.fixed.Store(gen)
	k.died = func() {
		c.observe(renew.Event[*preparedCredential]{Kind: renew.Refused, Reason: renew.Rejected, Prev: gen})
	}
	return k
}

// newRenewingCache returns the cache of a source. from is what name means. costly is set if asking it costs
// something, such as one of the few calls that the authenticate endpoint allows.
func (c *core) newRenewingCache(name string, from any, costly bool, cfg renew.Config[*preparedCredential]) *credentialCache {
	cfg.Same, cfg.Observe = sameCredential, c.observe
	cfg.Wait, cfg.Permanent, cfg.Costly = c.cfg.retry.renewalWait(), c.isPermanent, costly
	return &credentialCache{
		name: name, from: from, engine: renew.New(cfg), evidence: c.evidence, costly: costly, restores: c.cfg.keyStore() == nil,
	}
}

// isPermanent reports whether no request waits after a failure of the cache's source. Once
// the platform has issued a session, a gateway that refuses exchanges may stop doing so.
func (c *core) isPermanent(err error) bool {
	worked := c.creds.exchanges && c.creds.seen.Load() != nil
	return permanentFailure(err) && (!worked || !isLasting(err))
}

// permanentFailure reports whether the source would fail in the same way again, so that
// no request waits for it.
func permanentFailure(err error) bool {
	if p, ok := errors.AsType[*pausedError](err); ok && p.lasting {
		return true
	}
	_, connecting := errors.AsType[*net.OpError](err) // a firewall may deny it now and allow it later
	_, locked := errors.AsType[*LockoutError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, mismatch := errors.AsType[*RecordMismatchError](err)
	return errors.Is(err, ErrNoCredential) || errors.Is(err, ErrInvalidCredential) || errors.Is(err, ErrEnvironmentMismatch) ||
		(errors.Is(err, fs.ErrPermission) && !connecting) || locked || untrusted || mismatch ||
		wire.IsProxyAuth(err) || session.IsRefused(err) || isLasting(err)
}

// isLasting reports whether the platform has refused a call for a reason that is not the
// credential, and would do so again.
func isLasting(err error) bool {
	a, ok := errors.AsType[*APIError](err)
	return ok && a.StatusCode != http.StatusUnauthorized && (isRedirect(a.StatusCode) || refused(a.StatusCode))
}

// sourceFetch asks a source in its own terms.
type sourceFetch func(ctx context.Context, q renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error)

// fetchFrom adapts a caller's source. Whatever it yields is validated and checked
// against the environment before it is used.
func fetchFrom(src CredentialSource, check func(Credential) (*preparedCredential, error)) sourceFetch {
	return func(ctx context.Context, q renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error) {
		var g renew.Grant[*preparedCredential]
		c, err := askSource(ctx, src, q)
		if err != nil {
			return g, err
		}
		g.Value, err = check(c)
		if err != nil {
			return g, err
		}
		g.Expires = c.Expires()
		g.Recheck = recheckInterval(src)
		return g, nil
	}
}

func askSource(ctx context.Context, src CredentialSource, q renew.Query[*preparedCredential]) (Credential, error) {
	if q.HasRejected {
		return refreshFrom(ctx, src, q.Rejected.cred)
	}
	return credentialFrom(ctx, src)
}

func (k *credentialCache) get(ctx context.Context) (*generation, error) {
	if k.engine == nil {
		if gen := k.fixed.Load(); gen != nil {
			return gen, nil
		}
		return nil, ErrClosed
	}
	gen, err := k.engine.Get(ctx)
	if err != nil {
		return nil, k.renewalError(k.waited(ctx, err))
	}
	return gen, nil
}

// waited names what a request waited for when its context ended.
func (k *credentialCache) waited(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	what := "a credential from "
	if k.exchanges {
		what = "a session for the key from "
	}
	return &wire.WaitError{For: what + k.source().String(), Err: err, Last: k.lastFailure()}
}

// enter is get for a request that is about to be sent: it enters the gate of
// the generation, or waits for the end of a rotation.
func (k *credentialCache) enter(ctx context.Context) (*generation, error) {
	gen, err := k.get(ctx)
	if err != nil || gen.Value.gate.Enter() {
		return gen, err
	}
	return k.reenter(ctx, nil)
}

// reenter passes the gate of gen, or of whichever generation is in use when it is
// open.
func (k *credentialCache) reenter(ctx context.Context, gen *generation) (*generation, error) {
	for {
		if gen != nil {
			if gen.Value.gate.Enter() {
				return gen, nil
			}
			if err := gen.Value.gate.Wait(ctx); err != nil {
				return nil, &wire.WaitError{For: "the rotation of the key to end", Err: err}
			}
		}
		next, err := k.get(ctx)
		if err != nil {
			return nil, err
		}
		if next == gen {
			// Passed on, but nothing newer is in use yet.
			if err := renew.Sleep(ctx, time.Millisecond); err != nil {
				return nil, err
			}
		}
		gen = next
	}
}

// waitOpen waits for the end of a rotation, and does not enter the gate: its end would
// not be seen.
func (k *credentialCache) waitOpen(ctx context.Context, gen *generation) (*generation, error) {
	gen, err := k.reenter(ctx, gen)
	if err == nil {
		gen.Value.gate.Leave()
	}
	return gen, err
}

// refusal is a 401 to a request of a route.
type refusal struct {
	gen  *generation
	path evidence.Route
	sent time.Time // at the latest
	date time.Time // the platform's clock when it responded; zero if unknown
}

// after returns the generation to try after a 401, nil when there is none.
func (k *credentialCache) after(ctx context.Context, r refusal, seen *doubt) (*generation, error) {
	h := r.gen.Value.history
	if h == nil {
		return nil, nil //nolint:nilnil // the client is anonymous
	}
	r.sent, seen.renewed = h.Refused(r.path, r.sent), false
	var verdict evidence.Verdict
	paused := false
	for {
		f := k.facts(r, seen)
		f.Verdict, f.Paused = verdict, paused
		h.Describe(&f, r.path, r.sent)
		switch action := evidence.Decide(f); action {
		case evidence.Switch:
			seen.switches++
			if seen.switches > maxSwitches {
				return nil, nil //nolint:nilnil // as below
			}
			return k.get(ctx)
		case evidence.Await:
			seen.switches++
			return r.gen, nil // the caller passes the gate
		case evidence.Pause:
			if err := renew.Sleep(ctx, evidence.PauseBefore(seen.waits+seen.resends)); err != nil {
				return nil, err
			}
			paused = true
		case evidence.Ask, evidence.AskLast:
			verdict = h.Judge(ctx)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			seen.last = seen.last || action == evidence.AskLast
		case evidence.Resend:
			if f.Young {
				seen.waits++
			} else {
				seen.resends++
			}
			return r.gen, nil
		case evidence.RenewExpired, evidence.RenewDead:
			return k.renew(ctx, r.gen, seen)
		case evidence.RenewDoubted:
			next, err := k.renewDoubted(ctx, r.gen)
			seen.renewed = true
			if err != nil || next.Number != r.gen.Number {
				seen.switches++
				return next, err
			}
			verdict = evidence.Alive // there is no other credential to use
		case evidence.GiveUp:
			err := k.lastFailure()
			if err == nil {
				k.evidence.RefusesAll(r.path)
			}
			return nil, err
		default:
			if f.Resends > 0 {
				if next, ok := k.another(ctx, r.gen, seen); ok {
					return next, nil
				}
				k.evidence.RefusesAll(r.path)
			}
			if f.Fixed && h.Report() {
				k.died()
			}
			return nil, nil //nolint:nilnil // no error, and no other credential to try
		}
	}
}

// facts collects what the engine and the request know.
func (k *credentialCache) facts(r refusal, seen *doubt) evidence.Facts {
	f := evidence.Facts{Waits: seen.waits, Resends: seen.resends, Last: seen.last}
	if k.engine == nil {
		return f
	}
	cur := k.engine.Current()
	f.Newer = cur != nil && cur.Number != r.gen.Number
	f.Rotating = r.gen.Value.gate.Closed()
	f.Expired = isExpired(r)
	f.MayRenew = !k.costly || r.gen.Value.history.MayRenewUnproven()
	return f
}

// isExpired reports whether the credential was past its own expiry when the platform
// refused it. The Date of the response decides only close to the end, since a gateway may
// have a wrong clock. An expiry that the platform has never respected does not count.
func isExpired(r refusal) bool {
	now := time.Now()
	if !r.date.Before(r.gen.Value.cred.Expires()) {
		now = now.Add(2 * time.Second)
	}
	return !r.gen.Expires.IsZero() && !now.Before(r.gen.Expires)
}

// renew replaces a credential that is dead. If the source has nothing newer, the one
// before it continues to be used.
func (k *credentialCache) renew(ctx context.Context, gen *generation, seen *doubt) (*generation, error) {
	seen.renewals++
	seen.renewed = true
	if seen.renewals > maxRenewals {
		return nil, k.lastFailure()
	}
	next, err := k.engine.Reject(ctx, gen.Number, true)
	if err == nil && next.Number != gen.Number {
		next.Value.history.Try() //nolint:contextcheck // it outlives the request
		return next, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if old, ok := k.restore(gen); ok {
		return old, nil
	}
	if cur := k.engine.Current(); cur != nil && cur.Number != gen.Number {
		return cur, nil // another request has restored it
	}
	if err != nil {
		return nil, k.renewalError(err)
	}
	return nil, nil //nolint:nilnil // the source insists on it
}

// renewDoubted replaces a credential that may be dead.
func (k *credentialCache) renewDoubted(ctx context.Context, gen *generation) (*generation, error) {
	if cur := k.engine.Current(); cur != nil && cur.Number != gen.Number {
		return cur, nil
	}
	if k.costly {
		end, ok := gen.Value.history.RenewUnproven()
		if !ok {
			return gen, nil
		}
		defer end()
	}
	next, err := k.engine.Reject(ctx, gen.Number, false)
	if err != nil {
		return nil, k.renewalError(err)
	}
	if next.Number == gen.Number && !gen.Value.history.WasUsed() {
		if old, ok := k.restore(gen); ok {
			return old, nil
		}
	}
	return next, nil
}

// another asks the key store once, before a request fails although its key is alive: a
// part of the platform that does not know a new key yet may accept the previous one.
func (k *credentialCache) another(ctx context.Context, gen *generation, seen *doubt) (*generation, bool) {
	if k.engine == nil || k.costly || k.restores || seen.renewals > 0 {
		return nil, false
	}
	seen.renewals++
	seen.renewed = true
	next, err := k.engine.Reject(ctx, gen.Number, false)
	return next, err == nil && next.Number != gen.Number
}

// restore has the credential before a dead one used again, if that was not refused.
func (k *credentialCache) restore(gen *generation) (*generation, bool) {
	if !k.restores {
		return nil, false
	}
	return k.engine.FallBack(gen.Number)
}

// lastFailure is the error of the renewal that failed last, nil if none is failing.
func (k *credentialCache) lastFailure() error {
	if err := k.engine.Failure(); err != nil {
		return k.renewalError(err)
	}
	return nil
}

// attemptInfo describes the credential of an attempt.
func (k *credentialCache) attemptInfo(gen *generation) AttemptInfo {
	if gen.Value.name == "" { // the client is anonymous
		return AttemptInfo{}
	}
	cred := gen.Value.cred
	return AttemptInfo{Generation: gen.Number, Kind: cred.Kind(), Fingerprint: cred.Fingerprint(), Source: k.sourceName()}
}

// redact returns text without the credential in use.
func (k *credentialCache) redact(text string) string {
	gen := k.fixed.Load()
	if k.engine != nil {
		gen = k.engine.Current()
	}
	if gen == nil || gen.Value.cred.IsZero() {
		return text
	}
	return gen.Value.redactor().Redact(text)
}

func (k *credentialCache) renewable() bool { return k.engine != nil }

func (k *credentialCache) closed() bool {
	if k.engine == nil {
		return k.fixed.Load() == nil
	}
	return k.engine.Status().State == renew.Shut
}

func (k *credentialCache) close() error {
	defer k.evidence.Close() // after what may ask
	if k.engine == nil {
		k.fixed.Store(nil)
		return nil
	}
	if err := k.engine.Close(); err != nil {
		return fmt.Errorf("agrenting: %w", err)
	}
	return nil
}

// renewalError translates the engine's errors. Context errors stay what they
// are.
func (k *credentialCache) renewalError(err error) error {
	if errors.Is(err, renew.ErrClosed) {
		return ErrClosed
	}
	f, ok := errors.AsType[*renew.SourceError](err)
	if !ok {
		return err
	}
	e := &RenewalError{RetryAt: f.RetryAt, Rejected: f.Rejected, Failures: f.Failures, Err: k.sourceError(f.Err)}
	if s := k.seen.Load(); f.Rejected && s != nil {
		e.about = "in place of " + k.describe(s.cred, s.history).Subject() + ", which the platform rejected"
	} else if !f.Rejected {
		e.about = "from " + k.source().String()
	}
	return e
}

func (k *credentialCache) source() hint.Source {
	return hint.Source{Name: k.name, Place: hint.Place(k.from)}
}

// describe describes a credential of the cache for a hint.
func (k *credentialCache) describe(cred Credential, h *evidence.History) *hint.Credential {
	if cred.IsZero() {
		return &hint.Credential{Source: k.source()}
	}
	c := hint.Describe(cred.c, h.Known())
	c.Source, c.Initial, c.Exchanged = k.source(), k.initial, k.exchanges && cred.Kind() == KindSession
	return c
}

// sourceError removes the value of a panic from the error of a source, and the
// credential in use from all errors of sources.
func (k *credentialCache) sourceError(err error) error {
	var known []string
	if s := k.seen.Load(); s != nil && !s.cred.IsZero() {
		known = append(known, s.cred.Reveal())
	}
	if p, ok := errors.AsType[*renew.PanicError](err); ok {
		return secret.PanicError("the credential source", p.Value, known...)
	}
	return secret.WithoutSecrets(err, known...)
}

func sameCredential(a, b *preparedCredential) bool {
	return a.cred.Kind() == b.cred.Kind() && a.cred.Equal(b.cred)
}
