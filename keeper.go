package agrenting

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// stamp is a credential together with the name of the header that carries it,
// made once per generation and shared by all its requests. The header's values
// stay behind the credential's closure, where nothing prints them.
type stamp struct {
	cred Credential
	name string     // canonical
	gate *gate.Gate // nil where keys are not rotated
}

type lease = renew.Lease[*stamp]

// keeper holds the credential in use: a fixed one, or one that the engine
// renews from a source.
type keeper struct {
	fixed  atomic.Pointer[lease] // nil after close, and where there is an engine
	engine *renew.Engine[*stamp]
	name   string // of the source, for Status
	costly bool   // the source may be asked so often, and then locks this host out
	probe  *prober
	seen   atomic.Pointer[stamp] // the last one in use, also when it was rejected
}

func newFixedKeeper(name string, s *stamp) *keeper {
	k := &keeper{name: name}
	k.fixed.Store(renew.Fixed(s))
	return k
}

func newRenewingKeeper(name string, cfg renew.Config[*stamp]) *keeper {
	cfg.Same = sameStamp
	return &keeper{name: name, engine: renew.New(cfg)}
}

// sourceFetch asks a source in its own terms.
type sourceFetch func(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error)

// fetchFrom adapts a caller's source. Whatever it yields is validated and held
// against the environment before it is used.
func fetchFrom(src CredentialSource, check func(Credential) (*stamp, error)) sourceFetch {
	recheck := recheckInterval(src)
	return func(ctx context.Context, q renew.Query[*stamp]) (renew.Grant[*stamp], error) {
		var g renew.Grant[*stamp]
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

func askSource(ctx context.Context, src CredentialSource, q renew.Query[*stamp]) (Credential, error) {
	if r, ok := src.(Refresher); ok && q.HasRejected {
		return r.Refresh(ctx, q.Rejected.cred)
	}
	return src.Credential(ctx)
}

func (k *keeper) get(ctx context.Context) (*lease, error) {
	if k.engine == nil {
		if l := k.fixed.Load(); l != nil {
			return l, nil
		}
		return nil, ErrClosed
	}
	l, err := k.engine.Get(ctx)
	if err != nil {
		return nil, k.renewalError(err)
	}
	return l, nil
}

// enter is get for a request that is about to be sent: it passes the gate of
// the lease, or waits for the end of a rotation.
func (k *keeper) enter(ctx context.Context) (*lease, error) {
	l, err := k.get(ctx)
	if err != nil || l.Value.gate.Enter() {
		return l, err
	}
	return k.reenter(ctx, nil)
}

// reenter passes the gate of l, or of whichever lease is in use when it is
// open.
func (k *keeper) reenter(ctx context.Context, l *lease) (*lease, error) {
	for {
		if l != nil {
			if l.Value.gate.Enter() {
				return l, nil
			}
			if err := l.Value.gate.Wait(ctx); err != nil {
				return nil, err
			}
		}
		next, err := k.get(ctx)
		if err != nil {
			return nil, err
		}
		if next == l {
			// Passed on, but nothing newer is in use yet.
			if err := renew.Sleep(ctx, time.Millisecond); err != nil {
				return nil, err
			}
		}
		l = next
	}
}

// pass is reenter for what nobody sees leave: it waits for the end of a rotation,
// and the next one does not wait for it.
func (k *keeper) pass(ctx context.Context, l *lease) (*lease, error) {
	l, err := k.reenter(ctx, l)
	if err == nil {
		l.Value.gate.Leave()
	}
	return l, err
}

// reject reports a 401 on l and returns the lease to try instead, or l's own
// generation when there is none.
func (k *keeper) reject(ctx context.Context, l *lease) (*lease, error) {
	if k.engine == nil {
		return l, nil
	}
	if k.engine.Doubted(l.Generation) {
		switch k.probe.judge(ctx, l.Value.cred) {
		case dead:
			k.engine.Lift(l.Generation)
		case alive: // the route refuses it, and would another
			if k.costly && k.engine.Spared(l.Generation) {
				return l, nil
			}
		case inDoubt:
		}
	}
	next, err := k.engine.Reject(ctx, l.Generation)
	if err != nil {
		return nil, k.renewalError(err)
	}
	return next, nil
}

const (
	// maxReplays bounds the replays of one attempt. One follows a renewal; more
	// only follow when another generation has come into use meanwhile, as when a
	// fleet rotates a shared key while requests are on the wire.
	maxReplays = 8
	// maxRenewals bounds those that one attempt causes itself.
	maxRenewals = 3
)

// refusals are what one request has been through: the replays after a 401, the
// renewals that it has caused, and whether its present lease is of one.
type refusals struct {
	replays, renewals int
	renewed           bool
}

// after returns the lease to try after a 401 on l, nil when there is none.
func (k *keeper) after(ctx context.Context, l *lease, seen *refusals) (*lease, error) {
	late := k.superseded(l)
	fresh := seen.renewed && !late
	worn := fresh && seen.renewals == maxRenewals
	if worn || seen.replays == maxReplays || (fresh && !k.dead(ctx, l)) {
		if ctx.Err() == nil { // or it could not be asked about
			k.vain(l, worn)
		}
		return nil, nil //nolint:nilnil // there is nothing wrong, and nothing else to try
	}
	next, err := k.reject(ctx, l)
	if err != nil {
		return nil, err
	}
	if next.Generation == l.Generation {
		return nil, nil //nolint:nilnil // as above
	}
	// One that was in use already, or that somebody else has made, may be
	// rejected for the first time.
	if seen.renewed = !late && next.Reason != renew.Adopted; seen.renewed {
		seen.renewals++
	}
	seen.replays++
	return next, nil
}

func (k *keeper) renewable() bool { return k.engine != nil }

// superseded reports whether another generation is in use already.
func (k *keeper) superseded(l *lease) bool {
	if k.engine == nil {
		return false
	}
	cur := k.engine.Current()
	return cur != nil && cur.Generation != l.Generation
}

// dead asks the platform whether the credential of l is the reason for a 401.
func (k *keeper) dead(ctx context.Context, l *lease) bool {
	return k.engine != nil && k.probe.judge(ctx, l.Value.cred) == dead
}

func (k *keeper) mended(l *lease) {
	if k.engine != nil {
		k.engine.Mended(l.Generation)
		k.probe.vain.Store(0)
	}
}

// vain reports that a renewal has not helped. worn tells that the platform had
// each of several fresh credentials for dead.
func (k *keeper) vain(l *lease, worn bool) {
	if k.engine != nil {
		k.engine.Vain(l.Generation)
		if worn {
			k.probe.vain.Add(1)
		}
	}
}

func (k *keeper) closed() bool {
	if k.engine == nil {
		return k.fixed.Load() == nil
	}
	return k.engine.Status().State == renew.Shut
}

func (k *keeper) close() error {
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
func (k *keeper) renewalError(err error) error {
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
func (k *keeper) sourceError(err error) error {
	var known []string
	if s := k.seen.Load(); s != nil && !s.cred.IsZero() {
		known = append(known, s.cred.Reveal())
	}
	if p, ok := errors.AsType[*renew.PanicError](err); ok {
		return secret.PanicError("the credential source", p.Value, known...)
	}
	return secret.WithoutSecrets(err, known...)
}

func sameStamp(a, b *stamp) bool {
	return a.cred.Kind() == b.cred.Kind() && a.cred.Equal(b.cred)
}
