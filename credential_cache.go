package agrenting

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// preparedCredential is a credential together with the name of the header that carries it,
// made once per generation and shared by all its requests. The header's values
// stay behind the credential's closure, where nothing prints them.
type preparedCredential struct {
	cred Credential
	name string     // canonical
	gate *gate.Gate // nil where keys are not rotated
}

type generation = renew.Generation[*preparedCredential]

// credentialCache holds the credential in use: a fixed one, or one that the engine
// renews from a source.
type credentialCache struct {
	fixed  atomic.Pointer[generation] // nil after close, and where there is an engine
	engine *renew.Engine[*preparedCredential]
	name   string                             // of the source, for Status
	costly bool                               // the source locks this host out if it is asked too often
	probe  *evidence.Prober                   // nil where there is no engine
	seen   atomic.Pointer[preparedCredential] // the last one in use, also when it was rejected
}

func newFixedCache(name string, s *preparedCredential) *credentialCache {
	k := &credentialCache{name: name}
	k.fixed.Store(renew.Fixed(s))
	return k
}

func newRenewingCache(name string, cfg renew.Config[*preparedCredential], ask evidence.Asker) *credentialCache {
	cfg.Same = sameCredential
	return &credentialCache{name: name, engine: renew.New(cfg), probe: evidence.NewProber(ask)}
}

// sourceFetch asks a source in its own terms.
type sourceFetch func(ctx context.Context, q renew.Query[*preparedCredential]) (renew.Grant[*preparedCredential], error)

// fetchFrom adapts a caller's source. Whatever it yields is validated and checked
// against the environment before it is used.
func fetchFrom(src CredentialSource, check func(Credential) (*preparedCredential, error)) sourceFetch {
	recheck := recheckInterval(src)
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
		g.Recheck = recheck
		return g, nil
	}
}

func askSource(ctx context.Context, src CredentialSource, q renew.Query[*preparedCredential]) (Credential, error) {
	if r, ok := src.(Refresher); ok && q.HasRejected {
		return r.Refresh(ctx, q.Rejected.cred)
	}
	return src.Credential(ctx)
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
		return nil, k.renewalError(err)
	}
	return gen, nil
}

// enter is get for a request that is about to be sent: it passes the gate of
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
				return nil, err
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

// reject reports a 401 on gen and returns the generation to try instead, or gen's own
// generation when there is none.
func (k *credentialCache) reject(ctx context.Context, gen *generation) (*generation, error) {
	if k.engine == nil {
		return gen, nil
	}
	if k.engine.IsDoubtful(gen.Number) {
		switch k.probe.Judge(ctx, gen.Value.cred.c) {
		case evidence.Dead:
			k.engine.AllowRenewal(gen.Number)
		case evidence.Alive: // the route refuses it, and would refuse another
			if k.costly && k.engine.IsTrusted(gen.Number) {
				return gen, nil
			}
		case evidence.Unknown:
		}
	}
	next, err := k.engine.Reject(ctx, gen.Number)
	if err != nil {
		return nil, k.renewalError(err)
	}
	return next, nil
}

const (
	// maxReplays bounds the replays of one attempt. One follows a renewal; more
	// only follow if another generation has come into use in between, as when a
	// fleet rotates a shared key while requests are on the wire.
	maxReplays = 8
	// maxRenewals bounds those that one attempt causes itself.
	maxRenewals = 3
)

// refusals are what one request has been through: the replays after a 401, the
// renewals that it has caused, and whether its present generation is of one.
type refusals struct {
	replays, renewals int
	renewed           bool
}

// after returns the generation to try after a 401 on gen, nil when there is none.
func (k *credentialCache) after(ctx context.Context, gen *generation, seen *refusals) (*generation, error) {
	late := k.superseded(gen)
	fresh := seen.renewed && !late
	exhausted := fresh && seen.renewals == maxRenewals
	if exhausted || seen.replays == maxReplays || (fresh && !k.isDead(ctx, gen)) {
		if ctx.Err() == nil { // or it could not be asked about
			k.recordFutile(gen, exhausted)
		}
		return nil, nil //nolint:nilnil // there is nothing wrong, and nothing else to try
	}
	next, err := k.reject(ctx, gen)
	if err != nil {
		return nil, err
	}
	if next.Number == gen.Number {
		return nil, nil //nolint:nilnil // as above
	}
	// A generation that was in use already, or that another process obtained, may be
	// rejected for the first time.
	if seen.renewed = !late && next.Reason != renew.Adopted; seen.renewed {
		seen.renewals++
	}
	seen.replays++
	return next, nil
}

func (k *credentialCache) renewable() bool { return k.engine != nil }

// superseded reports whether another generation is in use already.
func (k *credentialCache) superseded(gen *generation) bool {
	if k.engine == nil {
		return false
	}
	cur := k.engine.Current()
	return cur != nil && cur.Number != gen.Number
}

// isDead asks the platform whether the credential of gen is the reason for a 401.
func (k *credentialCache) isDead(ctx context.Context, gen *generation) bool {
	return k.engine != nil && k.probe.Judge(ctx, gen.Value.cred.c) == evidence.Dead
}

func (k *credentialCache) recordAccepted(gen *generation) {
	if k.engine != nil {
		k.engine.RecordAccepted(gen.Number)
		k.probe.RecordAccepted()
	}
}

// recordFutile notes that the renewed credential was rejected, too. exhausted is set if
// the platform called each of several renewed credentials dead.
func (k *credentialCache) recordFutile(gen *generation, exhausted bool) {
	if k.engine != nil {
		k.engine.RecordFutile(gen.Number)
		if exhausted {
			k.probe.RecordFutile()
		}
	}
}

func (k *credentialCache) closed() bool {
	if k.engine == nil {
		return k.fixed.Load() == nil
	}
	return k.engine.Status().State == renew.Shut
}

func (k *credentialCache) close() error {
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
	return &RenewalError{RetryAt: f.RetryAt, Rejected: f.Rejected, Failures: f.Failures, Err: k.sourceError(f.Err)}
}

// sourceError keeps what a panicking source says out of reach of logs, and the
// credential that was in use out of what any source says.
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
